"""Claims about what a VE sees of itself in /proc and /sys, whatever becomes of the lxcfs that shows it."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.host import lxcfs
from reconciler.kernel import cgroup_layout
from reconciler.model.condition import ConditionType
from tests.support.fleet import Fleet, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve

pytestmark = pytest.mark.xdist_group("ve-views")

NAMES = ("half", "pinned")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    documents = (
        ve("half", memory={"limit": "96Mi"}, cpu={"limit": 0.5}),
        ve("pinned", memory={"limit": "48Mi"}, cpu={"cpus": "0"}),
    )
    with made_fleet(tmp_path_factory.getbasetemp(), *documents) as made:
        made.start_agent()
        made.await_ready(*NAMES)
        yield made


def lxcfs_of(fleet: Fleet) -> int:
    """Give the pid of the lxcfs that an instance runs."""
    running = lxcfs.find(fleet.instance)
    if running is None:
        raise LookupError("none was started")
    return running.process.pid


def sees_itself(one: Ve) -> bool:
    """Say whether all files can be read, and tell of memory what the VE's limit says."""
    status, shown = one.try_run("cat", *lxcfs.TARGETS)
    return status == 0 and memory_in(shown) == int(one.memory_limit_file.read_text()) >> 10


def memory_in(meminfo: str) -> int:
    """Give the size of the memory. Units: KiB."""
    return next((int(line.split()[1]) for line in meminfo.splitlines() if line.startswith("MemTotal:")), 0)


def sees_the_host(one: Ve) -> bool:
    """Say whether the memory shown is the machine's."""
    return memory_in(one.try_run("cat", "/proc/meminfo")[1]) == memory_in(Path("/proc/meminfo").read_text())


def test_memory_and_swap_are_those_of_the_ve(fleet: Fleet) -> None:
    shown = dict(line.split(":") for line in fleet.ve("half").run("cat", "/proc/meminfo").splitlines())
    assert shown["MemTotal"].split() == ["98304", "kB"]
    assert shown["SwapTotal"].split() == ["0", "kB"]
    assert 0 < int(shown["MemAvailable"].split()[0]) <= 98304


def test_uptime_and_load_begin_with_the_ve(fleet: Fleet) -> None:
    half = fleet.ve("half")
    host = float(Path("/proc/uptime").read_text().split()[0])
    born = half.init.start_time / os.sysconf("SC_CLK_TCK")
    assert 0 <= float(half.run("cat", "/proc/uptime").split()[0]) <= host - born + 5
    tasks = half.run("cat", "/proc/loadavg").split()[3]
    assert int(tasks.split("/")[1]) < 20


def test_the_commands_of_busybox_tell_of_the_ve(fleet: Fleet) -> None:
    half = fleet.ve("half")
    assert half.run("free").splitlines()[1].split()[:2] == ["Mem:", "98304"]
    assert half.run("free", "-m").splitlines()[1].split()[:2] == ["Mem:", "96"]
    hours, minutes = map(int, half.run("uptime").split(" up ")[1].split(",")[0].split(":"))
    assert hours * 60 + minutes <= float(half.run("cat", "/proc/uptime").split()[0]) / 60


def test_the_cpus_are_those_that_the_ve_may_use(fleet: Fleet) -> None:
    for name in NAMES:
        one = fleet.ve(name)
        assert one.run("cat", "/sys/devices/system/cpu/online") == "0\n"
        assert one.run("grep", "-c", "^processor", "/proc/cpuinfo") == "1\n"
        if not cgroup_layout.detect().is_pure_v2:  # there lxcfs shows the host's
            assert one.run("grep", "-c", "^cpu[0-9]", "/proc/stat") == "1\n"


def test_a_ve_cannot_write_to_what_it_is_shown(fleet: Fleet) -> None:
    for path in lxcfs.TARGETS:
        assert fleet.ve("half").as_host("sh", "-c", f"echo 1 > {path} || echo refused", check=False) == "refused\n"


def test_the_end_of_lxcfs_is_over_in_every_ve_at_once(fleet: Fleet) -> None:
    inits = {name: fleet.ve(name).init for name in NAMES}
    before = lxcfs_of(fleet)
    os.kill(before, signal.SIGKILL)
    until(lambda: all(sees_itself(fleet.ve(name)) for name in NAMES), "all to see themselves again")
    assert lxcfs_of(fleet) != before
    assert {name: fleet.ve(name).init for name in NAMES} == inits


def test_an_end_while_no_agent_runs_is_put_right_by_the_next(fleet: Fleet) -> None:
    fleet.end_agent(signal.SIGKILL)
    half = fleet.ve("half")
    assert sees_itself(half)
    os.kill(lxcfs_of(fleet), signal.SIGKILL)
    until(lambda: half.try_run("cat", "/proc/uptime")[0] != 0, "what it served to be broken")
    fleet.start_agent()
    until(lambda: sees_itself(half), "half to see itself again")
    fleet.settle()


def test_an_agent_that_starts_anew_leaves_lxcfs_alone(fleet: Fleet) -> None:
    before, told = lxcfs_of(fleet), len(fleet.events())
    fleet.end_agent()
    fleet.start_agent()
    fleet.await_ready(*NAMES)
    fleet.settle()
    assert (lxcfs_of(fleet), len(fleet.events())) == (before, told)


def test_what_the_root_of_a_ve_put_over_a_file_stays(fleet: Fleet) -> None:
    pinned = fleet.ve("pinned")
    pinned.as_host("sh", "-c", "echo mine > /run/mine && mount --bind /run/mine /proc/uptime")
    try:
        os.kill(lxcfs_of(fleet), signal.SIGKILL)
        until(lambda: sees_itself(pinned), "pinned to see the others again")
        assert pinned.run("cat", "/proc/uptime") == "mine\n"
    finally:
        pinned.as_host("umount", "/proc/uptime")
    with fleet.puts_right("pinned", "views"):
        os.kill(lxcfs_of(fleet), signal.SIGKILL)
    until(lambda: sees_itself(pinned), "pinned to see itself again")
    assert pinned.run("cat", "/proc/uptime") != "mine\n"


def test_a_ve_that_has_no_proc_any_more_harms_nobody_else(fleet: Fleet) -> None:
    half, pinned = fleet.ve("half"), fleet.ve("pinned")
    half.as_host("sh", "-c", "mkdir -p /run/bait && mount -t tmpfs bait /proc")
    try:
        os.kill(lxcfs_of(fleet), signal.SIGKILL)
        until(lambda: sees_itself(pinned), "pinned to see itself again")
        assert half.as_host("ls", "/proc") == ""
    finally:
        half.as_host("umount", "/proc")
    fleet.ask("reconcile", ve="half")
    until(lambda: sees_itself(half), "half to see itself again")
    fleet.await_ready(*NAMES)


def test_a_lxcfs_that_hangs_holds_the_agent_up_in_nothing_and_is_replaced(fleet: Fleet) -> None:
    hanging = lxcfs_of(fleet)
    os.kill(hanging, signal.SIGSTOP)
    waiting = fleet.ve("half").begin("cat", "/proc/uptime")
    with fleet.puts_right("pinned", "memory.limit"):
        fleet.ve("pinned").memory_limit_file.write_text(str(40 << 20))
    assert lxcfs_of(fleet) == hanging
    until(lambda: lxcfs_of(fleet) != hanging, "it to be replaced")
    with pytest.raises(AssertionError):
        waiting.result()  # who waited for an answer was let go, with an error
    until(lambda: all(sees_itself(fleet.ve(name)) for name in NAMES), "all to see themselves again")


def test_without_lxcfs_ves_run_are_told_of_and_see_themselves_as_soon_as_there_is_one(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    program = tmp_path / "lxcfs"
    program.write_text("#!/bin/sh\necho there is none today >&2\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with made_fleet(tmp_path_factory.getbasetemp(), ve("early")) as fleet:
        fleet.start_agent(path=f"{tmp_path}:{os.environ['PATH']}")
        fleet.await_ready("early")
        early = fleet.ve("early")
        told = until(lambda: fleet.conditions("early")[ConditionType.NOT_ENFORCEABLE], "it to be told")
        assert "there is none today" in told.message
        assert sees_the_host(early)
        init, real = early.init, shutil.which("lxcfs")
        assert real is not None
        program.unlink()
        program.symlink_to(real)
        fleet.ask("reconcile", ve="early")
        until(lambda: sees_itself(early), "early to see itself")
        until(lambda: ConditionType.NOT_ENFORCEABLE not in fleet.conditions("early"), "it to be told no more")
        assert early.init == init


def test_when_lxcfs_is_gone_for_good_ves_see_the_host_rather_than_errors(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    real = shutil.which("lxcfs")
    assert real is not None
    program = tmp_path / "lxcfs"
    program.symlink_to(real)
    with made_fleet(tmp_path_factory.getbasetemp(), ve("late")) as fleet:
        fleet.start_agent(path=f"{tmp_path}:{os.environ['PATH']}")
        fleet.await_ready("late")
        late = fleet.ve("late")
        assert sees_itself(late)
        program.unlink()
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755)
        os.kill(lxcfs_of(fleet), signal.SIGKILL)
        until(lambda: sees_the_host(late), "late to see the host's memory")
        until(lambda: ConditionType.NOT_ENFORCEABLE in fleet.conditions("late"), "it to be told")
