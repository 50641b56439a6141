"""Compute: the cgroups of the in-memory host."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias, assert_never

from reconciler.errors import BusyError, KernelError
from reconciler.model.compute import (
    ComputeObservation,
    CreateCgroup,
    HostComputeObservation,
    Limit,
    LimitValue,
    RemoveCgroup,
    SetInstanceLimit,
    SetLimit,
)
from reconciler.model.identity import Uid
from reconciler.model.observation import Capabilities
from reconciler.twin import volume
from reconciler.twin.machine import Cgroup, Machine

ComputeEffect: TypeAlias = CreateCgroup | SetLimit | SetInstanceLimit | RemoveCgroup

_PAGE = 4096
_SMALLEST_QUOTA_US = 1000
_WEIGHTS = range(1, 10_001)
_IO_WEIGHTS = range(1, 1001)
_FRESH: dict[Limit, LimitValue] = {
    Limit.CPU_WEIGHT: 100,
    Limit.CPU_LIMIT: None,
    Limit.CPUS: None,
    Limit.NODES: None,
    Limit.MEMORY_LIMIT: None,
    Limit.MEMORY_BARRIER: None,
    Limit.MEMORY_GUARANTEE: 0,
    Limit.SWAP: None,
    Limit.PROCESSES: None,
    Limit.IO_WEIGHT: 100,
    Limit.IO_READ: None,
    Limit.IO_WRITE: None,
    Limit.IO_READ_OPS: None,
    Limit.IO_WRITE_OPS: None,
}
_OF_INSTANCE = (Limit.CPU_WEIGHT, Limit.MEMORY_GUARANTEE)
_MOST_SHARES_WEIGHT = 25_600
"""cgroup v1's MAX_SHARES, on the scale of weights."""

_MEMORY_LIMITS = frozenset({Limit.MEMORY_LIMIT, Limit.MEMORY_BARRIER, Limit.MEMORY_GUARANTEE, Limit.SWAP})


def perform(machine: Machine, effect: ComputeEffect) -> None:
    """Carry out one effect.

    Raises: BusyError, KernelError, StateError.
    """
    match effect:
        case CreateCgroup():
            _create(machine, effect)
        case SetLimit():
            _set(machine, effect)
        case SetInstanceLimit():
            _set_instance(machine, effect)
        case RemoveCgroup():
            _remove(machine, effect.uid)
        case _:
            assert_never(effect)


def observe(machine: Machine, uid: Uid) -> ComputeObservation | None:
    """Look at a VE's cgroup; on cgroup v1 a limit of swap means nothing while memory is unlimited."""
    cgroup = machine.cgroups.get(uid)
    if cgroup is None:
        return None
    limits = dict(cgroup.limits)
    if _couples_swap(machine.capabilities) and limits.get(Limit.MEMORY_LIMIT) is None:
        limits.pop(Limit.SWAP, None)
    return ComputeObservation(limits=limits, use=cgroup.use)


def observe_host(machine: Machine) -> HostComputeObservation:
    """Look at the cgroup of all VEs; what was never written is as the kernel makes it."""
    fresh = fresh_limits(machine.capabilities)
    limits = {limit: machine.instance_limits.get(limit, fresh[limit]) for limit in _OF_INSTANCE if limit in fresh}
    return HostComputeObservation(limits=limits, rivals=machine.rivals)


def fresh_limits(capabilities: Capabilities) -> dict[Limit, LimitValue]:
    """Give the limits of a cgroup in which nothing was written yet."""
    return {
        limit: _stored(limit, value, capabilities)
        for limit, value in _FRESH.items()
        if limit in capabilities.enforceable
    }


def _create(machine: Machine, effect: CreateCgroup) -> None:
    volume.require_record(machine, effect.uid, f"create cgroup of VE {effect.uid}")
    if effect.uid not in machine.cgroups:
        machine.cgroups[effect.uid] = Cgroup(limits=fresh_limits(machine.capabilities))
    enforceable = machine.capabilities.enforceable
    # Swap after memory: on cgroup v1 it is a limit of the sum of both.
    for limit, value in sorted(effect.limits.items(), key=lambda item: item[0] is Limit.SWAP):
        if limit in enforceable:
            _write(machine, effect.uid, limit, value)


def _set(machine: Machine, effect: SetLimit) -> None:
    doing = f"set {effect.limit} of VE {effect.uid}"
    if effect.uid not in machine.cgroups:
        raise KernelError(f"{doing}: it has no cgroup")
    if effect.limit not in machine.capabilities.enforceable:
        raise KernelError(f"{doing}: this host cannot enforce it")
    _write(machine, effect.uid, effect.limit, effect.value)


def _set_instance(machine: Machine, effect: SetInstanceLimit) -> None:
    doing = f"set {effect.limit} of all VEs to {effect.value}"
    if effect.limit not in _OF_INSTANCE or effect.limit not in machine.capabilities.enforceable:
        raise KernelError(f"{doing}: this host cannot enforce it")
    highest = 10_000 if machine.capabilities.cgroup == "v2" else _MOST_SHARES_WEIGHT
    if effect.limit is Limit.CPU_WEIGHT and not 1 <= effect.value <= highest:
        raise KernelError(f"{doing}: out of range")
    machine.instance_limits[effect.limit] = _stored(effect.limit, effect.value, machine.capabilities)


def _write(machine: Machine, uid: Uid, limit: Limit, value: LimitValue) -> None:
    cgroup, doing = machine.cgroups[uid], f"set {limit} of VE {uid} to {value}"
    if not _is_accepted(limit, value, machine.capabilities):
        raise KernelError(f"{doing}: invalid argument")
    limits = {**cgroup.limits, limit: _stored(limit, value, machine.capabilities)}
    if _couples_swap(machine.capabilities) and limits.get(Limit.MEMORY_LIMIT) is None:
        if limit is Limit.SWAP and value is not None:
            raise KernelError(f"{doing}: cgroup v1 limits memory and swap together; set memory.limit as well")
        limits[Limit.SWAP] = None
    machine.cgroups[uid] = replace(cgroup, limits=limits)


def _is_accepted(limit: Limit, value: LimitValue, capabilities: Capabilities) -> bool:
    match limit:
        case Limit.CPUS:
            return value is None or _is_part(value, capabilities.cpus)
        case Limit.NODES:
            return value is None or _is_part(value, capabilities.nodes)
        case Limit.CPU_WEIGHT:
            return value in _WEIGHTS
        case Limit.IO_WEIGHT:
            return value in _IO_WEIGHTS
        case Limit.IO_READ | Limit.IO_WRITE | Limit.IO_READ_OPS | Limit.IO_WRITE_OPS:
            return value is None or (isinstance(value, int) and value >= 1)
        case Limit.CPU_LIMIT:
            return value is None or (isinstance(value, int) and value >= _SMALLEST_QUOTA_US)
        case _:
            return value is None or (isinstance(value, int) and value >= 0)


def _is_part(value: LimitValue, whole: frozenset[int]) -> bool:
    return isinstance(value, frozenset) and bool(value) and value <= whole


def _stored(limit: Limit, value: LimitValue, capabilities: Capabilities) -> LimitValue:
    """Give what is read back: memory in whole pages; on cgroup v1 the set of all CPUs cannot be told from no set.

    Source: Linux mm/page_counter.c, page_counter_memparse.
    """
    if limit in _MEMORY_LIMITS and isinstance(value, int):
        return value // _PAGE * _PAGE
    everything = {Limit.CPUS: capabilities.cpus, Limit.NODES: capabilities.nodes}.get(limit)
    return None if value == everything and capabilities.cgroup != "v2" else value


def _couples_swap(capabilities: Capabilities) -> bool:
    return capabilities.cgroup != "v2" and Limit.SWAP in capabilities.enforceable


def _remove(machine: Machine, uid: Uid) -> None:
    if uid in machine.runtimes:
        raise BusyError(f"remove cgroup of VE {uid}: init {machine.runtimes[uid].pid} is in it; stop it first")
    machine.cgroups.pop(uid, None)
