"""Shortages: a limit that was met is an event and a condition, and neither for ever nor each time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.agent.desk import Desk
from reconciler.agent.shortages import QUIET_S, TELL_S, Shortages
from reconciler.model.condition import Condition, ConditionType
from reconciler.model.counters import Look, Reading, Resource
from reconciler.model.identity import Uid, VeName
from tests.support import rig as rigs
from tests.support.rig import Rig

_FLEET = rigs.fleet_of(rigs.ve("web1"))


class _Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


class _Watch:
    """A VE on a twin, and what watches its counters."""

    def __init__(self, rig: Rig, clock: _Clock) -> None:
        self.clock, self.twin, self.uid = clock, rig.twin, rig.uid("web1")
        self.desk: Desk = rig.desk()
        self.names: dict[Uid, VeName] = {self.uid: VeName("web1")}
        self.shortages = Shortages(self.desk, self.twin, self.names)

    def look(self, **failures: int) -> None:
        readings = {Resource(name): Reading(held=1, failures=number) for name, number in failures.items()}
        self.twin.machine.looks[self.uid] = Look(epoch="one", readings=readings)
        rigs.run(self.shortages.look([self.uid]))

    @property
    def limited(self) -> Condition | None:
        found = self.desk.conditions.read("web1")
        return next((condition for condition in found if condition.type is ConditionType.LIMITED), None)

    def told(self) -> list[str]:
        return [event.message for event in self.desk.events.read() if event.reason == "BeancounterHit"]


@pytest.fixture
def watch() -> Iterator[_Watch]:
    with rigs.scratch_state() as state:
        clock = _Clock()
        rig = Rig(state=state, clock=clock)
        rig.converge(_FLEET)
        yield _Watch(rig, clock)


def test_a_limit_that_was_met_is_an_event_and_a_condition(watch: _Watch) -> None:
    watch.look(numproc=3)
    limited = watch.limited
    assert limited is not None
    assert (limited.reason, "numproc" in limited.message) == ("BeancounterHit", True)
    assert watch.told() == ["numproc met its bound 3 times; held 1, limit 4096, failcnt 3"]


def test_what_is_not_met_again_is_told_of_for_a_while_only(watch: _Watch) -> None:
    watch.look(numproc=3)
    watch.clock.seconds += QUIET_S / 2
    watch.look(numproc=3)
    assert watch.limited is not None
    watch.clock.seconds += QUIET_S
    watch.look(numproc=3)
    assert watch.limited is None


def test_a_limit_that_is_met_all_the_time_is_not_an_event_each_time(watch: _Watch) -> None:
    for number in range(1, 6):
        watch.look(numproc=number)
    assert len(watch.told()) == 1
    watch.clock.seconds += TELL_S
    watch.look(numproc=6)
    assert watch.told()[1] == "numproc met its bound 5 times; held 1, limit 4096, failcnt 6"


def test_a_pass_leaves_the_condition_standing(watch: _Watch) -> None:
    watch.look(physpages=1)
    ready = [condition for condition in watch.desk.conditions.read("web1") if condition.type is ConditionType.READY]
    watch.desk.conditions.put("web1", ready, now=watch.clock.now())
    assert watch.limited is not None


def test_an_agent_that_starts_tells_only_of_what_was_met_since(watch: _Watch) -> None:
    watch.look(numproc=3)
    watch.shortages = Shortages(watch.desk, watch.twin, watch.names)
    watch.look(numproc=3)
    assert len(watch.told()) == 1
