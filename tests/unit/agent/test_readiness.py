"""Readiness: the condition of VEs that run, from looks that are few and far between."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.agent.readiness import EVERY_S, FIRST_S, SLICE, Readiness
from reconciler.errors import BusyError, KernelError, StateError
from reconciler.model.condition import ConditionType, Status
from reconciler.model.identity import Uid, VeName
from reconciler.model.migration import Obstacle, ObstacleKind
from tests.support import rig as rigs
from tests.support.rig import Rig

_OBSTACLE = Obstacle(kind=ObstacleKind.QUEUE, what="there is a POSIX message queue /q", remedy="remove it")
_NAMES = [f"web{number}" for number in range(SLICE + 2)]
_FLEET = rigs.fleet_of(*(rigs.ve(name) for name in _NAMES))


class _Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


class _Preflight:
    """Finds what it is told to find, and counts how often it is asked."""

    def __init__(self) -> None:
        self.found: tuple[Obstacle, ...] | Exception = ()
        self.asked: list[Uid] = []

    async def find_obstacles(self, uid: Uid) -> tuple[Obstacle, ...]:
        self.asked.append(uid)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


class _Watch:
    """VEs on a twin, and what watches whether they can be suspended."""

    def __init__(self, rig: Rig, clock: _Clock) -> None:
        self.clock, self.desk, self.preflight = clock, rig.desk(), _Preflight()
        self.names = {rig.uid(name): VeName(name) for name in _NAMES}
        self.running = {VeName("web0")}
        self.readiness = Readiness(self.desk, self.preflight, self.names, self.running)

    def look(self, after_s: float = 0.0) -> None:
        self.clock.seconds += after_s
        rigs.run(self.readiness.look())

    def told(self) -> tuple[Status, str] | None:
        found = self.desk.conditions.read("web0")
        ready = next((condition for condition in found if condition.type is ConditionType.MIGRATION_READY), None)
        return None if ready is None else (ready.status, ready.message)


@pytest.fixture
def watch() -> Iterator[_Watch]:
    with rigs.scratch_state() as state:
        clock = _Clock()
        rig = Rig(state=state, clock=clock)
        rig.converge(_FLEET)
        yield _Watch(rig, clock)


def test_a_ve_that_runs_for_a_while_is_looked_at(watch: _Watch) -> None:
    watch.look()
    assert watch.told() is None
    watch.look(FIRST_S)
    assert watch.told() == (Status.TRUE, "it can be suspended and resumed")


def test_an_obstacle_is_named_until_a_later_look_finds_it_gone(watch: _Watch) -> None:
    watch.preflight.found = (_OBSTACLE,)
    watch.look()
    watch.look(FIRST_S)
    assert watch.told() == (Status.FALSE, _OBSTACLE.what)
    watch.preflight.found = ()
    watch.look(EVERY_S / 2)
    assert watch.told() == (Status.FALSE, _OBSTACLE.what)
    watch.look(EVERY_S / 2)
    assert watch.told() == (Status.TRUE, "it can be suspended and resumed")


def test_a_ve_that_cannot_be_looked_at_is_unknown(watch: _Watch) -> None:
    watch.preflight.found = KernelError("look at open files: too many")
    watch.look()
    watch.look(FIRST_S)
    assert watch.told() == (Status.UNKNOWN, "look at open files: too many")


def test_of_a_ve_that_is_being_written_to_disk_stays_what_was_said(watch: _Watch) -> None:
    watch.look()
    watch.look(FIRST_S)
    said, watch.preflight.found = watch.told(), BusyError("it stands still")
    watch.look(EVERY_S)
    assert watch.told() == said
    watch.preflight.found = (_OBSTACLE,)
    watch.look(FIRST_S)
    assert watch.told() == (Status.FALSE, _OBSTACLE.what)


@pytest.mark.parametrize("by", ["pass", "look"])
def test_of_a_ve_that_has_stopped_nothing_is_said(watch: _Watch, by: str) -> None:
    watch.look()
    watch.look(FIRST_S)
    if by == "pass":
        watch.running.clear()
    else:
        watch.preflight.found = StateError("it does not run")
    watch.look(EVERY_S)
    assert watch.told() is None


def test_many_ves_are_looked_at_slice_by_slice_and_none_twice(watch: _Watch) -> None:
    watch.running |= set(watch.names.values())
    watch.look()
    watch.look(FIRST_S)
    assert len(watch.preflight.asked) == SLICE
    watch.look(1.0)
    watch.look(1.0)
    assert sorted(watch.preflight.asked) == sorted(watch.names)


def test_a_pass_leaves_the_condition_standing(watch: _Watch) -> None:
    watch.look()
    watch.look(FIRST_S)
    made = [condition for condition in watch.desk.conditions.read("web0") if condition.type is ConditionType.READY]
    watch.desk.conditions.put("web0", made, now=watch.clock.now())
    assert watch.told() is not None
