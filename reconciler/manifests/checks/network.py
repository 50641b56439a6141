"""Checks within a network, and between a VE's interfaces and their networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

from reconciler.manifests.addressing import DEFAULT_ROUTES, packet_size, smallest_subnet, vxlan
from reconciler.manifests.document import Complaint, Document, complain
from reconciler.manifests.kinds.network import Interface as InterfaceBody
from reconciler.manifests.kinds.network import NetworkBody
from reconciler.manifests.kinds.ve import VeBody
from reconciler.manifests.problem import Path, listed
from reconciler.model.network import Address, Interface, NetworkMode, Subnet

_IPV6_MTU_MIN = 1280
"""Below it the kernel switches IPv6 off. Source: RFC 8200, section 5."""


def subnets(document: Document, body: NetworkBody) -> Iterator[Complaint]:
    """The subnets of a network do not overlap, and NAT has a subnet to translate."""
    for position, subnet in enumerate(body.subnets):
        for other in body.subnets[:position]:
            if _overlap(subnet, other):
                where = ("spec", "subnets", position)
                yield complain(document, where, f"expected subnets that do not overlap, {subnet} overlaps {other}")
    if body.nat and not body.subnets:
        yield complain(document, ("spec", "nat"), "expected subnets to translate", "add 'subnets: [...]'")


def _overlap(one: Subnet, other: Subnet) -> bool:
    match one, other:
        case ipaddress.IPv4Network(), ipaddress.IPv4Network():
            return one.overlaps(other)
        case ipaddress.IPv6Network(), ipaddress.IPv6Network():
            return one.overlaps(other)
        case _:
            return False


def gateways(document: Document, body: NetworkBody) -> Iterator[Complaint]:
    """A network's gateways are addresses of its subnets."""
    for position, gateway in enumerate(body.gateway):
        where = ("spec", "gateway", position)
        subnet = smallest_subnet(gateway, body.subnets)
        if subnet is None:
            yield complain(document, where, f"expected an address in {_shown(body.subnets)}, got {gateway}")
        elif reserved := _reserved(gateway, subnet):
            yield complain(document, where, f"expected the address of a host, got {gateway}, {reserved}")


def links(document: Document, body: NetworkBody) -> Iterator[Complaint]:
    """Only a bridge has an uplink, and IPv6 has the packet size that it needs."""
    if body.uplink is not None and body.mode is not NetworkMode.BRIDGED:
        where = ("spec", "uplink")
        yield complain(document, where, f"expected only in mode bridged, the mode is {body.mode}", "remove it")
    if body.vxlan is not None and body.mode is not NetworkMode.BRIDGED:
        where = ("spec", "vxlan")
        yield complain(document, where, f"expected only in mode bridged, the mode is {body.mode}", "remove it")
    if body.vxlan is not None and body.uplink is not None:
        message = "expected no uplink beside vxlan: frames would go round by both for ever"
        yield complain(document, ("spec", "uplink"), message, "remove one of these")
    if body.mtu < _IPV6_MTU_MIN and any(subnet.version == 6 for subnet in body.subnets):
        yield complain(document, ("spec", "mtu"), f"expected at least {_IPV6_MTU_MIN} for IPv6, got {body.mtu}")


def network(document: Document, body: NetworkBody) -> Iterator[Complaint]:
    """Run every check of a network by itself."""
    for check in (subnets, gateways, links):
        yield from check(document, body)


def interfaces(document: Document, body: VeBody, networks: Mapping[str, NetworkBody]) -> Iterator[Complaint]:
    """Run every check of a VE's interfaces. Those of unknown networks are left to the check of references."""
    for interface in body.interfaces:
        path = ("spec", "interfaces", interface.name)
        if interface.network is None:
            yield complain(document, (*path, "network"), "missing field", "add 'network: ...', here or in a profile")
        elif (net := networks.get(interface.network)) is not None:
            yield from _addresses(document, path, interface, net)
            yield from _own_gateways(document, path, interface, net)
            yield from _route_hops(document, path, interface, net)
            yield from _packet_size(document, path, interface, net)
    yield from _default_routes(document, body.interfaces)
    yield from _destinations(document, body.interfaces)


def _addresses(document: Document, path: Path, interface: InterfaceBody, net: NetworkBody) -> Iterator[Complaint]:
    for position, address in enumerate(interface.addresses):
        problem = _address_problem(address, interface, net)
        if problem is not None:
            yield complain(document, (*path, "addresses", position), *problem)


def _address_problem(address: Interface, interface: InterfaceBody, net: NetworkBody) -> tuple[str, str] | None:
    ip = address.ip
    if ip.is_loopback or ip.is_multicast or ip.is_unspecified or ip.is_link_local:
        return f"expected the global address of a host, got {address}", ""
    if net.subnets:
        subnet = smallest_subnet(ip, net.subnets)
        if subnet is None:
            hint = f"subnets of {interface.network}: {_shown(net.subnets)}"
            return f"expected an address in network {interface.network}, got {address}", hint
        if net.mode is NetworkMode.BRIDGED and address.network.prefixlen < subnet.prefixlen:
            return f"expected a prefix length of at least {subnet.prefixlen}, got {address}", f"its subnet is {subnet}"
        if reserved := _reserved(ip, subnet):
            return f"expected the address of a host, got {ip}, {reserved}", ""
    return None


def _reserved(ip: Address, subnet: Subnet) -> str:
    """Say what an address of a subnet stands for, if it is no host's. Source: RFC 1122 3.2.1.3; RFC 3021; RFC 4291."""
    if subnet.version == 4 and subnet.prefixlen < 31 and ip == subnet.broadcast_address:
        return f"the broadcast address of {subnet}"
    if ip == subnet.network_address and subnet.prefixlen < subnet.max_prefixlen - 1:
        return f"the address of the subnet {subnet}"
    return ""


def _own_gateways(document: Document, path: Path, interface: InterfaceBody, net: NetworkBody) -> Iterator[Complaint]:
    versions: set[int] = set()
    for position, gateway in enumerate(interface.gateway or ()):
        where = (*path, "gateway", position)
        if gateway.version in versions:
            yield complain(document, where, f"expected one gateway of IPv{gateway.version}, got another, {gateway}")
        versions.add(gateway.version)
        yield from _hop(document, where, gateway, interface, net)


def _route_hops(document: Document, path: Path, interface: InterfaceBody, net: NetworkBody) -> Iterator[Complaint]:
    for position, route in enumerate(interface.routes):
        where = (*path, "routes", position, "via")
        if route.via is not None and route.via.version != route.to.version:
            yield complain(document, where, f"expected an IPv{route.to.version} address, got {route.via}")
        elif route.via is not None:
            yield from _hop(document, where, route.via, interface, net)


def _hop(
    document: Document, where: Path, hop: Address, interface: InterfaceBody, net: NetworkBody
) -> Iterator[Complaint]:
    if net.mode is NetworkMode.ROUTED or hop.is_link_local:
        return
    if not any(hop.version == own.version and hop in own.network for own in interface.addresses):
        near = [own.network for own in interface.addresses if own.version == hop.version]
        expected = f"an address in {_shown(near)}" if near else f"an IPv{hop.version} address of its own beside it"
        yield complain(document, where, f"expected {expected}, got {hop}")
    elif any(hop == own.ip for own in interface.addresses):
        yield complain(document, where, f"expected another's address, {hop} is its own")


def _packet_size(document: Document, path: Path, interface: InterfaceBody, net: NetworkBody) -> Iterator[Complaint]:
    if interface.mtu is None:
        return
    most = packet_size(net, vxlan(net, ()))
    if interface.mtu > most:
        message = f"expected at most {most}, the mtu of network {interface.network}, got {interface.mtu}"
        yield complain(document, (*path, "mtu"), message)
    if interface.mtu < _IPV6_MTU_MIN and any(address.version == 6 for address in interface.addresses):
        yield complain(document, (*path, "mtu"), f"expected at least {_IPV6_MTU_MIN} for IPv6, got {interface.mtu}")


def _default_routes(document: Document, bodies: Iterable[InterfaceBody]) -> Iterator[Complaint]:
    holders: dict[int, str] = {}
    for body in bodies:
        for version in {gateway.version for gateway in body.gateway or ()}:
            if (first := holders.setdefault(version, body.name)) != body.name:
                message = f"expected one default route of IPv{version}, {first} has one too"
                hint = "leave one of them out, or write 'gateway: []'"
                yield complain(document, ("spec", "interfaces", body.name, "gateway"), message, hint)


def _destinations(document: Document, bodies: Iterable[InterfaceBody]) -> Iterator[Complaint]:
    seen: dict[str, str] = {
        DEFAULT_ROUTES[gateway.version]: "a gateway" for body in bodies for gateway in body.gateway or ()
    }
    for body in bodies:
        for position, route in enumerate(body.routes):
            where = ("spec", "interfaces", body.name, "routes", position)
            if (first := seen.get(str(route.to))) is not None:
                yield complain(document, where, f"expected one route to {route.to}, {first} is one too")
            seen[str(route.to)] = f"a route of {body.name}"


def _shown(nets: Iterable[Subnet]) -> str:
    return listed([str(net) for net in nets] or ["the subnets of the network, which has none"])
