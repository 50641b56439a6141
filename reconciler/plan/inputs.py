"""All that a plan depends on, and what follows from it for everybody who plans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.model.facts import JsonMap, Unknown
from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.host_risk import NO_RISKS, RiskState
from reconciler.model.identity import Allocation, HostName, NetworkName, Uid, VeName
from reconciler.model.network import Address
from reconciler.model.observation import HostObservation, VeObservation
from reconciler.model.policy import DEFAULT_POLICY, Policy
from reconciler.model.power import PowerObservation, PowerState
from reconciler.model.volume import Record
from reconciler.plan import cpu_share, host_compute, vxlan
from reconciler.plan.actions import TRASH_KEEP_S, Context
from reconciler.plan.review import Review
from reconciler.plan.settled import Settled


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What an earlier look told of a host: records by VE, and the size of the pool, if it was seen. Units: bytes."""

    records: Mapping[Uid, Record] = field(default_factory=dict)
    pool: int | None = None


NOTHING_KNOWN = Known()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """All that a plan depends on.

    ``allocations``: identities of VEs that are not here yet; ``unallocated``: why one has none; ``not_ours``: of those,
    the ones that another host has, or may have, with the word for that. ``paused``: reason by name; ``"*"`` pauses all.
    ``consents``: hashes that a person approved and that have not expired.
    ``removed_recently``: how many VEs left this host within a day; of those ``removed_from_source`` came from
    ``source``. ``running_elsewhere``: VEs out of the observation's scope that run. ``known``: what an earlier look
    tells of the host beyond that scope. ``beside``: VEs of the host that are as their specs say; they are neither in
    the fleet nor in the observation, and count only where all are counted. ``applied_networks``: what was carried out
    last, as `host_network.record_values` gives it. ``management``: the addresses by which the host is looked after,
    where its root says so. ``risks``: how changes stand that could cut it off. ``review``: what people agreed to, where
    the host asks for that. ``settled``: what former plans found out; it saves time and decides nothing.
    Units: seconds; ``now`` since the epoch.
    """

    instance: str
    host: HostName
    source: str
    fleet: Fleet
    observed: HostObservation
    allocations: Mapping[VeName, Allocation] = field(default_factory=dict)
    unallocated: Mapping[VeName, str] = field(default_factory=dict)
    not_ours: Mapping[VeName, str] = field(default_factory=dict)
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
    beside: tuple[VeSpec, ...] = ()
    applied_networks: Mapping[NetworkName, JsonMap] = field(default_factory=dict)
    policy: Policy = DEFAULT_POLICY
    management: frozenset[Address] = frozenset()
    risks: RiskState = NO_RISKS
    review: Review | None = None
    settled: Settled = field(default_factory=Settled, repr=False, compare=False)


def is_here(spec: VeSpec, host: HostName) -> bool:
    """Say whether a VE belongs on this host; one without a host belongs on the only one there is."""
    return spec.host is None or spec.host == host


def specs_here(inputs: Inputs) -> tuple[VeSpec, ...]:
    """Give the VEs of this host in boot order."""
    here = (spec for spec in inputs.fleet.ves.values() if is_here(spec, inputs.host))
    return tuple(sorted(here, key=lambda spec: (spec.power.order, spec.name)))


def pause_of(inputs: Inputs, name: VeName) -> str | None:
    """Say why a VE is left alone, or None."""
    return inputs.paused.get(name, inputs.paused.get("*"))


def unreadable(inputs: Inputs) -> list[Uid]:
    """Name the VEs of which nobody can say who they are."""
    return sorted(uid for uid, seen in inputs.observed.ves.items() if isinstance(seen.record, Unknown))


def doubt(inputs: Inputs) -> str:
    """Say why a VE that was not found may be here all the same, or ""."""
    observed = inputs.observed
    if not observed.complete:
        return "not all VEs of the host could be listed"
    if isinstance(observed.trash, Unknown):
        return f"it may be in the trash, which cannot be read: {observed.trash.reason}"
    unread = unreadable(inputs)
    return f"it may be {unread[0]}, whose record cannot be read" if unread else ""


def context_of(inputs: Inputs) -> Context:
    """Give what planning one VE needs of it."""
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
        prunes=inputs.prune,
        keep_s=inputs.trash_keep_s,
        out_of_reach=vxlan.out_of_reach(inputs.fleet.networks, inputs.host),
        neighbours=inputs.observed.ves,
        specs=inputs.fleet.ves,
    )


def _cpu_weights(inputs: Inputs) -> Mapping[VeName, int]:
    key = inputs.host, inputs.observed.capabilities.cpus
    known = inputs.fleet.cpu_weights.get(key)
    if known is None:
        specs = {spec.name: spec.compute for spec in specs_here(inputs)}
        known = inputs.fleet.cpu_weights[key] = cpu_share.effective_weights(
            specs, key[1], reserve_us=cpu_reserve(inputs)
        )
    return known


def cpu_reserve(inputs: Inputs) -> int:
    """Give the CPU time that the host keeps for itself. Units: as in `ComputeSpec`."""
    return host_compute.reserve_us(inputs.fleet.hosts.get(inputs.host), inputs.observed.capabilities)


def _running(ves: Iterable[VeObservation]) -> Iterator[VeName]:
    for seen in ves:
        running = isinstance(seen.power, PowerObservation) and seen.power.state is PowerState.RUNNING
        if running and isinstance(seen.record, Record):
            yield seen.record.name
