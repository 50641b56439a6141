"""Network: the networks of a host, the interfaces of a VE, its names, and the filter between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import TypeAlias

from reconciler.model.identity import NetworkName, Uid
from reconciler.model.vxlan import TunnelObservation, Vxlan

Address: TypeAlias = IPv4Address | IPv6Address
Interface: TypeAlias = IPv4Interface | IPv6Interface
Subnet: TypeAlias = IPv4Network | IPv6Network

DEFAULT_MTU = 1500
"""Units: bytes. Source: RFC 894."""


ROUTED_GATEWAYS: Mapping[int, str] = {4: "169.254.0.1", 6: "fe80::1"}
"""Next hop of a routed VE, by IP version: the host's end of its link, whatever addresses that link has.

The same as Incus uses, so that images and habits carry over. The IPv4 one lies in no subnet of the VE; a route by it
needs the on-link flag. Source: RFC 3927, section 2.1 (addresses that are never forwarded).
"""


class NetworkMode(StrEnum):
    """`BRIDGED`: a port of a bridge. `ROUTED`: a point-to-point link with host routes and proxy ARP/NDP."""

    BRIDGED = "bridged"
    ROUTED = "routed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A port of the host that leads to a port of a VE. ``to``: the VE's address, resolved by the revision."""

    listen: int
    ve: str
    port: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A network of the fleet. ``gateways``: the addresses that the host itself holds on it."""

    name: NetworkName
    mode: NetworkMode = NetworkMode.BRIDGED
    subnets: tuple[Subnet, ...] = ()
    gateways: frozenset[Interface] = frozenset()
    nat: bool = False
    forwards: tuple[Forward, ...] = ()
    uplink: str | None = None
    mtu: int = DEFAULT_MTU
    isolated: bool = False
    vxlan: Vxlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Route:
    """A route inside a VE. ``to``: a subnet in canonical text; ``via``: an address, or "" for on the link."""

    to: str
    via: str = ""


class Direction(StrEnum):
    """Seen from the VE: what it sends is egress."""

    EGRESS = "egress"
    INGRESS = "ingress"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Most traffic of an interface, as Ethernet counts it. Units: bit/s, a multiple of 8; None is unlimited.

    Observed as `ALTERED`: something else than we would have made holds it back, or should and does not.
    """

    egress: int | None = None
    ingress: int | None = None


ALTERED = 0
UNLIMITED = Rate()


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceSpec:
    """An interface of a VE, with everything that its network gives resolved; ``mac`` None: derived from the uid."""

    name: str
    network: NetworkName
    mode: NetworkMode = NetworkMode.BRIDGED
    addresses: frozenset[Interface] = frozenset()
    routes: frozenset[Route] = frozenset()
    mac: str | None = None
    mtu: int = DEFAULT_MTU
    isolated: bool = False
    rate: Rate = UNLIMITED


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """What a VE's /etc/resolv.conf says. Source: resolv.conf(5)."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VeNetworkSpec:
    """Everything of a VE that has to do with its network; ``resolver`` None: left to the VE."""

    hostname: str
    resolver: Resolver | None = None
    interfaces: Mapping[str, InterfaceSpec] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceObservation:
    """A link of ours in a VE, both ends.

    ``addresses``: its global ones. ``routes``: those of our protocol number through it. ``up``: the VE's end is set up,
    ``host_up``: the host's. ``bridge``: the one that the host's end is a port of. ``host_routes``: the addresses that
    the host leads to its end, and answers for on whatever links its own default routes use now.
    """

    mac: str
    mtu: int
    up: bool
    host_up: bool
    addresses: frozenset[Interface] = frozenset()
    routes: frozenset[Route] = frozenset()
    bridge: str | None = None
    isolated: bool = False
    host_routes: frozenset[Address] = frozenset()
    rate: Rate = UNLIMITED


@dataclass(frozen=True, slots=True, kw_only=True)
class VeNetworkObservation:
    """``hostname``: the UTS namespace's. ``resolver``: None if the file is absent or not written by us."""

    hostname: str
    resolver: Resolver | None = None
    interfaces: Mapping[str, InterfaceObservation] = field(default_factory=dict)
    loopback_up: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNetworkObservation:
    """A network of ours on the host; ``forwarding``: the kernel forwards for it, as far as it needs that."""

    mode: NetworkMode
    mtu: int = DEFAULT_MTU
    up: bool = True
    addresses: frozenset[Interface] = frozenset()
    uplink: str | None = None
    forwarding: bool = True
    tunnel: TunnelObservation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """What may come out of one host link: frames from ``mac`` with one of ``addresses``."""

    link: str
    mac: str
    addresses: frozenset[Address]
    mode: NetworkMode = NetworkMode.BRIDGED


@dataclass(frozen=True, slots=True, kw_only=True)
class Masquerade:
    """Source NAT of a private subnet towards everything but its own bridge."""

    subnet: Subnet
    bridge: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PortForward:
    """Destination NAT of a host port to an address."""

    listen: int
    protocol: str
    to: Address
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelGuard:
    """What a link to other hosts lets by: nothing of the bridge's ``mac``, which is on every host, only ``remotes``.

    ``link`` is its name; ``id`` and ``port`` tell its packets from those of others.
    """

    link: str
    mac: str
    id: int
    port: int
    remotes: frozenset[Address] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterRules:
    """The whole content of our nftables tables: anti-spoofing, NAT and forwards. Order has no meaning."""

    ports: frozenset[Port] = frozenset()
    masquerades: frozenset[Masquerade] = frozenset()
    forwards: frozenset[PortForward] = frozenset()
    tunnels: frozenset[TunnelGuard] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterObservation:
    """``rules``: what the kernel's tables hold, if they are exactly what we last loaded; else None."""

    rules: FilterRules | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateNetwork:
    """Make a network's bridge (mode bridged) or switch on what routing needs (mode routed), with nothing on it."""

    network: NetworkSpec
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetNetworkMtu:
    """Units: bytes."""

    network: NetworkName
    mtu: int
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetNetworkUp:
    """Set the bridge up."""

    network: NetworkName
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddGateway:
    """Give the host an address on a network."""

    network: NetworkName
    address: Interface
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveGateway:
    """Take an address of the host off a network."""

    network: NetworkName
    address: Interface
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetForwarding:
    """Let the kernel forward packets for a network."""

    network: NetworkName
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUplink:
    """Make a host link a port of the network's bridge, or release it (None). Host-risk."""

    network: NetworkName
    uplink: str | None
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNetwork:
    """Remove a network's bridge, which must carry our mark."""

    network: NetworkName
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFilter:
    """Replace our tables with these rules, in one transaction; empty rules remove the tables."""

    rules: FilterRules
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateInterface:
    """Make a veth with one end in the VE, both marked, both down, the host's end unconnected.

    Units: ``mtu`` bytes.
    """

    uid: Uid
    interface: str
    mac: str
    mtu: int
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveInterface:
    """Remove a link of ours from a VE."""

    uid: Uid
    interface: str
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachInterface:
    """Connect the host's end: a port of the network's bridge (``bridged``), or nothing but up (``routed``)."""

    uid: Uid
    interface: str
    network: NetworkName
    mode: NetworkMode
    isolated: bool = False
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetInterfaceUp:
    """Set the VE's end of a link up, and the loopback with it."""

    uid: Uid
    interface: str
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLoopbackUp:
    """Set the loopback of a VE up."""

    uid: Uid
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetInterfaceMtu:
    """Set both ends' MTU. Units: bytes."""

    uid: Uid
    interface: str
    mtu: int
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetInterfaceMac:
    """Set the hardware address of the VE's end."""

    uid: Uid
    interface: str
    mac: str
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetInterfaceRate:
    """Hold what a VE sends or receives by an interface to a rate, on the host's end. Units: those of `Rate`."""

    uid: Uid
    interface: str
    direction: Direction
    rate: int | None
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddAddress:
    """Give a VE's interface an address."""

    uid: Uid
    interface: str
    address: Interface
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAddress:
    """Take an address off a VE's interface."""

    uid: Uid
    interface: str
    address: Interface
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRoute:
    """Add a route of our protocol number inside a VE."""

    uid: Uid
    interface: str
    route: Route
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveRoute:
    """Remove a route of our protocol number inside a VE."""

    uid: Uid
    interface: str
    route: Route
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddHostRoute:
    """Lead an address of a routed VE to its link: a host route, and a proxy entry towards the uplink."""

    uid: Uid
    interface: str
    address: Address
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveHostRoute:
    """Stop leading an address to a routed VE."""

    uid: Uid
    interface: str
    address: Address
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceAddress:
    """Tell the neighbours where an address is now, by gratuitous ARP or an unsolicited neighbour advertisement.

    Source: RFC 5227 section 3; RFC 4861 section 7.2.6.
    """

    uid: Uid
    interface: str
    address: Address
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetHostname:
    """Set the hostname of a VE's UTS namespace, and its /etc/hostname."""

    uid: Uid
    hostname: str
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetResolver:
    """Write a VE's /etc/resolv.conf."""

    uid: Uid
    resolver: Resolver
    serves: str = field(default="", compare=False)
