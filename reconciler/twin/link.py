"""What the kernel makes of links, addresses and routes, as pure rules on a link of ours.

Each rule was seen on a real kernel (6.18) with iproute2 in throw-away namespaces, and the contract test sees to it
that it stays so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

from reconciler.errors import KernelError
from reconciler.model.network import ROUTED_GATEWAYS, Address, Interface, InterfaceObservation, Route

SMALLEST_MTU = 68
LARGEST_MTU = 65_535
SMALLEST_IPV6_MTU = 1280
"""Units: bytes. Source: RFC 8200, section 5."""

LONGEST_NAME = 15

_FORBIDDEN_IN_NAMES = frozenset("/: \t\n\v\f\r\0")


def require_name(name: str, doing: str) -> None:
    """Make sure that a link may have this name.

    Raises: KernelError.
    Source: Linux net/core/dev.c, dev_valid_name.
    """
    if not 0 < len(name) <= LONGEST_NAME or name in (".", "..") or _FORBIDDEN_IN_NAMES & set(name):
        raise KernelError(f"{doing}: {name!r} is no name for a link")


def require_mtu(mtu: int, doing: str) -> None:
    """Make sure that a veth or a bridge takes this MTU.

    Raises: KernelError.
    """
    if not SMALLEST_MTU <= mtu <= LARGEST_MTU:
        raise KernelError(f"{doing}: mtu {mtu} is not in {SMALLEST_MTU} to {LARGEST_MTU}")


def require_mac(mac: str, doing: str) -> str:
    """Make sure that a link may have this address, and give it as the kernel prints it.

    Raises: KernelError, if it is no address, all zero, or of a group.
    """
    try:
        octets = bytes.fromhex(mac.replace(":", ""))
    except ValueError as err:
        raise KernelError(f"{doing}: {mac!r} is no hardware address") from err
    if len(octets) != 6 or octets[0] & 1 or not any(octets):
        raise KernelError(f"{doing}: {mac!r} is no hardware address of one link")
    return octets.hex(":")


def with_mtu(link: InterfaceObservation, mtu: int) -> InterfaceObservation:
    """Set both ends' MTU; below what IPv6 needs the kernel takes everything of IPv6 from a link, for good."""
    changed = replace(link, mtu=mtu)
    if mtu >= SMALLEST_IPV6_MTU:
        return changed
    return replace(
        changed,
        addresses=_of_version(link.addresses, 4),
        routes=_routes_of_version(link.routes, 4),
        host_routes=frozenset(address for address in link.host_routes if address.version == 4),
    )


def set_down(link: InterfaceObservation) -> InterfaceObservation:
    """Take the VE's end down: all routes and the IPv6 addresses go, the IPv4 addresses stay."""
    if not link.up:
        return link
    return replace(link, up=False, addresses=_of_version(link.addresses, 4), routes=frozenset())


def set_host_end_down(link: InterfaceObservation) -> InterfaceObservation:
    """Take the host's end down: the host's routes through it go; the VE only loses its carrier."""
    return replace(link, host_up=False, host_routes=frozenset())


def with_address(addresses: frozenset[Interface], address: Interface, mtu: int, doing: str) -> frozenset[Interface]:
    """Add an address to those of a link, up or down.

    Raises: KernelError, if the link has this IPv6 address with another prefix, or is too small for IPv6.
    """
    if address in addresses:
        return addresses
    if address.version == 6 and mtu < SMALLEST_IPV6_MTU:
        raise KernelError(f"{doing}: an mtu of {mtu} is too small for IPv6")
    if address.version == 6 and any(other.ip == address.ip for other in addresses):
        raise KernelError(f"{doing}: it is there with another prefix")
    return addresses | {address}


def without_address(link: InterfaceObservation, address: Interface) -> InterfaceObservation:
    """Remove an address: with the last IPv4 one all IPv4 routes through the link go, else none of ours does."""
    left = link.addresses - {address}
    is_last = address.version == 4 and address in link.addresses and not _of_version(left, 4)
    routes = _routes_of_version(link.routes, 6) if is_last else link.routes
    return replace(link, addresses=left, routes=routes)


def require_route_fits(links: Mapping[str, InterfaceObservation], name: str, route: Route, doing: str) -> None:
    """Make sure that the kernel takes a route through one of a VE's links.

    Raises: KernelError, if the link is down or the gateway cannot be reached on it without another gateway.
    """
    link = links[name]
    if not link.up:
        raise KernelError(f"{doing}: the link is down")
    if _version(route) == 6 and link.mtu < SMALLEST_IPV6_MTU:
        raise KernelError(f"{doing}: an mtu of {link.mtu} is too small for IPv6")
    if not route.via or route.via in ROUTED_GATEWAYS.values():
        return
    gateway = ip_address(route.via)
    if not _is_on_link(link, gateway):
        raise KernelError(f"{doing}: gateway {gateway} is not on the link")
    if gateway.version == 6 and any(own.ip == gateway for other in links.values() for own in other.addresses):
        raise KernelError(f"{doing}: gateway {gateway} is an address of the VE itself")


def with_route(links: Mapping[str, InterfaceObservation], name: str, route: Route) -> dict[str, InterfaceObservation]:
    """Add a route through one link of a VE, in place of the one to the same destination through whichever link."""
    changed = {other: _without_destination(link, route.to) for other, link in links.items()}
    changed[name] = replace(changed[name], routes=changed[name].routes | {route})
    return changed


def _without_destination(link: InterfaceObservation, to: str) -> InterfaceObservation:
    left = frozenset(route for route in link.routes if route.to != to)
    return link if left == link.routes else replace(link, routes=left)


def _is_on_link(link: InterfaceObservation, gateway: Address) -> bool:
    subnets = [address.network for address in link.addresses]
    subnets += [ip_network(route.to) for route in link.routes if not route.via]
    return any(gateway in subnet for subnet in subnets if subnet.version == gateway.version)


def _of_version(addresses: frozenset[Interface], version: int) -> frozenset[Interface]:
    return frozenset(address for address in addresses if address.version == version)


def _routes_of_version(routes: frozenset[Route], version: int) -> frozenset[Route]:
    return frozenset(route for route in routes if _version(route) == version)


def _version(route: Route) -> int:
    return 6 if ":" in route.to else 4
