"""A plan is carried out as it stands: in its order, up to the first failure of an object, and read back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import pytest

from reconciler.agent.reconciler import Reconciler
from reconciler.apply.applier import Applier, Outcome
from reconciler.apply.seam import FailpointEffects, parse_failpoints
from reconciler.errors import InjectedFailureError, ReadBackError, StateError, VectlError
from reconciler.model.action import Action, Plan
from reconciler.model.compute import SetLimit
from reconciler.model.effects import Effect
from reconciler.model.fleet import Fleet
from reconciler.model.power import StopRuntime
from reconciler.model.seam import Effects
from reconciler.twin.host import crash
from tests.support import simloop
from tests.support.rig import LAN, RecordingEffects, Rig, fleet_of, on_lan, run, scratch_state, ve

BEFORE = fleet_of(LAN, ve("a", on_lan(11)), ve("b", on_lan(12)))
AFTER = fleet_of(
    LAN,
    ve("a", f"{on_lan(11)}, memory: {{limit: 1Gi}}, processes: 9"),
    ve("b", f"{on_lan(12)}, memory: {{limit: 1Gi}}, processes: 9"),
    revision="r2",
)


class Notes:
    """Books that remember, and may fail."""

    def __init__(self, *, fails_at: str = "") -> None:
        self.begun: list[str] = []
        self.ended: list[tuple[str, str]] = []
        self._fails_at = fails_at

    async def begin(self, action: Action) -> None:
        self.begun.append(action.id)
        if action.id == self._fails_at:
            raise StateError("no space for the journal")

    def end(self, action: Action, *, elapsed_s: float, error: VectlError | None) -> None:
        assert elapsed_s >= 0
        self.ended.append((action.id, type(error).__name__ if error else "done"))


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        made = Rig(state=state)
        made.converge(BEFORE)
        yield made


def apply(
    rig: Rig, effects: Effects, *, fleet: Fleet = AFTER, notes: Notes | None = None, seed: int = 0
) -> tuple[Plan, list[Outcome]]:
    async def main() -> tuple[Plan, list[Outcome]]:
        reconciler = rig.reconciler(fleet)
        inputs, plan = await reconciler.plan(await reconciler.look())
        return plan, await applier(reconciler, effects, notes or Notes()).apply(plan, inputs)

    return run(main(), seed)


def applier(reconciler: Reconciler, effects: Effects, notes: Notes) -> Applier:
    return Applier(
        effects=effects, observer=reconciler.observer, books=notes, clock=reconciler.desk.clock, max_restarts=1
    )


def failing(rig: Rig, points: str) -> FailpointEffects:
    return FailpointEffects(rig.twin, parse_failpoints(points), random=Random(0), kill=crash)


def test_every_action_is_noted_carried_out_and_read_back(rig: Rig) -> None:
    effects, notes = RecordingEffects(rig.twin), Notes()
    plan, outcomes = apply(rig, effects, notes=notes)
    assert [outcome.ok for outcome in outcomes] == [True] * len(plan.actions)
    assert sorted(effect.serves for effect in effects.performed) == sorted(
        action.id for action in plan.actions for _ in action.effects
    )
    assert sorted(notes.begun) == sorted(name for name, how in notes.ended if how == "done")


def test_a_failure_ends_the_actions_of_its_own_ve_only(rig: Rig) -> None:
    _, outcomes = apply(rig, failing(rig, "SetLimit:before=1*error(EIO)"))
    by_ve: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_ve.setdefault(outcome.action.ve, []).append(outcome)
    failed = next(ve for ve, found in by_ve.items() if any(o.error for o in found))
    other = "b" if failed == "a" else "a"
    assert all(outcome.ok for outcome in by_ve[other])
    first, *rest = by_ve[failed]
    assert isinstance(first.error, InjectedFailureError)
    assert rest
    assert all(outcome.skipped for outcome in rest)


def test_what_took_no_effect_is_a_failure(rig: Rig) -> None:
    class Lying:
        async def perform(self, effect: Effect) -> None:
            """Do nothing, and call it done."""

    plan, outcomes = apply(rig, Lying())
    errors = [outcome.error for outcome in outcomes if outcome.error]
    assert {type(error) for error in errors} == {ReadBackError}
    assert all("not" in str(error) for error in errors)
    assert len(errors) == len({action.ve for action in plan.actions})


def test_books_that_cannot_be_kept_fail_the_action_and_nothing_is_done(rig: Rig) -> None:
    effects, notes = RecordingEffects(rig.twin), Notes(fails_at="a:memory.limit")
    _, outcomes = apply(rig, effects, notes=notes)
    assert all(outcome.ok for outcome in outcomes if outcome.action.ve == "b")
    assert [type(outcome.error) for outcome in outcomes if outcome.error] == [StateError]
    assert all(not effect.serves.startswith("a:") for effect in effects.performed)


def test_books_that_cannot_be_closed_are_a_failure_that_is_told() -> None:
    class Sealed(Notes):
        def end(self, action: Action, *, elapsed_s: float, error: VectlError | None) -> None:
            raise StateError("no space for the events")

    with scratch_state() as state:
        _, outcomes = apply(Rig(state=state), Rig(state=state).twin, fleet=fleet_of(), notes=Sealed())
        assert outcomes == []
        rig = Rig(state=state)
        rig.converge(BEFORE)
        _, outcomes = apply(rig, rig.twin, notes=Sealed())
        assert {type(outcome.error) for outcome in outcomes if not outcome.skipped} == {StateError}


class Watched:
    """Effects that take their time, with a look at what goes on side by side."""

    def __init__(self, inner: Effects, look: Callable[[Effect], None]) -> None:
        self._inner, self._look = inner, look
        self.under_way = 0

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect, slowly."""
        self.under_way += 1
        await asyncio.sleep(1)
        await self._inner.perform(effect)
        self._look(effect)
        await asyncio.sleep(1)
        self.under_way -= 1


def test_ves_are_worked_on_side_by_side_and_restarted_in_waves(rig: Rig) -> None:
    restarted = fleet_of(
        LAN, *(ve(n, f"{on_lan(i)}, rlimits: {{nofile: 9}}") for n, i in (("a", 11), ("b", 12))), revision="r2"
    )
    down: list[int] = []
    watched = Watched(rig.twin, lambda effect: down.append(2 - len(rig.machine.runtimes)))
    _, outcomes = apply(rig, watched, fleet=restarted)
    assert all(outcome.ok for outcome in outcomes)
    assert max(down) == 1


def test_the_phases_of_a_plan_come_in_their_order(rig: Rig) -> None:
    wanted = fleet_of(
        LAN,
        ve("b", f"{on_lan(12)}, memory: {{limit: 64Mi}}, processes: 9999, rlimits: {{nofile: 9}}"),
        ve("c"),
        revision="r2",
    )
    plan, outcomes = apply(rig, rig.twin, fleet=wanted, seed=3)
    assert [outcome.action.phase for outcome in outcomes] == sorted(action.phase for action in plan.actions)
    assert all(outcome.ok for outcome in outcomes)


def test_a_cancelled_apply_lets_the_effect_under_way_come_to_its_end(rig: Rig) -> None:
    async def main() -> list[Effect]:
        reconciler = rig.reconciler(AFTER)
        inputs, plan = await reconciler.plan(await reconciler.look())
        done: list[Effect] = []
        watched = Watched(rig.twin, done.append)
        working = asyncio.create_task(applier(reconciler, watched, Notes()).apply(plan, inputs))
        await asyncio.sleep(0.5)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert watched.under_way == 0
        return done

    assert [type(effect) for effect in simloop.run(0, main())] == [SetLimit, SetLimit]


def test_a_bug_in_one_group_leaves_no_other_working_behind_its_back(rig: Rig) -> None:
    async def main() -> int:
        reconciler = rig.reconciler(AFTER)
        inputs, plan = await reconciler.plan(await reconciler.look())
        watched = Watched(rig.twin, explode_for(rig, "a"))
        with pytest.raises(ExceptionGroup):
            await applier(reconciler, watched, Notes()).apply(plan, inputs)
        return len([task for task in asyncio.all_tasks() if task is not asyncio.current_task()])

    assert simloop.run(0, main()) == 0


def explode_for(rig: Rig, name: str) -> Callable[[Effect], None]:
    uid = rig.uid(name)

    def explode(effect: Effect) -> None:
        if getattr(effect, "uid", None) == uid:
            raise ZeroDivisionError

    return explode


def test_an_outcome_is_one_line_of_json(rig: Rig) -> None:
    _, outcomes = apply(rig, failing(rig, "SetLimit:before=1*error(EIO)"))
    lines = [outcome.to_json() for outcome in outcomes]
    assert {line["outcome"] for line in lines} == {"done", "failed", "skipped"}
    assert all(("error" in line) is (line["outcome"] != "done") for line in lines)


def test_progress_is_told_step_by_step(rig: Rig) -> None:
    steps: list[tuple[str, str]] = []

    async def main() -> None:
        reconciler = rig.reconciler(fleet_of(LAN, ve("a", f"{on_lan(11)}, power: stopped"), ve("b", on_lan(12))))
        inputs, plan = await reconciler.plan(await reconciler.look())
        telling = replace(
            applier(reconciler, rig.twin, Notes()), on_step=lambda action, step: steps.append((action.id, step))
        )
        await telling.apply(plan, inputs)

    run(main())
    assert steps[:2] == [("a:power", "StopRuntime"), ("a:power", "DeleteRuntime")]
    assert ("a:power", "done") in steps


def test_a_stop_that_fails_on_the_way_leaves_the_rest_undone(rig: Rig) -> None:
    effects = RecordingEffects(failing(rig, "StopRuntime:after=error(EIO)"))
    stopped = fleet_of(LAN, ve("a", f"{on_lan(11)}, power: stopped"), ve("b", on_lan(12)))
    _, outcomes = apply(rig, effects, fleet=stopped)
    assert [type(effect) for effect in effects.performed] == [StopRuntime]
    assert [outcome.ok for outcome in outcomes] == [False, False]
