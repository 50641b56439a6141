"""The host's networks: bridges, gateways, forwarding and uplinks.

A routed network is a bridge without ports that carries the host's addresses on it: unlike a dummy every kernel has it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from ipaddress import IPv6Interface

from reconciler.errors import BusyError, KernelError, StateError
from reconciler.host import vxlan
from reconciler.host.site import Site
from reconciler.kernel import address, link, rtnl, sysctl
from reconciler.model.identity import NetworkName, Uid, bridge_name, derived_mac, network_alias
from reconciler.model.network import (
    AddGateway,
    CreateNetwork,
    HostNetworkObservation,
    Interface,
    NetworkMode,
    RemoveGateway,
    RemoveNetwork,
    SetForwarding,
    SetNetworkMtu,
    SetNetworkUp,
    SetUplink,
)
from reconciler.model.vxlan import RemoveTunnel, SetTunnel


def observe(site: Site, links: list[rtnl.Link]) -> Mapping[NetworkName, HostNetworkObservation]:
    """Look at the networks of this instance, known by their mark.

    Raises: KernelError.
    """
    ours = {entry.index: (mark, entry) for entry in links if (mark := _mark_of(site, entry))}
    if not ours:
        return {}
    tunnels = [entry for entry in links if entry.vxlan is not None]
    held: dict[int, set[Interface]] = {index: set() for index in ours}
    for found in site.rtnl.dump_addresses():
        if found.index in held and found.scope == rtnl.RT_SCOPE_UNIVERSE:
            held[found.index].add(found.interface)
    return {
        name: HostNetworkObservation(
            mode=mode,
            mtu=entry.mtu,
            up=entry.up,
            addresses=frozenset(held[index]),
            uplink=None if (uplink := _uplink(site, links, index)) is None else uplink.name,
            forwarding=_is_forwarding(entry.name, with_ipv6=_has_ipv6(mode, held[index])),
            tunnel=vxlan.observe(site, name, entry, tunnels),
        )
        for index, ((mode, name), entry) in ours.items()
    }


def _mark_of(site: Site, entry: rtnl.Link) -> tuple[NetworkMode, NetworkName] | None:
    instance, _, rest = (entry.alias or "").partition(":")
    mode, _, name = rest.partition(":")
    if instance != site.instance.name or mode not in set(NetworkMode):
        return None
    return NetworkMode(mode), NetworkName(name)


def _uplink(site: Site, links: list[rtnl.Link], bridge: int) -> rtnl.Link | None:
    """A port of the bridge that does not carry our mark is its uplink."""
    mine = f"{site.instance.name}:"
    return next((e for e in links if e.master == bridge and not (e.alias or "").startswith(mine)), None)


def _has_ipv6(mode: NetworkMode, held: set[Interface]) -> bool:
    """Say whether a network has to do with IPv6: a routed one always, as its VEs' addresses are not the host's."""
    wanted = mode is NetworkMode.ROUTED or any(isinstance(address, IPv6Interface) for address in held)
    return wanted and os.path.exists("/proc/sys/net/ipv6")


def _is_forwarding(name: str, *, with_ipv6: bool) -> bool:
    families = ("ipv4", "ipv6") if with_ipv6 else ("ipv4",)
    return all(sysctl.read(of) == "1" for family in families for of in _forwarding_names(family, name))


def _forwarding_names(family: str, name: str) -> tuple[str, ...]:
    # IPv4 forwards what comes in by a link that says so. IPv6 asks the namespace as a whole.
    return (sysctl.of_interface(family, name if family == "ipv4" else "all", "forwarding"),)


def find(site: Site, network: NetworkName) -> rtnl.Link | None:
    """Look a network's link up.

    Raises: BusyError, if a link that is not ours has its name.
    """
    name = bridge_name(site.instance.name, network)
    found = site.rtnl.link(name)
    if found is None:
        return None
    mark = _mark_of(site, found)
    if mark is None or mark[1] != network:
        raise BusyError(f"use link {name}: it is there and its alias {found.alias!r} is not our mark; rename it")
    return found


def need(site: Site, network: NetworkName) -> rtnl.Link:
    """Look a network's link up.

    Raises: StateError, if there is none; BusyError.
    """
    found = find(site, network)
    if found is None:
        raise StateError(f"use network {network}: it is not on this host")
    return found


def create(site: Site, effect: CreateNetwork) -> None:
    """Make the network's link; one of ours is success.

    Raises: BusyError, if a link that is not ours has its name.
    """
    network, instance = effect.network, site.instance.name
    name = bridge_name(instance, network.name)
    alias = network_alias(instance, network.name, routed=network.mode is NetworkMode.ROUTED)
    mac = derived_mac(Uid(instance), name)
    existing = site.rtnl.link(name)
    if existing is not None and existing.alias != alias and not (existing.alias is None and existing.mac == mac):
        raise BusyError(f"create network {network.name}: a link {name} without our mark is there; rename or remove it")
    index = link.create_bridge(site.rtnl, name, mac=mac, mtu=network.mtu, alias=alias)
    if existing is None or existing.alias is None:
        # The MTU of a bridge follows that of its smallest port, unless somebody changed it after the birth.
        link.set_mtu(site.rtnl, index, network.mtu ^ 1)
        link.set_mtu(site.rtnl, index, network.mtu)


def set_mtu(site: Site, effect: SetNetworkMtu) -> None:
    """Set the MTU of the network's link, and of the one to the other hosts."""
    link.set_mtu(site.rtnl, need(site, effect.network).index, effect.mtu)
    tunnel = vxlan.find(site, effect.network)
    if tunnel is not None:
        link.set_mtu(site.rtnl, tunnel.index, effect.mtu)


def set_up(site: Site, effect: SetNetworkUp) -> None:
    """Set the network's link up."""
    link.set_up(site.rtnl, need(site, effect.network).index)


def add_gateway(site: Site, effect: AddGateway) -> None:
    """Give the host an address on the network."""
    address.add_address(site.rtnl, need(site, effect.network).index, effect.address)


def remove_gateway(site: Site, effect: RemoveGateway) -> None:
    """Take an address of the host off the network."""
    address.delete_address(site.rtnl, need(site, effect.network).index, effect.address)


def set_forwarding(site: Site, effect: SetForwarding) -> None:
    """Let the kernel forward what comes from the network, and what comes back by the links that lead elsewhere.

    IPv6 knows forwarding for the whole namespace only, and a link that forwards ignores router advertisements unless
    told otherwise: those that listened to them go on listening.
    Source: Linux Documentation/networking/ip-sysctl.rst, "forwarding", "accept_ra".
    """
    found = need(site, effect.network)
    sysctl.write(sysctl.of_interface("ipv4", found.name, "forwarding"), "1")
    for route in site.rtnl.dump_routes():
        if route.destination.version == 4 and route.destination.prefixlen == 0 and route.index is not None:
            sysctl.write(sysctl.of_interface("ipv4", _name_of(site, route.index), "forwarding"), "1")
    mark = _mark_of(site, found)
    addresses = site.rtnl.dump_addresses(index=found.index)
    held = {a.interface for a in addresses if a.scope == rtnl.RT_SCOPE_UNIVERSE}
    if mark is not None and _has_ipv6(mark[0], held):
        _forward_ipv6()


def _forward_ipv6() -> None:
    everything = sysctl.of_interface("ipv6", "all", "forwarding")
    if sysctl.read(everything) == "1":
        return
    for name in os.listdir("/proc/sys/net/ipv6/conf"):
        accepts = sysctl.of_interface("ipv6", name, "accept_ra")
        if name not in ("all", "lo") and sysctl.read(accepts) == "1":
            sysctl.write(accepts, "2")
    sysctl.write(everything, "1")


def _name_of(site: Site, index: int) -> str:
    name = next((entry.name for entry in site.rtnl.dump_links() if entry.index == index), None)
    if name is None:
        raise KernelError(f"look up link {index}: it is gone", errno=errno.ENODEV)
    return name


def set_uplink(site: Site, effect: SetUplink) -> None:
    """Make a link of the host the bridge's port to the outside; the one that was it is released.

    Raises: StateError, if there is no such link; BusyError, if it is a port elsewhere.
    """
    bridge = need(site, effect.network)
    links = site.rtnl.dump_links()
    wanted = _free_uplink(effect, links, bridge.index)
    former = _uplink(site, links, bridge.index)
    if former is not None and former.name != effect.uplink:
        link.set_master(site.rtnl, former.index, None)
    if wanted is not None:
        link.set_master(site.rtnl, wanted.index, bridge.index)
        link.set_up(site.rtnl, wanted.index)


def set_tunnel(site: Site, effect: SetTunnel) -> None:
    """Connect the network to the other hosts.

    Raises: StateError, if the network is not here, or the host has not the address; BusyError.
    """
    vxlan.make(site, need(site, effect.network), effect)


def remove_tunnel(site: Site, effect: RemoveTunnel) -> None:
    """Disconnect the network from the other hosts; that it is not here is success.

    Raises: BusyError.
    """
    vxlan.remove(site, effect.network, find(site, effect.network))


def _free_uplink(effect: SetUplink, links: list[rtnl.Link], bridge: int) -> rtnl.Link | None:
    """Find the link that is asked for, before the former one is let go."""
    if effect.uplink is None:
        return None
    wanted = next((entry for entry in links if entry.name == effect.uplink), None)
    if wanted is None:
        raise StateError(f"set uplink of {effect.network}: the host has no link {effect.uplink!r}")
    if wanted.master not in (None, bridge):
        raise BusyError(f"set uplink of {effect.network}: {effect.uplink} is a port of another bridge")
    return wanted


def remove(site: Site, effect: RemoveNetwork) -> None:
    """Remove the network's link, and the one to the other hosts; absent is success.

    Raises: BusyError, if a link that is not ours has its name.
    """
    found = find(site, effect.network)
    vxlan.remove(site, effect.network, None)
    if found is not None:
        link.delete_link(site.rtnl, found.index)
