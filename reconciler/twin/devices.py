"""Devices: what the VEs of the in-memory host have of its device files and interfaces."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias, assert_never

from reconciler.errors import BusyError, KernelError
from reconciler.model.devices import AddDevice, AddNic, DevicesObservation, RemoveDevice, RemoveNic
from reconciler.model.identity import Uid
from reconciler.twin import power, reach
from reconciler.twin.machine import Machine, Runtime

DevicesEffect: TypeAlias = AddDevice | RemoveDevice | AddNic | RemoveNic


def perform(machine: Machine, effect: DevicesEffect) -> None:
    """Carry out one effect.

    Raises: BusyError, KernelError.
    """
    runtime = power.require_runtime(machine, effect.uid, f"change the devices of VE {effect.uid}")
    match effect:
        case AddDevice():
            power.require_files(machine, effect.uid, f"add {effect.path}")
            if effect.path not in machine.device_files:
                raise KernelError(f"add {effect.path}: this host has no such device")
            _put_nodes(machine, effect.uid, {**runtime.nodes, effect.path: effect.access})
        case RemoveDevice():
            drop(machine, effect.uid, effect.path)
        case AddNic():
            _add_nic(machine, effect, runtime)
        case RemoveNic():
            if effect.nic in runtime.nics:
                machine.host_links[effect.nic] = ""
                machine.runtimes[effect.uid] = replace(runtime, nics=runtime.nics - {effect.nic})
        case _:
            assert_never(effect)


def drop(machine: Machine, uid: Uid, path: str) -> None:
    """Take a device file away; one that is not there stays so."""
    nodes = machine.runtimes[uid].nodes
    _put_nodes(machine, uid, {other: access for other, access in nodes.items() if other != path})


def _put_nodes(machine: Machine, uid: Uid, nodes: dict[str, str]) -> None:
    machine.runtimes[uid] = replace(machine.runtimes[uid], nodes=nodes)


def _add_nic(machine: Machine, effect: AddNic, runtime: Runtime) -> None:
    doing = f"move {effect.nic} into VE {effect.uid}"
    if effect.nic in runtime.nics:
        return
    master = machine.host_links.get(effect.nic)
    if master is None:
        raise KernelError(f"{doing}: this host has no such interface")
    if master or effect.nic in runtime.network.interfaces:
        raise BusyError(f"{doing}: it is in use, or its name is")
    del machine.host_links[effect.nic]
    machine.host_addresses.pop(effect.nic, None)
    reach.forget_lost(machine)
    machine.runtimes[effect.uid] = replace(runtime, nics=runtime.nics | {effect.nic})


def observe(machine: Machine, uid: Uid) -> DevicesObservation | None:
    """Look at the devices of a VE; None: nothing runs."""
    runtime = machine.runtimes.get(uid)
    return None if runtime is None else DevicesObservation(nodes=runtime.nodes, nics=runtime.nics)
