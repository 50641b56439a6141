"""The planner: one host's plan for one revision, or the part of it that concerns a few VEs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.model.action import CONSENT_IMPACTS, Action, Operation, Origin, Plan, Refusal
from reconciler.model.facts import Unknown
from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.identity import Allocation, HostName, NetworkName, Uid, VeName
from reconciler.model.network import LoadFilter
from reconciler.model.observation import HostObservation, VeObservation
from reconciler.model.power import PowerObservation, PowerState
from reconciler.model.volume import Record
from reconciler.plan import hashes, host_network, network, prune, ve
from reconciler.plan.matching import Matches, match

TRASH_KEEP_S = 7 * 86400.0
"""How long removed data is kept. Units: seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """All that a plan depends on.

    ``allocations``: identities of VEs that are not here yet. ``paused``: reason by name; ``"*"`` pauses all.
    ``consents``: hashes that a person approved and that have not expired. ``running_elsewhere``: VEs out of the
    observation's scope that run. Units: seconds; ``now`` since the epoch.
    """

    instance: str
    host: HostName
    source: str
    fleet: Fleet
    observed: HostObservation
    allocations: Mapping[VeName, Allocation] = field(default_factory=dict)
    inventory: frozenset[Uid] = frozenset()
    now: float = 0.0
    prune: bool = True
    prune_pending: frozenset[VeName] = frozenset()
    removed_recently: int = 0
    consents: frozenset[str] = frozenset()
    paused: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[tuple[str, str], float] = field(default_factory=dict)
    trash_keep_s: float = TRASH_KEEP_S
    running_elsewhere: frozenset[VeName] = frozenset()


def is_here(spec: VeSpec, host: HostName) -> bool:
    """Say whether a VE belongs on this host; one without a host belongs on the only one there is."""
    return spec.host is None or spec.host == host


def specs_here(inputs: Inputs) -> tuple[VeSpec, ...]:
    """Give the VEs of this host in boot order."""
    here = (spec for spec in inputs.fleet.ves.values() if is_here(spec, inputs.host))
    return tuple(sorted(here, key=lambda spec: (spec.power.order, spec.name)))


def unborn(inputs: Inputs) -> tuple[VeName, ...]:
    """Name the VEs that need an allocation before a plan can be made."""
    trash = () if isinstance(inputs.observed.trash, Unknown) else inputs.observed.trash
    matches = match(specs_here(inputs), inputs.observed.ves, trash)
    return tuple(spec.name for spec in matches.new if not spec.unsupported)


def plan_host(inputs: Inputs) -> Plan:
    """Plan the whole host: its networks, its filter, every VE, removals, and what the trash lets go."""
    observed = inputs.observed
    trash = () if isinstance(observed.trash, Unknown) else observed.trash
    matches = match(specs_here(inputs), observed.ves, trash)
    context = _context(inputs)
    removal = _plan_removal(inputs, matches)
    suspects = prune.rename_suspects(removal.refused, matches.new)
    parts = dict(_plan_ves(inputs, matches, context, suspects))
    actions = [action for part in parts.values() for action in part.actions]
    actions += [*removal.actions, *_plan_networks(inputs, matches)]
    if not isinstance(observed.trash, Unknown):
        actions += prune.plan_purge(observed.trash, inputs.now, inputs.trash_keep_s)
    return _assemble(inputs, actions, parts, removal)


def plan_ves(inputs: Inputs, names: frozenset[VeName]) -> Plan:
    """Plan only the VEs that are named, from an observation that holds at least them; nothing is removed."""
    trash = () if isinstance(inputs.observed.trash, Unknown) else inputs.observed.trash
    specs = [spec for spec in specs_here(inputs) if spec.name in names]
    parts = dict(_plan_ves(inputs, match(specs, inputs.observed.ves, trash), _context(inputs), {}))
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
        return (
            "" if there is (action.op is Operation.RESTORE) else f"{action.ve} is {'still' if there else 'not'} there"
        )
    spec = inputs.fleet.ves.get(VeName(action.ve))
    assert spec is not None, f"{action.id}: an action without a spec"
    return ve.unfulfilled(action, spec, seen, _context(inputs))


def _host_unfulfilled(inputs: Inputs, action: Action) -> str:
    networks, loaded = inputs.observed.networks, inputs.observed.filter
    if isinstance(networks, Unknown) or isinstance(loaded, Unknown):
        return "the host's networks could not be read"
    if action.ve == "filter":
        wanted = [effect.rules for effect in action.effects if isinstance(effect, LoadFilter)]
        return "" if [loaded.rules] == wanted else "the kernel does not hold the rules that were loaded"
    name = NetworkName(action.ve.removeprefix("network/"))
    if action.op is Operation.DESTROY:
        return "it is still there" if name in networks else ""
    again = host_network.plan_networks(
        {name: inputs.fleet.networks[name]}, {n: s for n, s in networks.items() if n == name}
    )
    left = [a for a in again if action.op is Operation.CREATE or a.path == action.path]
    return f"{left[0].path or name} is still {left[0].before!r}, not {left[0].after!r}" if left else ""


def _context(inputs: Inputs) -> ve.Context:
    return ve.Context(
        instance=inputs.instance,
        source=inputs.source,
        now=inputs.now,
        capabilities=inputs.observed.capabilities,
        templates=inputs.fleet.templates,
        running=frozenset(_running(inputs.observed.ves.values())) | inputs.running_elsewhere,
        measured=inputs.measured,
    )


def _running(ves: Iterable[VeObservation]) -> Iterator[VeName]:
    for seen in ves:
        running = isinstance(seen.power, PowerObservation) and seen.power.state is PowerState.RUNNING
        if running and isinstance(seen.record, Record):
            yield seen.record.name


def _plan_ves(
    inputs: Inputs, matches: Matches, context: ve.Context, suspects: Mapping[VeName, Refusal]
) -> Iterator[tuple[VeName, ve.VePlan]]:
    for spec, observed in matches.existing:
        yield spec.name, _unless_paused(inputs, spec, ve.plan_existing(spec, observed, context))
    if blind := [uid for uid, seen in inputs.observed.ves.items() if isinstance(seen.record, Unknown)]:
        for spec in (*(spec for spec, _ in matches.trashed), *matches.new):
            text = f"{spec.name}: it may be {blind[0]}, whose record cannot be read"
            yield spec.name, ve.VePlan(unknown=(text,))
        return
    for spec, entry in matches.trashed:
        yield spec.name, _unless_paused(inputs, spec, ve.plan_restored(spec, entry, context))
    for spec in matches.new:
        yield (
            spec.name,
            ve.VePlan(refused=(suspects[spec.name],)) if spec.name in suspects else _plan_new(inputs, spec, context),
        )


def _plan_new(inputs: Inputs, spec: VeSpec, context: ve.Context) -> ve.VePlan:
    allocation = inputs.allocations.get(spec.name)
    if allocation is None and not spec.unsupported:
        return ve.VePlan(unknown=(f"{spec.name}: no identity was allocated to it",))
    known = allocation or Allocation(uid=Uid(""), id_base=0)
    return _unless_paused(inputs, spec, ve.plan_new(spec, known, context))


def _unless_paused(inputs: Inputs, spec: VeSpec, part: ve.VePlan) -> ve.VePlan:
    reason = inputs.paused.get(spec.name, inputs.paused.get("*"))
    if reason is None or not part.actions:
        return part
    return ve.VePlan(unknown=part.unknown, waiting=f"paused: {reason}", warned=part.warned)


def _plan_removal(inputs: Inputs, matches: Matches) -> prune.PrunePlan:
    if not inputs.observed.complete:
        return prune.PrunePlan(unknown=("not all VEs of the host could be read; nothing is removed",))
    if "*" in inputs.paused:
        return prune.PrunePlan()
    rules = prune.PruneRules(
        source=inputs.source,
        inventory=inputs.inventory,
        on=inputs.prune,
        pending=inputs.prune_pending,
        recent=inputs.removed_recently,
        total=len(inputs.observed.ves),
    )
    unclaimed = [seen for seen in matches.unclaimed if not _is_paused(inputs, seen)]
    return prune.plan_prune(unclaimed, matches.new, frozenset(inputs.fleet.ves), rules)


def _is_paused(inputs: Inputs, seen: VeObservation) -> bool:
    return isinstance(seen.record, Record) and seen.record.name in inputs.paused


def _plan_networks(inputs: Inputs, matches: Matches) -> Iterator[Action]:
    observed = inputs.observed
    if isinstance(observed.networks, Unknown) or isinstance(observed.filter, Unknown) or "*" in inputs.paused:
        return
    members = list(_members(inputs, matches))
    wanted = host_network.used_networks(members, inputs.fleet.networks)
    in_use = {interface.network for member in members for interface in member.network.interfaces.values()}
    removable = {name: seen for name, seen in observed.networks.items() if name in wanted or name not in in_use}
    yield from host_network.plan_networks(wanted, removable)
    rules = host_network.filter_rules(inputs.instance, members, wanted)
    yield from host_network.plan_filter(rules, observed.filter, changed=observed.filter.rules is not None)


def _members(inputs: Inputs, matches: Matches) -> Iterator[host_network.Member]:
    """Give everyone whose traffic the filter must know: by the spec where it will be carried out, else as applied."""
    for spec, seen in matches.existing:
        if spec.unsupported or spec.name in inputs.paused:
            yield from _as_applied(inputs, seen)
        else:
            yield host_network.Member(name=spec.name, uid=seen.uid, network=spec.network)
    for spec, entry in matches.trashed:
        yield host_network.Member(name=spec.name, uid=entry.record.uid, network=spec.network)
    for spec in matches.new:
        allocation = inputs.allocations.get(spec.name)
        if allocation is not None and not spec.unsupported:
            yield host_network.Member(name=spec.name, uid=allocation.uid, network=spec.network)
    for seen in matches.unclaimed:
        yield from _as_applied(inputs, seen)


def _as_applied(inputs: Inputs, seen: VeObservation) -> Iterator[host_network.Member]:
    if isinstance(seen.record, Record):
        spec = network.applied_spec(seen.record.name, seen.record.applied, inputs.fleet.networks)
        yield host_network.Member(name=seen.record.name, uid=seen.uid, network=spec)


def _assemble(
    inputs: Inputs, actions: list[Action], parts: Mapping[VeName, ve.VePlan], removal: prune.PrunePlan
) -> Plan:
    by_ve = hashes.ve_hashes(inputs.host, actions)
    whole = hashes.action_hash(by_ve.values())
    allowed, unconsented = _ask_consent(inputs, actions, by_ve, whole, removal.mass)
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


def _ask_consent(
    inputs: Inputs, actions: list[Action], by_ve: Mapping[str, str], whole: str, mass: int
) -> tuple[list[Action], list[Refusal]]:
    """Part the actions that may be done from those that wait for a person to consent to exactly this plan."""
    allowed, refused = [], {}
    for action in actions:
        given = {whole, by_ve.get(action.ve, whole)} & inputs.consents
        is_mass = mass > 0 and action.op is Operation.DESTROY and action.origin is Origin.GIT and action.uid is not None
        if given or action.origin is not Origin.GIT or not (is_mass or action.impact in CONSENT_IMPACTS):
            allowed.append(action)
        elif is_mass:
            refused[action.ve] = _mass_refusal(action, mass, whole)
        else:
            refused[action.ve] = _consent_refusal(action, by_ve[action.ve])
    return [action for action in allowed if action.ve not in refused], list(refused.values())


def _mass_refusal(action: Action, mass: int, whole: str) -> Refusal:
    return Refusal(
        ve=action.ve,
        uid=action.uid,
        rule="MassRemoval",
        message=f"one of {mass} VEs that would be removed at once",
        remedy=f"`vectl approve {whole}` if this is what you want; else put the manifests back",
    )


def _consent_refusal(action: Action, ve_hash: str) -> Refusal:
    return Refusal(
        ve=action.ve,
        uid=action.uid,
        rule="NeedsConsent",
        message=f"{action.path or action.op.value} has impact {action.impact.word}",
        remedy=f"`vectl approve {ve_hash}`",
    )
