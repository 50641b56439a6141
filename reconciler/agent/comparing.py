"""Two revisions compared, host by host; with what was seen of a host where somebody looked at it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.agent.between import plan_between, whole_plan
from reconciler.model.action import Plan
from reconciler.model.capacity import Balance, balances, claim, machine_of, supplies
from reconciler.model.exchange import Export
from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.identity import HostName
from reconciler.model.observation import HostObservation
from reconciler.model.policy import EVERYTHING_ALLOWED
from reconciler.model.volume import Record
from reconciler.plan import host_network, planner
from reconciler.plan.comparison import HostPlan
from reconciler.plan.inputs import Inputs
from reconciler.state.coordinator import placeholder


@dataclass(frozen=True, slots=True, kw_only=True)
class Revisions:
    """Both revisions. ``seen``: what was seen of hosts, by name. ``instance``: what vectl is called on them.

    Units: ``now`` seconds since the epoch.
    """

    base: Fleet
    head: Fleet
    seen: Mapping[HostName, Export] = field(default_factory=dict)
    instance: str = "vectl"
    now: float = 0.0


def compare(revisions: Revisions, hosts: Iterable[HostName]) -> tuple[HostPlan, ...]:
    """Plan what becomes of each host."""
    wanted = tuple(hosts)
    were, are = (_by_host(fleet, wanted) for fleet in (revisions.base, revisions.head))
    return tuple(_compare(revisions, host, were[host], are[host]) for host in wanted)


def _by_host(fleet: Fleet, hosts: Iterable[HostName]) -> dict[HostName, list[VeSpec]]:
    found: dict[HostName, list[VeSpec]] = {host: [] for host in hosts}
    for spec in fleet.ves.values():
        for host in found if spec.host is None else (spec.host,):
            if host in found:
                found[host].append(spec)
    return found


def _compare(revisions: Revisions, host: HostName, were: list[VeSpec], are: list[VeSpec]) -> HostPlan:
    base, head = revisions.base, revisions.head
    intent, export = plan_between(base, head, host), revisions.seen.get(host)
    plan = intent if export is None else _plan_seen(revisions, host, export.observed)
    return HostPlan(
        host=host,
        plan=plan,
        intent=intent.action_hash,
        ves=len(are),
        before=_balances(base, were, host, export),
        after=_balances(head, are, host, export),
        is_observed=export is not None,
        observed_at=None if export is None else export.at,
    )


def _balances(fleet: Fleet, specs: list[VeSpec], host: HostName, export: Export | None) -> tuple[Balance, ...]:
    machine = {} if export is None else machine_of(export.observed)
    return balances(map(claim, specs), supplies(fleet.hosts.get(host), machine), {})


def _plan_seen(revisions: Revisions, host: HostName, observed: HostObservation) -> Plan:
    """Plan against what was seen of a host: whatever is in it counts as made there, from the same source."""
    declared, networks = revisions.base.networks, observed.networks
    applied = {
        name: host_network.record_values(declared[name])
        for name in (networks if isinstance(networks, Mapping) else ())
        if name in declared
    }
    inputs = Inputs(
        instance=revisions.instance,
        host=host,
        source=_source(observed),
        fleet=revisions.head,
        observed=observed,
        inventory=frozenset(observed.ves),
        now=revisions.now,
        policy=EVERYTHING_ALLOWED,
        applied_networks=applied,
    )
    ves = revisions.head.ves
    unborn = {name: placeholder(name, ves[name].uid) for name in planner.unborn(inputs)}
    return whole_plan(replace(inputs, allocations=unborn))


def _source(observed: HostObservation) -> str:
    """Give the source that most VEs of a host came from: a clone does not tell how the host calls it."""
    sources = Counter(seen.record.source for seen in observed.ves.values() if isinstance(seen.record, Record))
    return max(sources, key=lambda source: (sources[source], source), default="git")
