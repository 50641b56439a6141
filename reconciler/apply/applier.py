"""Carry out the actions of a plan: phase by phase, VEs side by side, each VE's actions one after the other."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from reconciler.errors import ReadBackError, VectlError
from reconciler.model.action import Action, Operation, Phase, Plan
from reconciler.model.facts import Json
from reconciler.model.observation import HostObservation, Scope
from reconciler.model.seam import Clock, Effects, Observer
from reconciler.plan.inputs import Inputs
from reconciler.plan.readback import unfulfilled


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one action ended. ``error`` None: done and read back; ``seen``: what was read. Units: seconds."""

    action: Action
    elapsed_s: float
    seen: HostObservation | None = None
    error: VectlError | None = None
    skipped: str = ""

    @property
    def ok(self) -> bool:
        """Whether the action was carried out and seen to be so."""
        return self.error is None and not self.skipped

    def to_json(self) -> dict[str, Json]:
        """Give one line of `vectl apply -o json`."""
        outcome = "skipped" if self.skipped else "failed" if self.error else "done"
        line = {**self.action.to_json(), "outcome": outcome, "elapsed": round(self.elapsed_s, 6)}
        if self.error or self.skipped:
            line["error"] = self.skipped or str(self.error)
        return line


class Books(Protocol):
    """What is written down around an action, so that a crash in the middle is understood afterwards."""

    async def begin(self, action: Action) -> None:
        """Note durably that the action is about to be carried out."""
        ...

    def end(self, action: Action, *, elapsed_s: float, error: VectlError | None) -> None:
        """Note that it was carried out and seen to be so, or that it failed."""
        ...


def _no_progress(action: Action, step: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applier:
    """``workers``: VEs worked on at once. ``max_restarts``: VEs that may be down for a restart at once.

    ``on_step(action, step)`` is told of each effect that begins, and of ``done`` or ``failed``.
    """

    effects: Effects
    observer: Observer
    books: Books
    clock: Clock
    workers: int = 4
    max_restarts: int = 1
    on_step: Callable[[Action, str], None] = field(default=_no_progress)

    async def apply(self, plan: Plan, inputs: Inputs) -> list[Outcome]:
        """Carry out a whole plan; a failure ends the actions of its own VE only."""
        outcomes: list[Outcome] = []
        failed: set[str] = set()
        for phase in Phase:
            actions = [action for action in plan.actions if action.phase is phase]
            done = await self._phase(phase, actions, inputs, failed)
            failed |= {outcome.action.ve for outcome in done if not outcome.ok}
            outcomes += done
        return outcomes

    async def _phase(self, phase: Phase, actions: Sequence[Action], inputs: Inputs, failed: set[str]) -> list[Outcome]:
        limit = asyncio.Semaphore(self.max_restarts if phase is Phase.RESTART else self.workers)

        async def one_object(group: Sequence[Action]) -> list[Outcome]:
            async with limit:
                return await self.apply_group(group, inputs)

        skipped = [
            Outcome(action=a, elapsed_s=0.0, skipped="an earlier action failed") for a in actions if a.ve in failed
        ]
        groups = _by_object(action for action in actions if action.ve not in failed)
        if phase in (Phase.HOST, Phase.HOST_REMOVE):  # the host's own objects depend on each other
            results = [await one_object(group) for group in groups]
        else:
            results = await _side_by_side(one_object(group) for group in groups)
        return [*skipped, *(outcome for group in results for outcome in group)]

    async def apply_group(self, actions: Sequence[Action], inputs: Inputs) -> list[Outcome]:
        """Carry out the actions of one VE or host object in order, up to the first failure."""
        outcomes: list[Outcome] = []
        for action in actions:
            if outcomes and not outcomes[-1].ok:
                outcomes.append(_skip(action))
            else:
                outcomes.append(await self._one(action, inputs))
        return outcomes

    async def _one(self, action: Action, inputs: Inputs) -> Outcome:
        if not action.effects:  # shown to people; the bookkeeping of the same VE carries it out
            return Outcome(action=action, elapsed_s=0.0)
        started = self.clock.monotonic()
        error: VectlError | None = None
        seen: HostObservation | None = None
        try:
            await self.books.begin(action)
            await self._perform(action)
            seen = await self._read_back(action, inputs)
        except VectlError as failure:
            error = failure
        elapsed = self.clock.monotonic() - started
        try:
            self.books.end(action, elapsed_s=elapsed, error=error)
        except VectlError as failure:
            error = error or failure
        self.on_step(action, "failed" if error else "done")
        return Outcome(action=action, elapsed_s=elapsed, seen=seen, error=error)

    async def _perform(self, action: Action) -> None:
        for effect in action.effects:
            self.on_step(action, type(effect).__name__)
            await _to_its_end(self.effects.perform(replace(effect, serves=action.id)))

    async def _read_back(self, action: Action, inputs: Inputs) -> HostObservation:
        """Look at what an action concerns.

        Raises: ReadBackError, if it is not as the action should have made it.
        """
        scope = Scope(
            uids=frozenset({action.uid}) if action.uid else frozenset(), host=_concerns_host(action), use=False
        )
        seen = await self.observer.observe(scope)
        problem = unfulfilled(replace(inputs, observed=seen), action)
        if problem:
            raise ReadBackError(f"read back {action.id}: {problem}")
        return seen


def _skip(action: Action) -> Outcome:
    return Outcome(action=action, elapsed_s=0.0, skipped="an earlier action failed")


def _concerns_host(action: Action) -> bool:
    return action.uid is None or action.op in (Operation.DESTROY, Operation.RESTORE)


def _by_object(actions: Iterable[Action]) -> list[list[Action]]:
    groups: dict[str, list[Action]] = defaultdict(list)
    for action in actions:
        groups[action.ve].append(action)
    return list(groups.values())


async def _side_by_side(groups: Iterable[Coroutine[None, None, list[Outcome]]]) -> list[list[Outcome]]:
    """Wait for all groups; none goes on behind the back of whoever waits, not even when another one raises."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(group) for group in groups]
    return [task.result() for task in running]


async def _to_its_end(effect: Coroutine[None, None, None]) -> None:
    """Wait for an effect; a cancellation counts only when it is over, so that nobody else meets it half done."""
    task = asyncio.create_task(effect)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):  # a second one changes nothing
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # whoever cancelled does not want it
        raise
