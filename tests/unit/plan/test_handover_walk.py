"""Every state that two hosts and a coordinator can get into while they follow the tables of the handover.

A step may be cut off after what it writes down, fail, or be done with its answer lost; a transaction may be carried out
late; a host may know nothing, lose its power, or change its mind at any time; and an answer of the target may be old.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from reconciler.model.moving import SourcePhase, TargetPhase
from reconciler.plan.handover import (
    Answer,
    Arriving,
    Leaving,
    Owner,
    SourceFacts,
    SourceStep,
    Standing,
    TargetFacts,
    TargetStep,
    answer_of,
    source_step,
    target_step,
)

_CAN_GO_ON = (Arriving.REMEMBERED, Arriving.CLOSED, Arriving.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class _World:
    """``late``: transactions that may be carried out yet. ``lost_power``: a host did, so that memory may be gone."""

    is_live: bool
    owner: Owner = Owner.SOURCE
    stands: bool = True
    source: SourcePhase | None = SourcePhase.PREPARING
    here: Leaving = Leaving.RUNNING
    is_copied: bool = False
    answer: Answer = Answer.UNKNOWN
    target: TargetPhase | None = None
    there: Arriving = Arriving.NOTHING
    has_failed: bool = False
    late: frozenset[str] = frozenset()
    lost_power: bool = False
    gives_up: bool = False

    @property
    def move(self) -> Standing:
        return Standing.STANDS if self.stands else Standing.GONE

    def told(self) -> Answer:
        """Give what the target answers if it is asked now; one that knows of no move refuses."""
        return Answer.REFUSED if self.target is None else answer_of(self.target_facts(knows=True))

    def source_facts(self, *, knows: bool) -> SourceFacts:
        assert self.source is not None
        return SourceFacts(
            phase=self.source,
            here=self.here,
            owner=self.owner if knows else Owner.UNKNOWN,
            move=self.move if knows else Standing.UNKNOWN,
            answer=self.answer,
            is_live=self.is_live,
            is_copied=self.is_copied,
            gives_up=self.gives_up,
        )

    def target_facts(self, *, knows: bool) -> TargetFacts:
        assert self.target is not None
        return TargetFacts(
            phase=self.target,
            here=self.there,
            owner=self.owner if knows else Owner.UNKNOWN,
            move=self.move if knows else Standing.UNKNOWN,
            is_live=self.is_live,
            has_failed=self.has_failed,
        )


def _by_source(world: _World, step: SourceStep) -> Iterator[_World]:
    """Give what a step of the source may come to, its success last."""
    match step:
        case SourceStep.COPY:
            offered = _offered(world)
            yield offered
            yield replace(offered, is_copied=True, answer=offered.told())
        case SourceStep.HOLD:
            holding = replace(world, source=SourcePhase.HOLDING)
            yield holding
            yield replace(holding, here=Leaving.HELD if world.is_live else Leaving.DOWN)
        case SourceStep.SHIP:
            offered = _offered(world)
            yield offered
            placed = offered
            if offered.target is TargetPhase.RECEIVING and offered.there is Arriving.NOTHING:
                placed = replace(offered, there=Arriving.REMEMBERED if world.is_live else Arriving.PLACED)
            yield placed
            yield replace(placed, answer=placed.told())
        case SourceStep.RESTORE:
            for made in _made(world):
                yield made
                yield replace(made, answer=made.told())
        case SourceStep.HAND_OVER:
            trying = replace(world, source=SourcePhase.COMMITTING)
            yield trying
            yield replace(trying, late=trying.late | {"over"})
            yield _handed_over(trying)
        case SourceStep.COMMIT:
            yield replace(world, source=SourcePhase.COMMITTED)
        case SourceStep.LET_GO:
            ending = replace(world, source=SourcePhase.ENDING)
            yield ending
            yield replace(ending, here=Leaving.DOWN)
            yield replace(ending, here=Leaving.GONE)
        case SourceStep.FINISH:
            if world.owner is not Owner.SOURCE:
                yield replace(world, stands=False)
                yield replace(world, stands=False, source=None)
        case SourceStep.RETURN:
            yield replace(world, source=SourcePhase.RETURNING)
        case SourceStep.THAW:
            yield replace(world, here=Leaving.RUNNING)
        case SourceStep.ABANDON:
            if world.owner is Owner.SOURCE:
                yield replace(world, stands=False)
        case SourceStep.CLEAR:
            yield replace(world, source=None)
        case SourceStep.ASK | SourceStep.GO:
            yield replace(world, answer=Answer.UNKNOWN)
            yield replace(world, answer=world.told())
        case SourceStep.READ:
            pass


def _by_target(world: _World, step: TargetStep) -> Iterator[_World]:
    """Give what a step of the target may come to, its success last."""
    match step:
        case TargetStep.RESTORE:
            yield from _made(world)
        case TargetStep.OPEN:
            opening = replace(world, target=TargetPhase.OPENING)
            yield opening
            yield replace(opening, there=Arriving.RUNNING)
        case TargetStep.SETTLE:
            yield replace(world, target=TargetPhase.DONE)
        case TargetStep.HAND_BACK:
            trying = replace(world, target=TargetPhase.REFUSING)
            yield trying
            yield replace(trying, late=trying.late | {"back"})
            yield _handed_back(trying)
        case TargetStep.DISCARD:
            discarding = replace(world, target=TargetPhase.DISCARDING)
            yield discarding
            yield replace(discarding, there=Arriving.NOTHING)
            yield replace(discarding, there=Arriving.NOTHING, target=None)
        case TargetStep.CLEAR | TargetStep.FORGET:
            yield replace(world, target=None)
        case TargetStep.WAIT | TargetStep.READ:
            pass


def _offered(world: _World) -> _World:
    return replace(world, target=TargetPhase.RECEIVING, has_failed=False) if world.target is None else world


def _made(world: _World) -> Iterator[_World]:
    """Make the processes at the target, which may fail; `RECEIVING` or `OPENING`, they only come from a memory."""
    may = world.target in (TargetPhase.RECEIVING, TargetPhase.OPENING) and world.there is Arriving.REMEMBERED
    if may:
        yield replace(world, has_failed=True)
    yield replace(world, there=Arriving.CLOSED) if may else world


def _handed_over(world: _World) -> _World:
    return replace(world, owner=Owner.TARGET) if world.owner is Owner.SOURCE and world.stands else world


def _handed_back(world: _World) -> _World:
    return replace(world, owner=Owner.SOURCE, stands=False) if world.owner is Owner.TARGET and world.stands else world


def _by_planners(world: _World) -> Iterator[_World]:
    """Start what a planner starts: a VE of its own that is not between two hosts."""
    may = world.source in (None, SourcePhase.PREPARING, SourcePhase.RETURNING)
    if may and world.owner is Owner.SOURCE and world.here is Leaving.DOWN:
        yield replace(world, here=Leaving.RUNNING)
    is_down = world.there in (Arriving.PLACED, Arriving.REMEMBERED)
    if world.target in (None, TargetPhase.DONE) and world.owner is Owner.TARGET and is_down:
        yield replace(world, there=Arriving.RUNNING)


def _by_chance(world: _World) -> Iterator[_World]:
    if "over" in world.late:
        yield _handed_over(replace(world, late=world.late - {"over"}))
    if "back" in world.late:
        yield _handed_back(replace(world, late=world.late - {"back"}))
    if world.here in (Leaving.RUNNING, Leaving.HELD):
        yield replace(world, here=Leaving.DOWN, answer=Answer.UNKNOWN, lost_power=True)
    yield replace(world, answer=Answer.UNKNOWN, is_copied=False)
    if world.there is Arriving.CLOSED:
        yield replace(world, there=Arriving.REMEMBERED, has_failed=False)
    if world.there is Arriving.RUNNING:
        yield replace(world, there=Arriving.PLACED, has_failed=False, lost_power=True)
    yield replace(world, has_failed=False)
    yield replace(world, gives_up=True)


def _after(world: _World) -> Iterator[_World]:
    for knows in (False, True):
        if world.source is not None:
            yield from _by_source(world, source_step(world.source_facts(knows=knows)))
        if world.target is not None:
            yield from _by_target(world, target_step(world.target_facts(knows=knows)))
    yield from _by_planners(world)
    yield from _by_chance(world)


def _reachable(start: _World) -> set[_World]:
    seen, pending = {start}, [start]
    while pending:
        for world in _after(pending.pop()):
            if world not in seen:
                seen.add(world)
                pending.append(world)
    return seen


@pytest.fixture(scope="module", params=(True, False), ids=("live", "stopped"))
def worlds(request: pytest.FixtureRequest) -> set[_World]:
    """Give every state that is reachable."""
    return _reachable(_World(is_live=request.param))


def test_a_ve_never_runs_on_two_hosts(worlds: set[_World]) -> None:
    assert not [world for world in worlds if world.here is Leaving.RUNNING and world.there is Arriving.RUNNING]


def test_only_the_owner_runs_a_ve(worlds: set[_World]) -> None:
    for world in worlds:
        if world.here is Leaving.RUNNING:
            assert world.owner is Owner.SOURCE, world
        if world.there is Arriving.RUNNING:
            assert world.owner is Owner.TARGET, world


def test_the_owner_has_all_of_the_data(worlds: set[_World]) -> None:
    for world in worlds:
        has_all = world.here is not Leaving.GONE if world.owner is Owner.SOURCE else world.there is not Arriving.NOTHING
        assert has_all, world


def test_processes_are_kept_unless_a_host_lost_its_power(worlds: set[_World]) -> None:
    for world in worlds:
        if world.is_live and not world.lost_power:
            assert world.here in (Leaving.RUNNING, Leaving.HELD) or world.there in _CAN_GO_ON, world


def test_a_ve_runs_on_exactly_one_host_in_the_end(worlds: set[_World]) -> None:
    ends: dict[_World, bool] = {}
    for world in worlds:
        assert _ends_well(world, ends), world
    assert len(worlds) > 1000


def _ends_well(world: _World, ends: dict[_World, bool]) -> bool:
    """Follow a world in which everything succeeds from now on to where nothing happens any more."""
    path = []
    while world not in ends:
        path.append(world)
        following = _next(world)
        if following == world:
            ends[world] = _is_well(world)
        elif following in path:
            return False
        else:
            world = following
    ends.update(dict.fromkeys(path, ends[world]))
    return ends[world]


def _next(world: _World) -> _World:
    """Let each host do its next step, with success."""
    if world.source is not None:
        world = [world, *_by_source(world, source_step(world.source_facts(knows=True)))][-1]
    if world.target is not None:
        world = [world, *_by_target(world, target_step(world.target_facts(knows=True)))][-1]
    return [world, *_by_planners(world)][-1]


def _is_well(world: _World) -> bool:
    if (world.source, world.target, world.stands) != (None, None, False):
        return False
    if world.owner is Owner.SOURCE:
        return (world.here, world.there) == (Leaving.RUNNING, Arriving.NOTHING)
    return (world.here, world.there) == (Leaving.GONE, Arriving.RUNNING)
