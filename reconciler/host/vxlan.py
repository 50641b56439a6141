"""VXLAN: a network's link to the other hosts, a port of its bridge.

Its table says where frames for all, and those of no known receiver, go: to each of the other hosts. Where single VEs
are the link learns from what comes, so that a VE that moved is found from its first frame on; the filter sees to it
that only those hosts can teach it.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from reconciler.errors import BusyError, StateError
from reconciler.host.site import Site
from reconciler.kernel import link, rtnl, sysctl, vxlan
from reconciler.model.identity import NetworkName, Uid, bridge_name, derived_mac, tunnel_alias, tunnel_name
from reconciler.model.network import Address
from reconciler.model.vxlan import SetTunnel, Tunnel, TunnelObservation, gateway_mac

_NOWHERE = IPv4Address(0)  # as a link has it that was given no local address


def observe(
    site: Site, network: NetworkName, bridge: rtnl.Link, links: Iterable[rtnl.Link]
) -> TunnelObservation | None:
    """Look at a network's link to the other hosts, known by its mark.

    Raises: KernelError.
    """
    alias = tunnel_alias(site.instance.name, network)
    found = next((entry for entry in links if entry.alias == alias), None)
    if found is None or found.vxlan is None:
        return None
    options, port = found.vxlan, found.port
    entries = vxlan.entries(site.rtnl, found.index)
    tunnel = Tunnel(
        id=options.id,
        port=options.port,
        local=options.local or _NOWHERE,
        remotes=_flooded(entries),
        isolated=port is not None and port.isolated,
    )
    is_as_made = found.up and found.master == bridge.index and found.mtu == bridge.mtu and options.learning
    is_port_as_made = port is not None and port == _port(isolated=port.isolated)
    is_table_ours = not any(map(_is_strange, entries)) and bridge.mac == gateway_mac(options.id)
    return TunnelObservation(tunnel=tunnel, intact=is_as_made and is_port_as_made and is_table_ours and options.plain)


def _port(*, isolated: bool) -> rtnl.BridgePort:
    return rtnl.BridgePort(isolated=isolated, hairpin=False, learning=True, flood=True)


def _flooded(entries: Iterable[vxlan.Entry]) -> frozenset[Address]:
    return frozenset(e.remote for e in entries if e.mac == vxlan.FLOOD and e.lasting and e.plain and e.remote)


def _is_strange(entry: vxlan.Entry) -> bool:
    """Say whether somebody wrote down where a VE is: there it would be looked for wherever it moves."""
    return entry.lasting and not (entry.mac == vxlan.FLOOD and entry.plain)


def make(site: Site, bridge: rtnl.Link, effect: SetTunnel) -> None:
    """Make a network's link what it is to be, and nothing of it anew that can stay.

    Raises: BusyError, if a link that is not ours has its name or its id; StateError, if this host has not the local
    address.
    """
    wanted = effect.tunnel
    found = find(site, effect.network)
    if found is None or not _is_of(found, wanted):
        _require_free(site, effect)
    if found is not None and not _is_of(found, wanted):
        link.delete_link(site.rtnl, found.index)
        found = None
    if found is None:
        found = _create(site, bridge, effect)
    _set_bridge_mac(site, bridge, gateway_mac(wanted.id))
    sysctl.switch_off_ipv6(found.name)
    if found.mtu != bridge.mtu:
        link.set_mtu(site.rtnl, found.index, bridge.mtu)
    _flood_to(site, found.index, wanted.remotes)
    if found.master != bridge.index:
        link.set_master(site.rtnl, found.index, bridge.index)
    link.set_port(site.rtnl, found.index, _port(isolated=wanted.isolated))
    link.set_up(site.rtnl, found.index)


def _require_free(site: Site, effect: SetTunnel) -> None:
    """Find out what the kernel does not ask, or only once the link that was there is gone."""
    doing, wanted = f"connect network {effect.network}", effect.tunnel
    if all(held.interface.ip != wanted.local for held in site.rtnl.dump_addresses()):
        raise StateError(f"{doing}: this host has no address {wanted.local}; correct 'address' of its Host document")
    own = tunnel_name(site.instance.name, effect.network)
    for other in site.rtnl.dump_links():
        is_same = other.vxlan is not None and (other.vxlan.id, other.vxlan.port) == (wanted.id, wanted.port)
        if is_same and other.name != own:
            raise BusyError(f"{doing}: link {other.name} has id {wanted.id} by port {wanted.port}; delete that")


def _create(site: Site, bridge: rtnl.Link, effect: SetTunnel) -> rtnl.Link:
    instance, wanted = site.instance.name, effect.tunnel
    name = tunnel_name(instance, effect.network)
    return vxlan.create(
        site.rtnl,
        name,
        mac=derived_mac(Uid(instance), name),
        mtu=bridge.mtu,
        options=rtnl.VxlanOptions(id=wanted.id, port=wanted.port, local=wanted.local, learning=True),
        alias=tunnel_alias(instance, effect.network),
    )


def _is_of(found: rtnl.Link, wanted: Tunnel) -> bool:
    options = rtnl.VxlanOptions(id=wanted.id, port=wanted.port, local=wanted.local, learning=True)
    return found.vxlan == options


def _set_bridge_mac(site: Site, bridge: rtnl.Link, mac: str) -> None:
    """Give the bridge an address, and tell the VEs on it that their gateway has it now."""
    if bridge.mac == mac:
        return
    sysctl.write(sysctl.of_interface("ipv4", bridge.name, "arp_notify"), "1")
    if sysctl.has_ipv6(bridge.name):
        sysctl.write(sysctl.of_interface("ipv6", bridge.name, "ndisc_notify"), "1")
    link.set_mac(site.rtnl, bridge.index, mac)


def _flood_to(site: Site, index: int, remotes: frozenset[Address]) -> None:
    """Change the table host by host: those that stay lose nothing."""
    entries = vxlan.entries(site.rtnl, index)
    for mac in {entry.mac for entry in entries if _is_strange(entry)}:
        vxlan.delete_entry(site.rtnl, index, mac, None)
        entries = [entry for entry in entries if entry.mac != mac]
    present = _flooded(entries)
    for remote in sorted(remotes - present, key=str):
        vxlan.add_flood(site.rtnl, index, remote)
    for remote in sorted(present - remotes, key=str):
        vxlan.delete_entry(site.rtnl, index, vxlan.FLOOD, remote)
        vxlan.forget_learnt(site.rtnl, index, remote)


def find(site: Site, network: NetworkName) -> rtnl.Link | None:
    """Look a network's link to the other hosts up.

    Raises: BusyError, if a link that is not ours has its name.
    """
    name = tunnel_name(site.instance.name, network)
    found = site.rtnl.link(name)
    if found is None:
        return None
    half_made = found.alias is None and found.mac == derived_mac(Uid(site.instance.name), name)
    if found.alias != tunnel_alias(site.instance.name, network) and not half_made:
        raise BusyError(f"use link {name}: it is there and its alias {found.alias!r} is not our mark; rename it")
    return found


def remove(site: Site, network: NetworkName, bridge: rtnl.Link | None) -> None:
    """Remove a network's link to the other hosts, and let the bridge be this host's alone again; absent is success.

    Raises: BusyError, if a link that is not ours has its name.
    """
    found = find(site, network)
    if found is not None:
        link.delete_link(site.rtnl, found.index)
    if bridge is not None:
        instance = site.instance.name
        _set_bridge_mac(site, bridge, derived_mac(Uid(instance), bridge_name(instance, network)))
