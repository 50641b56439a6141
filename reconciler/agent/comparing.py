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
from reconciler.plan.inputs import Inputs, is_here
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
    return tuple(_compare(revisions, host) for host in hosts)


def _compare(revisions: Revisions, host: HostName) -> HostPlan:
    base, head = revisions.base, revisions.head
    intent, export = plan_between(base, head, host), revisions.seen.get(host)
    plan = intent if export is None else _plan_seen(revisions, host, export.observed)
    here = _here(head, host)
    return HostPlan(
        host=host,
        plan=plan,
        intent=intent.action_hash,
        ves=len(here),
        before=_balances(base, _here(base, host), host, export),
        after=_balances(head, here, host, export),
        is_observed=export is not None,
        observed_at=None if export is None else export.at,
    )


def _here(fleet: Fleet, host: HostName) -> list[VeSpec]:
    return [spec for spec in fleet.ves.values() if is_here(spec, host)]


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
