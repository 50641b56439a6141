"""Volume: a VE's directory in the pool, with its record and its subvolume."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from reconciler.errors import KernelError, StateError, TemplateError
from reconciler.host import image, kept, power, quota, templates
from reconciler.host.site import Site
from reconciler.kernel import btrfs, files, overlay, qgroup
from reconciler.model.identity import Uid
from reconciler.model.observation import PoolObservation
from reconciler.model.record import encode_record
from reconciler.model.volume import (
    CreateVolume,
    Record,
    SetVolumeSize,
    VolumeObservation,
    WriteRecord,
)

_ROOM_TO_MOUNT = 2 << 20


@dataclass(frozen=True, slots=True)
class Quotas:
    """The pool's quota groups at one moment."""

    groups: Mapping[int, qgroup.Qgroup]


def read_quotas(site: Site, uids: Iterable[Uid] | None = None) -> Quotas:
    """Read the limits and the use of all volumes at once, or only those of some VEs.

    Raises: KernelError, also while the kernel counts anew: until it has, it holds nobody to a limit.
    """
    table = qgroup.read_qgroups(site.instance.pool, None if uids is None else set(_groups_of(site, uids)))
    if not table.consistent:
        text = "the kernel counts it anew, and enforces no limit until then; `btrfs quota rescan` if that never ends"
        raise KernelError(f"read quota of {site.instance.pool}: {text}")
    return Quotas(table.groups)


def _groups_of(site: Site, uids: Iterable[Uid]) -> Iterator[int]:
    for uid in uids:
        number = btrfs.find_subvolume(site.instance.volume(uid))
        if number is not None:
            yield number


def observe(site: Site, uid: Uid, quotas: Quotas, with_use: bool = False) -> VolumeObservation:
    """Look at a VE's volume.

    Raises: KernelError.
    """
    path = site.instance.volume(uid)
    number = btrfs.find_subvolume(path)
    if number is None:
        return VolumeObservation(present=False)
    if not os.path.isdir(f"{path}/work"):
        return _observe_image(site, uid, image.path_in(path), with_use)
    group = quotas.groups.get(number)
    if group is None:
        return VolumeObservation(present=True)
    above = next((quotas.groups[parent] for parent in group.parents), None)
    return VolumeObservation(
        present=True,
        size=group.max_referenced,
        total=above.max_referenced if above else None,
        used=group.referenced,
        held=above.referenced if above else None,
        shares=above is None and group.exclusive != group.referenced,
    )


def _observe_image(site: Site, uid: Uid, path: str, with_use: bool) -> VolumeObservation:
    if not os.path.exists(path):
        return VolumeObservation(present=False)
    seen = quota.observe(site, site.need_record(uid))
    size, room = image.measure(path)
    return VolumeObservation(
        present=True,
        size=size,
        is_image=True,
        room=room,
        quotas=seen.quotas if seen else None,
        used=seen.space if seen else None,
        files=seen.files if seen else None,
        quota_use=seen.use if seen and with_use else {},
    )


async def write_record(site: Site, effect: WriteRecord) -> None:
    """Write a VE's record. The directory of a new VE appears with the record in it, or not at all.

    All of it is on disk afterwards, but for the record that ends a creation: with the one before, that is ended anew.
    Raises: TemplateError, if the template that it names was not built; NoSpaceError.
    """
    await asyncio.to_thread(_write_record, site, _with_digest(site, effect))


def _write_record(site: Site, record: Record) -> None:
    directory, known = site.instance.ve_dir(record.uid), site.read_record(record.uid)
    path = site.instance.record_file(record.uid)
    if known is not None and not known.applied:
        # btrfs writes out a file before it takes another one's place: a power cut leaves one of the two, whole.
        files.write_volatile(path, encode_record(record))
    elif os.path.isdir(directory):
        files.write_atomic(path, encode_record(record))
    else:
        unborn = f"{site.instance.ves}/.{record.uid}"
        os.makedirs(unborn, mode=0o700, exist_ok=True)
        files.write_whole(f"{unborn}/record.json", encode_record(record))
        os.rename(unborn, directory)


def _with_digest(site: Site, effect: WriteRecord) -> Record:
    record, known = effect.record, site.read_record(effect.record.uid)
    if record.template_digest is not None:
        return record
    digest = known.template_digest if known and known.template == record.template else None
    if digest is None and effect.template_key is not None:
        digest = templates.read_index(site).get(effect.template_key)
    if digest is None:
        raise TemplateError(f"write record of {record.name}: template {record.template} was not built")
    return replace(record, template_digest=digest)


async def create_volume(site: Site, effect: CreateVolume) -> None:
    """Make the subvolume, its limit, and then the layers in it.

    Raises: StateError, if there is no such VE; NoSpaceError.
    """
    record = site.need_record(effect.uid)
    present = btrfs.is_subvolume(site.instance.volume(effect.uid))
    if present and os.path.exists(image.path_in(site.instance.volume(effect.uid))):
        await _resize(site, effect)
    else:
        await asyncio.to_thread(make, site, site.instance.volume(effect.uid), effect, record)


def make(site: Site, path: str, effect: CreateVolume, record: Record) -> None:
    """Make a volume at a path: the subvolume, its limit, and then the layers in it, or an image.

    Raises: StateError, if its limit cannot be held; NoSpaceError; KernelError.
    """
    btrfs.create_subvolume(path)
    if effect.is_image and effect.size is not None and not os.path.isdir(f"{path}/work"):
        image.create(image.path_in(path), size=effect.size, room=effect.room, owner=record.id_base)
        return
    set_limits(site, path, size=effect.size, total=effect.total)
    overlay.make_layers(path)


def set_limits(site: Site, volume: str, *, size: int | None, total: int | None) -> None:
    """Set the limit of a volume, and that of it and its snapshots together.

    Units: bytes, None for unlimited.
    Raises: StateError, if the latter cannot be held any more; KernelError.
    """
    pool = site.instance.pool
    above = _group_above(pool, btrfs.subvolume_id(volume), wanted=total is not None)
    if above is not None:
        qgroup.set_group_limit(pool, above, total)
    qgroup.set_limit(volume, size)


def read_limits(site: Site, volume: str) -> tuple[int | None, int | None]:
    """Read the limit of a volume, and that of it and its snapshots together.

    Units: bytes, None for unlimited.
    Raises: KernelError.
    """
    number = btrfs.subvolume_id(volume)
    groups = qgroup.read_qgroups(site.instance.pool, {number}).groups
    size = groups[number].max_referenced if number in groups else None
    return size, next((group.max_referenced for each, group in groups.items() if each != number), None)


@contextmanager
def limited_afterwards(site: Site, made: str, *, size: int | None, total: int | None) -> Iterator[None]:
    """Lift the limits of a copy for the block, and set them in the end: what is full takes no change.

    Nothing of the VE may run in the block.

    Raises: StateError, if they cannot be held; KernelError.
    """
    above = kept.group_above(site, made)
    qgroup.set_limit(made, None)
    if above is not None:
        qgroup.set_group_limit(site.instance.pool, above, None)
    try:
        yield
    finally:
        set_limits(site, made, size=size, total=total)


def _group_above(pool: str, number: int, *, wanted: bool) -> int | None:
    """Give the quota group of a volume and its snapshots; if there is none, it is made if it is ``wanted``.

    Only what shares no data may join a group, and nothing in one may be shared with a volume outside: else all groups
    of the pool have to be counted anew, and until that is done no limit of any VE holds.

    Raises: StateError, if it shares data already.
    """
    for parent in qgroup.read_parents(pool, number):
        return parent
    if not wanted or not qgroup.keeps_count_of_snapshots():
        return None
    group = qgroup.read_qgroups(pool, {number}).groups.get(number)
    if group is not None and group.exclusive != group.referenced:
        raise StateError(
            "limit what snapshots hold (disk.snapshots): the volume shares data with snapshots or clones already; "
            "delete those first, or leave it unlimited"
        )
    made = qgroup.group_of_level_1(number)
    qgroup.create_qgroup(pool, made)
    qgroup.assign_qgroup(pool, number, made)
    return made


@contextmanager
def room_to_mount(site: Site, uid: Uid) -> Iterator[None]:
    """Let a volume that is full be mounted in the block: the overlay makes a directory of its own for that.

    Nothing of the VE may run in the block. What a crash leaves unlimited, the next look finds.

    Raises: KernelError.
    """
    pool, path = site.instance.pool, site.instance.volume(uid)
    number = btrfs.find_subvolume(path)
    groups = {} if number is None else qgroup.read_qgroups(pool, {number}).groups
    full = {
        each: group.max_referenced
        for each, group in groups.items()
        if group.max_referenced is not None and group.referenced + _ROOM_TO_MOUNT > group.max_referenced
    }
    for each in full:
        qgroup.set_group_limit(pool, each, None)
    try:
        yield
    finally:
        for each, limit in full.items():
            qgroup.set_group_limit(pool, each, limit)


async def set_size(site: Site, effect: SetVolumeSize) -> None:
    """Change the limits of an existing volume, or the size of its image.

    Raises: KernelError, if there is none; BusyError, if an image in use would have to shrink; NoSpaceError.
    """
    if os.path.exists(image.path_in(site.instance.volume(effect.uid))):
        await _resize(site, effect)
    else:
        volume = site.instance.volume(effect.uid)
        await asyncio.to_thread(set_limits, site, volume, size=effect.size, total=effect.total)


async def _resize(site: Site, effect: CreateVolume | SetVolumeSize) -> None:
    path = image.path_in(site.instance.volume(effect.uid))
    if effect.size is None:
        return
    if power.observe(site, effect.uid).pid is None:
        await image.await_released(path)
    await asyncio.to_thread(image.set_size, path, effect.size)


def observe_pool(site: Site) -> PoolObservation:
    """Read how large the pool is and what is free in it.

    Raises: KernelError.
    """
    space = btrfs.read_space(site.instance.pool)
    return PoolObservation(size=space.size, free=space.free)
