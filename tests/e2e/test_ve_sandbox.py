"""Claims about the walls of a VE, tried from inside by a probe, with its init's walls and with those of an exec.

What only the kernel's own user namespace denies cannot be shown to be reachable from any VE; every other check must be
seen to get through without the filter, or it checks nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kernel import capabilities
from tests.support.fleet import Fleet, network, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve

pytestmark = pytest.mark.xdist_group("ve-sandbox")

SOURCE = Path(__file__).parent / "escape" / "probe.c"
PROBE = "/usr/local/bin/probe"
REFUSED_OUTSIDE = 99

NEEDED = frozenset({"mount-tmpfs"})
"""What a VE that boots an init has to be able to do."""

BY_NAMESPACE = frozenset(
    {"mount-ext4", "mount-btrfs", "mknod-block", "mknod-mem", "open-mem", "open-kmsg", "uevent-helper"}
    | {"core-pattern", "core-pattern-uncovered", "modprobe-uncovered", "panic-uncovered", "overcommit-uncovered"}
    | {"file-max-uncovered", "sysrq-uncovered", "kcore-uncovered", "join-init-user"}
)
"""What the user namespace denies, and nothing that vectl could leave away."""

BY_BOTH = frozenset(
    {"init-module", "finit-module", "delete-module", "kexec-load", "kexec-file-load", "swapon", "swapoff"}
    | {"open-by-handle", "clock-settime", "adjtimex", "iopl", "ioperm", "acct"}
)
"""What the filter denies, and the user namespace would deny as well."""

BY_FILTER = {
    "unshare-user": "EPERM",
    "clone-user": "EPERM",
    "clone3-user": "ENOSYS",
    "socket-vsock": "EAFNOSUPPORT",
    "socket-alg": "EAFNOSUPPORT",
    "socket-rxrpc": "EAFNOSUPPORT",
    "add-key": "EPERM",
    "request-key": "EPERM",
    "keyctl": "EPERM",
    "bpf": "EPERM",
    "perf-event-open": "EPERM",
    "io-uring-setup": "EPERM",
    "userfaultfd": "EPERM",
    "vmsplice": "EPERM",
    "move-pages": "EPERM",
    "quotactl": "EPERM",
    "personality": "EPERM",
    "tiocsti": "EPERM",
}
"""What the filter alone denies, and how."""

BY_NESTING = frozenset({"unshare-user", "clone-user", "clone3-user", "add-key", "request-key", "keyctl"})
"""What nesting gives back."""

MASKED = ("/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/timer_list")

NOT_IN_THIS_KERNEL = frozenset({"ENOSYS", "EAFNOSUPPORT", "ESOCKTNOSUPPORT"})


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("probe") / "probe"
    compiler = shutil.which("gcc")
    command = [compiler or "gcc", "-O1", "-static", "-o", str(program), str(SOURCE)]
    if compiler is None or subprocess.run(command, capture_output=True, timeout=60).returncode:
        pytest.skip("needs gcc and the static C library; install build-essential")
    return program


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    documents = (
        network("lan", "10.191.12.0/24", gateway=["10.191.12.1"]),
        ve("plain", "10.191.12.11/24", dns={"servers": ["10.191.12.1"]}),
        ve("nesting", "10.191.12.12/24", features={"nesting": True}),
    )
    with made_fleet(tmp_path_factory.getbasetemp(), *documents) as made:
        made.start_agent()
        made.await_ready("plain", "nesting")
        yield made


@pytest.fixture(scope="module")
def plain(fleet: Fleet, probe: Path) -> Ve:
    return with_probe(fleet.ve("plain"), probe)


def with_probe(one: Ve, probe: Path) -> Ve:
    one.as_host("sh", "-c", f"cat > {PROBE} && chmod 755 {PROBE}", given=probe.read_bytes())
    return one


def outcomes(printed: str) -> dict[str, str]:
    return dict(line.split() for line in printed.splitlines())


@pytest.fixture(scope="module")
def weak(plain: Ve) -> dict[str, str]:
    """What the probe reaches in the same namespaces with every capability and no filter."""
    return outcomes(plain.as_host(PROBE))


def test_the_probe_refuses_to_run_on_a_host(probe: Path) -> None:
    refused = subprocess.run([probe], capture_output=True, text=True, timeout=10)
    assert refused.returncode == REFUSED_OUTSIDE
    assert refused.stdout == ""


def assert_walled_in(found: dict[str, str]) -> None:
    assert found.keys() == NEEDED | BY_NAMESPACE | BY_BOTH | BY_FILTER.keys()
    assert {name for name, outcome in found.items() if outcome == "allowed"} == NEEDED
    assert {name: found[name] for name in BY_FILTER} == BY_FILTER
    assert {name: found[name] for name in BY_BOTH} == dict.fromkeys(BY_BOTH, "EPERM")


def test_a_program_that_is_run_in_a_ve_stays_in_it(plain: Ve) -> None:
    assert_walled_in(outcomes(plain.run(PROBE)))


def test_what_init_starts_stays_in_the_ve(fleet: Fleet, plain: Ve) -> None:
    script = f"#!/bin/sh\n{PROBE} > /root/probed.new\nmv /root/probed.new /root/probed\n"
    plain.as_host("sh", "-c", "cat > /etc/init.d/S50probe && chmod 755 /etc/init.d/S50probe", given=script.encode())
    former = plain.init
    plain.try_run("reboot")
    until(lambda: plain.init != former, "another init")
    until(lambda: plain.try_run("test", "-e", "/root/probed")[0] == 0, "the probe to have run")
    assert_walled_in(outcomes(plain.run("cat", "/root/probed")))


def test_nesting_gives_back_user_namespaces_and_keyrings_and_nothing_else(fleet: Fleet, probe: Path) -> None:
    status, printed = with_probe(fleet.ve("nesting"), probe).try_run(PROBE, nesting=True)
    found = outcomes(printed)
    assert status == 0
    assert {name for name, outcome in found.items() if outcome == "allowed"} == NEEDED | BY_NESTING - {"request-key"}
    assert found["request-key"] == "ENOKEY"
    rest = BY_FILTER.keys() - BY_NESTING
    assert {name: found[name] for name in rest} == {name: BY_FILTER[name] for name in rest}


def test_no_check_of_the_filter_is_dead(plain: Ve, weak: dict[str, str]) -> None:
    walled = outcomes(plain.run(PROBE))
    missing = {name for name in BY_FILTER if weak[name] in NOT_IN_THIS_KERNEL}
    switched_off = {"io-uring-setup"} if sysctl("kernel/io_uring_disabled") == "2" else set()
    dead = {name for name in BY_FILTER if weak[name] == walled[name]} - missing - switched_off
    assert dead == set()
    assert weak["unshare-user"] == weak["add-key"] == weak["vmsplice"] == "allowed"


def sysctl(name: str) -> str:
    file = Path("/proc/sys", name)
    return file.read_text().strip() if file.exists() else ""


def test_what_the_namespace_denies_it_denies_without_the_filter_too(weak: dict[str, str]) -> None:
    assert {name: weak[name] for name in BY_NAMESPACE | BY_BOTH if weak[name] == "allowed"} == {}


def test_masked_files_are_empty(plain: Ve) -> None:
    there = [path for path in MASKED if Path(path).is_file()]
    assert there
    for path in there:
        assert plain.run("cat", path) == ""
        assert path in plain.run("mount")


def test_a_process_has_no_capability_and_no_descriptor_beyond_what_it_is_given(plain: Ve) -> None:
    given = capabilities.mask(capabilities.SYSTEM)
    for status in (Path(f"/proc/{plain.pid}/status").read_text(), plain.run("cat", "/proc/self/status")):
        assert capabilities.parse_status(status) == {
            "CapInh": 0,
            "CapPrm": given,
            "CapEff": given,
            "CapBnd": given,
            "CapAmb": 0,
        }
        assert "Seccomp:\t2\n" in status
    assert sorted(os.listdir(f"/proc/{plain.pid}/fd")) == ["0", "1", "2"]
    assert plain.shell("ls /proc/self/fd").split() == ["0", "1", "2", "3"]  # 3 is the directory that is listed


def test_ids_are_no_ids_of_the_host_nor_of_another_ve(fleet: Fleet, plain: Ve) -> None:
    ranges = []
    for name in ("plain", "nesting"):
        inside, outside, count = map(int, Path(f"/proc/{fleet.ve(name).pid}/uid_map").read_text().split())
        assert (inside, count) == (0, 65536)
        ranges.append(range(outside, outside + count))
    assert ranges[0].start >= 65536
    assert not set(ranges[0]).intersection(ranges[1])


def test_processes_of_the_host_are_not_to_be_seen(plain: Ve) -> None:
    assert plain.try_run("kill", "-0", str(os.getpid()))[0] != 0
    seen = {int(word) for word in plain.shell("ls /proc").split() if word.isdecimal()}
    assert 1 in seen
    assert len(seen) <= len(plain.cgroup.processes()) + 3  # the shell and what it runs to look


def test_a_ve_cannot_raise_its_own_limits(plain: Ve) -> None:
    before = plain.cgroup.read_limits()
    plain.shell(
        """
        for file in memory.max memory.high pids.max cpu.max; do
            [ ! -e /sys/fs/cgroup/$file ] || ! echo max 2>/dev/null > /sys/fs/cgroup/$file || exit 1
        done
        for kind in memory pids cpu devices; do
            mkdir -p /mnt/$kind
            mount -t cgroup -o $kind none /mnt/$kind 2>/dev/null || continue
            for file in memory.limit_in_bytes pids.max cpu.cfs_quota_us devices.allow; do
                [ ! -e /mnt/$kind/$file ] || ! echo -1 2>/dev/null > /mnt/$kind/$file || exit 2
            done
            umount /mnt/$kind
        done
        """
    )
    assert plain.cgroup.read_limits() == before


def test_what_a_ve_puts_in_the_way_leads_no_write_out_of_it(fleet: Fleet, plain: Ve) -> None:
    canary = fleet.directory / "canary"
    canary.write_text("untouched\n")
    plain.shell(
        f"""
        for file in /etc/resolv.conf /etc/hostname; do rm -f $file; ln -s {canary} $file; done
        hostname intruder
        """
    )
    fleet.ask("reconcile")
    until(lambda: plain.run("hostname") == "plain\n", "the hostname")
    until(lambda: "10.191.12.1" in plain.try_run("cat", "/etc/resolv.conf")[1], "the resolver")
    assert canary.read_text() == "untouched\n"
