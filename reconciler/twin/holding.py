"""Holding: the in-memory host's VEs that stand still on behalf of a move."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias, assert_never

from reconciler.errors import BusyError, CommandError, StateError
from reconciler.model.effects import Effect, effect_name, touched_by
from reconciler.model.identity import Uid, bridge_name
from reconciler.model.network import InterfaceObservation
from reconciler.model.placement import EndHeld, HoldRuntime, OpenRuntime, Parcel, ParcelKind, ResumeHeld
from reconciler.model.power import End, EndCause, PowerState
from reconciler.twin import placement, power, snapshots, ve_network, volume
from reconciler.twin.machine import Ending, Machine, Memory, Runtime, Volume

HoldingEffect: TypeAlias = HoldRuntime | ResumeHeld | EndHeld | OpenRuntime

_MEMORY = str(Parcel(kind=ParcelKind.MEMORY, name=placement.MEMORY))
_KILLED = End(cause=EndCause.KILLED, value=9)


def perform(machine: Machine, effect: HoldingEffect) -> None:
    """Carry out one effect.

    Raises: BusyError, CommandError, NoSpaceError, NotSuspendableError, StateError.
    """
    if not isinstance(effect, OpenRuntime):
        placement.need_move(effect.move)
    match effect:
        case HoldRuntime():
            hold(machine, effect)
            cut(machine, effect.uid)
        case ResumeHeld():
            _resume(machine, effect)
        case EndHeld():
            _end(machine, effect)
        case OpenRuntime():
            _open(machine, effect.uid)
        case _:
            assert_never(effect)


def refuse_held(machine: Machine, effect: Effect) -> None:
    """Refuse what would touch a VE that is held to leave.

    Raises: BusyError.
    """
    for uid in touched_by(effect):
        runtime = machine.runtimes.get(uid)
        if runtime is not None and runtime.leaving is not None:
            raise BusyError(f"{effect_name(effect)} of VE {uid}: it stands still on behalf of move {runtime.leaving}")


def hold(machine: Machine, effect: HoldRuntime) -> None:
    """Hold a running VE, its links as they are yet; held for that move is success.

    Raises: as `perform`.
    """
    uid, doing = effect.uid, f"hold VE {effect.uid}"
    if effect.number < 0:
        raise StateError(f"{doing}: expected a number from 0 on")
    runtime = machine.runtimes.get(uid)
    if runtime is None:
        raise StateError(f"{doing}: it does not run")
    if runtime.leaving is not None:
        _need_move_of(runtime, effect.move, doing)
        return
    if not runtime.is_running or uid in machine.memories:
        raise BusyError(f"{doing}: its init was not let go yet, or is being suspended")
    if placement.data_parcel(effect.number) in machine.cut.get((uid, effect.move), {}):
        raise StateError(f"{doing}: there is a parcel {effect.number} of its data already")
    if obstacle := machine.obstacles.get(uid):
        raise CommandError(f"{doing}: {obstacle}", status=1, output=obstacle)
    memory = snapshots.remember(machine, uid)
    volume.require_space(machine, doing)
    present = machine.volumes[uid] = replace(machine.volumes[uid], shares=True)
    machine.runtimes[uid] = replace(runtime, leaving=effect.move)
    parcels: dict[str, Volume | Memory] = {
        placement.data_parcel(effect.number): present,
        _MEMORY: replace(memory, volume=present),
    }
    placement.keep(machine, uid, effect.move, parcels)


def cut(machine: Machine, uid: Uid) -> None:
    """Take the host's ends of a VE's links off whatever they are connected to; done is success."""
    runtime = machine.runtimes[uid]
    if runtime.uncut:
        return
    links = runtime.network.interfaces
    machine.runtimes[uid] = replace(runtime, uncut=dict(links))
    for name, present in links.items():
        ve_network.put_link(machine, uid, name, replace(present, bridge=None, isolated=False, host_routes=frozenset()))


def connect(machine: Machine, uid: Uid) -> None:
    """Put the host's ends of a VE's links back to what they were connected to, as far as that is still there."""
    runtime = machine.runtimes[uid]
    bridges = {bridge_name(machine.instance.name, network) for network in machine.networks}
    for name, before in runtime.uncut.items():
        ve_network.put_link(machine, uid, name, _connected(runtime.network.interfaces[name], before, bridges))


def _connected(present: InterfaceObservation, before: InterfaceObservation, bridges: set[str]) -> InterfaceObservation:
    is_port = before.bridge in bridges
    return replace(
        present,
        bridge=before.bridge if is_port else None,
        isolated=before.isolated and is_port,
        host_routes=before.host_routes,
    )


def _resume(machine: Machine, effect: ResumeHeld) -> None:
    uid, doing = effect.uid, f"let VE {effect.uid} go on"
    runtime = machine.runtimes.get(uid)
    if runtime is None or runtime.leaving is None:
        return
    _need_move_of(runtime, effect.move, doing)
    connect(machine, uid)
    machine.runtimes[uid] = replace(machine.runtimes[uid], leaving=None, uncut={})
    parcels = machine.cut.get((uid, effect.move), {})
    machine.cut[uid, effect.move] = {words: it for words, it in parcels.items() if words != _MEMORY}


def _end(machine: Machine, effect: EndHeld) -> None:
    uid, doing = effect.uid, f"end VE {effect.uid}"
    runtime = machine.runtimes.get(uid)
    if runtime is None:
        return
    if runtime.leaving is None:
        raise BusyError(f"{doing}: it is not held")
    _need_move_of(runtime, effect.move, doing)
    machine.endings[uid] = Ending(requested=True)
    power.end_init(machine, uid, _KILLED)


def _need_move_of(runtime: Runtime, move: str, doing: str) -> None:
    if runtime.leaving != move:
        raise BusyError(f"{doing}: it stands still on behalf of move {runtime.leaving}, not {move}")


def _open(machine: Machine, uid: Uid) -> None:
    doing, state = f"open VE {uid}", power.observe(machine, uid).state
    if state is PowerState.RUNNING:
        return
    runtime = power.require_runtime(machine, uid, doing)
    if not runtime.arrived:
        raise BusyError(f"{doing}: it was not started closed")
    power.let_run(machine, uid, runtime)
