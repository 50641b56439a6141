"""Seating: which VE is on which host of a fleet, and who may come, by the arithmetic that admission uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.model.capacity import (
    NO_CLAIM,
    Books,
    Claim,
    Kind,
    Promise,
    Resource,
    Supply,
    bounded,
    claim,
    share,
    supplies,
)
from reconciler.model.devices import FUSE
from reconciler.model.fleet import Fleet, HostSpec, VeSpec
from reconciler.model.identity import HostName, NetworkName, VeName
from reconciler.model.network import NetworkSpec
from reconciler.model.snapshots import CloneSource
from reconciler.model.spread import Group, Groups, group_of

EVERYWHERE = frozenset(
    {FUSE, "/dev/net/tun", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}
)
"""Device files that every host has, so that a VE with them may be anywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a host told of itself beyond its manifest. ``links``: its interfaces, None where it did not tell."""

    machine: Mapping[Resource, int] = field(default_factory=dict)
    links: frozenset[str] | None = None


NOTHING_TOLD = Site()


def tie(spec: VeSpec) -> str:
    """Say what a VE has of its host that another one has not, or ""."""
    if spec.mounts:
        return f"mounts {next(iter(sorted(one.source for one in spec.mounts.values())))} of its host"
    if spec.devices.nics:
        return f"has the interface {min(spec.devices.nics)} of its host"
    own = sorted(path for path in spec.devices.nodes if path not in EVERYWHERE)
    return f"has the device {own[0]} of its host" if own else ""


class Seats:
    """One host and the VEs on it. ``closed``: why nobody else may come, or ""."""

    def __init__(self, host: HostSpec, site: Site, *, closed: str = "") -> None:
        self.name = host.name
        self.closed = closed
        self.count = 0
        self._supply = supplies(host, site.machine)
        self._links = site.links
        self._books = Books(host.name, self._supply)
        limited = {resource for resource, kind in bounded(self._supply) if kind is Kind.LIMIT}
        self._unbounded = dict.fromkeys(sorted(_measured(self._supply) - limited), 0)
        self._networks: Counter[NetworkName] = Counter()
        self._ports: dict[tuple[str, int], VeName] = {}

    @property
    def is_known(self) -> bool:
        """Whether anybody said how much of anything it has."""
        return bool(_measured(self._supply))

    def fullness(self) -> float:
        """Give the share that is promised of what most is promised of: also of what may be promised several times."""
        hoped = (share(total, _free(self._supply[resource])) for resource, total in self._unbounded.items())
        return max((self._books.fullness(), *hoped))

    def is_over(self) -> bool:
        """Say whether more is promised than there is."""
        return self._books.fullness() > 1

    def share_of(self, guest: Guest) -> float:
        """Give the share of this host that a VE takes of what it takes most of."""
        return max(
            (
                share(guest.claim.of(resource, kind) or 0, _free(self._supply[resource]))
                for resource in _measured(self._supply)
                for kind in Kind
            ),
            default=0.0,
        )

    def put(self, guest: Guest) -> None:
        """Write a VE down as being here."""
        self._count(guest, 1)
        self._books.promise(guest.promise)
        self._ports.update(dict.fromkeys(guest.ports, guest.spec.name))

    def take(self, guest: Guest) -> None:
        """Take a VE away that was here."""
        self._count(guest, -1)
        self._books.promise(Promise(name=guest.spec.name, claim=NO_CLAIM))
        for port in guest.ports:
            if self._ports.get(port) == guest.spec.name:
                del self._ports[port]

    def _count(self, guest: Guest, sign: int) -> None:
        self.count += sign
        for resource in self._unbounded:
            self._unbounded[resource] += sign * (guest.claim.of(resource, Kind.LIMIT) or 0)
        for network in guest.networks:
            self._networks[network] += sign

    def takes(self, guest: Guest, rivals: Mapping[NetworkName, frozenset[NetworkName]]) -> bool:
        """Say whether a VE may come, which is not here yet."""
        return not self.closed and self._books.fits(guest.promise) and not self._obstacle(guest, rivals)

    def refusal(self, guest: Guest, rivals: Mapping[NetworkName, frozenset[NetworkName]]) -> str:
        """Say why a VE may not come, or ""."""
        obstacle = self.closed or self._obstacle(guest, rivals)
        if obstacle:
            return obstacle
        shortage = self._books.refuse(guest.promise)
        return "" if shortage is None else str(shortage)

    def _obstacle(self, guest: Guest, rivals: Mapping[NetworkName, frozenset[NetworkName]]) -> str:
        for port in guest.ports:
            if (other := self._ports.get(port)) is not None:
                return f"{port[0]} {port[1]} of {self.name} is forwarded to {other}"
        for network in guest.networks:
            for rival in rivals.get(network, ()):
                if self._networks[rival] > 0:
                    return f"network {network} overlaps {rival}, which VEs of {self.name} are on"
        missing = [] if self._links is None else [link for link in guest.uplinks if link not in self._links]
        if missing:
            return f"{self.name} has no interface {missing[0]}, the uplink of a network of it"
        if guest.ancestor not in (None, self.name):
            return f"it begins as a clone of a VE on {guest.ancestor}"
        return ""


def _measured(supply: Mapping[Resource, Supply]) -> set[Resource]:
    return {resource for resource, one in supply.items() if one.machine is not None}


def _free(supply: Supply) -> int:
    return max(0, (supply.machine or 0) - supply.reserve)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A VE with what placing it depends on. ``ports``: of a host that lead to it, ``uplinks``: of its networks.

    ``ancestor``: the host of the VE that it is a clone of, if it is still to be made.
    """

    spec: VeSpec
    claim: Claim
    promise: Promise
    networks: tuple[NetworkName, ...] = ()
    uplinks: tuple[str, ...] = ()
    ports: tuple[tuple[str, int], ...] = ()
    ancestor: HostName | None = None
    groups: tuple[Group, ...] = ()
    asked: Group | None = None

    @property
    def likeness(self) -> object:
        """What two VEs have in common of which one may be anywhere that the other may, with the same effect."""
        return self.claim, self.networks, self.ports, self.ancestor, self.groups, self.asked


class Seating:
    """All hosts of a fleet. ``at``: where each VE is; those without a host are not in it."""

    def __init__(self, fleet: Fleet, sites: Mapping[HostName, Site], closed: Mapping[HostName, str]) -> None:
        hosts = [fleet.hosts[name] for name in sorted(fleet.hosts)]
        self.hosts = {
            host.name: Seats(host, sites.get(host.name, NOTHING_TOLD), closed=closed.get(host.name, ""))
            for host in hosts
        }
        self.guests = dict(_guests(fleet))
        self.at: dict[VeName, HostName] = {}
        self._rivals = _rivals(fleet.networks.values())
        self._asking: Counter[tuple[Group, HostName]] = Counter()
        self._there: Counter[tuple[Group, HostName]] = Counter()
        for name, guest in self.guests.items():
            if guest.spec.host in self.hosts and guest.spec.host is not None:
                self.put(name, guest.spec.host)

    @property
    def is_measured(self) -> bool:
        """Whether anybody said how much any host has."""
        return any(host.is_known for host in self.hosts.values())

    def put(self, name: VeName, host: HostName) -> None:
        """Put a VE on a host that it may be on."""
        guest = self.guests[name]
        self.hosts[host].put(guest)
        self.at[name] = host
        self._tally(guest, host, 1)

    def take(self, name: VeName) -> None:
        """Take a VE off its host."""
        guest, host = self.guests[name], self.at.pop(name)
        self.hosts[host].take(guest)
        self._tally(guest, host, -1)

    def move(self, name: VeName, host: HostName) -> None:
        """Put a VE on another host."""
        self.take(name)
        self.put(name, host)

    def _tally(self, guest: Guest, host: HostName, sign: int) -> None:
        for group in guest.groups:
            self._there[group, host] += sign
        if guest.asked is not None:
            self._asking[guest.asked, host] += sign

    def takes(self, name: VeName, host: HostName) -> bool:
        """Say whether a host that a VE is not on may take it."""
        return self.hosts[host].takes(self.guests[name], self._rivals)

    def refusal(self, name: VeName, host: HostName) -> str:
        """Say why a host may not take a VE, or ""."""
        return self.hosts[host].refusal(self.guests[name], self._rivals)

    def clashes(self, name: VeName, host: HostName) -> int:
        """Count who is on a host from whom a VE is to be apart, or who is to be apart from it."""
        guest, me = self.guests[name], int(self.at.get(name) == host)
        return sum(
            self._there[group, host] - me if group == guest.asked else self._asking[group, host]
            for group in guest.groups
        )

    def clashing(self, name: VeName, host: HostName) -> tuple[VeName, ...]:
        """Name those whom `clashes` counts."""
        guest = self.guests[name]
        others = (other for other, where in self.at.items() if where == host and other != name)
        return tuple(sorted(other for other in others if _apart(guest, self.guests[other])))

    def members(self, group: Group, host: HostName) -> tuple[VeName, ...]:
        """Name who of a group is on a host."""
        return tuple(sorted(n for n, at in self.at.items() if at == host and group in self.guests[n].groups))

    def rank(self, name: VeName, host: HostName) -> tuple[int, bool, float, int, HostName]:
        """Give what a host is judged by that may take a VE; the least is the best."""
        clashes = self.clashes(name, host)
        seats, guest = self.hosts[host], self.guests[name]
        seats.put(guest)
        rank = clashes, not seats.is_known, seats.fullness(), seats.count, host
        seats.take(guest)
        return rank


def _apart(one: Guest, other: Guest) -> bool:
    return one.asked in other.groups or other.asked in one.groups


def _guests(fleet: Fleet) -> Iterator[tuple[VeName, Guest]]:
    groups = Groups(fleet.ves.values())
    ports: dict[str, list[tuple[str, int]]] = {}
    for network in fleet.networks.values():
        for forward in network.forwards:
            ports.setdefault(forward.ve, []).append((forward.protocol, forward.listen))
    for name in sorted(fleet.ves):
        spec = fleet.ves[name]
        wanted = claim(spec)
        networks = tuple(sorted({link.network for link in spec.network.interfaces.values()}))
        uplinks = (fleet.networks[network].uplink for network in networks if network in fleet.networks)
        yield (
            name,
            Guest(
                spec=spec,
                claim=wanted,
                promise=Promise(name=name, claim=wanted),
                networks=networks,
                uplinks=tuple(link for link in uplinks if link is not None),
                ports=tuple(sorted(ports.get(name, ()))),
                ancestor=_ancestor(spec, fleet),
                groups=tuple(groups.of(spec)),
                asked=group_of(spec),
            ),
        )


def _ancestor(spec: VeSpec, fleet: Fleet) -> HostName | None:
    """Name the host where a VE has to begin: it is cloned from what is there."""
    source = fleet.ves.get(spec.source.ve) if isinstance(spec.source, CloneSource) else None
    return source.host if spec.host is None and source is not None else None


def _rivals(networks: Iterable[NetworkSpec]) -> dict[NetworkName, frozenset[NetworkName]]:
    """Name the networks that cannot be on one host, as an address would belong to both."""
    every = [(subnet, network.name) for network in networks for subnet in network.subnets]
    found: dict[NetworkName, set[NetworkName]] = {}
    for subnet, name in every:
        for other_subnet, other in every:
            if name != other and subnet.version == other_subnet.version and subnet.overlaps(other_subnet):
                found.setdefault(name, set()).add(other)
    return {name: frozenset(others) for name, others in found.items()}
