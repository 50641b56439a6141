"""Snapshots: the kept states of the in-memory host's volumes, and what returns to one of them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TypeAlias, assert_never

from reconciler.errors import BusyError, NotSuspendableError, StateError, TemplateError
from reconciler.model.identity import Digest, SnapshotName, TemplateName, Uid
from reconciler.model.snapshots import (
    CloneVolume,
    DeleteSnapshot,
    ReplaceVolume,
    RollBack,
    SnapshotKind,
    SnapshotObservation,
    SnapshotsObservation,
    TakeSnapshot,
    VolumeMark,
)
from reconciler.twin import volume
from reconciler.twin.machine import Kept, Machine, Memory, Volume

SnapshotEffect: TypeAlias = TakeSnapshot | DeleteSnapshot | RollBack | ReplaceVolume | CloneVolume

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def perform(machine: Machine, effect: SnapshotEffect) -> None:
    """Carry out one effect.

    Raises: BusyError, NoSpaceError, StateError, TemplateError.
    """
    match effect:
        case TakeSnapshot():
            _take(machine, effect)
        case DeleteSnapshot():
            _need_name(effect.name)
            kept = machine.snapshots.get(effect.uid, {})
            machine.snapshots[effect.uid] = {name: it for name, it in kept.items() if name != effect.name}
        case RollBack():
            _roll_back(machine, effect)
        case ReplaceVolume():
            _replace(machine, effect)
        case CloneVolume():
            _clone(machine, effect)
        case _:
            assert_never(effect)


def observe(machine: Machine, uid: Uid) -> SnapshotsObservation:
    """Look at a VE's snapshots."""
    present = machine.volumes.get(uid)
    return SnapshotsObservation(
        snapshots={
            name: SnapshotObservation(
                kind=kept.kind,
                taken_at=kept.taken_at,
                template=kept.template,
                template_digest=kept.template_digest,
                memory=kept.memory is not None,
            )
            for name, kept in sorted(machine.snapshots.get(uid, {}).items())
        },
        mark=None if present is None else present.mark,
    )


def _take(machine: Machine, effect: TakeSnapshot) -> None:
    uid, doing = effect.uid, f"take snapshot {effect.name} of VE {effect.uid}"
    _need_name(effect.name)
    if effect.name in machine.snapshots.get(uid, {}):
        return
    volume.require_volume(machine, uid, doing)
    runtime = machine.runtimes.get(uid)
    if runtime is not None and not runtime.is_running:
        raise BusyError(f"{doing}: its init was not let go yet")
    memory = None
    if effect.memory:
        memory = machine.memories.get(uid) if runtime is None else remember(machine, uid)
        if memory is None:
            raise StateError(f"{doing}: it does not run, so that it has no memory to keep")
    volume.require_space(machine, doing)
    _keep(machine, uid, effect.name, effect.kind, memory)


def remember(machine: Machine, uid: Uid) -> Memory:
    """Give the memory of a VE that runs, as it is now.

    Raises: NotSuspendableError, if interfaces of the host are in it: what was set on them would be lost.
    """
    runtime = machine.runtimes[uid]
    if runtime.nics:
        raise NotSuspendableError(f"remember VE {uid}: the host's {', '.join(sorted(runtime.nics))} is in it")
    links = runtime.network.interfaces.values()
    return Memory(
        launch=runtime.launch,
        volume=machine.volumes[uid],
        suspended_at=machine.clock.now(),
        addresses=frozenset(address for link in links for address in link.addresses),
        mounts=runtime.mounts,
        nodes=runtime.nodes,
    )


def _keep(machine: Machine, uid: Uid, name: SnapshotName, kind: SnapshotKind, memory: Memory | None) -> None:
    present = machine.volumes[uid] = replace(machine.volumes[uid], shares=True)
    template, digest = base_of(machine, uid, f"keep the data of VE {uid}")
    kept = Kept(
        kind=kind,
        taken_at=machine.clock.now(),
        volume=present,
        template=template,
        template_digest=digest,
        memory=memory,
    )
    machine.snapshots[uid] = {**machine.snapshots.get(uid, {}), name: kept}


def base_of(machine: Machine, uid: Uid, doing: str) -> tuple[TemplateName, Digest]:
    """Give the template that a VE's volume is mounted on.

    Raises: StateError; TemplateError, if none was ever built for it.
    """
    record, present = volume.require_record(machine, uid, doing), machine.volumes.get(uid)
    if present is not None and present.mark is not None:
        return present.mark.template, present.mark.template_digest
    if record.template_digest is None:
        raise TemplateError(f"{doing}: its record names no image of template {record.template}")
    return record.template, record.template_digest


def _roll_back(machine: Machine, effect: RollBack) -> None:
    uid, doing = effect.uid, f"roll VE {effect.uid} back to {effect.to}"
    _need_name(effect.to)
    present = _need_idle(machine, uid, doing)
    if present.mark is not None and present.mark.request == effect.request:
        return
    kept = machine.snapshots.get(uid, {}).get(effect.to)
    if kept is None:
        raise StateError(f"{doing}: it has no such snapshot")
    mark = VolumeMark(request=effect.request, template=kept.template, template_digest=kept.template_digest)
    made = replace(kept.volume, mark=mark)
    _switch(machine, uid, effect.safety, made if made.is_image else volume.limited(made, effect.size, effect.total))
    if kept.memory is not None:
        machine.memories[uid] = replace(kept.memory)


def _replace(machine: Machine, effect: ReplaceVolume) -> None:
    uid, doing = effect.uid, f"replace volume of VE {effect.uid}"
    present = _need_idle(machine, uid, doing)
    digest = machine.templates.get(effect.template_key)
    if digest is None:
        raise TemplateError(f"{doing}: template {effect.template} is not built")
    mark = VolumeMark(request=None, template=effect.template, template_digest=digest)
    if present.mark == mark:
        return
    content = tuple(entry for entry in present.content if any(is_below(entry, path) for path in effect.keep))
    made = Volume(
        size=effect.size,
        is_image=effect.is_image,
        mark=mark,
        content=content,
        grouped=present.grouped and not effect.is_image,
        shares=bool(effect.keep),
    )
    if not effect.is_image:
        made = volume.limited(made, effect.size, effect.total)
    _switch(machine, uid, effect.safety, made)


def is_below(path: str, directory: str) -> bool:
    """Say whether a path is a directory or lies in it."""
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def _switch(machine: Machine, uid: Uid, safety: SnapshotName, made: Volume) -> None:
    """Put a volume in the place of the present one; its memory stays with the data that it belongs to."""
    _need_name(safety)
    if safety in machine.snapshots.get(uid, {}):
        raise StateError(f"keep the data of VE {uid}: there is a snapshot {safety} already")
    volume.require_space(machine, f"replace volume of VE {uid}")
    _keep(machine, uid, safety, SnapshotKind.SAFETY, machine.memories.pop(uid, None))
    machine.volumes[uid] = made


def _clone(machine: Machine, effect: CloneVolume) -> None:
    uid, doing = effect.uid, f"clone VE {effect.source}"
    volume.require_record(machine, uid, doing)
    present = machine.volumes.get(uid)
    if present is not None and present.complete:
        return
    taken = volume.require_volume(machine, effect.source, doing)
    if effect.snapshot is not None:
        _need_name(effect.snapshot)
        kept = machine.snapshots.get(effect.source, {}).get(effect.snapshot)
        if kept is None:
            raise StateError(f"{doing}: it has no snapshot {effect.snapshot}")
        taken = kept.volume
    if not taken.is_image and (taken.grouped or effect.total is not None):
        raise StateError(f"{doing}: what is limited together with its snapshots shares no data with another VE")
    volume.require_space(machine, doing)
    machine.volumes[effect.source] = replace(machine.volumes[effect.source], shares=True)
    made = replace(taken, mark=None, shares=True)
    machine.volumes[uid] = made if made.is_image else replace(made, size=effect.size, total=None)


def _need_idle(machine: Machine, uid: Uid, doing: str) -> Volume:
    """Give the volume of a VE of which nothing runs.

    Raises: BusyError; StateError.
    """
    volume.require_record(machine, uid, doing)
    present = volume.require_volume(machine, uid, doing)
    if uid in machine.runtimes:
        raise BusyError(f"{doing}: its init {machine.runtimes[uid].pid} is alive; stop it first")
    return present


def _need_name(name: SnapshotName) -> None:
    """Refuse whatever could lead out of the snapshots as a path."""
    if _NAME.fullmatch(name) is None:
        raise StateError(f"find snapshot {name!r}: expected letters, digits, dots, dashes and underscores")
