"""Network: the interfaces of a VE with both their ends, its hostname and its resolver.

The VE's root is hostile in there: names, addresses and routes that it makes are its own affair, unless they are on a
link that carries our mark.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network

from reconciler.errors import BusyError, KernelError, StateError
from reconciler.host import host_network, power
from reconciler.host.namespaces import Inside
from reconciler.host.site import Site
from reconciler.kernel import address, announce, link, neighbour, rootfs, route, rtnl, sysctl, userns, uts
from reconciler.model.identity import ROUTE_PROTOCOL, Uid, derived_mac, host_link_name, link_alias
from reconciler.model.network import (
    ROUTED_GATEWAYS,
    AddAddress,
    AddHostRoute,
    Address,
    AddRoute,
    AnnounceAddress,
    AttachInterface,
    CreateInterface,
    InterfaceObservation,
    NetworkMode,
    RemoveAddress,
    RemoveHostRoute,
    RemoveInterface,
    RemoveRoute,
    Resolver,
    Route,
    SetHostname,
    SetInterfaceMac,
    SetInterfaceMtu,
    SetInterfaceUp,
    SetLoopbackUp,
    SetResolver,
    VeNetworkObservation,
)

_RESOLVER_MARK = "# written by vectl from the manifest"
_GATEWAYS = frozenset(ip_address(gateway) for gateway in ROUTED_GATEWAYS.values())

_LOOPBACK = 1

_NO_FILE_OF_OURS = frozenset({0, errno.EFBIG, errno.ELOOP, errno.ENXIO, errno.EXDEV})
"""How reading fails where a directory, a device, a huge file, a loop of links, a socket or a mount stands."""


@dataclass(frozen=True, slots=True)
class HostSide:
    """The host's links and the routes to VEs, read once for all VEs."""

    by_name: Mapping[str, rtnl.Link]
    by_index: Mapping[int, rtnl.Link]
    routes: Mapping[int, frozenset[Address]]


def read_host_side(site: Site, links: list[rtnl.Link]) -> HostSide:
    """Read what the host has of all VEs' links.

    Raises: KernelError.
    """
    led: dict[int, set[Address]] = defaultdict(set)
    for found in site.rtnl.dump_routes(protocol=ROUTE_PROTOCOL):
        if found.index is not None and found.destination.prefixlen == found.destination.max_prefixlen:
            led[found.index].add(found.destination.network_address)
    return HostSide(
        by_name={entry.name: entry for entry in links},
        by_index={entry.index: entry for entry in links},
        routes={index: frozenset(addresses) for index, addresses in led.items()},
    )


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
        resolver=_read_resolver(into),
        loopback_up=any(entry.up for entry in links if entry.index == _LOOPBACK),
        interfaces={
            entry.name: _interface(entry, _host_end(site, uid, entry.name, host), host, addresses[index], routes[index])
            for index, entry in ours.items()
        },
    )


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
    found = host.by_name.get(host_link_name(site.instance.name, uid, name))
    return found if found is not None and found.alias == link_alias(site.instance.name, uid) else None


def _interface(
    entry: rtnl.Link,
    near: rtnl.Link | None,
    host: HostSide,
    addresses: set[rtnl.IpInterface],
    routes: set[Route],
) -> InterfaceObservation:
    bridge = host.by_index.get(near.master) if near is not None and near.master is not None else None
    return InterfaceObservation(
        mac=entry.mac or "",
        mtu=entry.mtu,
        up=entry.up,
        host_up=near is not None and near.up,
        addresses=frozenset(addresses),
        routes=frozenset(routes),
        bridge=bridge.name if bridge is not None else None,
        isolated=near is not None and near.port is not None and near.port.isolated,
        host_routes=host.routes.get(near.index, frozenset()) if near is not None else frozenset(),
    )


def _read_resolver(into: Inside) -> Resolver | None:
    """Read the resolver that we wrote; whatever else the VE's root has put there is none of ours, and is replaced."""
    try:
        with into.root() as root:
            data = rootfs.read_in_root(root, "etc/resolv.conf")
    except KernelError as err:
        if err.errno not in _NO_FILE_OF_OURS:
            raise
        return None
    lines = (data or b"").decode(errors="replace").splitlines()
    if not lines or lines[0] != _RESOLVER_MARK:
        return None
    servers: list[str] = []
    search: list[str] = []
    for line in lines[1:]:
        key, _, rest = line.partition(" ")
        (servers if key == "nameserver" else search).extend(rest.split())
    return Resolver(servers=tuple(servers), search=tuple(search))


def _render_resolver(resolver: Resolver) -> str:
    search = [f"search {' '.join(resolver.search)}"] if resolver.search else []
    return "\n".join([_RESOLVER_MARK, *search, *(f"nameserver {server}" for server in resolver.servers), ""])


def inside(site: Site, uid: Uid) -> Inside:
    """Give the namespaces of a VE that has some.

    Raises: StateError, if nothing of it runs; KernelError.
    """
    init = power.need_init(site, uid)
    return site.namespaces.of(uid, init, site.rtnl)


def _far_end(site: Site, uid: Uid, name: str) -> tuple[Inside, rtnl.Link]:
    into = inside(site, uid)
    found = into.rtnl.link(name)
    if found is None or found.alias != link_alias(site.instance.name, uid):
        raise StateError(f"change interface {name} of VE {uid}: it has none of that name from us")
    return into, found


def _near_end(site: Site, uid: Uid, name: str) -> rtnl.Link:
    found = site.rtnl.link(host_link_name(site.instance.name, uid, name))
    if found is None:
        raise StateError(f"change interface {name} of VE {uid}: the host has no end of it")
    if found.alias != link_alias(site.instance.name, uid):
        raise BusyError(f"change interface {name} of VE {uid}: {found.name} does not carry our mark; rename it")
    return found


def create(site: Site, effect: CreateInterface) -> None:
    """Make both ends of an interface, marked and down; one of ours gets its hardware address and MTU.

    Raises: StateError, if the VE does not run; BusyError, if the VE's root has made a link of that name.
    """
    uid, name = effect.uid, effect.interface
    into, alias = inside(site, uid), link_alias(site.instance.name, uid)
    existing = into.rtnl.link(name)
    if existing is not None and existing.alias == alias:
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
        link.create_veth(site.rtnl, into.rtnl, into.net, pair)
    except KernelError as err:
        if err.errno != errno.EEXIST:
            raise
        raise BusyError(f"create interface {name} of VE {uid}: {err}") from err


def remove(site: Site, effect: RemoveInterface) -> None:
    """Remove an interface of ours; absent is success.

    Raises: StateError, if the VE does not run.
    """
    into = inside(site, effect.uid)
    found = into.rtnl.link(effect.interface)
    if found is not None and found.alias == link_alias(site.instance.name, effect.uid):
        link.delete_link(into.rtnl, found.index)


def attach(site: Site, effect: AttachInterface) -> None:
    """Connect the host's end as the network wants it, and set it up.

    A routed end answers for the gateways that its VE uses, forwards, and takes part in nothing else.
    Raises: StateError.
    """
    _far_end(site, effect.uid, effect.interface)
    near = _near_end(site, effect.uid, effect.interface)
    if effect.mode is NetworkMode.BRIDGED:
        bridge = host_network.need(site, effect.network)
        _no_ipv6(near.name)
        if near.master != bridge.index:
            link.set_master(site.rtnl, near.index, bridge.index)
        link.set_port(
            site.rtnl,
            near.index,
            rtnl.BridgePort(isolated=effect.isolated, hairpin=False, learning=True, flood=True),
        )
        link.set_up(site.rtnl, near.index)
        return
    host_network.need(site, effect.network)
    if near.master is not None:
        link.set_master(site.rtnl, near.index, None)
    link.set_up(site.rtnl, near.index)
    _answer_for_gateways(site, near)


def _no_ipv6(name: str) -> None:
    """A port of a bridge is no place for the host's own IPv6: without an address it takes part in nothing."""
    if _has_ipv6(name):
        sysctl.write(sysctl.of_interface("ipv6", name, "disable_ipv6"), "1")


def _has_ipv6(name: str) -> bool:
    """With an MTU below 1280 a link has no IPv6, and no parameters of it."""
    return os.path.exists(sysctl.path_of(sysctl.of_interface("ipv6", name, "disable_ipv6")))


def _answer_for_gateways(site: Site, near: rtnl.Link) -> None:
    for key in ("forwarding", "proxy_arp"):
        sysctl.write(sysctl.of_interface("ipv4", near.name, key), "1")
    versions = {4}
    if _has_ipv6(near.name):
        versions.add(6)
        for key, value in (("disable_ipv6", "0"), ("forwarding", "1"), ("proxy_ndp", "1"), ("accept_ra", "0")):
            sysctl.write(sysctl.of_interface("ipv6", near.name, key), value)
    # Without it an answer waits a random time up to 0.8 s.  Source: arp(7), proxy_delay.
    sysctl.write(f"net.ipv4.neigh.{near.name}.proxy_delay", "0")
    for gateway in sorted((g for g in _GATEWAYS if g.version in versions), key=str):
        address.add_address(site.rtnl, near.index, ip_interface(f"{gateway}/{gateway.max_prefixlen}"))


def set_up(site: Site, effect: SetInterfaceUp) -> None:
    """Set the VE's end up."""
    into, found = _far_end(site, effect.uid, effect.interface)
    link.set_up(into.rtnl, found.index)


def set_loopback_up(site: Site, effect: SetLoopbackUp) -> None:
    """Set the VE's loopback up."""
    link.set_up(inside(site, effect.uid).rtnl, _LOOPBACK)


def set_mtu(site: Site, effect: SetInterfaceMtu) -> None:
    """Set both ends' MTU."""
    into, found = _far_end(site, effect.uid, effect.interface)
    link.set_mtu(into.rtnl, found.index, effect.mtu)
    link.set_mtu(site.rtnl, _near_end(site, effect.uid, effect.interface).index, effect.mtu)


def set_mac(site: Site, effect: SetInterfaceMac) -> None:
    """Set the hardware address of the VE's end."""
    into, found = _far_end(site, effect.uid, effect.interface)
    if found.mac != effect.mac:
        link.set_mac(into.rtnl, found.index, effect.mac)


def add_address(site: Site, effect: AddAddress) -> None:
    """Give the VE's end an address."""
    into, found = _far_end(site, effect.uid, effect.interface)
    address.add_address(into.rtnl, found.index, effect.address)


def remove_address(site: Site, effect: RemoveAddress) -> None:
    """Take an address off the VE's end."""
    into, found = _far_end(site, effect.uid, effect.interface)
    address.delete_address(into.rtnl, found.index, effect.address)


def add_route(site: Site, effect: AddRoute) -> None:
    """Add a route of ours inside the VE.

    Raises: KernelError, if the link is down or the gateway is not on it; BusyError, if the VE has a route of its own
    to the same destination.
    """
    into, found = _far_end(site, effect.uid, effect.interface)
    route.add_route(into.rtnl, _kernel_route(found.index, effect.route))


def remove_route(site: Site, effect: RemoveRoute) -> None:
    """Remove a route of ours inside the VE; absent is success."""
    into, found = _far_end(site, effect.uid, effect.interface)
    route.delete_route(into.rtnl, _kernel_route(found.index, effect.route))


def _kernel_route(index: int, wanted: Route) -> rtnl.Route:
    to = ip_network(wanted.to)
    if not wanted.via:
        return route.direct(to, index=index, protocol=ROUTE_PROTOCOL)
    gateway = ip_address(wanted.via)
    is_shared = gateway in _GATEWAYS
    return route.via(to, gateway, index=index, protocol=ROUTE_PROTOCOL, on_link=is_shared)


def add_host_route(site: Site, effect: AddHostRoute) -> None:
    """Lead an address to the VE's link, and answer for it on the links that lead elsewhere."""
    _far_end(site, effect.uid, effect.interface)
    near = _near_end(site, effect.uid, effect.interface)
    route.replace_route(site.rtnl, _host_route(near.index, effect.address))
    for index in _uplinks(site, effect.address):
        neighbour.add_proxy(site.rtnl, index, effect.address)


def remove_host_route(site: Site, effect: RemoveHostRoute) -> None:
    """Stop leading an address to the VE; absent is success."""
    _far_end(site, effect.uid, effect.interface)
    near = _near_end(site, effect.uid, effect.interface)
    route.delete_route(site.rtnl, _host_route(near.index, effect.address))
    for index in _uplinks(site, effect.address):
        neighbour.delete_proxy(site.rtnl, index, effect.address)


def _host_route(index: int, to: Address) -> rtnl.Route:
    return route.direct(ip_network(f"{to}/{to.max_prefixlen}"), index=index, protocol=ROUTE_PROTOCOL)


def _uplinks(site: Site, of: Address) -> set[int]:
    """The links of the host's default routes: there others ask who has the address."""
    routes = site.rtnl.dump_routes()
    default = (r for r in routes if r.destination.prefixlen == 0 and r.destination.version == of.version)
    return {found.index for found in default if found.index is not None}


def announce_address(site: Site, effect: AnnounceAddress) -> None:
    """Tell the neighbours where an address is now."""
    into, found = _far_end(site, effect.uid, effect.interface)
    if found.up and found.mac is not None:
        announce.announce(into.rtnl, found.index, found.mac)


def set_hostname(site: Site, effect: SetHostname) -> None:
    """Set the hostname in the VE's namespace and in its file.

    Raises: KernelError, if it is too long; StateError, if the VE does not run.
    """
    into = inside(site, effect.uid)
    uts.set_hostname(into.uts, effect.hostname)
    _write(site, effect.uid, into, "etc/hostname", f"{effect.hostname}\n")


def set_resolver(site: Site, effect: SetResolver) -> None:
    """Write the VE's /etc/resolv.conf."""
    _write(site, effect.uid, inside(site, effect.uid), "etc/resolv.conf", _render_resolver(effect.resolver))


def _write(site: Site, uid: Uid, into: Inside, path: str, text: str) -> None:
    owner = site.need_record(uid).id_base
    with into.root() as root, userns.acting_as(owner, owner):
        rootfs.write_in_root(root, path, text.encode(), mode=0o644, uid=owner, gid=owner)
