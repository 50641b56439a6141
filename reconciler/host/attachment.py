"""Attachment: the host's ends of the VEs' interfaces: ports of a bridge, or routed links that answer for gateways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Protocol

from reconciler.host import host_network, interface_ends, proxies
from reconciler.host.site import Site
from reconciler.kernel import address, link, route, rtnl, sysctl, tc
from reconciler.kernel.rtnlsocket import RtnlSocket
from reconciler.model.identity import ROUTE_PROTOCOL, Uid, link_alias
from reconciler.model.network import (
    ROUTED_GATEWAYS,
    AddHostRoute,
    Address,
    AttachInterface,
    NetworkMode,
    RemoveHostRoute,
)

_GATEWAYS = frozenset(ip_address(gateway) for gateway in ROUTED_GATEWAYS.values())


class HostSide(Protocol):
    """What the host has of the VEs' interfaces."""

    def link(self, name: str) -> rtnl.Link | None:
        """Give the link of a name."""
        ...

    def name_of(self, index: int) -> str | None:
        """Give the name of the link of an index."""
        ...

    def led_to(self, index: int) -> frozenset[Address]:
        """Give the addresses that are led to a link; one that no uplink answers for leads nobody there."""
        ...

    def bucket_of(self, index: int) -> tc.Bucket | None:
        """Give the token bucket before the way out of a link."""
        ...

    def redirected_to(self, index: int) -> int | None:
        """Give the link over which all that comes in by a link is led."""
        ...


@dataclass(frozen=True, slots=True)
class ReadSide:
    """A `HostSide` read once for all VEs."""

    by_name: Mapping[str, rtnl.Link]
    by_index: Mapping[int, rtnl.Link]
    routes: Mapping[int, frozenset[Address]]
    buckets: Mapping[int, tc.Bucket]
    sock: RtnlSocket

    def link(self, name: str) -> rtnl.Link | None:
        """Give the link of a name."""
        return self.by_name.get(name)

    def name_of(self, index: int) -> str | None:
        """Give the name of the link of an index."""
        found = self.by_index.get(index)
        return found.name if found is not None else None

    def led_to(self, index: int) -> frozenset[Address]:
        """Give the addresses that are led to a link."""
        return self.routes.get(index, frozenset())

    def bucket_of(self, index: int) -> tc.Bucket | None:
        """Give the token bucket before the way out of a link."""
        return self.buckets.get(index)

    def redirected_to(self, index: int) -> int | None:
        """Ask for the link over which all that comes in by a link is led: few have one."""
        return tc.redirected_to(self.sock, index)


@dataclass(frozen=True, slots=True)
class AskedSide:
    """A `HostSide` that asks the kernel for each: for one VE that costs less than to read what all of them have.

    Buckets can be had of all links only, and are read once.
    """

    sock: RtnlSocket
    _buckets: list[Mapping[int, tc.Bucket]] = field(default_factory=list)

    def link(self, name: str) -> rtnl.Link | None:
        """Ask for the link of a name."""
        return self.sock.link(name)

    def name_of(self, index: int) -> str | None:
        """Ask for the name of the link of an index."""
        found = self.sock.link_at(index)
        return found.name if found is not None else None

    def led_to(self, index: int) -> frozenset[Address]:
        """Ask for the addresses that are led to a link."""
        led = _led(self.sock.dump_routes(protocol=ROUTE_PROTOCOL, index=index)).get(index)
        if not led:
            return frozenset()
        return frozenset(led - proxies.unanswered(self.sock, led, self.name_of))

    def bucket_of(self, index: int) -> tc.Bucket | None:
        """Ask for the token bucket before the way out of a link."""
        if not self._buckets:
            self._buckets.append(tc.dump_buckets(self.sock))
        return self._buckets[0].get(index)

    def redirected_to(self, index: int) -> int | None:
        """Ask for the link over which all that comes in by a link is led."""
        return tc.redirected_to(self.sock, index)


def read_host_side(site: Site, links: list[rtnl.Link]) -> ReadSide:
    """Read what the host has of all VEs' links.

    Raises: KernelError.
    """
    led = _led(site.rtnl.dump_routes(protocol=ROUTE_PROTOCOL))
    names = {entry.index: entry.name for entry in links}
    lost = proxies.unanswered(site.rtnl, frozenset[Address]().union(*led.values()), names.get)
    return ReadSide(
        by_name={entry.name: entry for entry in links},
        by_index={entry.index: entry for entry in links},
        routes={index: frozenset(addresses - lost) for index, addresses in led.items()},
        buckets=tc.dump_buckets(site.rtnl) if any(entry.queue == "tbf" for entry in links) else {},
        sock=site.rtnl,
    )


def _led(routes: Iterable[rtnl.Route]) -> Mapping[int, set[Address]]:
    """Collect the single addresses that lead to each link."""
    led: dict[int, set[Address]] = defaultdict(set)
    for found in routes:
        if found.index is not None and found.destination.prefixlen == found.destination.max_prefixlen:
            led[found.index].add(found.destination.network_address)
    return led


def attach(site: Site, effect: AttachInterface) -> None:
    """Connect the host's end as the network wants it, and set it up.

    A routed end answers for the gateways that its VE uses, forwards, and takes part in nothing else.
    Raises: StateError.
    """
    interface_ends.far(site, effect.uid, effect.interface)
    near = interface_ends.near(site, effect.uid, effect.interface)
    network = host_network.need(site, effect.network)
    if effect.mode is NetworkMode.BRIDGED:
        make_port(site, near, network, isolated=effect.isolated)
    else:
        _make_routed(site, near)


def make_port(site: Site, near: rtnl.Link, bridge: rtnl.Link, *, isolated: bool) -> None:
    """Connect the host's end of a link to a bridge, and set it up.

    Raises: KernelError.
    """
    sysctl.switch_off_ipv6(near.name)
    if near.master != bridge.index:
        link.set_master(site.rtnl, near.index, bridge.index)
    port = rtnl.BridgePort(isolated=isolated, hairpin=False, learning=True, flood=True)
    link.set_port(site.rtnl, near.index, port)
    link.set_up(site.rtnl, near.index)


def _make_routed(site: Site, near: rtnl.Link) -> None:
    if near.master is not None:
        link.set_master(site.rtnl, near.index, None)
    link.set_up(site.rtnl, near.index)
    _answer_for_gateways(site, near)


def _answer_for_gateways(site: Site, near: rtnl.Link) -> None:
    for key in ("forwarding", "proxy_arp"):
        sysctl.write(sysctl.of_interface("ipv4", near.name, key), "1")
    versions = {4}
    if sysctl.has_ipv6(near.name):
        versions.add(6)
        for key, value in (("disable_ipv6", "0"), ("forwarding", "1"), ("proxy_ndp", "1"), ("accept_ra", "0")):
            sysctl.write(sysctl.of_interface("ipv6", near.name, key), value)
    # Without it an answer waits a random time up to 0.8 s.  Source: arp(7), proxy_delay.
    sysctl.write(f"net.ipv4.neigh.{near.name}.proxy_delay", "0")
    for gateway in sorted((g for g in _GATEWAYS if g.version in versions), key=str):
        address.add_address(site.rtnl, near.index, ip_interface(f"{gateway}/{gateway.max_prefixlen}"))


def add_host_route(site: Site, effect: AddHostRoute) -> None:
    """Lead an address to the VE's link, and answer for it on the links that lead elsewhere."""
    interface_ends.far(site, effect.uid, effect.interface)
    near = interface_ends.near(site, effect.uid, effect.interface)
    route.replace_route(site.rtnl, host_route(near.index, effect.address))
    proxies.answer_for(site.rtnl, effect.address)


def remove_host_route(site: Site, effect: RemoveHostRoute) -> None:
    """Stop leading an address to the VE, and answering for it unless it was led elsewhere; absent is success."""
    interface_ends.far(site, effect.uid, effect.interface)
    near = interface_ends.near(site, effect.uid, effect.interface)
    route.delete_route(site.rtnl, host_route(near.index, effect.address))
    proxies.stop_answering_for_strays(site.rtnl)


def leave(site: Site, uid: Uid) -> None:
    """Stop answering for a VE whose namespaces go, and its links and routes with them.

    Raises: KernelError.
    """
    mark = link_alias(site.instance.name, uid)
    proxies.stop_answering_for_strays(site.rtnl, lambda: {e.index for e in site.rtnl.dump_links() if e.alias == mark})


def host_route(index: int, to: Address) -> rtnl.Route:
    """Give the route that leads an address to the host's end of a link."""
    return route.direct(ip_network(f"{to}/{to.max_prefixlen}"), index=index, protocol=ROUTE_PROTOCOL)
