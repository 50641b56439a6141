"""Volume: templates, records, volumes and the trash of the in-memory host."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias, assert_never

from reconciler.errors import BusyError, NoSpaceError, StateError, TemplateError
from reconciler.model.facts import Unknown
from reconciler.model.identity import Digest, Uid
from reconciler.model.observation import PoolObservation
from reconciler.model.quota import LoadQuotas, SetInodes, SetQuota
from reconciler.model.volume import (
    BuildTemplate,
    BuiltinSource,
    CaptureTemplate,
    CreateVolume,
    ImageObservation,
    ImageSource,
    PurgeTrash,
    Record,
    RemoveTemplate,
    RestoreVe,
    SetVolumeSize,
    TemplateSource,
    TemplateSpec,
    TrashEntry,
    TrashVe,
    VolumeObservation,
    WriteRecord,
)
from reconciler.twin import quota
from reconciler.twin.machine import Machine, Trashed, Volume

VolumeEffect: TypeAlias = (
    BuildTemplate
    | CaptureTemplate
    | RemoveTemplate
    | WriteRecord
    | CreateVolume
    | SetVolumeSize
    | TrashVe
    | RestoreVe
    | PurgeTrash
    | quota.QuotaEffect
)

_TRASH_ID = re.compile(r"[0-9A-Za-z-]+\.[0-9]+")
_NO_VOLUME = VolumeObservation(present=False)


def perform(machine: Machine, effect: VolumeEffect) -> None:
    """Carry out one effect.

    Raises: BusyError, NoSpaceError, StateError, TemplateError.
    """
    match effect:
        case BuildTemplate() | CaptureTemplate() | RemoveTemplate():
            _perform_on_templates(machine, effect)
        case WriteRecord():
            _write_record(machine, effect)
        case CreateVolume():
            _create_volume(machine, effect)
        case SetVolumeSize():
            _set_size(machine, effect)
        case TrashVe():
            _trash(machine, effect.uid)
        case RestoreVe():
            _restore(machine, effect)
        case PurgeTrash():
            _purge(machine, effect.trash_id)
        case LoadQuotas() | SetQuota() | SetInodes():
            quota.perform(machine, effect)
        case _:
            assert_never(effect)


def _perform_on_templates(machine: Machine, effect: BuildTemplate | CaptureTemplate | RemoveTemplate) -> None:
    match effect:
        case BuildTemplate():
            _build_template(machine, effect.template)
        case CaptureTemplate():
            _capture_template(machine, effect)
        case RemoveTemplate():
            _remove_template(machine, effect.key)


def observe(machine: Machine, uid: Uid) -> VolumeObservation:
    """Look at a VE's volume."""
    volume = machine.volumes.get(uid)
    if volume is None or not volume.complete:
        return _NO_VOLUME
    return VolumeObservation(
        present=True,
        size=volume.size,
        total=volume.total,
        is_image=volume.is_image,
        quotas=quota.observe(machine, uid, volume),
        used=volume.used,
        shares=volume.shares and not volume.grouped and not volume.is_image,
    )


def observe_trash(machine: Machine) -> tuple[TrashEntry, ...]:
    """List the trash, oldest entry first."""
    entries = sorted(machine.trash.items(), key=lambda item: (item[1].trashed_at, item[0]))
    return tuple(
        TrashEntry(
            id=key,
            trashed_at=entry.trashed_at,
            record=entry.record,
            used=None if entry.volume is None else entry.volume.used,
            images=_images_of(entry),
        )
        for key, entry in entries
    )


def observe_pool(machine: Machine) -> PoolObservation:
    """Look at the pool: what is free is what no volume uses."""
    size = machine.instance.pool_size
    volumes = [*machine.volumes.values(), *(entry.volume for entry in machine.trash.values())]
    used = sum(volume.used or 0 for volume in volumes if volume is not None)
    return PoolObservation(size=size, free=0 if machine.pool_is_full else max(0, size - used))


def require_record(machine: Machine, uid: Uid, doing: str) -> Record:
    """Give a VE's record.

    Raises: StateError, if there is none or it is damaged.
    """
    record = machine.records.get(uid)
    if record is None:
        raise StateError(f"{doing}: VE {uid} has no record")
    if isinstance(record, Unknown):
        raise StateError(f"{doing}: {record.reason}")
    return record


def require_volume(machine: Machine, uid: Uid, doing: str) -> Volume:
    """Give a VE's volume.

    Raises: StateError, if there is none.
    """
    volume = machine.volumes.get(uid)
    if volume is None or not volume.complete:
        raise StateError(f"{doing}: VE {uid} has no volume")
    return volume


def require_image(machine: Machine, digest: Digest | None, doing: str) -> None:
    """Make sure that a template's image is there.

    Raises: TemplateError.
    """
    if digest not in machine.templates.values():
        raise TemplateError(f"{doing}: template image {digest} is not built")


def require_space(machine: Machine, doing: str) -> None:
    """Make sure that the pool takes another write.

    Raises: NoSpaceError.
    """
    if machine.pool_is_full:
        raise NoSpaceError(f"{doing}: no space left on {machine.instance.pool}")


def _build_template(machine: Machine, template: TemplateSpec) -> None:
    now = machine.clock.now()
    if template.key in machine.templates:
        _touch(machine, machine.templates[template.key])
        return
    doing = f"build template {template.name}"
    digest = _image_digest(template.source, doing)
    if isinstance(template.source, ImageSource):
        if digest not in machine.images:
            raise TemplateError(f"{doing}: its image {digest} is not on this host")
        machine.templates[template.key] = digest
        return
    require_space(machine, doing)
    machine.templates[template.key] = digest
    kind = type(template.source).__name__.removesuffix("Source").lower()
    machine.images[digest] = ImageObservation(name=template.name, source=kind, size=1 << 20, built_at=now, used_at=now)


def _touch(machine: Machine, digest: Digest | None) -> None:
    """Take note that an image was of use until now."""
    if digest is not None and digest in machine.images:
        machine.images[digest] = replace(machine.images[digest], used_at=machine.clock.now())


def _image_digest(source: TemplateSource, doing: str) -> Digest:
    """Derive the digest from the source alone, as equal sources give equal images whatever they are called."""
    if isinstance(source, BuiltinSource) and source.name != "busybox":
        raise TemplateError(f"{doing}: no builtin template is named {source.name!r}; there is busybox")
    if isinstance(source, ImageSource):
        return Digest(source.digest)
    return Digest(hashlib.sha256(repr(source).encode()).hexdigest())


def _capture_template(machine: Machine, effect: CaptureTemplate) -> None:
    doing = f"make template {effect.name} of VE {effect.uid}"
    record = require_record(machine, effect.uid, doing)
    if effect.snapshot not in machine.snapshots.get(effect.uid, {}):
        raise StateError(f"{doing}: it has no snapshot {effect.snapshot}")
    digest = Digest(hashlib.sha256(f"{effect.uid}@{effect.snapshot}".encode()).hexdigest())
    now, source = machine.clock.now(), f"VE {record.name}@{effect.snapshot}"
    machine.templates[digest] = digest
    machine.images[digest] = ImageObservation(
        name=effect.name, source=source, size=1 << 20, built_at=now, used_at=now, is_original=True
    )


def _remove_template(machine: Machine, key: Digest) -> None:
    digest = machine.templates.get(key)
    if digest is None:
        return
    if list(machine.templates.values()).count(digest) > 1:
        del machine.templates[key]
        return
    for user, used in _images_in_use(machine):
        if used == digest:
            raise BusyError(f"remove template {key}: {user} uses its image")
    del machine.templates[key]
    machine.images.pop(digest, None)


def _images_in_use(machine: Machine) -> Iterator[tuple[str, Digest | None]]:
    """Yield who needs which image: VEs, volumes that were put in the place of others, snapshots, and the trash."""
    for record in (*machine.records.values(), *(entry.record for entry in machine.trash.values())):
        if isinstance(record, Record):
            yield f"VE {record.name}", record.template_digest
    for volume in (*machine.volumes.values(), *(entry.volume for entry in machine.trash.values())):
        if volume is not None and volume.mark is not None:
            yield "a volume", volume.mark.template_digest
    for kept in (*machine.snapshots.values(), *(entry.snapshots for entry in machine.trash.values())):
        for name, snapshot in kept.items():
            yield f"snapshot {name}", snapshot.template_digest


def _write_record(machine: Machine, effect: WriteRecord) -> None:
    """Keep the digest that a VE has: another image below its volume would be another root file system."""
    record, doing = effect.record, f"write record of VE {effect.record.uid}"
    present = machine.records.get(record.uid)
    digest = record.template_digest
    if digest is None and isinstance(present, Record) and present.template == record.template:
        digest = present.template_digest
    if digest is None and effect.template_key is not None:
        digest = machine.templates.get(effect.template_key)
    if digest is None:
        raise TemplateError(f"{doing}: template {effect.template_key} is not built")
    require_space(machine, doing)
    machine.records[record.uid] = replace(record, template_digest=digest)


def _create_volume(machine: Machine, effect: CreateVolume) -> None:
    doing = f"create volume of VE {effect.uid}"
    require_record(machine, effect.uid, doing)
    present = machine.volumes.get(effect.uid)
    if present is None or not present.complete:
        require_space(machine, doing)
        total = None if effect.is_image else effect.total
        machine.volumes[effect.uid] = Volume(
            size=effect.size, total=total, is_image=effect.is_image, grouped=total is not None
        )
    else:
        machine.volumes[effect.uid] = _resized(machine, effect, present)


def _set_size(machine: Machine, effect: SetVolumeSize) -> None:
    present = require_volume(machine, effect.uid, f"set volume size of VE {effect.uid}")
    machine.volumes[effect.uid] = _resized(machine, effect, present)


def _resized(machine: Machine, effect: CreateVolume | SetVolumeSize, present: Volume) -> Volume:
    if not present.is_image:
        return limited(present, effect.size, effect.total)
    if effect.size is None or present.size is None:
        return present
    if effect.size < present.size and effect.uid in machine.runtimes:
        raise BusyError(f"shrink volume of VE {effect.uid}: the VE uses it; stop the VE first")
    return replace(present, size=effect.size)


def limited(present: Volume, size: int | None, total: int | None) -> Volume:
    """Give a volume other limits.

    Raises: StateError, if data of it is shared with what would not be held to the limit with it.
    """
    if total is not None and not present.grouped and present.shares:
        raise StateError("limit what snapshots hold (disk.snapshots): the volume shares data with snapshots or clones")
    return replace(present, size=size, total=total, grouped=present.grouped or total is not None)


def _trash(machine: Machine, uid: Uid) -> None:
    doing = f"move VE {uid} to the trash"
    if uid not in machine.records:
        return
    record = require_record(machine, uid, doing)
    if uid in machine.runtimes:
        raise BusyError(f"{doing}: its init {machine.runtimes[uid].pid} is alive; stop it first")
    if uid in machine.cgroups:
        raise BusyError(f"{doing}: its cgroup is still there; remove that first")
    # Later than all entries of this VE, also where the clock says the same second: the order of the ids is the truth.
    before = [int(entry.trashed_at) for entry in machine.trash.values() if entry.record.uid == uid]
    trashed_at = max([int(machine.clock.now()), *(second + 1 for second in before)])
    volume = machine.volumes.pop(uid, None)
    machine.trash[f"{uid}.{trashed_at}"] = Trashed(
        trashed_at=float(trashed_at),
        record=record,
        volume=volume,
        snapshots=machine.snapshots.pop(uid, {}),
        memory=machine.memories.pop(uid, None),
    )
    del machine.records[uid]
    machine.endings.pop(uid, None)


def _restore(machine: Machine, effect: RestoreVe) -> None:
    uid, doing = effect.uid, f"restore VE {effect.uid} from the trash"
    if uid in machine.records:
        return
    _require_trash_id(effect.trash_id)
    entry = machine.trash.get(effect.trash_id)
    if entry is None or entry.record.uid != uid:
        raise StateError(f"{doing}: the trash has no entry {effect.trash_id!r} of it")
    machine.records[uid] = entry.record.with_done(effect.requests_done)
    if entry.volume is not None:
        machine.volumes[uid] = entry.volume
    machine.snapshots[uid] = entry.snapshots
    if entry.memory is not None:
        machine.memories[uid] = entry.memory
    del machine.trash[effect.trash_id]


def _purge(machine: Machine, trash_id: str) -> None:
    _require_trash_id(trash_id)
    entry = machine.trash.pop(trash_id, None)
    for digest in () if entry is None else _images_of(entry):
        _touch(machine, digest)


def _images_of(entry: Trashed) -> frozenset[Digest]:
    found = {entry.record.template_digest, *(kept.template_digest for kept in entry.snapshots.values())}
    if entry.volume is not None and entry.volume.mark is not None:
        found.add(entry.volume.mark.template_digest)
    return frozenset(digest for digest in found if digest is not None)


def _require_trash_id(trash_id: str) -> None:
    """Refuse whatever could lead out of the trash as a path."""
    if not _TRASH_ID.fullmatch(trash_id):
        raise StateError(f"find {trash_id!r} in the trash: expected <uid>.<seconds>")
