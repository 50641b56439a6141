"""What of two revisions has to be looked at to plan the way from one to the other: most VEs of a fleet do not change.

A VE whose spec is the same in both has no action, since a pass over a host that is as it should be has none. It matters
only where VEs are counted, share a network, or are copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from reconciler.model.capacity import Applicant, admit, bounded, claim, supplies
from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.identity import HostName, NetworkName, VeName
from reconciler.model.snapshots import CloneSource
from reconciler.plan.inputs import is_here
from reconciler.plan.members import spec_networks


@dataclass(frozen=True, slots=True, kw_only=True)
class Restriction:
    """Both revisions with the VEs that matter on one host. ``beside``: its other VEs, the same in both."""

    base: Fleet
    head: Fleet
    beside: tuple[VeSpec, ...] = ()


def changed_names(base: Fleet, head: Fleet) -> frozenset[VeName]:
    """Name the VEs that are in one revision only, or have another spec in each."""
    return frozenset(
        name
        for name in base.ves.keys() | head.ves.keys()
        if (one := base.ves.get(name)) is not (other := head.ves.get(name)) and one != other
    )


def hosts_of(*fleets: Fleet) -> tuple[HostName, ...]:
    """Name the hosts that revisions speak of."""
    declared = {name for fleet in fleets for name in fleet.hosts}
    named = {spec.host for fleet in fleets for spec in fleet.ves.values() if spec.host is not None}
    return tuple(sorted(declared | named))


def restrict(base: Fleet, head: Fleet, host: HostName) -> Restriction:
    """Leave out what does not matter on a host; nothing, where not all VEs of it have room: then anybody may."""
    if _is_short(base, host):
        return Restriction(base=base, head=head)
    changed = changed_names(base, head)
    here = {name for name in changed if any(_is_here(fleet, name, host) for fleet in (base, head))}
    same = [spec for name, spec in head.ves.items() if name not in changed and is_here(spec, host)]
    kept = {*changed, *_sources(head, here), *_witnesses(same, set(_touched(base, head, here)))}
    return Restriction(
        base=_only(base, kept), head=_only(head, kept), beside=tuple(spec for spec in same if spec.name not in kept)
    )


def is_same(base: Fleet, head: Fleet, host: HostName) -> bool:
    """Say whether nothing that a host goes by differs; then there is nothing to plan."""
    if base.networks != head.networks or base.hosts.get(host) != head.hosts.get(host):
        return False
    return not any(_is_here(fleet, name, host) for name in changed_names(base, head) for fleet in (base, head))


def with_known_uids(base: Fleet, head: Fleet) -> Fleet:
    """Give the base with the uids that only the head says: of VEs that it pins, or renames by them."""
    known = frozenset(spec.uid for spec in base.ves.values())
    pinned = {
        heir.name: spec.uid
        for spec in head.ves.values()
        if spec.uid is not None and spec.uid not in known and (heir := _heir(base, head, spec)) is not None
    }
    if not pinned:
        return base
    ves = {name: replace(spec, uid=pinned[name]) if name in pinned else spec for name, spec in base.ves.items()}
    return replace(base, ves=ves)


def _heir(base: Fleet, head: Fleet, spec: VeSpec) -> VeSpec | None:
    """Find whom of the base a uid names that nobody had said: who has the name, else the only one that is gone and is
    like it."""
    same = base.ves.get(spec.name)
    if same is not None:
        return same if same.uid is None else None
    gone = [old for name, old in base.ves.items() if name not in head.ves and _are_alike(old, spec)]
    return gone[0] if len(gone) == 1 and gone[0].uid is None else None


def _are_alike(one: VeSpec, other: VeSpec) -> bool:
    mine, theirs = ({a for i in spec.network.interfaces.values() for a in i.addresses} for spec in (one, other))
    hostname = one.network.hostname
    return bool(mine & theirs) or (hostname == other.network.hostname and hostname != one.name)


def _is_here(fleet: Fleet, name: VeName, host: HostName) -> bool:
    spec = fleet.ves.get(name)
    return spec is not None and is_here(spec, host)


def _is_short(fleet: Fleet, host: HostName) -> bool:
    supply = supplies(fleet.hosts.get(host), {})
    if not bounded(supply):
        return False
    here = [spec for spec in fleet.ves.values() if is_here(spec, host)]
    asking = (Applicant(name=spec.name, order=spec.power.order, wanted=claim(spec)) for spec in here)
    return bool(admit(asking, host, supply))


def _touched(base: Fleet, head: Fleet, here: Iterable[VeName]) -> Iterator[NetworkName]:
    """Name the networks that differ, or that somebody who changes is on."""
    for name in here:
        for fleet in (base, head):
            if name in fleet.ves:
                yield from spec_networks(fleet.ves[name].network)
    yield from (name for name in base.networks if base.networks[name] != head.networks.get(name))


def _witnesses(same: Iterable[VeSpec], networks: set[NetworkName]) -> Iterator[VeName]:
    """Name for each network one VE that is on it and stays: that it is in use is all that counts."""
    left = set(networks)
    for spec in same:
        if found := left & spec_networks(spec.network):
            left -= found
            yield spec.name


def _sources(head: Fleet, here: Iterable[VeName]) -> Iterator[VeName]:
    for name in here:
        spec = head.ves.get(name)
        if spec is not None and isinstance(spec.source, CloneSource):
            yield spec.source.ve


def _only(fleet: Fleet, names: Iterable[VeName]) -> Fleet:
    ves: Mapping[VeName, VeSpec] = {name: fleet.ves[name] for name in sorted(names) if name in fleet.ves}
    return replace(fleet, ves=ves)
