"""Network: the in-memory host's VEs, with their names, links, addresses and routes."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias, assert_never

from reconciler.errors import BusyError, KernelError
from reconciler.model.identity import Uid, bridge_name, host_link_name
from reconciler.model.network import (
    AddAddress,
    AddHostRoute,
    Address,
    AddRoute,
    AnnounceAddress,
    AttachInterface,
    CreateInterface,
    Direction,
    InterfaceObservation,
    NetworkMode,
    RemoveAddress,
    RemoveHostRoute,
    RemoveInterface,
    RemoveRoute,
    SetHostname,
    SetInterfaceMac,
    SetInterfaceMtu,
    SetInterfaceRate,
    SetInterfaceUp,
    SetLoopbackUp,
    SetResolver,
    VeNetworkObservation,
)
from reconciler.twin import link, network, power, volume
from reconciler.twin.machine import Machine, Runtime

NamesEffect: TypeAlias = SetLoopbackUp | SetHostname | SetResolver
LinkEffect: TypeAlias = (
    CreateInterface
    | RemoveInterface
    | AttachInterface
    | SetInterfaceUp
    | SetInterfaceMtu
    | SetInterfaceMac
    | SetInterfaceRate
)
AddressEffect: TypeAlias = (
    AddAddress | RemoveAddress | AddRoute | RemoveRoute | AddHostRoute | RemoveHostRoute | AnnounceAddress
)


def perform_names(machine: Machine, effect: NamesEffect) -> None:
    """Carry out one effect on a VE as a whole.

    Raises: KernelError, NoSpaceError.
    """
    runtime = power.require_runtime(machine, effect.uid, "set up the names")
    match effect:
        case SetLoopbackUp():
            _put(machine, effect.uid, replace(runtime.network, loopback_up=True))
        case SetHostname():
            _set_hostname(machine, runtime, effect)
        case SetResolver():
            doing = f"set resolver of VE {effect.uid}"
            volume.require_space(machine, doing)
            machine.volumes[effect.uid] = replace(
                volume.require_volume(machine, effect.uid, doing), resolver=effect.resolver
            )
            _put(machine, effect.uid, replace(runtime.network, resolver=effect.resolver))
        case _:
            assert_never(effect)


def perform_link(machine: Machine, effect: LinkEffect) -> None:
    """Carry out one effect on a link of a VE.

    Raises: BusyError, KernelError.
    """
    doing = f"change {effect.interface} of VE {effect.uid}"
    runtime = power.require_runtime(machine, effect.uid, doing)
    match effect:
        case CreateInterface():
            _create(machine, runtime, effect)
        case RemoveInterface():
            drop_link(machine, effect.uid, effect.interface)
        case AttachInterface():
            _attach(machine, effect, _require_link(runtime, effect.interface, doing))
        case SetInterfaceUp():
            put_link(
                machine, effect.uid, effect.interface, replace(_require_link(runtime, effect.interface, doing), up=True)
            )
        case SetInterfaceMtu():
            link.require_mtu(effect.mtu, doing)
            present = _require_link(runtime, effect.interface, doing)
            put_link(machine, effect.uid, effect.interface, link.with_mtu(present, effect.mtu))
        case SetInterfaceMac():
            present = _require_link(runtime, effect.interface, doing)
            put_link(machine, effect.uid, effect.interface, replace(present, mac=link.require_mac(effect.mac, doing)))
        case SetInterfaceRate():
            _set_rate(machine, effect, _require_link(runtime, effect.interface, doing))
        case _:
            assert_never(effect)


def perform_address(machine: Machine, effect: AddressEffect) -> None:
    """Carry out one effect on the addresses and routes of a VE's link.

    Raises: KernelError.
    """
    uid, name, doing = effect.uid, effect.interface, f"readdress {effect.interface} of VE {effect.uid}"
    runtime = power.require_runtime(machine, uid, doing)
    present = _require_link(runtime, name, doing)
    match effect:
        case AddAddress():
            addresses = link.with_address(present.addresses, effect.address, present.mtu, f"add {effect.address}")
            put_link(machine, uid, name, replace(present, addresses=addresses))
        case RemoveAddress():
            put_link(machine, uid, name, link.without_address(present, effect.address))
        case AddRoute():
            link.require_route_fits(runtime.network.interfaces, name, effect.route, f"add route to {effect.route.to}")
            interfaces = link.with_route(runtime.network.interfaces, name, effect.route)
            _put(machine, uid, replace(runtime.network, interfaces=interfaces))
        case RemoveRoute():
            put_link(machine, uid, name, replace(present, routes=present.routes - {effect.route}))
        case AddHostRoute():
            _add_host_route(machine, effect, present)
        case RemoveHostRoute():
            put_link(machine, uid, name, replace(present, host_routes=present.host_routes - {effect.address}))
        case AnnounceAddress():
            return  # nothing is left of it that could be seen; a link that is down says nothing
        case _:
            assert_never(effect)


def observe(machine: Machine, uid: Uid) -> VeNetworkObservation | None:
    """Look into a VE's namespaces; None: nothing runs, so there are none."""
    runtime = machine.runtimes.get(uid)
    return None if runtime is None else runtime.network


def put_link(machine: Machine, uid: Uid, name: str, changed: InterfaceObservation) -> None:
    """Put a link in the place of the one of its name, or add it."""
    seen = machine.runtimes[uid].network
    _put(machine, uid, replace(seen, interfaces={**seen.interfaces, name: changed}))


def drop_link(machine: Machine, uid: Uid, name: str) -> None:
    """Take a link away, with both its ends."""
    seen = machine.runtimes[uid].network
    left = {other: present for other, present in seen.interfaces.items() if other != name}
    _put(machine, uid, replace(seen, interfaces=left))


def _put(machine: Machine, uid: Uid, changed: VeNetworkObservation) -> None:
    machine.runtimes[uid] = replace(machine.runtimes[uid], network=changed)


def _require_link(runtime: Runtime, name: str, doing: str) -> InterfaceObservation:
    present = runtime.network.interfaces.get(name)
    if present is None:
        raise KernelError(f"{doing}: it has no link of ours of that name")
    return present


def _set_hostname(machine: Machine, runtime: Runtime, effect: SetHostname) -> None:
    doing = f"set hostname of VE {effect.uid}"
    if len(effect.hostname) > power.LONGEST_HOSTNAME:
        raise KernelError(f"{doing}: {effect.hostname!r} is longer than {power.LONGEST_HOSTNAME}")
    volume.require_space(machine, doing)
    _put(machine, effect.uid, replace(runtime.network, hostname=effect.hostname))


def _create(machine: Machine, runtime: Runtime, effect: CreateInterface) -> None:
    doing = f"create {effect.interface} of VE {effect.uid}"
    link.require_name(effect.interface, doing)
    link.require_mtu(effect.mtu, doing)
    mac = link.require_mac(effect.mac, doing)
    present = runtime.network.interfaces.get(effect.interface)
    if present is not None:
        put_link(machine, effect.uid, effect.interface, replace(link.with_mtu(present, effect.mtu), mac=mac))
        return
    host_end = host_link_name(machine.instance.name, effect.uid, effect.interface)
    if effect.interface in runtime.foreign_links or host_end in machine.host_links:
        raise BusyError(f"{doing}: a link of that name, or {host_end} on the host, is not ours")
    made = InterfaceObservation(mac=mac, mtu=effect.mtu, up=False, host_up=False)
    put_link(machine, effect.uid, effect.interface, made)


def _attach(machine: Machine, effect: AttachInterface, present: InterfaceObservation) -> None:
    doing = f"attach {effect.interface} of VE {effect.uid}"
    joined = network.require_network(machine, effect.network, doing)
    if joined.mode is not effect.mode:
        raise KernelError(f"{doing}: network {effect.network} is a {joined.mode} one")
    is_port = effect.mode is NetworkMode.BRIDGED
    attached = replace(
        present,
        host_up=True,
        bridge=bridge_name(machine.instance.name, effect.network) if is_port else None,
        isolated=effect.isolated and is_port,
    )
    put_link(machine, effect.uid, effect.interface, attached)


def _set_rate(machine: Machine, effect: SetInterfaceRate, present: InterfaceObservation) -> None:
    if effect.direction is Direction.EGRESS:
        rate = replace(present.rate, egress=effect.rate)
    else:
        rate = replace(present.rate, ingress=effect.rate)
    put_link(machine, effect.uid, effect.interface, replace(present, rate=rate))


def _add_host_route(machine: Machine, effect: AddHostRoute, present: InterfaceObservation) -> None:
    """Lead an address to one link: the kernel replaces the route that led it to another one."""
    doing = f"lead {effect.address} to {effect.interface} of VE {effect.uid}"
    if not present.host_up:
        raise KernelError(f"{doing}: the host's end is down")
    if effect.address.version == 6 and present.mtu < link.SMALLEST_IPV6_MTU:
        raise KernelError(f"{doing}: an mtu of {present.mtu} is too small for IPv6")
    for uid, name, other in _links_led(machine, effect.address):
        put_link(machine, uid, name, replace(other, host_routes=other.host_routes - {effect.address}))
    now = machine.runtimes[effect.uid].network.interfaces[effect.interface]
    put_link(machine, effect.uid, effect.interface, replace(now, host_routes=now.host_routes | {effect.address}))


def _links_led(machine: Machine, address: Address) -> list[tuple[Uid, str, InterfaceObservation]]:
    return [
        (uid, name, present)
        for uid, runtime in machine.runtimes.items()
        for name, present in runtime.network.interfaces.items()
        if address in present.host_routes
    ]
