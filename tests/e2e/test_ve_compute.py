"""Claims about CPU and memory, each shown by load in a VE that goes on running: what is set, bounds; what is set by
hand, is put right; what is taken from the manifest, is as by default again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kernel import cgroup_file, cgroup_layout, cgroup_limits, cgroup_v1, cgroup_v2
from reconciler.kernel.cgroup_values import format_list, parse_counters
from reconciler.model.action import Impact
from reconciler.model.compute import ComputeSpec
from reconciler.model.condition import ConditionType
from reconciler.plan import compute
from tests.support import burning
from tests.support.fleet import Fleet, Value, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve

pytestmark = pytest.mark.xdist_group("ve-compute")

MIB = 1 << 20
LAYOUT = cgroup_layout.detect()
ENFORCED = sorted(cgroup_limits.enforceable(LAYOUT))
CPU = burning.measured_cpu()

# Another value than the default for each field, as the manifest says it and as it is read.
CHANGED: dict[str, tuple[object, object]] = {
    "cpu.weight": (250, 250),
    "cpu.limit": (0.5, 50_000),
    "cpu.cpus": (str(CPU), frozenset({CPU})),
    "cpu.nodes": ("0", None),
    "memory.limit": ("96Mi", 96 * MIB),
    "memory.barrier": ("48Mi", 48 * MIB),
    "memory.guarantee": ("16Mi", 16 * MIB),
    "memory.swap": ("8Mi", 8 * MIB),
    "processes": (300, 300),
}

# What somebody writes into the file by hand: legal, and neither the default nor the value above.
BY_HAND = {
    "cpu.weight": "77",
    "cpu.limit": "90000",
    "cpu.cpus": format_list(os.sched_getaffinity(0)),
    "memory.limit": str(72 * MIB),
    "memory.barrier": str(40 * MIB),
    "memory.guarantee": str(4 * MIB),
    "memory.swap": str(4 * MIB),
    "processes": "1234",
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp(), ve("other")) as made:
        made.put("one.yaml", ve("one"))
        made.start_agent()
        made.await_ready("one", "other")
        yield made


@pytest.fixture
def one(fleet: Fleet) -> Iterator[Ve]:
    """Give the VE that is changed; its init and its neighbour's are the same afterwards, and so is its manifest."""
    inits = [fleet.ve(name).init for name in ("one", "other")]
    found = fleet.ve("one")
    yield found
    burning.quench(found)
    change(fleet)
    assert [fleet.ve(name).init for name in ("one", "other")] == inits


def change(fleet: Fleet, **spec: Value) -> None:
    """Change the manifest of the VE, and wait until it is so."""
    fleet.put("one.yaml", ve("one", **spec))
    fleet.await_ready("one")


def spec_with(path: str, value: object) -> dict[str, Value]:
    """Give the part of a manifest that sets one field."""
    section, _, name = path.partition(".")
    if not name:
        return {section: value}
    return {section: {name: value, **({"limit": "64Mi"} if section == "memory" and name != "limit" else {})}}


def file_of(one: Ve, path: str) -> Path:
    """Give the file that holds a limit on this host."""
    hierarchy = LAYOUT.of(cgroup_v2.FILES[path].controller)
    assert hierarchy is not None
    files = (cgroup_v2 if hierarchy.unified else cgroup_v1).FILES[path]
    return Path(hierarchy.path(one.cgroup.cgroup), files.names[0])


def default_of(path: str) -> object:
    spec = ComputeSpec(memory_limit=64 * MIB)
    return {limit.value: value for limit, value in compute.limits(spec).items()}[path]


@pytest.mark.parametrize("path", ENFORCED)
def test_a_field_is_changed_live_and_is_as_by_default_once_it_is_gone(fleet: Fleet, one: Ve, path: str) -> None:
    said, held = CHANGED[path]
    change(fleet, **spec_with(path, said))
    assert one.limit(path) == held
    change(fleet)
    assert one.limit(path) == default_of(path)


@pytest.mark.parametrize("path", [path for path in ENFORCED if path != "cpu.nodes"])
def test_what_is_written_by_hand_is_put_right(fleet: Fleet, one: Ve, path: str) -> None:
    said, held = CHANGED[path]
    change(fleet, **spec_with(path, said))
    with fleet.puts_right("one", path):
        text = BY_HAND[path]
        if path == "memory.swap" and not LAYOUT.is_pure_v2:
            text = str(68 * MIB)  # the sum of memory and swap
        file_of(one, path).write_text(text)
    assert one.limit(path) == held


def test_the_cpu_limit_throttles_and_is_lifted_live(fleet: Fleet, one: Ve) -> None:
    change(fleet, cpu={"limit": 0.2})
    before = throttled(one)
    burning.burn_inside(one, loops=2)
    until(lambda: throttled(one) > before + 5, "the VE to be throttled")
    change(fleet)
    at = throttled(one)
    used = burning.cpu_used(one.cgroup)
    begun = used()
    until(lambda: used() - begun > 500_000, "the VE to have half a second of CPU")
    assert throttled(one) <= at + 1


def throttled(one: Ve) -> int:
    file = one.limit_file("cpu.stat", "cpu.stat", controller="cpu")
    return parse_counters(cgroup_file.read(str(file)))["nr_throttled"]


def test_pinned_processes_run_on_the_named_cpus_only_and_move_live(fleet: Fleet, one: Ve) -> None:
    burning.burn_inside(one, loops=3)
    for cpu in (CPU, min(os.sched_getaffinity(0))):
        change(fleet, cpu={"cpus": str(cpu)})
        used = burning.cpu_used(one.cgroup)
        begun = used()
        until(lambda used=used, begun=begun: used() - begun > 200_000, "the VE to run")  # type: ignore[misc]  # bound now
        pids = one.cgroup.processes()
        assert len(pids) > 3
        assert {last_cpu(pid) for pid in pids if burns(pid)} == {cpu}
        assert all(os.sched_getaffinity(pid) == {cpu} for pid in pids)


def last_cpu(pid: int) -> int:
    return int(stat_of(pid)[36])


def burns(pid: int) -> bool:
    return stat_of(pid)[0] == "R"


def stat_of(pid: int) -> list[str]:
    """Give the fields of a process from its state on. Source: proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def test_a_memory_limit_below_what_is_in_use_waits_until_that_is_freed(fleet: Fleet, one: Ve) -> None:
    one.shell("dd if=/dev/zero of=/dev/shm/held bs=1M count=40")
    fleet.put("one.yaml", ve("one", memory={"limit": "16Mi"}, processes=321))
    told = fleet.await_reason("one", "InUseError", ConditionType.RECONCILING)
    assert "lower memory.limit to 16Mi" in told.message
    assert "64Mi stays in force" in told.message
    assert one.limit("memory.limit") == 64 * MIB
    assert one.limit("processes") == 321
    one.shell("dd if=/dev/zero of=/dev/shm/more bs=1M count=10")
    one.shell("rm /dev/shm/held /dev/shm/more")
    fleet.await_ready("one")
    assert one.limit("memory.limit") == 16 * MIB


def test_page_cache_gives_way_to_a_lower_memory_limit_at_once(fleet: Fleet, one: Ve) -> None:
    one.shell("dd if=/dev/zero of=/cached bs=1M count=40 && sync && cat /cached > /dev/null")
    assert (one.cgroup.use().memory or 0) > 32 * MIB
    change(fleet, memory={"limit": "24Mi"})
    assert one.limit("memory.limit") == 24 * MIB
    one.shell("rm /cached")


def test_a_plan_says_that_a_limit_goes_below_what_is_in_use(fleet: Fleet, one: Ve) -> None:
    one.shell("dd if=/dev/zero of=/dev/shm/held bs=1M count=20")
    try:
        with fleet.in_one_moment():
            fleet.put("one.yaml", ve("one", memory={"limit": "8Mi"}, processes=2))
            plan = fleet.vectl("plan", str(fleet.manifests), "-o", "json")
    finally:
        one.shell("rm /dev/shm/held")
    change(fleet)
    assert plan.count(f'"{Impact.LIVE_RISK.word}"') == 2


def test_no_limit_can_be_written_from_inside(one: Ve) -> None:
    """Try every file that a controller shows in there, as the VE's root, through the mount that is there and others."""
    before = one.cgroup.read_limits()
    tried = one.shell(
        """
        mkdir -p /mnt/v2 /mnt/v1
        mount -t cgroup2 none /mnt/v2 2>/dev/null
        for kind in memory pids cpu,cpuacct cpu cpuset devices blkio freezer; do
            mkdir -p /mnt/v1/$kind; mount -t cgroup -o $kind none /mnt/v1/$kind 2>/dev/null
        done
        find /sys/fs/cgroup /mnt/v1 /mnt/v2 /proc/1/root/sys/fs/cgroup -type f 2>/dev/null | while read file; do
            case ${file##*/} in cgroup.*|tasks|memory.oom.group|memory.reclaim) continue ;; esac  # delegated, no limits
            for value in max 10000 0 -1 0-1 "max 100000" "a *:* rwm"; do
                if echo "$value" 2>/dev/null > $file; then echo "wrote $value to $file"; fi
            done
            echo tried >> /tmp/tried
        done
        echo tried $(wc -l < /tmp/tried); rm -f /tmp/tried
        for kind in /mnt/v1/* /mnt/v2; do umount $kind 2>/dev/null; done; true
        """
    )
    assert "wrote" not in tried
    assert one.cgroup.read_limits() == before
    assert "tried 0" not in tried
