"""VXLAN: the in-memory host's links of its networks to other hosts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from reconciler.errors import BusyError, StateError
from reconciler.model.identity import bridge_name
from reconciler.model.network import Address
from reconciler.model.vxlan import RemoveTunnel, SetTunnel, TunnelObservation
from reconciler.twin.machine import Machine

_LOOPBACK = (ip_address("127.0.0.1"), ip_address("::1"))


def set_tunnel(machine: Machine, effect: SetTunnel) -> None:
    """Connect a network to the other hosts.

    Raises: StateError, if the network is not here, or the host has not the address; BusyError, if another network has
    the id.
    """
    doing, wanted = f"connect network {effect.network}", effect.tunnel
    network = machine.networks.get(effect.network)
    if network is None:
        raise StateError(f"{doing}: it is not on this host")
    seen = network.tunnel
    if seen is None or _key(seen) != _key(TunnelObservation(tunnel=wanted)):
        if not _has_address(machine, wanted.local):
            raise StateError(f"{doing}: this host has no address {wanted.local}")
        others = (one.tunnel for name, one in machine.networks.items() if name != effect.network)
        if any(one is not None and one.tunnel.id == wanted.id and one.tunnel.port == wanted.port for one in others):
            raise BusyError(f"{doing}: another link of this host has the id")
    machine.networks[effect.network] = replace(network, tunnel=TunnelObservation(tunnel=wanted))


def remove_tunnel(machine: Machine, effect: RemoveTunnel) -> None:
    """Disconnect a network; absent is success.

    Raises: BusyError, if a link that is not ours has its name.
    """
    network, bridge = machine.networks.get(effect.network), bridge_name(machine.instance.name, effect.network)
    if network is None and bridge in machine.host_links:
        raise BusyError(f"disconnect network {effect.network}: link {bridge} is not ours")
    if network is not None:
        machine.networks[effect.network] = replace(network, tunnel=None)


def _key(seen: TunnelObservation) -> tuple[int, int, Address]:
    return seen.tunnel.id, seen.tunnel.port, seen.tunnel.local


def _has_address(machine: Machine, address: Address) -> bool:
    held = (*machine.host_addresses.values(), *(network.addresses for network in machine.networks.values()))
    return address in _LOOPBACK or any(address == one.ip for addresses in held for one in addresses)
