"""VXLAN: the link of a network to the other hosts, on the host that is planned for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from reconciler.model.effects import Effect
from reconciler.model.facts import Json
from reconciler.model.identity import HostName, NetworkName, tunnel_name
from reconciler.model.network import NetworkSpec, TunnelGuard
from reconciler.model.vxlan import (
    RemoveTunnel,
    SetTunnel,
    Tunnel,
    TunnelObservation,
    Vxlan,
    VxlanHost,
    gateway_mac,
)


def spans(vxlan: Vxlan | None, host: HostName) -> bool:
    """Say whether a network is all that it is to be on a host: a spanning one needs an address there."""
    return vxlan is None or _of(vxlan, host) is not None


def out_of_reach(networks: Mapping[NetworkName, NetworkSpec], host: HostName) -> frozenset[NetworkName]:
    """Name the networks that cannot be had on a host, as no other host could reach it."""
    return frozenset(name for name, network in networks.items() if not spans(network.vxlan, host))


def tunnel_of(network: NetworkSpec, host: HostName) -> Tunnel | None:
    """Give a network's link to the other hosts, on one of them; None where it needs none."""
    vxlan = network.vxlan
    own = None if vxlan is None else _of(vxlan, host)
    if vxlan is None or own is None:
        return None
    return Tunnel(
        id=vxlan.id,
        port=vxlan.port,
        local=own.address,
        remotes=frozenset(one.address for one in vxlan.hosts - {own} if one.address.version == own.address.version),
        isolated=network.isolated,
    )


def _of(vxlan: Vxlan, host: HostName) -> VxlanHost | None:
    return next((one for one in vxlan.hosts if one.name == host), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A difference between a link and what it is to be. ``cuts``: the VEs of other hosts are lost meanwhile."""

    path: str
    before: Json
    after: Json
    effects: tuple[Effect, ...]
    cuts: bool = False


def changes(network: NetworkName, wanted: Tunnel | None, seen: TunnelObservation | None) -> Iterator[Change]:
    """Yield what is to be done to a network's link to the other hosts."""
    before = None if seen is None else _key(seen.tunnel)
    if wanted is None:
        if seen is not None:
            yield Change(path="vxlan", before=before, after=None, effects=(RemoveTunnel(network=network),), cuts=True)
        return
    effects: tuple[Effect, ...] = (SetTunnel(network=network, tunnel=wanted),)
    if seen is None or before != _key(wanted):
        cuts = seen is not None
        yield Change(path="vxlan", before=before, after=_key(wanted), effects=effects, cuts=cuts)
        return
    if seen.tunnel.remotes != wanted.remotes:
        there, here = _hosts(seen.tunnel.remotes), _hosts(wanted.remotes)
        yield Change(path="vxlan.hosts", before=there, after=here, effects=effects)
    if seen.tunnel.isolated != wanted.isolated:
        yield Change(path="isolated", before=seen.tunnel.isolated, after=wanted.isolated, effects=effects)
    if not seen.intact:
        yield Change(path="vxlan.link", before="altered", after="as made", effects=effects)


def _key(tunnel: Tunnel) -> Json:
    return {"id": tunnel.id, "port": tunnel.port, "local": str(tunnel.local)}


def _hosts(addresses: Iterable[object]) -> Json:
    return [*sorted(map(str, addresses))]


def record_values(network: NetworkSpec) -> dict[str, Json]:
    """Give what is kept of a network's spanning that was carried out; of one that does not span nothing."""
    vxlan = network.vxlan
    if vxlan is None:
        return {}
    hosts: dict[str, Json] = {one.name: str(one.address) for one in sorted(vxlan.hosts, key=lambda one: one.name)}
    return {"vxlan": {"id": vxlan.id, "port": vxlan.port}, "vxlan.hosts": hosts, "isolated": network.isolated}


def guards(instance: str, networks: Iterable[NetworkSpec], host: HostName) -> Iterator[TunnelGuard]:
    """Yield what the filter is to know of the links to other hosts."""
    for network in networks:
        tunnel = tunnel_of(network, host)
        if tunnel is not None:
            yield TunnelGuard(
                link=tunnel_name(instance, network.name),
                mac=gateway_mac(tunnel.id),
                id=tunnel.id,
                port=tunnel.port,
                remotes=tunnel.remotes,
            )
