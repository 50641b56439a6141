"""Reach: the addresses and routes of the in-memory host itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias, assert_never

from reconciler.errors import BusyError, KernelError
from reconciler.model.identity import NetworkName, bridge_name
from reconciler.model.reach import HeldAddress, HostRoute, ReachObservation, RestoreAddress, RestoreRoute
from reconciler.twin import link
from reconciler.twin.machine import Machine

ReachEffect: TypeAlias = RestoreAddress | RestoreRoute


def observe(machine: Machine) -> ReachObservation:
    """Look at how the host is reached."""
    held = {name: machine.networks[network].addresses for name, network in _bridges(machine).items()}
    held |= {name: machine.host_addresses.get(name, frozenset()) for name in machine.host_links}
    return ReachObservation(
        addresses=frozenset(HeldAddress(link=name, address=one) for name, ones in held.items() for one in ones),
        routes=machine.host_routes,
        sessions=machine.sessions,
    )


def perform(machine: Machine, effect: ReachEffect) -> None:
    """Carry out one effect.

    Raises: BusyError, KernelError.
    """
    match effect:
        case RestoreAddress():
            _add_address(machine, effect.held)
        case RestoreRoute():
            _add_route(machine, effect.route)
        case _:
            assert_never(effect)


def forget_lost(machine: Machine) -> None:
    """Drop the routes that a change of the networks has cost: with the last address, the size for IPv6, the link."""
    bridges = _bridges(machine)
    machine.host_routes = frozenset(
        route
        for route in machine.host_routes
        if (route.link in bridges and _can_have(machine, bridges[route.link], route))
        or route.link in machine.host_links
    )


def _can_have(machine: Machine, name: NetworkName, route: HostRoute) -> bool:
    network = machine.networks[name]
    if route.to.version == 6:
        return network.mtu >= link.SMALLEST_IPV6_MTU
    return any(address.version == 4 for address in network.addresses)


def _bridges(machine: Machine) -> dict[str, NetworkName]:
    return {bridge_name(machine.instance.name, name): name for name in machine.networks}


def _add_address(machine: Machine, held: HeldAddress) -> None:
    doing = f"add address {held.address} to {held.link}"
    name = _require(machine, held.link, doing)
    if name is None:
        had = machine.host_addresses.get(held.link, frozenset())
        machine.host_addresses[held.link] = had | {held.address}
        return
    network = machine.networks[name]
    addresses = link.with_address(network.addresses, held.address, network.mtu, doing)
    machine.networks[name] = replace(network, addresses=addresses)


def _require(machine: Machine, name: str, doing: str) -> NetworkName | None:
    """Give the network of ours that a link is of, if any.

    Raises: KernelError, if there is no such link.
    """
    network = _bridges(machine).get(name)
    if network is None and name not in machine.host_links:
        raise KernelError(f"{doing}: there is no link {name}")
    return network


def _add_route(machine: Machine, route: HostRoute) -> None:
    doing = f"add route to {route.to}"
    name = _require(machine, route.link, doing)
    network = None if name is None else machine.networks[name]
    held = machine.host_addresses.get(route.link, frozenset()) if network is None else network.addresses
    if network is not None and not network.up:
        raise KernelError(f"{doing}: the link is down")
    if network is not None and route.to.version == 6 and network.mtu < link.SMALLEST_IPV6_MTU:
        raise KernelError(f"{doing}: an mtu of {network.mtu} is too small for IPv6")
    if route.via is not None and not any(route.via in one.network for one in held):
        raise KernelError(f"{doing}: gateway {route.via} is not on the link")
    same = {one for one in machine.host_routes if (one.to, one.metric) == (route.to, route.metric)}
    if any(one.protocol != route.protocol for one in same):
        raise BusyError(f"{doing}: another route leads there")
    machine.host_routes = (machine.host_routes - same) | {route}
