"""Mounts: the directories of the in-memory host that its VEs see."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias, assert_never

from reconciler.errors import KernelError
from reconciler.model.identity import Uid
from reconciler.model.mounts import AddMount, MountsObservation, MountSpec, RemoveMount
from reconciler.twin import power
from reconciler.twin.machine import Machine

MountsEffect: TypeAlias = AddMount | RemoveMount


def perform(machine: Machine, effect: MountsEffect) -> None:
    """Carry out one effect.

    Raises: KernelError.
    """
    doing = f"mount {effect.target} of VE {effect.uid}"
    runtime = power.require_runtime(machine, effect.uid, doing)
    match effect:
        case AddMount():
            power.require_files(machine, effect.uid, doing)
            if effect.mount.source not in machine.directories:
                raise KernelError(f"{doing}: this host has no directory {effect.mount.source}")
            _put(machine, effect.uid, {**runtime.mounts, effect.target: effect.mount})
        case RemoveMount():
            drop(machine, effect.uid, effect.target)
        case _:
            assert_never(effect)


def drop(machine: Machine, uid: Uid, target: str) -> None:
    """Unmount a directory; one that is not mounted stays so."""
    mounts = machine.runtimes[uid].mounts
    _put(machine, uid, {other: mount for other, mount in mounts.items() if other != target})


def _put(machine: Machine, uid: Uid, mounts: dict[str, MountSpec]) -> None:
    machine.runtimes[uid] = replace(machine.runtimes[uid], mounts=mounts)


def observe(machine: Machine, uid: Uid) -> MountsObservation | None:
    """Look at what is mounted in a VE; None: nothing runs, so there is no mount table."""
    runtime = machine.runtimes.get(uid)
    return None if runtime is None else MountsObservation(mounts=runtime.mounts)
