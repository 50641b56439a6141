"""Members: everyone on a host whose traffic its networks and its filter must know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from reconciler.model.facts import Unknown
from reconciler.model.identity import Allocation, NetworkName, Uid, VeName
from reconciler.model.network import NetworkSpec, VeNetworkSpec
from reconciler.model.observation import VeObservation
from reconciler.plan import network
from reconciler.plan.matching import Matches


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A VE that is or will be on this host, with the network that it is allowed to use."""

    name: VeName
    uid: Uid
    network: VeNetworkSpec


def find_members(
    matches: Matches,
    *,
    allocations: Mapping[VeName, Allocation],
    networks: Mapping[NetworkName, NetworkSpec],
    untouched: frozenset[VeName],
) -> Iterator[Member]:
    """Yield the members. ``untouched``: VEs on which the spec is not carried out now, so that they stay as applied."""
    for spec, seen in matches.existing:
        if spec.name in untouched:
            yield from as_applied((seen,), networks)
        else:
            yield Member(name=spec.name, uid=seen.uid, network=spec.network)
    for spec, entry in matches.trashed:
        if spec.name not in untouched:
            yield Member(name=spec.name, uid=entry.record.uid, network=spec.network)
    for spec in matches.new:
        allocation = allocations.get(spec.name)
        if allocation is not None and spec.name not in untouched:
            yield Member(name=spec.name, uid=allocation.uid, network=spec.network)
    yield from as_applied(matches.unclaimed, networks)


def as_applied(ves: Iterable[VeObservation], networks: Mapping[NetworkName, NetworkSpec]) -> Iterator[Member]:
    """Yield VEs with the network that they were last given; of one whose record cannot be read nothing is known."""
    for seen in ves:
        record = seen.record
        if not isinstance(record, Unknown):
            spec = network.applied_spec(record.name, record.applied, networks)
            yield Member(name=record.name, uid=seen.uid, network=spec)


def applied_names(ves: Iterable[VeObservation]) -> frozenset[NetworkName]:
    """Name the networks that VEs were last put on."""
    records = (seen.record for seen in ves)
    return frozenset(
        name for record in records if not isinstance(record, Unknown) for name in network.applied_names(record.applied)
    )


def used_names(members: Iterable[Member]) -> frozenset[NetworkName]:
    """Name the networks that somebody is on."""
    return frozenset(name for member in members for name in spec_networks(member.network))


def spec_networks(spec: VeNetworkSpec) -> frozenset[NetworkName]:
    """Name the networks that a VE is to be on."""
    return frozenset(link.network for link in spec.interfaces.values())
