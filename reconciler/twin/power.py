"""Power: the inits of the in-memory host, and what is remembered of those that ended."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias, assert_never

from reconciler.errors import BusyError, CommandError, KernelError, StateError
from reconciler.model.identity import Uid
from reconciler.model.migration import Obstacle, ObstacleKind
from reconciler.model.network import VeNetworkObservation
from reconciler.model.placement import Held
from reconciler.model.power import (
    CreateRuntime,
    DeleteRuntime,
    DiscardMemory,
    End,
    EndCause,
    ForgetEnd,
    MemoryObservation,
    PowerObservation,
    PowerState,
    StartRuntime,
    StopRuntime,
    SuspendRuntime,
)
from reconciler.twin import snapshots, volume
from reconciler.twin.machine import Ending, Machine, Memory, Runtime

PowerEffect: TypeAlias = (
    CreateRuntime | StartRuntime | StopRuntime | SuspendRuntime | DiscardMemory | DeleteRuntime | ForgetEnd
)

LONGEST_HOSTNAME = 64
"""Source: sethostname(2), HOST_NAME_MAX."""

_RUNTIME_RECORD = "runtime"
_NO_ENDING = Ending()
_KILLED = End(cause=EndCause.KILLED, value=9)
_HALTED = End(cause=EndCause.HALT, value=2)


def perform(machine: Machine, effect: PowerEffect) -> None:
    """Carry out one effect.

    Raises: BusyError, KernelError, StateError, TemplateError.
    """
    match effect:
        case CreateRuntime():
            _create(machine, effect)
        case StartRuntime():
            _start(machine, effect)
        case StopRuntime():
            _stop(machine, effect.uid)
        case SuspendRuntime():
            _suspend(machine, effect.uid)
        case DiscardMemory():
            _discard_memory(machine, effect.uid)
        case DeleteRuntime():
            _delete(machine, effect.uid)
        case ForgetEnd():
            _forget_end(machine, effect.uid)
        case _:
            assert_never(effect)


def observe(machine: Machine, uid: Uid) -> PowerObservation:
    """Look at a VE's init."""
    runtime, memory = machine.runtimes.get(uid), machine.memories.get(uid)
    if runtime is None:
        ending = machine.endings.get(uid, _NO_ENDING)
        return PowerObservation(
            state=PowerState.STOPPED if memory is None else PowerState.SUSPENDED,
            launch=None if memory is None else memory.launch,
            last_end=ending.end,
            stop_requested=ending.requested,
            holdings=(machine.holdings[uid],) if uid in machine.holdings else (),
            memory=_seen(memory),
        )
    return PowerObservation(
        state=PowerState.RUNNING if runtime.is_running else PowerState.CREATED,
        pid=runtime.pid,
        start_time=runtime.start_time,
        started_at=runtime.started_at,
        launch=runtime.launch,
        memory=_seen(memory),
        held=held_as(runtime),
    )


def held_as(runtime: Runtime) -> Held | None:
    """Say as what a VE stands still on behalf of a move."""
    if runtime.leaving is not None:
        return Held.LEAVING
    return Held.ARRIVED if runtime.arrived else None


def _seen(memory: Memory | None) -> MemoryObservation | None:
    if memory is None:
        return None
    return MemoryObservation(suspended_at=memory.suspended_at, addresses=memory.addresses)


def require_runtime(machine: Machine, uid: Uid, doing: str) -> Runtime:
    """Give what a VE has while its init lives.

    Raises: KernelError, if it is stopped.
    """
    runtime = machine.runtimes.get(uid)
    if runtime is None:
        raise KernelError(f"{doing}: VE {uid} is stopped")
    return runtime


def require_files(machine: Machine, uid: Uid, doing: str) -> Runtime:
    """Give what a VE has while its init lives and its mount table is its own: in a restore that comes last.

    Raises: KernelError, if it is stopped; StateError, if it is held back in a restore.
    """
    runtime = require_runtime(machine, uid, doing)
    if runtime.resumed and not runtime.is_running:
        raise StateError(f"{doing}: VE {uid} is being restored; start it first")
    return runtime


def end_init(machine: Machine, uid: Uid, end: End) -> None:
    """End a VE's init: its namespaces go, with all that is in them, and the runtime's record of it stays."""
    _leave(machine, uid)
    machine.holdings[uid] = _RUNTIME_RECORD
    machine.endings[uid] = replace(machine.endings.get(uid, _NO_ENDING), end=end)


def _leave(machine: Machine, uid: Uid) -> None:
    """End a VE's namespaces; interfaces of the host return to it."""
    machine.host_links.update(dict.fromkeys(machine.runtimes.pop(uid).nics, ""))


def leave_runtime_record(machine: Machine, uid: Uid) -> None:
    """Leave the runtime's record of a VE that never came to life."""
    machine.holdings[uid] = _RUNTIME_RECORD


def _create(machine: Machine, effect: CreateRuntime) -> None:
    uid, doing = effect.uid, f"create runtime of VE {effect.uid}"
    volume.require_record(machine, uid, doing)
    present = machine.runtimes.get(uid)
    if present is not None:
        if present.is_running or present.launch != effect.launch or present.resumed is not effect.resume:
            raise BusyError(f"{doing}: init {present.pid} lives, launched otherwise; stop or delete it first")
        return
    present_volume = volume.require_volume(machine, uid, doing)
    if effect.resume is not (uid in machine.memories):
        raise StateError(f"{doing}: {'it is not' if effect.resume else 'it is'} suspended")
    volume.require_image(machine, snapshots.base_of(machine, uid, doing)[1], doing)
    if uid not in machine.cgroups:
        raise StateError(f"{doing}: it has no cgroup")
    if len(effect.hostname) > LONGEST_HOSTNAME:
        raise KernelError(f"{doing}: hostname {effect.hostname!r} is longer than {LONGEST_HOSTNAME}")
    machine.endings.pop(uid, None)
    machine.holdings.pop(uid, None)
    network = VeNetworkObservation(
        hostname=effect.hostname, resolver=present_volume.resolver, interfaces={}, loopback_up=True
    )
    machine.runtimes[uid] = _born(machine, effect, network)


def _born(machine: Machine, effect: CreateRuntime, network: VeNetworkObservation) -> Runtime:
    runtime = Runtime(
        pid=machine.next_pid,
        start_time=machine.next_start_time,
        launch=effect.launch,
        network=network,
        views=machine.ensure_lxcfs(),
        resumed=effect.resume,
    )
    machine.next_pid += 1
    machine.next_start_time += 1
    return runtime


def _start(machine: Machine, effect: StartRuntime) -> None:
    uid, doing = effect.uid, f"start VE {effect.uid}"
    runtime = require_runtime(machine, uid, doing)
    if effect.closed and (runtime.is_running or not runtime.resumed):
        raise BusyError(f"{doing} closed: it does not come from a memory, or runs already")
    if runtime.is_running or (effect.closed and runtime.arrived):
        return
    if runtime.arrived:
        raise BusyError(f"{doing}: it stands still on behalf of a move; open it instead")
    if runtime.resumed and not machine.memories[uid].is_whole:
        end_init(machine, uid, _KILLED)
        raise CommandError(f"resume VE {uid}: its memory cannot be read", status=1, output="")
    if effect.closed:
        machine.runtimes[uid] = replace(runtime, arrived=True)
    else:
        let_run(machine, uid, runtime)


def let_run(machine: Machine, uid: Uid, runtime: Runtime) -> None:
    """Let the processes of a created VE run; the memory that they come from is spent."""
    memory = machine.memories.pop(uid, None)
    machine.runtimes[uid] = replace(
        runtime,
        started_at=machine.clock.now(),
        arrived=False,
        mounts=dict(memory.mounts) if memory else runtime.mounts,
        nodes=dict(memory.nodes) if memory else runtime.nodes,
    )
    if memory is not None:
        machine.spent += (memory,)


def _stop(machine: Machine, uid: Uid) -> None:
    runtime = machine.runtimes.get(uid)
    if runtime is None:
        return
    if not runtime.is_running:
        raise BusyError(f"stop VE {uid}: its init was never let go; delete the runtime instead")
    machine.endings[uid] = Ending(requested=True)
    end_init(machine, uid, _HALTED)


def _suspend(machine: Machine, uid: Uid) -> None:
    if uid not in machine.runtimes and uid in machine.memories:
        return
    doing = f"suspend VE {uid}"
    runtime = machine.runtimes.get(uid)
    if runtime is None:
        raise StateError(f"{doing}: it does not run")
    if not runtime.is_running:
        raise BusyError(f"{doing}: its init was never let go; delete the runtime instead")
    if uid not in machine.memories:
        if obstacle := machine.obstacles.get(uid):
            raise CommandError(f"{doing}: {obstacle}", status=1, output=obstacle)
        volume.require_space(machine, doing)
        machine.memories[uid] = snapshots.remember(machine, uid)
    machine.endings[uid] = Ending(requested=True)
    end_init(machine, uid, _KILLED)


def find_obstacles(machine: Machine, uid: Uid) -> tuple[Obstacle, ...]:
    """Name what keeps a running VE from being suspended.

    Raises: StateError, if it does not run.
    """
    if observe(machine, uid).state is not PowerState.RUNNING:
        raise StateError(f"look for obstacles in VE {uid}: it does not run")
    if machine.runtimes[uid].leaving is not None:
        raise BusyError(f"look for obstacles in VE {uid}: it stands still on behalf of a move")
    reason = machine.obstacles.get(uid)
    return (Obstacle(kind=ObstacleKind.FILE, what=reason, remedy="end it"),) if reason else ()


def _discard_memory(machine: Machine, uid: Uid) -> None:
    if uid in machine.memories and uid in machine.runtimes:
        raise BusyError(f"discard the memory of VE {uid}: its init {machine.runtimes[uid].pid} comes from it")
    machine.memories.pop(uid, None)


def _delete(machine: Machine, uid: Uid) -> None:
    runtime = machine.runtimes.get(uid)
    if runtime is not None and runtime.is_running:
        raise BusyError(f"delete runtime of VE {uid}: init {runtime.pid} runs; stop it first")
    if runtime is not None:
        _leave(machine, uid)
        machine.endings[uid] = Ending(end=_KILLED, requested=True)
    machine.holdings.pop(uid, None)


def _forget_end(machine: Machine, uid: Uid) -> None:
    if uid in machine.runtimes:
        raise BusyError(f"forget the last end of VE {uid}: its init lives")
    machine.endings.pop(uid, None)
