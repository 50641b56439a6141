"""Passes: observe, plan, apply, observe again; for the host as a whole, and for one VE."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from reconciler.agent import gather, publish
from reconciler.agent.desk import Desk, DeskBooks
from reconciler.agent.hostrisk import Guard
from reconciler.agent.patience import Hold, Patience
from reconciler.agent.review import Reviewer
from reconciler.apply.applier import Applier, Outcome
from reconciler.model.action import Action, Operation, Origin, Phase, Plan
from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.identity import HostName, Uid, VeName
from reconciler.model.network import Address
from reconciler.model.observation import ALL_FACETS, EVERYTHING, STATE, Facet, HostObservation, PoolObservation, Scope
from reconciler.model.power import PowerObservation, PowerState
from reconciler.model.seam import Coordinator, Effects, Observer
from reconciler.model.snapshots import CloneSource
from reconciler.model.volume import Record
from reconciler.plan import planner, power, render
from reconciler.plan.actions import TRASH_KEEP_S
from reconciler.plan.inputs import Inputs, Known, is_here
from reconciler.plan.settled import Settled
from reconciler.state.inventory import Entry
from reconciler.state.inventory import Phase as InventoryPhase

if TYPE_CHECKING:
    from reconciler.agent.membership import Membership

_RECORDS: frozenset[Facet] = frozenset()
"""No facet: of every VE and of the trash the record, and nothing of what they do."""

WAVE_S = 1.0
"""How long a restart waits before it asks again whether it is its turn. Units: seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a pass planned and did. ``observed``: as of its beginning."""

    observed: HostObservation
    plan: Plan
    outcomes: Sequence[Outcome] = ()
    holds: Sequence[Hold] = ()

    @property
    def converged(self) -> bool:
        """Whether nothing is left to do, to refuse, to wait for or to find out."""
        plan = self.plan
        return not (plan.actions or plan.refused or plan.unknown or plan.waiting or self.holds)


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """Drives one host. ``fleet`` is the revision in force.

    ``membership``: of a fleet whose VEs a coordinator shares out.

    ``removable`` names the VEs that have been absent from the source for so long that they may be removed; None: all
    that are absent.
    """

    desk: Desk
    observer: Observer
    effects: Effects
    fleet: Fleet
    prune: bool = True
    workers: int = 4
    max_restarts: int = 1
    trash_keep_s: float = TRASH_KEEP_S
    removable: frozenset[VeName] | None = None
    on_step: Callable[[Action, str], None] = field(default=lambda action, step: None)
    names: dict[Uid, VeName] = field(default_factory=dict)
    running: set[VeName] = field(default_factory=set)
    records: dict[Uid, Record] = field(default_factory=dict)
    pool: int | None = None
    patience: Patience | None = None
    settled: Settled = field(default_factory=Settled)
    guard: Guard | None = None
    membership: Membership | None = None
    reviewer: Reviewer = field(init=False)
    _locks: dict[VeName, asyncio.Lock] = field(default_factory=dict)
    _short_of: tuple[str, ...] = ()
    _restarting: set[VeName] = field(default_factory=set)
    _moving_memory: set[VeName] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.reviewer = Reviewer(desk=self.desk, between=_plan_between)

    async def plan(self, observed: HostObservation, *, coordinator: Coordinator | None = None) -> tuple[Inputs, Plan]:
        """Plan the whole host from an observation; VEs that are not here yet get their identity allocated."""
        inputs = self._with_removal(self.inputs(observed))
        giver = coordinator or self.desk.coordinator
        inputs = await self._allocated(inputs, planner.unborn(inputs), giver)
        return planner.plan_reviewed(inputs)

    async def _allocated(self, inputs: Inputs, names: Sequence[VeName], giver: Coordinator) -> Inputs:
        """Give VEs an identity, but those that another host has by the name that they had."""
        if self.membership is None or giver is not self.desk.coordinator:
            return await gather.with_allocations(inputs, names, giver)
        refused = await self.membership.came_from(inputs.fleet.ves[name] for name in names)
        return await gather.with_allocations(inputs, names, giver, refused)

    def inputs(self, observed: HostObservation) -> Inputs:
        """Gather what the plan of a VE depends on."""
        known = Known(records=dict(self.records), pool=self.pool)
        inputs = gather.gather(self.desk, self.fleet, observed, running=self.running, known=known)
        management = frozenset[Address]() if self.guard is None else self.guard.settings.management
        inputs = replace(inputs, settled=self.settled, prune=self.prune, trash_keep_s=self.trash_keep_s)
        return self.reviewer.bind(replace(inputs, management=management))

    def _with_removal(self, inputs: Inputs) -> Inputs:
        removing = gather.Removing(on=self.prune, removable=self.removable, keep_s=self.trash_keep_s)
        return gather.with_removal(self.desk, inputs, removing)

    def applier(self) -> Applier:
        """Give what carries a plan out, with the desk's books around each action."""
        return Applier(
            effects=self.effects,
            observer=self.observer,
            books=DeskBooks(desk=self.desk, revision=self.fleet.revision),
            clock=self.desk.clock,
            workers=self.workers,
            max_restarts=self.max_restarts,
            on_step=self.on_step,
        )

    async def observe(self, scope: Scope = EVERYTHING, facets: frozenset[Facet] = ALL_FACETS) -> HostObservation:
        """Look, and remember who is who and who runs."""
        observed = await self.observer.observe(scope, facets)
        self._remember(observed)
        return observed

    async def look(self) -> HostObservation:
        """Look at what is compared, and at nothing else."""
        return await self.observe(STATE)

    def _remember(self, observed: HostObservation) -> None:
        if isinstance(observed.pool, PoolObservation):
            self.pool = observed.pool.size
        if observed.complete:
            self.settled.keep_only(observed.ves.keys())
            self.names.clear()
            self.records = {uid: record for uid, record in self.records.items() if uid in observed.ves}
            self.running &= {ve.record.name for ve in observed.ves.values() if isinstance(ve.record, Record)}
        for uid, seen in observed.ves.items():
            if not isinstance(seen.record, Record):
                continue
            name = seen.record.name
            self.names[uid], self.records[uid] = name, seen.record
            if isinstance(seen.power, PowerObservation):
                is_running = seen.power.state is PowerState.RUNNING
                (self.running.add if is_running else self.running.discard)(name)

    async def observe_ve(self, name: VeName) -> HostObservation:
        """Look at one VE alone."""
        return await self.observe(Scope(uids=self._uids(name), host=False, use=False))

    async def converge(self, *, passes: int = 3) -> list[Result]:
        """Pass over everything until nothing changes any more, at most ``passes`` times that changed something."""
        results: list[Result] = []
        while len(results) <= passes:
            result = await self.pass_all()
            results.append(result)
            if not any(outcome.ok for outcome in result.outcomes) or any(not o.ok for o in result.outcomes):
                break
        return results

    async def pass_all(self) -> Result:
        """Make one pass over the host and all its VEs."""
        inputs, plan = await self.plan(await self.look())
        return await self.carry_out(inputs, plan)

    async def carry_out(self, inputs: Inputs, plan: Plan) -> Result:
        """Apply a plan and write down what came of it."""
        self.desk.keep_inventory(inputs.observed, self.fleet.ves.keys())
        self.reviewer.note(plan, inputs.consents, is_whole=True)
        allowed, holds = await self._part(plan.actions, inputs)
        plan = replace(plan, actions=allowed)
        outcomes = await self._apply(plan, inputs)
        self._record(plan, outcomes)
        result = Result(observed=inputs.observed, plan=plan, outcomes=outcomes, holds=holds)
        await self._take_in_restored(outcomes)
        self._publish(result, self._specs_here(inputs))
        return result

    def _record(self, plan: Plan, outcomes: Sequence[Outcome]) -> None:
        """Write down for the audit what was carried out of a plan of the whole host."""
        self.desk.recorder.planned(plan)
        self.desk.recorder.outcomes(plan, outcomes)

    def _specs_here(self, inputs: Inputs) -> tuple[VeSpec, ...]:
        """Give the VEs of this host as the revision has them that a plan was made for, even where it is held back."""
        fleet = self.fleet if self.fleet.revision == inputs.fleet.revision else inputs.fleet
        return tuple(spec for spec in fleet.ves.values() if is_here(spec, self.desk.instance.host))

    def _publish(self, result: Result, specs: Iterable[VeSpec]) -> None:
        """Write down what came of a pass over the host."""
        publish.note_networks(self.desk, self.fleet, result)
        publish.publish_networks(self.desk, result)
        self._short_of = publish.tell_shortfall(self.desk, self.fleet, result, told=self._short_of)
        publish.publish(self.desk, result, specs)
        publish.publish_unclaimed(self.desk, result, frozenset(self.names.values()) - self.fleet.ves.keys())

    async def pass_host(self) -> tuple[Result, tuple[VeName, ...]]:
        """Make one pass over the host's own objects and removals; name the VEs that need a pass of their own."""
        inputs, plan = await self.plan(await self.look())
        self.desk.keep_inventory(inputs.observed, self.fleet.ves.keys())
        self.reviewer.note(plan, inputs.consents, is_whole=True)
        wanted = tuple(dict.fromkeys(VeName(action.ve) for action in plan.actions if not _is_of_host(action)))
        own, holds = await self._part([action for action in plan.actions if _is_of_host(action)], inputs)
        outcomes = await self._apply_own(replace(plan, actions=own), inputs)
        self._record(plan, outcomes)
        result = Result(observed=inputs.observed, plan=plan, outcomes=outcomes, holds=holds)
        self._publish(result, (spec for spec in self._specs_here(inputs) if spec.name not in wanted))
        return result, wanted

    async def _apply_own(self, plan: Plan, inputs: Inputs) -> list[Outcome]:
        async with AsyncExitStack() as held:
            for name in sorted({VeName(action.ve) for action in plan.actions if action.uid is not None}):
                await held.enter_async_context(self.lock(name))
            if self.fleet.revision != inputs.fleet.revision:  # it was replaced meanwhile: nothing is removed for it
                return []
            return await self._apply(plan, inputs)

    async def _apply(self, plan: Plan, inputs: Inputs) -> list[Outcome]:
        """Apply a plan of the host; what could cut that off with somebody who takes it back."""
        apply = self.applier().apply
        return await apply(plan, inputs) if self.guard is None else await self.guard.carry(plan, inputs, apply)

    async def pass_ve(self, name: VeName) -> Result:
        """Make one pass over one VE."""
        async with self.lock(name):
            return await self._pass_ve(name)

    async def _pass_ve(self, name: VeName) -> Result:
        inputs = self.inputs(await self._look_for(name))
        if inputs.observed.complete:
            inputs = self._with_removal(inputs)
            unborn = [unborn for unborn in planner.unborn(inputs) if unborn == name]
            inputs = await self._allocated(inputs, unborn, self.desk.coordinator)
        inputs, plan = planner.plan_reviewed(inputs, frozenset({name}))
        self.reviewer.note(plan, inputs.consents, is_whole=False)
        allowed, holds = await self._part(plan.actions, inputs)
        plan = replace(plan, actions=allowed)
        outcomes = await self._apply_ve(name, plan, inputs)
        self.desk.recorder.outcomes(plan, outcomes)
        result = Result(observed=inputs.observed, plan=plan, outcomes=outcomes, holds=holds)
        await self._take_in_restored(outcomes)
        publish.publish(self.desk, result, (spec for spec in self._specs_here(inputs) if spec.name == name))
        return result

    async def _look_for(self, name: VeName) -> HostObservation:
        """Look at one VE; one that should be here and is not known to be is looked for everywhere, in the trash too."""
        spec = self._spec(name)
        if spec is None or not is_here(spec, self.desk.instance.host):
            return await self.observe_ve(name)
        if self.is_to_be_cloned(spec):
            return await self.look()
        if not self._uids(name):
            everything = await self.observe(STATE, _RECORDS)
            if not self._uids(name):
                return everything
        seen = await self.observe_ve(name)
        return seen if seen.ves else await self.observe(STATE, _RECORDS)

    def is_to_be_cloned(self, spec: VeSpec) -> bool:
        """Say whether the data of a VE is still to come from another one, which has to be looked at too."""
        if not isinstance(spec.source, CloneSource):
            return False
        records = (self.records.get(uid) for uid in self._uids(spec.name))
        return not any(record is not None and record.applied for record in records)

    async def _apply_ve(self, name: VeName, plan: Plan, inputs: Inputs) -> list[Outcome]:
        if any(action.phase is Phase.RESTART for action in plan.actions):
            self._restarting.add(name)
        if any(_moves_memory(action) for action in plan.actions):
            self._moving_memory.add(name)
        try:
            outcomes = await self.applier().apply_group(plan.actions, inputs)
        finally:
            self._restarting.discard(name)
            self._moving_memory.discard(name)
        for outcome in outcomes:
            if outcome.seen is not None:
                self._remember(outcome.seen)
        return outcomes

    async def _part(self, actions: Sequence[Action], inputs: Inputs) -> tuple[tuple[Action, ...], list[Hold]]:
        """Part what may be done now from what has to wait; a record does not tell of what waits."""
        gated = [] if self.membership is None else await self.membership.holds(actions, inputs.observed.ves)
        if self.patience is None and not gated:
            return tuple(actions), []
        return self._hold_back(actions, {hold.action.id: hold for hold in gated})

    def _hold_back(self, actions: Sequence[Action], gated: Mapping[str, Hold]) -> tuple[tuple[Action, ...], list[Hold]]:
        now = self.desk.clock.monotonic()
        judged = [(action, gated.get(action.id) or self._too_soon(action, now)) for action in actions]
        holds = [hold for _, hold in judged if hold is not None]
        allowed = tuple(action for action, hold in judged if hold is None)
        if any(power.resumes(hold.action) for hold in holds):
            allowed = tuple(action for action in allowed if action.phase is not Phase.RESTART)
        if any(hold.action.origin is Origin.GIT for hold in holds):
            allowed = tuple(action for action in allowed if action.effects and not render.is_bookkeeping(action))
        return allowed, holds

    def _too_soon(self, action: Action, now: float) -> Hold | None:
        return None if self.patience is None else self._wave(action) or self.patience.hold(action, now)

    def _wave(self, action: Action) -> Hold | None:
        """Hold a restart back while as many VEs restart as may at once, and what takes long as long as it would leave
        nobody to look after the other VEs.
        """
        if action.phase is Phase.RESTART and len(self._restarting) >= self.max_restarts:
            message = f"waits for {', '.join(sorted(self._restarting))} to be up again"
            return Hold(action=action, reason="RestartWave", message=message, wait_s=WAVE_S, stalled=False)
        if _moves_memory(action) and len(self._moving_memory) >= max(1, self.workers // 2):
            message = f"waits for the memory of {', '.join(sorted(self._moving_memory))}"
            return Hold(action=action, reason="MemoryWave", message=message, wait_s=WAVE_S, stalled=False)
        return None

    def pause_ends_in(self) -> float | None:
        """Give the time until the next pause ends by itself; None, if none does. Units: seconds."""
        now = self.desk.clock.now()
        ends = [pause.until for pause in self.desk.pauses.in_force(now) if pause.until is not None]
        return max(0.0, min(ends) - now) if ends else None

    def _spec(self, name: VeName) -> VeSpec | None:
        """Give what a VE is held to: the manifests that are in force, or the former ones, where it must not go yet."""
        return self.fleet.ves.get(name) or self.reviewer.held(name)

    def _uids(self, name: VeName) -> frozenset[Uid]:
        spec = self._spec(name)
        if spec is None:
            return frozenset()
        if spec.uid is not None:
            return frozenset({spec.uid} & self.names.keys())
        return frozenset(uid for uid, known in self.names.items() if known in (name, spec.renamed_from))

    async def _take_in_restored(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.action.op is Operation.RESTORE and outcome.ok and outcome.action.uid is not None:
                await self.take_in(outcome.action.uid)

    async def take_in(self, uid: Uid) -> None:
        """Put a VE that came back from the trash into the inventory again, so that it may be pruned later."""
        seen = await self.observe(Scope(uids=frozenset({uid}), host=False))
        record = seen.ves[uid].record
        if isinstance(record, Record):
            source, phase = self.desk.source, InventoryPhase.PRESENT
            entry = Entry(uid=uid, name=record.name, source=source, id_base=record.id_base, phase=phase)
            self.desk.inventory.put(entry)

    def lock(self, name: VeName) -> asyncio.Lock:
        """Give the lock of a VE: whoever changes it holds it."""
        return self._locks.setdefault(name, asyncio.Lock())


def _plan_between(base: Fleet, head: Fleet, host: HostName) -> Plan:
    from reconciler.agent.between import plan_between  # a whole host in memory, for those who ask for reviews

    return plan_between(base, head, host)


def _moves_memory(action: Action) -> bool:
    return power.suspends(action) or power.resumes(action)


def _is_of_host(action: Action) -> bool:
    """Say whether an action is of the host's own objects, or a removal, and not of a VE's own pass."""
    return action.uid is None or action.phase in (Phase.DESTROY, Phase.PURGE)
