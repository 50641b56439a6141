"""Claims about limits that are reached: who reaches one is stopped, and nobody else notices."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from reconciler.model.condition import ConditionType
from tests.support.fleet import Fleet, network, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve

pytestmark = pytest.mark.xdist_group("ve-limits")

MIB = 1 << 20
FULL = "No space left on device"
HOG = ("dd", "if=/dev/zero", "of=/dev/null", "bs=150M", "count=1")
OVER_QUOTA = "Disk quota exceeded"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    documents = (
        network("lan", "10.191.13.0/24", gateway=["10.191.13.1"]),
        ve("greedy", "10.191.13.11/24", processes=40),
        ve("modest", "10.191.13.12/24"),
        ve("flood", "10.191.13.13/24", disk={"size": "8Gi"}),
    )
    with made_fleet(tmp_path_factory.getbasetemp(), *documents, pool={"size": "512Mi"}) as made:
        made.start_agent()
        made.await_ready("greedy", "modest", "flood")
        yield made


@pytest.fixture
def greedy(fleet: Fleet) -> Iterator[Ve]:
    others = {name: fleet.ve(name).init for name in ("modest", "flood")}
    one = fleet.ve("greedy")
    init = one.init
    yield one
    assert one.init == init
    assert {name: fleet.ve(name).init for name in others} == others


def fill(one: Ve) -> str:
    """Write until something stops it; give what it said."""
    return one.shell("dd if=/dev/zero of=/fill bs=1M 2>&1; true")


def size_of_fill(one: Ve) -> int:
    return int(one.run("stat", "-c", "%s", "/fill"))


def test_writing_stops_at_the_size_of_the_disk(fleet: Fleet, greedy: Ve) -> None:
    assert OVER_QUOTA in fill(greedy)
    assert 56 * MIB < size_of_fill(greedy) <= 64 * MIB
    fleet.ve("modest").shell("dd if=/dev/zero of=/mine bs=1M count=32 && rm /mine")
    greedy.run("rm", "/fill")
    greedy.shell("dd if=/dev/zero of=/mine bs=1M count=32 && rm /mine")


def test_a_disk_that_grew_takes_more_at_once(fleet: Fleet, greedy: Ve) -> None:
    fill(greedy)
    text = (fleet.manifests / "all.yaml").read_text()
    fleet.put_text("all.yaml", text.replace('"64Mi"}, "boot"', '"96Mi"}, "boot"'))
    fleet.await_ready("greedy")
    assert OVER_QUOTA in fill(greedy)
    assert 88 * MIB < size_of_fill(greedy) <= 96 * MIB
    greedy.run("rm", "/fill")
    fleet.put_text("all.yaml", text + "\n")
    fleet.await_ready("greedy")


def test_a_flood_of_processes_stays_in_its_ve(fleet: Fleet, greedy: Ve) -> None:
    status, said = greedy.try_run(
        "sh", "-c", "i=0; while [ $i -lt 100 ]; do sleep 60 >/dev/null 2>&1 & i=$((i + 1)); done"
    )
    try:
        assert status != 0
        assert "can't fork" in said
        assert len(greedy.cgroup.processes()) <= 40
        assert fleet.ve("modest").shell("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0 & done; wait; echo fine") == "fine\n"
    finally:
        greedy.as_host("killall", "sleep")
        # Counted, not listed: what is dead and not yet reaped takes its place in the limit.
        until(lambda: (greedy.cgroup.use().processes or 0) < 10, "the flood to be over")


def test_who_takes_more_memory_than_the_ve_has_is_killed_and_nobody_else(greedy: Ve) -> None:
    killed = greedy.oom_kills
    status, _ = greedy.try_run(*HOG)
    assert status == 128 + signal.SIGKILL
    assert greedy.oom_kills == killed + 1
    assert greedy.run("id", "-u") == "0\n"


def test_a_full_pool_is_told_and_hurts_no_ve_that_runs(fleet: Fleet) -> None:
    flood, modest = fleet.ve("flood"), fleet.ve("modest")
    inits = flood.init, modest.init
    assert FULL in fill(flood)
    fleet.put("late.yaml", ve("late", "10.191.13.14/24"))
    try:
        told = fleet.await_reason("late", "NoSpaceError")
        assert "No space left" in told.message or "full" in told.message
        with fleet.puts_right("modest", "memory.limit"):
            modest.memory_limit_file.write_text(str(32 * MIB))
        assert ConditionType.STALLED not in fleet.conditions("late")
    finally:
        flood.run("rm", "/fill")
    fleet.ask("reconcile", ve="late")
    until(lambda: fleet.is_ready("late"), "late to be made once there is room")
    assert (flood.init, modest.init) == inits


def test_want_of_memory_in_one_ve_is_told_and_hurts_nobody_else(fleet: Fleet, greedy: Ve) -> None:
    modest = fleet.ve("modest").begin("sh", "-c", "dd if=/dev/zero of=/dev/shm/held bs=1M count=40; sleep 1; echo fine")
    killed = greedy.oom_kills
    greedy.try_run(*HOG)
    assert greedy.oom_kills > killed
    with fleet.explained("greedy"):
        until(lambda: "OutOfMemory" in fleet.told("greedy"), "the kill to be told")
    told = fleet.conditions("greedy")[ConditionType.LIMITED]
    assert told.reason == "OutOfMemory"
    assert "killed as the VE had no memory left" in told.message
    assert modest.result().endswith("fine\n")
    fleet.ve("modest").run("rm", "/dev/shm/held")
    assert "OutOfMemory" not in fleet.told("modest")
    assert fleet.is_ready("greedy")
