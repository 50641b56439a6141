"""Networks as manifests write them: a VE's interfaces and resolver, its firewall, and the Network kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from reconciler.manifests.fields import (
    BitRateLimit,
    Domain,
    IpAddress,
    IpInterface,
    IpSubnet,
    Items,
    LinkName,
    Mac,
    Mtu,
    Name,
    Port,
    PortRange,
    Target,
)
from reconciler.manifests.kinds.base import Manifest, Section, shared
from reconciler.model import network
from reconciler.model.vxlan import VXLAN_PORT

ModeWord = Annotated[network.NetworkMode, Strict(False)]


class Dns(Section):
    """What the VE's /etc/resolv.conf says. Left to the VE, if left out."""

    servers: Items[IpAddress] = Field(
        (), max_length=3, description="Name servers, in the order in which they are asked. At most 3."
    )
    search: Items[Domain] = Field((), max_length=32, description="Domains that short names are looked up in.")


class InterfaceRoute(Section):
    """A route inside the VE."""

    to: IpSubnet = Field(description="Destination.")
    via: IpAddress | None = Field(None, description="Next hop; the destination is on the link, if left out.")


class Rate(Section):
    """Most traffic of an interface."""

    egress: BitRateLimit = Field(None, description="Out of the VE, in bit/s, at least 8Kbit. Unlimited, if left out.")
    ingress: BitRateLimit = Field(None, description="Into the VE, in bit/s, at least 8Kbit. Unlimited, if left out.")


class FirewallRule(Section):
    """A kind of traffic that is let in."""

    allow: Literal["tcp", "udp", "icmp", "any"] = Field(description="Protocol.")
    ports: Items[PortRange] = Field((), description="Ports of tcp or udp, such as 443 or 8000-8010. All, if left out.")


class Firewall(Section):
    """Packet filter of an interface, on the host's side."""

    default: Literal["allow", "deny"] = Field("allow", description="What happens to traffic that no rule names.")
    ingress: Items[FirewallRule] = Field((), description="Traffic into the VE that is let in.")


class ProfileInterface(Section):
    """An interface of a VE."""

    name: LinkName = Field(description="Name of the interface inside the VE, such as eth0.")
    network: Name | None = Field(None, description="Network that it is connected to. Needed here or in a profile.")
    gateway: Items[IpAddress] | None = Field(
        None,
        max_length=2,
        description="Default gateways, one for each family. The Network's, if left out; [] for no default route.",
    )
    mac: Mac = Field(None, description="Hardware address; derived from the VE's uid, if left out.")
    mtu: Mtu | None = Field(None, description="Largest packet, in bytes. The Network's, if left out.")
    routes: Items[InterfaceRoute] = Field((), description="Routes beside the default route.")
    rate: Rate = Field(default_factory=shared(Rate), description="Most traffic.")
    firewall: Firewall = Field(default_factory=shared(Firewall), description="Packet filter, on the host's side.")


class Interface(ProfileInterface):
    """An interface of a VE, with its addresses."""

    addresses: Items[IpInterface] = Field(
        (),
        max_length=256,
        description="Addresses with their prefix length. On a routed network each becomes a /32 or a /128.",
    )


class NetworkForward(Section):
    """A port of the host that leads to a VE."""

    listen: Port = Field(description="Port of the host.")
    to: Target = Field(description="VE and its port, such as web1:80.")
    protocol: Literal["tcp", "udp"] = Field("tcp", description="Protocol.")


class Vxlan(Section):
    """A network that spans hosts. Each of them needs a Host with an address."""

    id: int = Field(ge=1, le=2**24 - 1, description="VXLAN network identifier. Unique in the fleet.")
    port: Port = Field(VXLAN_PORT, description="UDP port between the hosts.")


class NetworkBody(Section):
    """A network."""

    mode: ModeWord = Field(
        network.NetworkMode.BRIDGED,
        description="bridged: VEs are ports of a bridge. routed: a point-to-point link for each VE, with host routes.",
    )
    subnets: Items[IpSubnet] = Field(
        (), max_length=64, description="Subnets that its addresses must lie in. Any, if left out."
    )
    gateway: Items[IpAddress] = Field(
        (), max_length=64, description="Addresses that the host holds on it. None, if left out."
    )
    nat: bool = Field(False, description="Whether its VEs reach the outside with the host's address.")
    forwards: Items[NetworkForward] = Field((), description="Ports of the host that lead to VEs.")
    uplink: LinkName | None = Field(
        None, description="Host interface that becomes a port of the bridge. Only in mode bridged."
    )
    mtu: Mtu = Field(
        network.DEFAULT_MTU,
        description="Largest packet, in bytes. With vxlan 1450, or 1430 over IPv6, if left out.",
    )
    isolated: bool = Field(False, description="Whether its VEs reach only the gateway, and not each other.")
    vxlan: Vxlan | None = Field(None, description="Lets the network span hosts. Only in mode bridged without uplink.")


class Network(Manifest):
    """A network that VEs are connected to."""

    kind: Literal["Network"] = Field(description="The kind.")
    spec: NetworkBody = Field(default_factory=shared(NetworkBody), description="What the network is.")
