"""VEs that stand still on behalf of a move: at most one way leads on, and nothing else touches them."""

from __future__ import annotations

import pytest

from reconciler.errors import BusyError, CommandError, StateError
from reconciler.model.compute import Limit, SetLimit
from reconciler.model.effects import Effect
from reconciler.model.identity import SnapshotName
from reconciler.model.placement import ClearMove, CutParcel, EndHeld, Held, HoldRuntime, OpenRuntime, ResumeHeld
from reconciler.model.power import (
    DeleteRuntime,
    EndCause,
    PowerState,
    StartRuntime,
    StopRuntime,
    SuspendRuntime,
)
from reconciler.model.snapshots import CloneVolume, SnapshotKind, TakeSnapshot
from reconciler.twin.world import World
from tests.support.suspended import ASLEEP, RESUMED
from tests.support.twins import A, B, link_of, perform, running, see, see_power, twin_after

HOLD = HoldRuntime(uid=A, move="m1", number=1)
RESUME, END = ResumeHeld(uid=A, move="m1"), EndHeld(uid=A, move="m1")
CLOSED = StartRuntime(uid=A, closed=True)
ARRIVED = (*running(A), *ASLEEP, *(CLOSED if isinstance(it, StartRuntime) else it for it in RESUMED))


def test_a_held_ve_runs_no_more_and_is_reached_by_nobody() -> None:
    twin = twin_after(*running(A), HOLD)
    assert (see_power(twin, A).state, see_power(twin, A).held) == (PowerState.RUNNING, Held.LEAVING)
    assert link_of(twin.machine, A).bridge is None
    assert set(twin.machine.cut[A, "m1"]) == {"data:1", "memory:memory"}


def test_a_ve_that_is_let_go_is_as_if_nothing_had_been() -> None:
    twin = twin_after(*running(A))
    before = see(twin, A)
    perform(twin, HOLD, HOLD, RESUME, RESUME)
    assert see(twin, A) == before
    assert set(twin.machine.cut[A, "m1"]) == {"data:1"}, "its memory is out of date"


def test_a_ve_that_was_ended_is_as_after_a_stop() -> None:
    held, stopped = twin_after(*running(A), HOLD, END, END), twin_after(*running(A), StopRuntime(uid=A, timeout_s=1.0))
    seen, other = see_power(held, A), see_power(stopped, A)
    assert (seen.state, seen.stop_requested, seen.holdings) == (other.state, other.stop_requested, other.holdings)
    assert set(held.machine.cut[A, "m1"]) == {"data:1", "memory:memory"}


@pytest.mark.parametrize(
    "effect",
    [
        StopRuntime(uid=A, timeout_s=1.0),
        SuspendRuntime(uid=A),
        DeleteRuntime(uid=A),
        SetLimit(uid=A, limit=Limit.PROCESSES, value=256),
        TakeSnapshot(uid=A, name=SnapshotName("s1"), kind=SnapshotKind.NAMED),
        CutParcel(uid=A, move="m1", number=2),
        ClearMove(uid=A, move="m1"),
        OpenRuntime(uid=A),
        HoldRuntime(uid=A, move="m2", number=1),
        ResumeHeld(uid=A, move="m2"),
        EndHeld(uid=A, move="m2"),
        CloneVolume(uid=B, source=A, snapshot=None, size=None),
    ],
    ids=lambda effect: type(effect).__name__,
)
def test_a_held_ve_is_touched_by_nothing_but_its_own_move(effect: Effect) -> None:
    twin = twin_after(*running(A), HOLD)
    before = see(twin, A)
    with pytest.raises(BusyError):
        perform(twin, effect)
    assert see(twin, A) == before


def test_a_ve_is_held_as_a_new_parcel_of_its_data_or_not_at_all() -> None:
    twin = twin_after(*running(A), CutParcel(uid=A, move="m1", number=1))
    with pytest.raises(StateError, match="parcel 1"):
        perform(twin, HOLD)
    assert see_power(twin, A).held is None


def test_what_does_not_run_cannot_be_held_and_what_is_not_held_is_not_ended() -> None:
    with pytest.raises(StateError):
        perform(twin_after(*running(A), *ASLEEP), HOLD)
    with pytest.raises(BusyError):
        perform(twin_after(*running(A)), END)


def test_an_agent_that_is_killed_while_it_holds_a_ve_leaves_one_that_can_be_held_further() -> None:
    twin = twin_after(*running(A))
    World(twin).interrupt(HOLD)
    assert see_power(twin, A).held is Held.LEAVING
    assert link_of(twin.machine, A).bridge is not None
    perform(twin, HOLD)
    assert link_of(twin.machine, A).bridge is None


def test_a_ve_that_has_arrived_has_taken_no_step_until_it_is_opened() -> None:
    twin = twin_after(*ARRIVED)
    seen = see_power(twin, A)
    assert (seen.state, seen.held) == (PowerState.CREATED, Held.ARRIVED)
    assert (seen.memory is not None, twin.machine.spent) == (True, ())
    perform(twin, CLOSED, OpenRuntime(uid=A), OpenRuntime(uid=A))
    assert (see_power(twin, A).state, see_power(twin, A).held) == (PowerState.RUNNING, None)
    assert len(twin.machine.spent) == 1


def test_a_ve_that_has_arrived_is_not_let_run_by_mistake() -> None:
    with pytest.raises(BusyError, match="open it"):
        perform(twin_after(*ARRIVED), StartRuntime(uid=A))
    with pytest.raises(BusyError):
        perform(twin_after(*running(A)), CLOSED)


@pytest.mark.parametrize("end", ["delete", "keeper"])
def test_a_ve_that_has_arrived_and_is_given_up_keeps_its_memory(end: str) -> None:
    twin = twin_after(*ARRIVED)
    if end == "delete":
        perform(twin, DeleteRuntime(uid=A))
    else:
        World(twin).end_keeper()
    assert see_power(twin, A).state is PowerState.SUSPENDED
    assert twin.machine.spent == ()


def test_a_memory_that_cannot_be_read_is_no_arrival() -> None:
    made = ARRIVED[: ARRIVED.index(CLOSED)]
    twin = twin_after(*made)
    World(twin).corrupt_memory(A)
    with pytest.raises(CommandError):
        perform(twin, CLOSED)
    assert (see_power(twin, A).state, see_power(twin, A).held) == (PowerState.SUSPENDED, None)
    ending = see_power(twin, A).last_end
    assert ending is not None
    assert ending.cause is EndCause.KILLED
