"""The planner: one host's plan for one revision, or the part of it that concerns a few VEs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from reconciler.model.action import Action, Operation, Plan, Refusal, UnknownFact
from reconciler.model.capacity import Resource, Supply, bounded, machine_of, supplies
from reconciler.model.compute import Limit
from reconciler.model.facts import Json, JsonMap, Unknown
from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.identity import Allocation, HostName, NetworkName, Uid, VeName
from reconciler.model.network import LoadFilter
from reconciler.model.observation import HostObservation, VeObservation
from reconciler.model.policy import DEFAULT_POLICY, Policy
from reconciler.model.power import PowerObservation, PowerState
from reconciler.model.volume import Record
from reconciler.plan import capacity, consent, cpu_share, hashes, host_compute, host_network, policy, prune, ve
from reconciler.plan.actions import Context
from reconciler.plan.matching import Matches, match
from reconciler.plan.members import Member, as_applied, find_members, used_names
from reconciler.plan.settled import Settled

TRASH_KEEP_S = 7 * 86400.0
"""How long removed data is kept. Units: seconds."""

_NO_NETWORKS: Mapping[NetworkName, JsonMap] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What an earlier look told of a host: records by VE, and the size of the pool, if it was seen. Units: bytes."""

    records: Mapping[Uid, Record] = field(default_factory=dict)
    pool: int | None = None


NOTHING_KNOWN = Known()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """All that a plan depends on.

    ``allocations``: identities of VEs that are not here yet; ``unallocated``: why one has none. ``paused``: reason by
    name; ``"*"`` pauses all. ``consents``: hashes that a person approved and that have not expired.
    ``removed_recently``: how many VEs left this host within a day; of those ``removed_from_source`` came from
    ``source``. ``running_elsewhere``: VEs out of the observation's scope that run. ``known``: what an earlier look
    tells of the host beyond that scope. ``applied_networks``: what was carried out last, as
    `host_network.record_values` gives it. ``settled``: what former plans found out; it saves time and decides nothing.
    Units: seconds; ``now`` since the epoch.
    """

    instance: str
    host: HostName
    source: str
    fleet: Fleet
    observed: HostObservation
    allocations: Mapping[VeName, Allocation] = field(default_factory=dict)
    unallocated: Mapping[VeName, str] = field(default_factory=dict)
    inventory: frozenset[Uid] = frozenset()
    now: float = 0.0
    prune: bool = True
    prune_pending: frozenset[VeName] = frozenset()
    removed_recently: int = 0
    removed_from_source: int = 0
    consents: frozenset[str] = frozenset()
    paused: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[tuple[str, str], float] = field(default_factory=dict)
    trash_keep_s: float = TRASH_KEEP_S
    running_elsewhere: frozenset[VeName] = frozenset()
    known: Known = NOTHING_KNOWN
    applied_networks: Mapping[NetworkName, JsonMap] = field(default_factory=dict)
    policy: Policy = DEFAULT_POLICY
    settled: Settled = field(default_factory=Settled, repr=False, compare=False)


def is_here(spec: VeSpec, host: HostName) -> bool:
    """Say whether a VE belongs on this host; one without a host belongs on the only one there is."""
    return spec.host is None or spec.host == host


def specs_here(inputs: Inputs) -> tuple[VeSpec, ...]:
    """Give the VEs of this host in boot order."""
    here = (spec for spec in inputs.fleet.ves.values() if is_here(spec, inputs.host))
    return tuple(sorted(here, key=lambda spec: (spec.power.order, spec.name)))


def unborn(inputs: Inputs) -> tuple[VeName, ...]:
    """Name the VEs that need an allocation before a plan can be made."""
    if _doubt(inputs):
        return ()
    matches = _match(inputs)
    if not matches.new:
        return ()
    refused = _refuse(inputs, matches, only=None)
    return tuple(spec.name for spec in matches.new if not spec.unsupported and spec.name not in refused)


def plan_host(inputs: Inputs) -> Plan:
    """Plan the whole host: its networks, its filter, every VE, removals, and what the trash lets go."""
    whole = _Whole(inputs)
    actions = [action for part in whole.parts.values() for action in part.actions]
    actions += [*whole.removal.actions, *_plan_instance(whole), *_plan_networks(whole)]
    trash = inputs.observed.trash
    if not isinstance(trash, Unknown) and "*" not in inputs.paused:
        actions += prune.plan_purge(trash, inputs.now, inputs.trash_keep_s)
    made = _assemble(inputs, actions, whole.parts, whole.removal)
    return replace(made, unknown=(*made.unknown, *_unknown_of_host(inputs.observed)))


def plan_ves(inputs: Inputs, names: frozenset[VeName]) -> Plan:
    """Plan only the VEs that are named, from an observation that holds at least them; nothing is removed.

    A VE that is not in it is made only if the observation is of everything.
    """
    matches = _match(inputs)
    plans = _plan_ves(inputs, matches, _refuse(inputs, matches, only=names), only=names)
    parts = dict(plans)
    actions = [action for part in parts.values() for action in part.actions]
    return _assemble(inputs, actions, parts, prune.PrunePlan())


def unfulfilled(inputs: Inputs, action: Action) -> str:
    """Say what an action failed to bring about, judged from ``inputs.observed`` of afterwards, or "" if all is so."""
    if action.uid is None:
        return _host_unfulfilled(inputs, action)
    seen = inputs.observed.ves.get(action.uid)
    if action.op is Operation.DESTROY and action.path == "trash":
        trash = inputs.observed.trash
        left = isinstance(trash, Unknown) or any(entry.id == action.before for entry in trash)
        return "its data is still in the trash" if left else ""
    if action.op in (Operation.DESTROY, Operation.RESTORE):
        there = seen is not None
        is_right = there is (action.op is Operation.RESTORE)
        return "" if is_right else f"{action.ve} is {'still' if there else 'not'} there"
    spec = inputs.fleet.ves.get(VeName(action.ve))
    assert spec is not None, f"{action.id}: an action without a spec"
    if seen is not None and _short(inputs, only=frozenset({spec.name})):
        spec = _held(spec, seen)
    return ve.unfulfilled(action, spec, seen, _context(inputs))


def _host_unfulfilled(inputs: Inputs, action: Action) -> str:
    if action.ve == host_compute.TARGET:
        return _instance_unfulfilled(inputs.observed, action)
    networks, loaded = inputs.observed.networks, inputs.observed.filter
    if isinstance(networks, Unknown) or isinstance(loaded, Unknown):
        return "the host's networks could not be read"
    if action.ve == host_network.FILTER_TARGET:
        wanted = [effect.rules for effect in action.effects if isinstance(effect, LoadFilter)]
        return "" if [loaded.rules] == wanted else "the kernel does not hold the rules that were loaded"
    name = host_network.network_of(action.ve)
    if action.op is Operation.DESTROY:
        return "it is still there" if name in networks else ""
    seen = {n: s for n, s in networks.items() if n == name}
    again = host_network.plan_networks({name: inputs.fleet.networks[name]}, seen, _NO_NETWORKS)
    left = [a for a in again if action.op is Operation.CREATE or a.path == action.path]
    return f"{left[0].path or name} is still {left[0].before!r}, not {left[0].after!r}" if left else ""


def _instance_unfulfilled(observed: HostObservation, action: Action) -> str:
    if isinstance(observed.compute, Unknown):
        return f"the instance's cgroup could not be read: {observed.compute.reason}"
    value = observed.compute.limits.get(Limit(action.path))
    return "" if value == action.after else f"{action.path} is still {value!r}, not {action.after!r}"


class _Whole:
    """Everything on the host, matched and planned."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.matches = _match(inputs)
        self.refused = _refuse(inputs, self.matches, only=None)
        self.parts = dict(_plan_ves(inputs, self.matches, self.refused, only=None))
        self.removal = _plan_removal(inputs, self.matches)
        self.members = tuple(self._find_members())
        self.networks = host_network.used_networks(self.members, inputs.fleet.networks)

    def _find_members(self) -> Iterator[Member]:
        inputs = self.inputs
        still = (n for n, p in self.parts.items() if p.unknown or (p.refused and not p.actions))
        paused = (spec.name for spec in specs_here(inputs) if _pause(inputs, spec.name) is not None)
        return find_members(
            self.matches,
            allocations=inputs.allocations,
            networks=inputs.fleet.networks,
            untouched=frozenset((*still, *paused)),
        )


def _match(inputs: Inputs) -> Matches:
    trash = inputs.observed.trash
    return match(specs_here(inputs), inputs.observed.ves, () if isinstance(trash, Unknown) else trash)


def _blind(inputs: Inputs) -> list[Uid]:
    return sorted(uid for uid, seen in inputs.observed.ves.items() if isinstance(seen.record, Unknown))


def _doubt(inputs: Inputs) -> str:
    """Say why a VE that was not found may be here all the same, or ""."""
    observed = inputs.observed
    if not observed.complete:
        return "not all VEs of the host could be listed"
    if isinstance(observed.trash, Unknown):
        return f"it may be in the trash, which cannot be read: {observed.trash.reason}"
    blind = _blind(inputs)
    return f"it may be {blind[0]}, whose record cannot be read" if blind else ""


def _context(inputs: Inputs) -> Context:
    return Context(
        instance=inputs.instance,
        source=inputs.source,
        now=inputs.now,
        capabilities=inputs.observed.capabilities,
        templates=inputs.fleet.templates,
        running=frozenset(_running(inputs.observed.ves.values())) | inputs.running_elsewhere,
        cpu_weights=_cpu_weights(inputs),
        measured=inputs.measured,
        policy=inputs.policy,
    )


def _cpu_weights(inputs: Inputs) -> Mapping[VeName, int]:
    key = inputs.host, inputs.observed.capabilities.cpus
    known = inputs.fleet.cpu_weights.get(key)
    if known is None:
        specs = {spec.name: spec.compute for spec in specs_here(inputs)}
        known = inputs.fleet.cpu_weights[key] = cpu_share.effective_weights(
            specs, key[1], reserve_us=_cpu_reserve(inputs)
        )
    return known


def _cpu_reserve(inputs: Inputs) -> int:
    return host_compute.reserve_us(inputs.fleet.hosts.get(inputs.host), inputs.observed.capabilities)


def _running(ves: Iterable[VeObservation]) -> Iterator[VeName]:
    for seen in ves:
        running = isinstance(seen.power, PowerObservation) and seen.power.state is PowerState.RUNNING
        if running and isinstance(seen.record, Record):
            yield seen.record.name


def _plan_ves(
    inputs: Inputs, matches: Matches, refused: Mapping[VeName, Refusal], *, only: frozenset[VeName] | None
) -> Iterator[tuple[VeName, ve.VePlan]]:
    context, doubt = _context(inputs), _doubt(inputs)
    inputs.settled.enter(context)
    for spec, observed in matches.existing:
        if only is None or spec.name in only:
            part = _plan_existing(inputs, spec, observed, context, refused.get(spec.name))
            yield spec.name, _unless_paused(inputs, spec, part)
    entries = {spec.name: entry for spec, entry in matches.trashed}
    for spec in (*(spec for spec, _ in matches.trashed), *matches.new):
        if only is not None and spec.name not in only:
            continue
        if doubt:
            yield spec.name, ve.VePlan(unknown=(UnknownFact(ve=spec.name, reason=doubt),))
        elif spec.name in refused:
            yield spec.name, ve.VePlan(refused=(refused[spec.name],))
        elif entry := entries.get(spec.name):
            yield spec.name, _unless_paused(inputs, spec, ve.plan_restored(spec, entry, context))
        else:
            yield spec.name, _unless_paused(inputs, spec, _plan_new(inputs, spec, context))


def _plan_existing(
    inputs: Inputs, spec: VeSpec, observed: VeObservation, context: Context, refused: Refusal | None
) -> ve.VePlan:
    """Plan a VE that is here; one that cannot have more than it has is held to that, and to the rest of its spec."""
    if refused is None:
        return inputs.settled.plan(spec, observed, context)
    if isinstance(observed.record, Record) and not observed.record.applied:
        return ve.VePlan(refused=(refused,))
    part = ve.plan_existing(_held(spec, observed), observed, context)
    return replace(part, refused=(*part.refused, refused))


def _held(spec: VeSpec, seen: VeObservation) -> VeSpec:
    """Give a spec without what its VE asks for beyond what it has."""
    record = seen.record
    return spec if isinstance(record, Unknown) or not record.applied else capacity.held_to(spec, record.applied)


def _plan_new(inputs: Inputs, spec: VeSpec, context: Context) -> ve.VePlan:
    allocation = inputs.allocations.get(spec.name)
    if allocation is None and not spec.unsupported:
        reason = inputs.unallocated.get(spec.name, "no identity was allocated to it")
        return ve.VePlan(unknown=(UnknownFact(ve=spec.name, reason=reason),))
    return ve.plan_new(spec, allocation or Allocation(uid=Uid(""), id_base=0), context)


def _unless_paused(inputs: Inputs, spec: VeSpec, part: ve.VePlan) -> ve.VePlan:
    reason = _pause(inputs, spec.name)
    if reason is None or not part.actions:
        return part
    return ve.VePlan(unknown=part.unknown, waiting=f"paused: {reason}", warned=part.warned)


def _pause(inputs: Inputs, name: VeName) -> str | None:
    return inputs.paused.get(name, inputs.paused.get("*"))


def _refuse(inputs: Inputs, matches: Matches, *, only: frozenset[VeName] | None) -> dict[VeName, Refusal]:
    """Refuse what the VEs of the host decide together: who is who, how many they are, and what they share."""
    return {**_short(inputs, only=only), **_refuse_births(inputs, matches)}


def _refuse_births(inputs: Inputs, matches: Matches) -> dict[VeName, Refusal]:
    names = frozenset(inputs.fleet.ves)
    coming = (*(spec for spec, _ in matches.trashed), *matches.new)
    return {
        **policy.refuse_births(inputs.policy, coming, present=len(inputs.observed.ves)),
        **prune.refuse_renames(matches.unclaimed, matches.new, names, _prune_rules(inputs)),
        **prune.refuse_taken_names(matches.unclaimed, coming),
    }


def _short(inputs: Inputs, *, only: frozenset[VeName] | None) -> dict[VeName, Refusal]:
    """Refuse the VEs that the host has no room for. It takes a look at all of them, so only where some want more."""
    observed = {uid: seen.record for uid, seen in inputs.observed.ves.items() if isinstance(seen.record, Record)}
    supply, ves = _supply(inputs), inputs.fleet.ves
    asking = [ves[name] for name in (ves if only is None else only) if name in ves]
    asking = capacity.growing(asking, observed, bounded(supply))
    if not asking:
        return {}
    records = {**inputs.known.records, **observed}
    if not capacity.growing(asking, records, bounded(supply)):
        return {}
    request = capacity.Request(
        host=inputs.host,
        specs=specs_here(inputs),
        records=records,
        supply=supply,
        is_held_back=_is_held_back(inputs),
    )
    found = capacity.refused(request)
    return {name: refusal for name, refusal in found.items() if only is None or name in only}


def _supply(inputs: Inputs) -> dict[Resource, Supply]:
    machine = machine_of(inputs.observed)
    if Resource.DISK not in machine and inputs.known.pool is not None:
        machine[Resource.DISK] = inputs.known.pool
    return supplies(inputs.fleet.hosts.get(inputs.host), machine)


def _is_held_back(inputs: Inputs) -> Callable[[VeSpec, Mapping[str, Json]], bool]:
    context = _context(inputs)

    def is_held_back(spec: VeSpec, applied: Mapping[str, Json]) -> bool:
        return _pause(inputs, spec.name) is not None or bool(ve.refuse_at_all(spec, context, applied))

    return is_held_back


def _plan_removal(inputs: Inputs, matches: Matches) -> prune.PrunePlan:
    if not inputs.observed.complete:
        return prune.PrunePlan(
            unknown=(UnknownFact(reason="not all VEs of the host could be read; nothing is removed"),)
        )
    if "*" in inputs.paused:
        return prune.PrunePlan()
    unclaimed = [seen for seen in matches.unclaimed if not _is_paused(inputs, seen)]
    return prune.plan_prune(unclaimed, matches.new, frozenset(inputs.fleet.ves), _prune_rules(inputs))


def _prune_rules(inputs: Inputs) -> prune.PruneRules:
    records = [seen.record for seen in inputs.observed.ves.values()]
    ours = sum(isinstance(record, Record) and record.source == inputs.source for record in records)
    return prune.PruneRules(
        source=inputs.source,
        inventory=inputs.inventory,
        on=inputs.prune,
        pending=inputs.prune_pending,
        of_host=prune.Stock(present=len(records), removed=inputs.removed_recently),
        of_source=prune.Stock(present=ours, removed=inputs.removed_from_source),
    )


def _is_paused(inputs: Inputs, seen: VeObservation) -> bool:
    return isinstance(seen.record, Record) and seen.record.name in inputs.paused


def _plan_instance(whole: _Whole) -> Iterator[Action]:
    inputs, observed = whole.inputs, whole.inputs.observed
    if isinstance(observed.compute, Unknown) or "*" in inputs.paused or not observed.complete or _blind(inputs):
        return
    specs = [spec.compute for spec in _admitted(whole)]
    specs += host_compute.as_applied(whole.matches.unclaimed)
    before = host_compute.as_applied(observed.ves.values())
    yield from host_compute.plan_instance(
        specs, tuple(before), observed.compute, observed.capabilities, reserve=_cpu_reserve(inputs)
    )


def _admitted(whole: _Whole) -> Iterator[VeSpec]:
    """Yield what is carried out of the specs of this host: nothing of VEs that are refused before they are made."""
    for spec, seen in whole.matches.existing:
        yield _held(spec, seen) if spec.name in whole.refused else spec
    coming = (*(spec for spec, _ in whole.matches.trashed), *whole.matches.new)
    yield from (spec for spec in coming if spec.name not in whole.refused)


def _plan_networks(whole: _Whole) -> Iterator[Action]:
    inputs, observed = whole.inputs, whole.inputs.observed
    if isinstance(observed.networks, Unknown) or isinstance(observed.filter, Unknown):
        return
    if "*" in inputs.paused or not observed.complete:
        return
    in_use = used_names(whole.members) | used_names(as_applied(observed.ves.values(), inputs.fleet.networks))
    blind = _blind(inputs)
    kept = observed.networks.keys() if blind else in_use
    removable = {n: s for n, s in observed.networks.items() if n in whole.networks or n not in kept}
    yield from host_network.plan_networks(whole.networks, removable, inputs.applied_networks)
    rules = host_network.filter_rules(inputs.instance, whole.members, whole.networks)
    if blind:
        rules = host_network.with_strangers(rules, observed.filter.rules)
    else:
        kept_on = frozenset(kept) & (observed.networks.keys() - whole.networks.keys())
        before = observed.filter.rules
        rules = host_network.with_undeclared(rules, before, inputs.instance, on=kept_on, members=whole.members)
    yield from host_network.plan_filter(rules, observed.filter, changed=observed.filter.rules is not None)


def _unknown_of_host(observed: HostObservation) -> Iterator[UnknownFact]:
    facts = {
        "compute": observed.compute,
        "networks": observed.networks,
        "filter": observed.filter,
        "trash": observed.trash,
    }
    for name, fact in facts.items():
        if isinstance(fact, Unknown):
            yield UnknownFact(path=name, reason=fact.reason)


def _assemble(
    inputs: Inputs, actions: list[Action], parts: Mapping[VeName, ve.VePlan], removal: prune.PrunePlan
) -> Plan:
    by_ve = hashes.ve_hashes(inputs.host, actions)
    whole = hashes.action_hash(by_ve.values())
    terms = consent.Terms(ve_hashes=by_ve, whole=whole, given=inputs.consents, mass=removal.mass)
    allowed, unconsented = consent.part(actions, terms)
    return Plan(
        host=inputs.host,
        revision=inputs.fleet.revision,
        actions=tuple(sorted(allowed, key=lambda action: action.phase)),
        refused=(*(r for part in parts.values() for r in part.refused), *removal.refused, *unconsented),
        unknown=(*(u for part in parts.values() for u in part.unknown), *removal.unknown),
        warned=tuple(drift for part in parts.values() for drift in part.warned),
        waiting={name: part.waiting for name, part in parts.items() if part.waiting} | dict(removal.waiting),
        orphans=removal.orphans,
        ve_hashes=by_ve,
        action_hash=whole,
    )
