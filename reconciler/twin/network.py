"""Network: the in-memory host's own part, its networks and its filter. A VE's part is in `ve_network`."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias, assert_never

from reconciler.errors import BusyError, KernelError
from reconciler.model.identity import NetworkName, bridge_name
from reconciler.model.network import (
    AddGateway,
    CreateNetwork,
    FilterObservation,
    FilterRules,
    HostNetworkObservation,
    LoadFilter,
    NetworkMode,
    NetworkSpec,
    RemoveGateway,
    RemoveNetwork,
    SetForwarding,
    SetNetworkMtu,
    SetNetworkUp,
    SetUplink,
)
from reconciler.model.vxlan import RemoveTunnel, SetTunnel
from reconciler.twin import link, reach, vxlan
from reconciler.twin.machine import Machine

HostNetworkEffect: TypeAlias = (
    CreateNetwork
    | SetNetworkMtu
    | SetNetworkUp
    | AddGateway
    | RemoveGateway
    | SetForwarding
    | SetUplink
    | RemoveNetwork
    | LoadFilter
    | SetTunnel
    | RemoveTunnel
)

_Change: TypeAlias = SetNetworkMtu | SetNetworkUp | AddGateway | RemoveGateway


def perform(machine: Machine, effect: HostNetworkEffect) -> None:
    """Carry out one effect.

    Raises: BusyError, KernelError.
    """
    _perform(machine, effect)
    reach.forget_lost(machine)


def _perform(machine: Machine, effect: HostNetworkEffect) -> None:
    match effect:
        case CreateNetwork():
            _create(machine, effect.network)
        case RemoveNetwork():
            _remove(machine, effect.network)
        case SetUplink():
            _set_uplink(machine, effect)
        case SetTunnel():
            vxlan.set_tunnel(machine, effect)
        case RemoveTunnel():
            vxlan.remove_tunnel(machine, effect)
        case LoadFilter():
            _load_filter(machine, effect.rules)
        case SetForwarding():
            _set_forwarding(machine, effect.network)
        case SetNetworkMtu() | SetNetworkUp() | AddGateway() | RemoveGateway():
            network = require_network(machine, effect.network, f"change network {effect.network}")
            machine.networks[effect.network] = _changed(network, effect)
        case _:
            assert_never(effect)


def observe(machine: Machine) -> dict[NetworkName, HostNetworkObservation]:
    """Look at the networks; one with IPv6 addresses, or a routed one, forwards if the host forwards IPv6 at all."""
    return {
        name: replace(network, forwarding=network.forwarding and (machine.forwards_ipv6 or not _has_ipv6(network)))
        for name, network in machine.networks.items()
    }


def observe_filter(machine: Machine) -> FilterObservation:
    """Look at our tables."""
    return FilterObservation(rules=machine.filter if machine.filter_intact else None)


def require_network(machine: Machine, name: NetworkName, doing: str) -> HostNetworkObservation:
    """Give a network of ours.

    Raises: KernelError, if there is none.
    """
    network = machine.networks.get(name)
    if network is None:
        raise KernelError(f"{doing}: there is no network {name}")
    return network


def release_ports(machine: Machine, name: NetworkName) -> None:
    """Leave the ports of a bridge that goes away without a master; they stay up."""
    bridge = bridge_name(machine.instance.name, name)
    for host_link, master in machine.host_links.items():
        if master == bridge:
            machine.host_links[host_link] = ""
    for uid, runtime in machine.runtimes.items():
        interfaces = {
            key: replace(interface, bridge=None, isolated=False) if interface.bridge == bridge else interface
            for key, interface in runtime.network.interfaces.items()
        }
        machine.runtimes[uid] = replace(runtime, network=replace(runtime.network, interfaces=interfaces))


def _create(machine: Machine, spec: NetworkSpec) -> None:
    doing, bridge = f"create network {spec.name}", bridge_name(machine.instance.name, spec.name)
    present = machine.networks.get(spec.name)
    if present is not None:
        if present.mode is not spec.mode:
            raise BusyError(f"{doing}: it is there as a {present.mode} one; remove that first")
        return
    if bridge in machine.host_links:
        raise BusyError(f"{doing}: link {bridge} is not ours; rename or delete it")
    link.require_name(bridge, doing)
    link.require_mtu(spec.mtu, doing)
    machine.networks[spec.name] = HostNetworkObservation(
        mode=spec.mode, mtu=spec.mtu, up=False, forwarding=machine.forwarding_default
    )


def _changed(network: HostNetworkObservation, effect: _Change) -> HostNetworkObservation:
    match effect:
        case SetNetworkMtu():
            return _with_mtu(network, effect)
        case SetNetworkUp():
            return replace(network, up=True)
        case AddGateway():
            doing = f"add gateway {effect.address} to network {effect.network}"
            return replace(network, addresses=link.with_address(network.addresses, effect.address, network.mtu, doing))
        case RemoveGateway():
            return replace(network, addresses=network.addresses - {effect.address})


def _set_forwarding(machine: Machine, name: NetworkName) -> None:
    network = require_network(machine, name, f"set forwarding of network {name}")
    machine.networks[name] = replace(network, forwarding=True)
    machine.forwards_ipv6 = machine.forwards_ipv6 or _has_ipv6(network)


def _has_ipv6(network: HostNetworkObservation) -> bool:
    return network.mode is NetworkMode.ROUTED or any(address.version == 6 for address in network.addresses)


def _with_mtu(network: HostNetworkObservation, effect: SetNetworkMtu) -> HostNetworkObservation:
    link.require_mtu(effect.mtu, f"set mtu of network {effect.network}")
    kept = network.addresses
    if effect.mtu < link.SMALLEST_IPV6_MTU:
        kept = frozenset(address for address in kept if address.version == 4)
    return replace(network, mtu=effect.mtu, addresses=kept)


def _set_uplink(machine: Machine, effect: SetUplink) -> None:
    doing = f"set uplink of network {effect.network}"
    network = require_network(machine, effect.network, doing)
    bridge, uplink = bridge_name(machine.instance.name, effect.network), effect.uplink
    if uplink is not None:
        if network.mode is not NetworkMode.BRIDGED:
            raise KernelError(f"{doing}: it is routed and has no ports")
        if uplink not in machine.host_links:
            raise KernelError(f"{doing}: there is no link {uplink}")
        if machine.host_links[uplink] not in ("", bridge):
            raise BusyError(f"{doing}: {uplink} is a port of {machine.host_links[uplink]}")
    if network.uplink is not None:
        machine.host_links[network.uplink] = ""
    if uplink is not None:
        machine.host_links[uplink] = bridge
    machine.networks[effect.network] = replace(network, uplink=uplink)


def _remove(machine: Machine, name: NetworkName) -> None:
    bridge = bridge_name(machine.instance.name, name)
    if name not in machine.networks:
        if bridge in machine.host_links:
            raise BusyError(f"remove network {name}: link {bridge} is not ours")
        return
    del machine.networks[name]
    release_ports(machine, name)


def _load_filter(machine: Machine, rules: FilterRules) -> None:
    for port in rules.ports:
        link.require_name(port.link, "load filter")
        link.require_mac(port.mac, "load filter")
    for masquerade in rules.masquerades:
        link.require_name(masquerade.bridge, "load filter")
    machine.filter, machine.filter_intact = rules, True
