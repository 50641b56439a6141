"""The host's own objects: the instance's cgroup, networks, filter and template images, as all VEs need them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.model.action import Action, Refusal, UnknownFact
from reconciler.model.facts import Unknown
from reconciler.model.identity import VeName
from reconciler.model.observation import HostObservation
from reconciler.plan import host_compute, host_network, templates, vxlan
from reconciler.plan.admission import admitted
from reconciler.plan.inputs import Inputs, cpu_reserve, unreadable
from reconciler.plan.matching import Matches
from reconciler.plan.members import Member, applied_names, find_members, used_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Ves:
    """The VEs that the host's own objects are to serve. ``refused``: those that get no more than they have.

    ``untouched``: those on which the spec is not carried out now, so that they stay as applied.
    """

    matches: Matches
    refused: Mapping[VeName, Refusal]
    untouched: frozenset[VeName]


def plan_own(inputs: Inputs, ves: Ves) -> Iterator[Action]:
    """Yield what makes the host's own objects right; nothing, while it is not known who is here."""
    if "*" in inputs.paused or not inputs.observed.complete:
        return
    yield from _plan_instance(inputs, ves)
    yield from _plan_networks(inputs, ves)
    yield from templates.plan_unused(inputs)


def _plan_instance(inputs: Inputs, ves: Ves) -> Iterator[Action]:
    observed = inputs.observed
    if isinstance(observed.compute, Unknown) or unreadable(inputs):
        return
    specs = [spec.compute for spec in admitted(ves.matches, ves.refused)]
    specs += host_compute.as_applied(ves.matches.unclaimed)
    before = host_compute.as_applied(observed.ves.values())
    yield from host_compute.plan_instance(
        specs, tuple(before), observed.compute, observed.capabilities, reserve=cpu_reserve(inputs)
    )


def _plan_networks(inputs: Inputs, ves: Ves) -> Iterator[Action]:
    observed, declared = inputs.observed, inputs.fleet.networks
    if isinstance(observed.networks, Unknown) or isinstance(observed.filter, Unknown):
        return
    members = _members(inputs, ves)
    wanted = host_network.used_networks(members, declared, inputs.host)
    in_use = used_names(members) | applied_names(observed.ves.values())
    blind = bool(unreadable(inputs))
    kept = observed.networks.keys() if blind else in_use
    removable = {n: s for n, s in observed.networks.items() if n in wanted or n not in kept}
    yield from host_network.plan_networks(wanted, removable, inputs.applied_networks, inputs.host)
    guards = vxlan.guards(inputs.instance, declared.values(), inputs.host)
    rules = host_network.filter_rules(inputs.instance, members, wanted, guards)
    before = observed.filter.rules
    if blind:
        rules = host_network.with_strangers(rules, before)
    else:
        kept_on = frozenset(kept) & (observed.networks.keys() - wanted.keys())
        rules = host_network.with_undeclared(rules, before, inputs.instance, on=kept_on, members=members)
    yield from host_network.plan_filter(rules, observed.filter, changed=before is not None)


def _members(inputs: Inputs, ves: Ves) -> tuple[Member, ...]:
    return tuple(
        find_members(
            ves.matches,
            allocations=inputs.allocations,
            networks=inputs.fleet.networks,
            untouched=ves.untouched,
        )
    )


def unknown_of_host(observed: HostObservation) -> Iterator[UnknownFact]:
    """Yield the host's own parts that could not be read."""
    facts = {
        "compute": observed.compute,
        "networks": observed.networks,
        "filter": observed.filter,
        "trash": observed.trash,
    }
    for name, fact in facts.items():
        if isinstance(fact, Unknown):
            yield UnknownFact(path=name, reason=fact.reason)
