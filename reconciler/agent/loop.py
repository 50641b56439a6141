"""The agent: wakes, takes turns, passes, backs off; until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from reconciler.agent import backoff, timers
from reconciler.agent.patience import Patience
from reconciler.agent.queue import Priority, Queue, Turn
from reconciler.agent.reconciler import Reconciler, Result
from reconciler.agent.review import Stride, Word
from reconciler.agent.shortages import Shortages
from reconciler.agent.troubles import Troubles
from reconciler.errors import VectlError
from reconciler.model.action import Action, Operation, Reason, UnknownFact
from reconciler.model.fleet import Fleet
from reconciler.model.identity import VeName
from reconciler.model.observation import Facet, HostObservation
from reconciler.model.policy import Policy
from reconciler.model.seam import Clock, Events
from reconciler.model.snapshots import CloneSource

HOST = "*"
"""The key of the host's own objects and of removals, which are looked at together with all VEs."""

REST_S = 0.05
"""Least time between two passes that events ask for: the root of a VE may make as many as he likes."""

COALESCE_S = 1.0
"""How long the host's pass waits after changes of VEs, so that many of them cost one. Units: seconds."""


FIRST_LOOKS_S = 1.0
"""Time between looks at the source until the first pass: only that tells which VEs are here to be missed in it."""


class Source(Protocol):
    """Where revisions come from."""

    async def changed(self) -> None:
        """Wait until the source should be looked at."""
        ...

    def know(self, names: frozenset[VeName]) -> None:
        """Tell which VEs are on the host, so that their absence is timed."""
        ...

    def look(self) -> Fleet | None:
        """Look; give the revision in force, None if there never was a valid one."""
        ...

    def way(self, since: str) -> Sequence[Stride]:
        """Give the steps from the one after a revision to the newest; none, if nothing is known of them.

        It is asked in another thread, and takes its time.
        """
        ...

    def words(self) -> Mapping[str, Sequence[Word]]:
        """Give what people vouched for of late, by revision; the same object, while it is the same."""
        ...

    def removed(self) -> frozenset[VeName]:
        """Name the VEs that have been absent from the source for so long that they may be removed."""
        ...

    def next_look_s(self) -> float | None:
        """Give the time after which looking again will show something else, if any. Units: seconds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Units: seconds. ``resync_s`` between full passes; ``relist_s`` between looks at the source."""

    resync_s: float = 300.0
    relist_s: float = 5.0
    jitter: Callable[[], float] = field(default=lambda: 0.0)


class Agent:
    """Runs the passes of one instance. Everything here happens on one event loop."""

    def __init__(  # each is a part of its own
        self,
        reconciler: Reconciler,
        source: Source,
        events: Events,
        *,
        timing: Timing,
        clock: Clock,
        shortages: Shortages | None = None,
    ) -> None:
        self.shortages = shortages
        self.reconciler, self.source, self.events = reconciler, source, events
        self.timing, self.clock = timing, clock
        self.queue = Queue(clock)
        self.log = structlog.get_logger()
        self._backoff = backoff.Backoff(random=timing.jitter)
        self._patience = Patience(backoff.Backoff(random=timing.jitter))
        reconciler.patience = self._patience
        reconciler.removable = frozenset()
        self._policy: tuple[Policy | None, str] = None, ""
        self._last_pass: dict[str, float] = {}
        self.ready = asyncio.Event()
        self.on_pass: Callable[[str, Result], None] = lambda key, result: None
        self.troubles = Troubles()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_source())
            tasks.create_task(self._follow_events())
            tasks.create_task(self._resync())
            tasks.create_task(self.reconciler.desk.recorder.run())
            if self.shortages is not None:
                tasks.create_task(self.shortages.run())
            for _ in range(self.reconciler.workers):
                tasks.create_task(self._work())

    def ask(self, name: VeName | None, *, reason: str = "requested") -> None:
        """Ask for a pass on behalf of a person: over one VE, or with None over everything."""
        if name is None:
            self._ask_for_host(Priority.USER, reason)
        else:
            self.queue.add(name, priority=Priority.USER, reason=reason)

    async def _follow_source(self) -> None:
        while True:
            try:
                await self._look_at_source()
            except (VectlError, OSError) as error:  # a full disk, say: what is in force stays so
                self.log.warning("source.not_looked_at", error=str(error))
            await self._source_changed_or_due()

    async def _look_at_source(self) -> None:
        reconciler = self.reconciler
        self.source.know(frozenset(reconciler.names.values()))
        fleet = self.source.look()
        self._look_at_policy()
        if fleet is not None and self.reconciler.desk.policy.known().require_reviewed:
            await self._look_at_reviews(fleet)
        removed, before = self.source.removed(), reconciler.removable
        reconciler.removable = removed
        if fleet is not None and fleet.revision != reconciler.fleet.revision:
            self.log.info("revision.taken", revision=fleet.revision, ves=len(fleet.ves))
            reconciler.fleet = fleet
            self._ask_for_host(Priority.REVISION, "source_changed")
        elif removed != before:
            self._ask_for_host(Priority.REVISION, "absence_confirmed")

    async def _look_at_reviews(self, fleet: Fleet) -> None:
        """Work out once what of a revision was reviewed, and look whether people have vouched for more since."""
        reviewer, before = self.reconciler.reviewer, self.reconciler.fleet
        await reviewer.follow(before, fleet, self.source.way)
        if reviewer.heed(self.source.words()) and before.revision == fleet.revision:
            self._ask_for_host(Priority.REVISION, "reviewed")

    def _look_at_policy(self) -> None:
        """Read the host's policy, and let everything be judged by it once more if it is another one."""
        desk = self.reconciler.desk
        before, problem = self._policy
        now = desk.policy.look()
        self._policy = now, desk.policy.problem
        if desk.policy.problem not in ("", problem):
            self.log.warning("policy.not_usable", error=desk.policy.problem)
            desk.tell("host", "PolicyNotUsable", desk.policy.problem, kind="Warning")
        if before is not None and now != before:
            self.log.info("policy.taken", file=now.file)
            self._ask_for_host(Priority.REVISION, "policy_changed")

    async def _source_changed_or_due(self) -> None:
        wait_s, soon = self.timing.relist_s, self.source.next_look_s()
        if soon is not None:
            wait_s = min(wait_s, soon + 0.01)
        if self.reconciler.fleet.revision and not self.ready.is_set():
            wait_s = min(wait_s, FIRST_LOOKS_S)
        try:
            async with asyncio.timeout(wait_s):
                await self.source.changed()
        except TimeoutError:
            return

    def _ask_for_host(self, priority: Priority, reason: str, *, delay_s: float = 0.0) -> None:
        """Ask for a pass over everything; without a valid revision there is nothing to hold the host to."""
        if self.reconciler.fleet.revision:
            self.queue.add(HOST, priority=priority, reason=reason, delay_s=delay_s)

    async def _follow_events(self) -> None:
        while True:
            for wake in sorted(await self.events.wakes(), key=lambda wake: (wake.uid or "", wake.lost)):
                name = self.reconciler.names.get(wake.uid) if wake.uid is not None else None
                if wake.uid is not None and name is None:
                    continue  # being created just now, by a turn that will look at it
                if wake.facet is Facet.COMPUTE and wake.uid is not None and self.shortages is not None:
                    self.shortages.hint(wake.uid)
                if wake.lost or name is None:
                    reason = "events_lost" if wake.lost else "host_changed"
                    self._ask_for_host(Priority.DRIFT, reason, delay_s=self._rest_s(HOST))
                else:
                    self.queue.add(name, priority=Priority.DRIFT, reason="host_changed", delay_s=self._rest_s(name))

    def _rest_s(self, key: str) -> float:
        """Give how long events alone have to wait: after a pass a moment, after a failure as long as its delay."""
        now = self.clock.monotonic()
        rest_s = REST_S - (now - self._last_pass.get(key, float("-inf")))
        return max(0.0, rest_s, self._backoff.left(key, now))

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self.timing.resync_s * (1 + 0.05 * self.timing.jitter()))
            self._ask_for_host(Priority.RESYNC, "timer")

    async def _work(self) -> None:
        while True:
            turn = await self.queue.get()
            try:
                await self._turn(turn)
            finally:
                self.queue.done(turn.key)

    async def _turn(self, turn: Turn) -> None:
        started = self.clock.monotonic()
        with structlog.contextvars.bound_contextvars(revision=self.reconciler.fleet.revision):
            try:
                result = await (self._host_turn(turn) if turn.key == HOST else self._ve_turn(VeName(turn.key)))
            except VectlError as error:
                self._failed(turn.key, type(error).__name__, str(error))
                return
            except Exception:  # one VE's bug must not take the others' correction with it
                self.log.exception("pass.crashed", key=turn.key)
                self._failed(turn.key, "Crashed", "an error of vectl itself; see the log")
                return
        self._settle(turn, result, self.clock.monotonic() - started)
        self.on_pass(turn.key, result)

    async def _host_turn(self, turn: Turn) -> Result:
        self._last_pass[HOST] = self.clock.monotonic()
        result, wanted = await self.reconciler.pass_host()
        self.events.follow(result.observed)
        is_asked_for = turn.priority in (Priority.USER, Priority.REVISION)
        for name in wanted:
            delay_s = 0.0 if is_asked_for else self._backoff.left(name, self.clock.monotonic())
            self.queue.add(name, priority=Priority.REVISION, reason="planned", delay_s=delay_s)
        unread = {fact.ve for fact in result.plan.unknown}
        for name in (name for name in self.reconciler.fleet.ves if name in unread):
            delay_s = self._backoff.left(name, self.clock.monotonic())
            self.queue.add(name, priority=Priority.DRIFT, reason="unknown", delay_s=delay_s)
        self.ready.set()
        return result

    async def _ve_turn(self, name: VeName) -> Result:
        self._last_pass[name] = self.clock.monotonic()
        result = await self.reconciler.pass_ve(name)
        self.events.follow(_newest(result))
        return result

    def _settle(self, turn: Turn, result: Result, elapsed_s: float) -> None:
        failed = [outcome for outcome in result.outcomes if outcome.error is not None]
        for outcome in result.outcomes:
            self._patience.note(outcome, self.clock.monotonic())
        if result.outcomes or turn.key == HOST:
            self.log.info(
                "pass.finished",
                key=turn.key,
                activation_reason=turn.reason,
                actions=len(result.outcomes),
                failed=len(failed),
                elapsed_s=round(elapsed_s, 4),
            )
        for outcome in failed:
            self._failed(turn.key, type(outcome.error).__name__, str(outcome.error))
        unknown = [fact for fact in result.plan.unknown if turn.key != HOST or not self._has_turns(fact)]
        if unknown and not failed:
            self._failed(turn.key, "ObservationUnknown", str(unknown[0]))
        elif not failed:
            self._backoff.succeeded(turn.key)
            self.troubles.succeeded(turn.key)
            if turn.key == HOST:
                self.troubles.passed_host(result.plan)
            self._go_on(turn, result)

    def _has_turns(self, fact: UnknownFact) -> bool:
        """Say whether a fact is of a VE with a manifest: that has turns of its own, and delays no others'."""
        return fact.ve in self.reconciler.fleet.ves

    def _go_on(self, turn: Turn, result: Result) -> None:
        """Ask for the turns that follow from one that went well."""
        for hold in result.holds:
            self.queue.add(turn.key, priority=Priority.DRIFT, reason=hold.reason, delay_s=hold.wait_s)
        changes = [outcome.action for outcome in result.outcomes if outcome.ok and outcome.action.effects]
        if changes:
            self._look_again(turn.key, changes)
        self._wait_for_snapshots(result.observed if turn.key == HOST else _newest(result))
        if turn.key == HOST and (ends_s := self.reconciler.pause_ends_in()) is not None:
            self._ask_for_host(Priority.RESYNC, "pause_ends", delay_s=ends_s)

    def _wait_for_snapshots(self, observed: HostObservation) -> None:
        """Ask for a turn at the moment when a schedule's next snapshot is due, or when one has had its time."""
        reconciler = self.reconciler
        now, keep_s = reconciler.desk.clock.now(), reconciler.trash_keep_s
        for name, wait_s in timers.due(reconciler.fleet, observed, now=now, keep_s=keep_s):
            self.queue.add(name, priority=Priority.RESYNC, reason="snapshot_due", delay_s=wait_s)

    def _look_again(self, key: str, changes: Sequence[Action]) -> None:
        """After a change observe anew, and let those that waited for it have their turn."""
        self.queue.add(key, priority=Priority.DRIFT, reason="read_back")
        if key == HOST:
            return
        if any(_concerns_networks(action) for action in changes):
            self._ask_for_host(Priority.DRIFT, "ve_changed", delay_s=COALESCE_S)
        for name, spec in self.reconciler.fleet.ves.items():
            if key in spec.power.depends_on and name not in self.reconciler.running:
                self.queue.add(name, priority=Priority.REVISION, reason="dependency_ready")
            if isinstance(spec.source, CloneSource) and spec.source.ve == key and self.reconciler.is_to_be_cloned(spec):
                self.queue.add(name, priority=Priority.REVISION, reason="source_changed")

    def _failed(self, key: str, reason: str, message: str) -> None:
        delay_s = self._backoff.failed(key, reason, self.clock.monotonic())
        self.troubles.failed(key, reason, message, now=self.reconciler.desk.clock.now())
        self.log.warning("pass.failed", key=key, reason=reason, error=message, retry_in_s=round(delay_s, 1))
        self.queue.defer(key, reason="retry", delay_s=delay_s)


def _newest(result: Result) -> HostObservation:
    """Give what a pass saw last; the look that follows every change sees what happened between this one and now."""
    read_back = [outcome.seen for outcome in result.outcomes if outcome.seen is not None]
    return read_back[-1] if read_back else result.observed


def _concerns_networks(action: Action) -> bool:
    """Say whether the host's networks and filter may have to follow an action of a VE."""
    is_whole = action.op is Operation.CREATE or action.reason is Reason.BOOKKEEPING
    return is_whole or action.path.startswith("interfaces.")
