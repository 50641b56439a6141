"""Addressing: what an interface gets from its network, and which interface holds a VE's default routes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

from reconciler.manifests.kinds.network import Interface as InterfaceBody
from reconciler.manifests.kinds.network import NetworkBody
from reconciler.model.fleet import HostSpec
from reconciler.model.identity import NetworkName
from reconciler.model.network import (
    DEFAULT_MTU,
    ROUTED_GATEWAYS,
    Address,
    Interface,
    InterfaceSpec,
    NetworkMode,
    NetworkSpec,
    Rate,
    Route,
    Subnet,
)
from reconciler.model.vxlan import OVERHEAD, Vxlan, VxlanHost

DEFAULT_ROUTES: Mapping[int, str] = {4: "0.0.0.0/0", 6: "::/0"}
"""By IP version."""


def gateway_interfaces(body: NetworkBody) -> frozenset[Interface]:
    """Give a network's gateways the prefix length of the smallest of its subnets that holds them."""
    return frozenset(
        _with_prefix(address, subnet.prefixlen)
        for address in body.gateway
        if (subnet := smallest_subnet(address, body.subnets)) is not None
    )


def vxlan(body: NetworkBody, hosts: Iterable[HostSpec]) -> Vxlan | None:
    """Give what makes a network span hosts: all that have an address."""
    if body.vxlan is None:
        return None
    known = frozenset(
        VxlanHost(name=host.name, address=ipaddress.ip_address(host.address))
        for host in hosts
        if host.address is not None
    )
    return Vxlan(id=body.vxlan.id, port=body.vxlan.port, hosts=known)


def packet_size(body: NetworkBody, spanning: Vxlan | None) -> int:
    """Give a network's MTU: as it is written, or what encapsulation leaves of Ethernet's, the same on all hosts."""
    if spanning is None or "mtu" in body.model_fields_set:
        return body.mtu
    return DEFAULT_MTU - max((OVERHEAD[host.address.version] for host in spanning.hosts), default=OVERHEAD[4])


def smallest_subnet(address: Address, subnets: Iterable[Subnet]) -> Subnet | None:
    """Give the smallest subnet that holds an address, or None."""
    holding = [subnet for subnet in subnets if subnet.version == address.version and address in subnet]
    return max(holding, key=lambda subnet: subnet.prefixlen, default=None)


def interface_specs(
    interfaces: Iterable[InterfaceBody],
    networks: Mapping[NetworkName, NetworkSpec],
    gateways: Mapping[NetworkName, tuple[Address, ...]],
) -> dict[str, InterfaceSpec]:
    """Resolve a VE's interfaces. ``gateways``: the networks' own, in the order in which they were written.

    Shape: by name. Interfaces of unknown networks are left out.
    """
    known = [body for body in interfaces if body.network is not None and NetworkName(body.network) in networks]
    holders = _default_route_holders(known, networks, gateways)
    specs = {}
    for body in known:
        network = networks[NetworkName(body.network or "")]
        defaults = (
            Route(to=DEFAULT_ROUTES[version], via=via) for version, (name, via) in holders.items() if name == body.name
        )
        specs[body.name] = InterfaceSpec(
            name=body.name,
            network=network.name,
            mode=network.mode,
            addresses=frozenset(_addresses(body, network.mode)),
            routes=frozenset([*defaults, *_written_routes(body)]),
            mac=body.mac,
            mtu=network.mtu if body.mtu is None else body.mtu,
            isolated=network.isolated,
            rate=Rate(egress=_whole_bytes(body.rate.egress), ingress=_whole_bytes(body.rate.ingress)),
        )
    return specs


def _whole_bytes(rate: int | None) -> int | None:
    """The kernel counts bytes: what it keeps of a rate is what is asked for. Units: bit/s."""
    return None if rate is None else rate // 8 * 8


def _addresses(body: InterfaceBody, mode: NetworkMode) -> Iterator[Interface]:
    for address in body.addresses:
        yield address if mode is NetworkMode.BRIDGED else _with_prefix(address.ip, address.max_prefixlen)


def _with_prefix(address: Address, length: int) -> Interface:
    return ipaddress.ip_interface((address, length))


def _written_routes(body: InterfaceBody) -> Iterator[Route]:
    return (Route(to=str(route.to), via="" if route.via is None else str(route.via)) for route in body.routes)


def _default_route_holders(
    interfaces: Iterable[InterfaceBody],
    networks: Mapping[NetworkName, NetworkSpec],
    gateways: Mapping[NetworkName, tuple[Address, ...]],
) -> dict[int, tuple[str, str]]:
    """Decide, by IP version, which interface a VE's default route leaves by, and its next hop.

    A VE has one default route for each family: by the gateway that an interface names itself, else by that of the
    first interface whose network gives one. A default route among the written routes takes the place of both.
    """
    bodies = list(interfaces)
    written = {route.to.version for body in bodies for route in body.routes if route.to.prefixlen == 0}
    holders: dict[int, tuple[str, str]] = {}
    for body in bodies:
        for gateway in body.gateway or ():
            holders.setdefault(gateway.version, (body.name, str(gateway)))
    for body in bodies:
        name = NetworkName(body.network or "")
        if body.gateway is None:
            for version, via in _given_gateways(body, networks[name].mode, gateways.get(name, ())):
                holders.setdefault(version, (body.name, via))
    return {version: holder for version, holder in holders.items() if version not in written}


def _given_gateways(body: InterfaceBody, mode: NetworkMode, gateways: tuple[Address, ...]) -> Iterator[tuple[int, str]]:
    if mode is NetworkMode.ROUTED:
        yield from ((version, ROUTED_GATEWAYS[version]) for version in {address.version for address in body.addresses})
        return
    for gateway in gateways:
        if any(gateway.version == address.version and gateway in address.network for address in body.addresses):
            yield gateway.version, str(gateway)
