"""Network: the interfaces inside a VE, with their addresses and routes.

The VE's root is hostile in there: names, addresses and routes that it makes are its own affair, unless they are on a
link that carries our mark.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network

from reconciler.errors import BusyError, KernelError
from reconciler.host import interface_ends, naming, shaping
from reconciler.host.attachment import HostSide
from reconciler.host.namespaces import Inside
from reconciler.host.site import Site
from reconciler.kernel import address, announce, link, route, rtnl
from reconciler.model.identity import ROUTE_PROTOCOL, Uid, derived_mac, host_link_name, link_alias
from reconciler.model.network import (
    ROUTED_GATEWAYS,
    UNLIMITED,
    AddAddress,
    AddRoute,
    AnnounceAddress,
    CreateInterface,
    InterfaceObservation,
    RemoveAddress,
    RemoveInterface,
    RemoveRoute,
    Route,
    SetInterfaceMac,
    SetInterfaceMtu,
    SetInterfaceUp,
    SetLoopbackUp,
    VeNetworkObservation,
)

_GATEWAYS = frozenset(ip_address(gateway) for gateway in ROUTED_GATEWAYS.values())
_LOOPBACK = 1
_MTUS = range(68, 65_536)
"""Source: Linux drivers/net/veth.c, veth_setup; include/uapi/linux/if_ether.h, ETH_MIN_MTU and ETH_MAX_MTU."""
_NAME_TAKEN = frozenset({errno.EEXIST, errno.ENODEV})
"""How creating a veth fails where one of its names is taken, also by a link that is gone when it is looked at."""


def observe(site: Site, uid: Uid, into: Inside, host: HostSide, hostname: str) -> VeNetworkObservation:
    """Look at the network of a VE that has namespaces.

    Raises: KernelError.
    """
    links = into.rtnl.dump_links()
    alias = link_alias(site.instance.name, uid)
    ours = {entry.index: entry for entry in links if entry.alias == alias}
    addresses = _by_link(into.rtnl.dump_addresses(), ours)
    routes = _routes_by_link(into.rtnl.dump_routes(protocol=ROUTE_PROTOCOL), ours)
    return VeNetworkObservation(
        hostname=hostname,
        resolver=naming.read_resolver(into),
        loopback_up=any(entry.up for entry in links if entry.index == _LOOPBACK),
        interfaces={
            entry.name: _interface(entry, _host_end(site, uid, entry.name, host), host, addresses[index], routes[index])
            for index, entry in ours.items()
        },
    )


def find_addresses(site: Site, uid: Uid, into: Inside) -> frozenset[rtnl.IpInterface]:
    """Give the global addresses that the interfaces of a VE have which it has from us.

    Raises: KernelError.
    """
    alias = link_alias(site.instance.name, uid)
    ours = {entry.index: entry for entry in into.rtnl.dump_links() if entry.alias == alias}
    return frozenset().union(*_by_link(into.rtnl.dump_addresses(), ours).values())


def _by_link(found: Iterable[rtnl.Address], ours: Mapping[int, rtnl.Link]) -> dict[int, set[rtnl.IpInterface]]:
    addresses: dict[int, set[rtnl.IpInterface]] = {index: set() for index in ours}
    for entry in found:
        if entry.index in ours and entry.scope == rtnl.RT_SCOPE_UNIVERSE:
            addresses[entry.index].add(entry.interface)
    return addresses


def _routes_by_link(found: Iterable[rtnl.Route], ours: Mapping[int, rtnl.Link]) -> dict[int, set[Route]]:
    routes: dict[int, set[Route]] = {index: set() for index in ours}
    for entry in found:
        if entry.index is not None and entry.index in ours:
            via = "" if entry.gateway is None else str(entry.gateway)
            routes[entry.index].add(Route(to=str(entry.destination), via=via))
    return routes


def _host_end(site: Site, uid: Uid, name: str, host: HostSide) -> rtnl.Link | None:
    found = host.link(host_link_name(site.instance.name, uid, name))
    return found if found is not None and found.alias == link_alias(site.instance.name, uid) else None


def _interface(
    entry: rtnl.Link,
    near: rtnl.Link | None,
    host: HostSide,
    addresses: set[rtnl.IpInterface],
    routes: set[Route],
) -> InterfaceObservation:
    return InterfaceObservation(
        mac=entry.mac or "",
        mtu=entry.mtu,
        up=entry.up,
        host_up=near is not None and near.up,
        addresses=frozenset(addresses),
        routes=frozenset(routes),
        bridge=host.name_of(near.master) if near is not None and near.master is not None else None,
        isolated=near is not None and near.port is not None and near.port.isolated,
        host_routes=host.led_to(near.index) if near is not None else frozenset(),
        rate=shaping.observe(near, host) if near is not None else UNLIMITED,
    )


def create(site: Site, effect: CreateInterface) -> None:
    """Make both ends of an interface, marked and down; one of ours gets its hardware address and MTU.

    Raises: StateError, if the VE does not run; BusyError, if the VE's root has made a link of that name.
    """
    uid, name = effect.uid, effect.interface
    into, alias = interface_ends.inside(site, uid), link_alias(site.instance.name, uid)
    existing = into.rtnl.link(name)
    if existing is not None and existing.alias == alias:
        if effect.mtu not in _MTUS:  # or the address would be another one already when the kernel says so
            raise KernelError(f"create interface {name} of VE {uid}: no link has an mtu of {effect.mtu}")
        set_mac(site, SetInterfaceMac(uid=uid, interface=name, mac=effect.mac))
        set_mtu(site, SetInterfaceMtu(uid=uid, interface=name, mtu=effect.mtu))
        return
    if existing is not None and existing.alias is not None:
        raise BusyError(f"create interface {name} of VE {uid}: a link without our mark has that name inside")
    host_name = host_link_name(site.instance.name, uid, name)
    pair = link.VethPair(
        host_name=host_name,
        host_mac=derived_mac(uid, host_name),
        peer_name=name,
        peer_mac=effect.mac,
        mtu=effect.mtu,
        alias=alias,
    )
    try:
        _create_pair(site, into, pair)
    except KernelError as err:
        if err.errno not in _NAME_TAKEN:
            raise
        raise BusyError(f"create interface {name} of VE {uid}: {err}") from err


def _create_pair(site: Site, into: Inside, pair: link.VethPair) -> None:
    """Make a veth, if need be in the place of a former one of ours.

    That is still there while the namespace of a VE that just ended dies, and when somebody moved its other end away.
    """
    try:
        link.create_veth(site.rtnl, into.rtnl, into.net, pair)
    except KernelError as err:
        if err.errno not in _NAME_TAKEN or not interface_ends.remove_former(site, pair):
            raise
        link.create_veth(site.rtnl, into.rtnl, into.net, pair)


def remove(site: Site, effect: RemoveInterface) -> None:
    """Remove an interface of ours; absent is success.

    Raises: StateError, if the VE does not run.
    """
    into, alias = interface_ends.inside(site, effect.uid), link_alias(site.instance.name, effect.uid)
    for found in into.rtnl.dump_links():  # by the name that was observed: the kernel may know it by no such text
        if (found.name, found.alias) == (effect.interface, alias):
            link.delete_link(into.rtnl, found.index)
    shaping.remove(site, host_link_name(site.instance.name, effect.uid, effect.interface), alias)


def set_up(site: Site, effect: SetInterfaceUp) -> None:
    """Set the VE's end up."""
    into, found = interface_ends.far(site, effect.uid, effect.interface)
    link.set_up(into.rtnl, found.index)


def set_loopback_up(site: Site, effect: SetLoopbackUp) -> None:
    """Set the VE's loopback up."""
    link.set_up(interface_ends.inside(site, effect.uid).rtnl, _LOOPBACK)


def set_mtu(site: Site, effect: SetInterfaceMtu) -> None:
    """Set both ends' MTU."""
    into, found = interface_ends.far(site, effect.uid, effect.interface)
    link.set_mtu(into.rtnl, found.index, effect.mtu)
    shaping.set_mtu(site, effect.uid, interface_ends.near(site, effect.uid, effect.interface), effect.mtu)


def set_mac(site: Site, effect: SetInterfaceMac) -> None:
    """Set the hardware address of the VE's end."""
    into, found = interface_ends.far(site, effect.uid, effect.interface)
    if found.mac != effect.mac:
        link.set_mac(into.rtnl, found.index, effect.mac)


def add_address(site: Site, effect: AddAddress) -> None:
    """Give the VE's end an address."""
    into, found = interface_ends.far(site, effect.uid, effect.interface)
    address.add_address(into.rtnl, found.index, effect.address)


def remove_address(site: Site, effect: RemoveAddress) -> None:
    """Take an address off the VE's end."""
    into, found = interface_ends.far(site, effect.uid, effect.interface)
    address.delete_address(into.rtnl, found.index, effect.address)


def add_route(site: Site, effect: AddRoute) -> None:
    """Add a route of ours inside the VE.

    Raises: KernelError, if the link is down or the gateway is not on it; BusyError, if the VE has a route of its own
    to the same destination.
    """
    into, found = interface_ends.far(site, effect.uid, effect.interface)
    route.add_route(into.rtnl, _kernel_route(found.index, effect.route))


def remove_route(site: Site, effect: RemoveRoute) -> None:
    """Remove a route of ours inside the VE; absent is success."""
    into, found = interface_ends.far(site, effect.uid, effect.interface)
    route.delete_route(into.rtnl, _kernel_route(found.index, effect.route))


def _kernel_route(index: int, wanted: Route) -> rtnl.Route:
    to = ip_network(wanted.to)
    if not wanted.via:
        return route.direct(to, index=index, protocol=ROUTE_PROTOCOL)
    gateway = ip_address(wanted.via)
    is_shared = gateway in _GATEWAYS
    return route.via(to, gateway, index=index, protocol=ROUTE_PROTOCOL, on_link=is_shared)


def announce_address(site: Site, effect: AnnounceAddress) -> None:
    """Tell the neighbours where an address is now."""
    into, found = interface_ends.far(site, effect.uid, effect.interface)
    if found.up and found.mac is not None:
        announce.announce(into.rtnl, found.index, found.mac)
