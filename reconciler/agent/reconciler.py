"""Passes: observe, plan, apply, observe again; for the host as a whole, and for one VE."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from reconciler.agent import status
from reconciler.agent.desk import Desk, DeskBooks
from reconciler.agent.patience import Hold, Patience
from reconciler.apply.applier import Applier, Outcome
from reconciler.model.action import Action, Operation, Phase, Plan
from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.identity import Allocation, Uid, VeName
from reconciler.model.observation import ALL_FACETS, EVERYTHING, STATE_FACETS, Facet, HostObservation, Scope
from reconciler.model.power import PowerObservation, PowerState
from reconciler.model.seam import Coordinator, Effects, Observer
from reconciler.model.volume import Record
from reconciler.plan import compute, planner
from reconciler.state.inventory import Entry
from reconciler.state.inventory import Phase as InventoryPhase
from reconciler.state.pause import pause_of


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
    """Drives one host. ``fleet`` is the revision in force; ``prune_pending`` names VEs whose absence is too young."""

    desk: Desk
    observer: Observer
    effects: Effects
    fleet: Fleet
    prune: bool = True
    workers: int = 4
    max_restarts: int = 1
    trash_keep_s: float = planner.TRASH_KEEP_S
    prune_pending: frozenset[VeName] = frozenset()
    on_step: Callable[[Action, str], None] = field(default=lambda action, step: None)
    names: dict[Uid, VeName] = field(default_factory=dict)
    running: set[VeName] = field(default_factory=set)
    patience: Patience | None = None
    _locks: dict[VeName, asyncio.Lock] = field(default_factory=dict)

    async def plan(
        self, observed: HostObservation, *, coordinator: Coordinator | None = None
    ) -> tuple[planner.Inputs, Plan]:
        """Plan the whole host from an observation; VEs that are not here yet get their identity allocated."""
        inputs = self._with_removal(self.inputs(observed))
        inputs = replace(inputs, allocations=await self._allocate(planner.unborn(inputs), coordinator))
        return inputs, planner.plan_host(inputs)

    def inputs(self, observed: HostObservation) -> planner.Inputs:
        """Gather what the plan of a VE depends on."""
        desk, now = self.desk, self.desk.clock.now()
        return planner.Inputs(
            instance=desk.instance.name,
            host=desk.instance.host,
            source=desk.source,
            fleet=self.fleet,
            observed=observed,
            now=now,
            consents=frozenset(consent.hash for consent in desk.approvals.in_force(now)),
            paused={pause.ve or "*": pause.reason for pause in desk.pauses.in_force(now)},
            measured={(op.value, path): seconds for (op, path), seconds in desk.history.medians().items()},
            running_elsewhere=frozenset(self.running),
        )

    def _with_removal(self, inputs: planner.Inputs) -> planner.Inputs:
        """Add what removals depend on besides."""
        desk = self.desk
        ours = (uid for uid, entry in desk.inventory.read().items() if isinstance(entry, Entry))
        removed = sum(removal.source == desk.source for removal in desk.removals.recent(inputs.now))
        return replace(
            inputs,
            inventory=frozenset(ours),
            prune=self.prune,
            prune_pending=self.prune_pending,
            removed_recently=removed,
            trash_keep_s=self.trash_keep_s,
        )

    async def _allocate(self, names: Iterable[VeName], coordinator: Coordinator | None) -> dict[VeName, Allocation]:
        giver = coordinator or self.desk.coordinator
        specs = self.fleet.ves
        return {name: await giver.allocate(name, uid=specs[name].uid) for name in names}

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
        return await self.observe(EVERYTHING, STATE_FACETS)

    def _remember(self, observed: HostObservation) -> None:
        if observed.complete:
            self.names.clear()
            self.running &= {ve.record.name for ve in observed.ves.values() if isinstance(ve.record, Record)}
        for uid, seen in observed.ves.items():
            if not isinstance(seen.record, Record):
                continue
            name = seen.record.name
            self.names[uid] = name
            if isinstance(seen.power, PowerObservation):
                is_running = seen.power.state is PowerState.RUNNING
                (self.running.add if is_running else self.running.discard)(name)

    async def observe_ve(self, name: VeName) -> HostObservation:
        """Look at one VE alone."""
        return await self.observe(Scope(uids=self._uids(name), host=False), STATE_FACETS)

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

    async def carry_out(self, inputs: planner.Inputs, plan: Plan) -> Result:
        """Apply a plan and write down what came of it."""
        outcomes = await self.applier().apply(plan, inputs)
        result = Result(observed=inputs.observed, plan=plan, outcomes=outcomes)
        await self._take_in_restored(outcomes)
        self.publish(result, (spec for spec in planner.specs_here(inputs)))
        return result

    async def pass_host(self) -> tuple[Result, tuple[VeName, ...]]:
        """Make one pass over the host's own objects and removals; name the VEs that need a pass of their own."""
        observed = await self.look()
        inputs, plan = await self.plan(observed)
        own = tuple(a for a in plan.actions if a.uid is None or a.phase in (Phase.DESTROY, Phase.PURGE))
        async with AsyncExitStack() as held:
            for name in sorted({VeName(action.ve) for action in own if action.uid is not None}):
                await held.enter_async_context(self.lock(name))
            outcomes = await self.applier().apply(replace(plan, actions=own), inputs)
        result = Result(observed=observed, plan=plan, outcomes=outcomes)
        wanted = dict.fromkeys(VeName(a.ve) for a in plan.actions if a not in own)
        self.publish(result, (spec for spec in planner.specs_here(inputs) if spec.name not in wanted))
        return result, tuple(wanted)

    async def pass_ve(self, name: VeName) -> Result:
        """Make one pass over one VE."""
        async with self.lock(name):
            return await self._pass_ve(name)

    async def _pass_ve(self, name: VeName) -> Result:
        inputs = self.inputs(await self._look_for(name))
        inputs = replace(inputs, allocations=await self._allocate(self._unborn(inputs, name), None))
        plan, holds = self._hold_back(planner.plan_ves(inputs, frozenset({name})))
        outcomes = await self.applier().apply_group(plan.actions, inputs)
        result = Result(observed=inputs.observed, plan=plan, outcomes=outcomes, holds=holds)
        await self._take_in_restored(outcomes)
        self.publish(result, (spec for spec in planner.specs_here(inputs) if spec.name == name))
        return result

    async def _look_for(self, name: VeName) -> HostObservation:
        """Look at one VE; one that is not known to be here is looked for everywhere, the trash included."""
        if not self._uids(name):
            everything = await self.observe(facets=frozenset({Facet.POWER}))
            if not self._uids(name):
                return everything
        return await self.observe_ve(name)

    def _hold_back(self, plan: Plan) -> tuple[Plan, list[Hold]]:
        if self.patience is None:
            return plan, []
        now = self.desk.clock.monotonic()
        judged = [(action, self.patience.hold(action, now)) for action in plan.actions]
        allowed = tuple(action for action, hold in judged if hold is None)
        return replace(plan, actions=allowed), [hold for _, hold in judged if hold is not None]

    def _uids(self, name: VeName) -> frozenset[Uid]:
        spec = self.fleet.ves.get(name)
        if spec is None:
            return frozenset()
        if spec.uid is not None:
            return frozenset({spec.uid} & self.names.keys())
        return frozenset(uid for uid, known in self.names.items() if known in (name, spec.renamed_from))

    def _unborn(self, inputs: planner.Inputs, name: VeName) -> tuple[VeName, ...]:
        return tuple(unborn for unborn in planner.unborn(inputs) if unborn == name)

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

    def publish(self, result: Result, specs: Iterable[VeSpec]) -> None:
        """Write the conditions of VEs after a pass."""
        now = self.desk.clock.now()
        pauses = self.desk.pauses.in_force(now)
        for spec in specs:
            pause = pause_of(spec.name, pauses)
            seen = status.Seen(
                name=spec.name,
                revision=self.fleet.revision,
                plan=result.plan,
                outcomes=result.outcomes,
                protected=bool(spec.protect),
                paused=pause.reason if pause else "",
                unenforceable=compute.unenforceable(spec.compute, result.observed.capabilities),
                holds=[hold for hold in result.holds if hold.action.ve == spec.name],
            )
            self.desk.conditions.put(spec.name, status.conditions(seen), now=now)


def is_settled(result: Result) -> bool:
    """Say whether a result asks for no further pass by itself."""
    return not result.plan.actions and not result.plan.unknown and not result.plan.waiting
