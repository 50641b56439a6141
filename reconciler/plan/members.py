"""Members: everyone on a host whose traffic its networks and its filter must know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
            yield from _as_applied(seen, networks)
        else:
            yield Member(name=spec.name, uid=seen.uid, network=spec.network)
    for spec, entry in matches.trashed:
        if spec.name not in untouched:
            yield Member(name=spec.name, uid=entry.record.uid, network=spec.network)
    for spec in matches.new:
        allocation = allocations.get(spec.name)
        if allocation is not None and spec.name not in untouched:
            yield Member(name=spec.name, uid=allocation.uid, network=spec.network)
    for seen in matches.unclaimed:
        yield from _as_applied(seen, networks)


def _as_applied(seen: VeObservation, networks: Mapping[NetworkName, NetworkSpec]) -> Iterator[Member]:
    record = seen.record
    if not isinstance(record, Unknown):
        yield Member(
            name=record.name, uid=seen.uid, network=network.applied_spec(record.name, record.applied, networks)
        )
