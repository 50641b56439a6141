"""VXLAN: how a network spans hosts, and the one link of it on each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from reconciler.model.identity import HostName, NetworkName, Uid, derived_mac

Address: TypeAlias = IPv4Address | IPv6Address

VXLAN_PORT = 4789
"""Source: IANA; RFC 7348, section 5."""

OVERHEAD = {4: 50, 6: 70}
"""What encapsulation adds to a packet, by the IP version between the hosts: Ethernet, VXLAN, UDP and IP headers.

Units: bytes.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class VxlanHost:
    """A host of the fleet that has an address at which the others reach it."""

    name: HostName
    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Vxlan:
    """What makes a network span hosts: its number in the fleet, and everybody who may be on it."""

    id: int
    port: int = VXLAN_PORT
    hosts: frozenset[VxlanHost] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """A host's link of a network to the other hosts: each of ``remotes`` gets whatever has no known receiver.

    ``isolated``: as with the network's other ports.
    """

    id: int
    port: int
    local: Address
    remotes: frozenset[Address] = frozenset()
    isolated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelObservation:
    """``intact``: the link is up, a port of its bridge, of the bridge's MTU, and nobody turned anything else of it."""

    tunnel: Tunnel
    intact: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTunnel:
    """Make a network's link to the other hosts what it is to be; hosts that stay are not cut off while it changes.

    Only another id, port or local address takes a new link.
    """

    network: NetworkName
    tunnel: Tunnel
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveTunnel:
    """Remove a network's link to the other hosts; absent is success."""

    network: NetworkName
    serves: str = field(default="", compare=False)


def gateway_mac(vxlan_id: int) -> str:
    """Give the hardware address of a spanning network's bridge, the same on all hosts.

    A VE that moves keeps what it knows of its gateway, and the host that it comes to answers to it.
    """
    return derived_mac(Uid("vxlan"), str(vxlan_id))
