"""Arrivals: what was received of a VE, made a VE of this host.

What has arrived stays as it is, so that a placement that fails may be tried again; the VE gets snapshots of it. All of
it is made ready under a name that counts for nothing, and appears by a rename.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Sequence
from dataclasses import replace

from reconciler.errors import StateError, TemplateError
from reconciler.host import image, kept, parcel_notes, parcels, snapshots, volume
from reconciler.host.parcel_notes import ParcelNote
from reconciler.host.site import Site
from reconciler.kernel import btrfs, files, overlay_index, qgroup
from reconciler.kernel.syscalls import file_errors
from reconciler.model.identity import Uid
from reconciler.model.kept import KeptMeta, decode_mark, decode_meta
from reconciler.model.placement import Parcel, ParcelKind, PlaceArrival
from reconciler.model.record import encode_record
from reconciler.model.volume import Record

LEDGER = "counters.json"
META = "meta.json"

_DIRECTORIES = ("upper", "work")
_FILES = ("mark.json", "disk.img")
_OF_WORK = ("index", "work")


async def place(site: Site, effect: PlaceArrival) -> None:
    """Make what has arrived a VE of this host, stopped or suspended; one that is there is success.

    Raises: StateError, if its data have not arrived, or are none of a VE's; TemplateError, if an image that it is on is
    not here; NoSpaceError; KernelError.
    """
    uid = effect.uid
    received = parcel_notes.received_in(parcel_notes.directory_of(site, uid, effect.move))
    if site.read_record(uid) is None:
        await asyncio.to_thread(_place, site, effect, received)


def _place(site: Site, effect: PlaceArrival, received: str) -> None:
    uid, record = effect.uid, effect.record
    arrived = parcel_notes.arrived_in(received)
    newest = _newest(arrived, f"place VE {uid}")
    data = parcel_notes.place_of(received, newest)
    expect_volume(f"{data}/{kept.VOLUME}")
    _need_images(site, record, data, _metas(received, arrived))
    begun = parcels.unplaced(site, uid, effect.move)
    kept.delete(site, begun)
    try:
        with file_errors("make", begun):
            os.mkdir(begun, 0o700)
        _fill(site, begun, record, received, arrived, data)
        btrfs.sync(begun)
        with file_errors("finish", begun):
            os.rename(begun, site.instance.ve_dir(uid))
    except BaseException:
        kept.delete(site, begun)
        raise
    files.sync_directory(site.instance.ves)
    site.parsed.forget_below(site.instance.ve_dir(uid))
    site.kept.pop(uid, None)


def _newest(arrived: Sequence[Parcel], doing: str) -> Parcel:
    data = [parcel for parcel in arrived if parcel.kind is ParcelKind.DATA]
    if not data:
        raise StateError(f"{doing}: its data have not arrived")
    return max(data, key=lambda parcel: int(parcel.name))


def _metas(received: str, arrived: Sequence[Parcel]) -> dict[Parcel, KeptMeta]:
    """Read what the snapshots and the memory are that have arrived."""
    found = {}
    for parcel in arrived:
        if parcel.kind in (ParcelKind.SNAPSHOT, ParcelKind.MEMORY):
            path = f"{parcel_notes.place_of(received, parcel)}/{META}"
            found[parcel] = decode_meta(files.read_bytes_if_exists(path) or b"", where=path)
    return found


def _need_images(site: Site, record: Record, data: str, metas: dict[Parcel, KeptMeta]) -> None:
    marked = files.read_bytes_if_exists(kept.mark_in(f"{data}/{kept.VOLUME}"))
    mark = None if marked is None else decode_mark(marked, where=kept.mark_in(data))
    base = record.template_digest if mark is None else mark.template_digest
    for digest in {base, *(meta.template_digest for meta in metas.values())}:
        if digest is None or not os.path.exists(site.instance.template_image(digest)):
            raise TemplateError(f"place VE {record.uid}: template image {digest} is not here")


def _fill(site: Site, begun: str, record: Record, received: str, arrived: Sequence[Parcel], data: str) -> None:
    target = f"{begun}/{kept.VOLUME}"
    note = parcel_notes.read(data)
    _put_volume(site, data, target, note)
    for parcel in arrived:
        source = parcel_notes.place_of(received, parcel)
        if parcel.kind is ParcelKind.SNAPSHOT:
            _put_kept(site, source, f"{begun}/snapshots/{kept.need_name(parcel.name)}", f"{source}/{kept.VOLUME}")
        elif parcel.kind is ParcelKind.MEMORY:
            _put_kept(site, source, f"{begun}/suspended", target)
    _put_ledger(site, record.uid, data, begun)
    _set_limits(site, target, note)
    files.write_whole(f"{begun}/record.json", encode_record(record))


def _put_volume(site: Site, source: str, target: str, note: ParcelNote) -> None:
    """Take a copy of a volume that has arrived and make it ready to be mounted here; without a limit yet.

    What is over its limit takes no change, and nobody else writes to it yet.
    """
    kept.copy(site, f"{source}/{kept.VOLUME}", target, read_only=False)
    expect_volume(target)
    qgroup.set_limit(target, None)
    path = image.path_in(target)
    if not os.path.exists(path):
        overlay_index.renew_received(target)
    elif note.is_image:
        # The holes of a stream: every block of an image has its place from the start.
        with file_errors("look at", path):
            size = os.stat(path).st_size
        files.allocate(path, size)


def expect_volume(path: str) -> None:
    """Refuse a subvolume with anything in it that is not a volume's own: the rest is opened by name.

    Raises: StateError; KernelError.
    """
    with file_errors("look into", path):
        names = set(os.listdir(path))
        right = names <= {*_DIRECTORIES, *_FILES} and (set(_DIRECTORIES) <= names or "disk.img" in names)
        directories = [f"{path}/{name}" for name in _DIRECTORIES if name in names]
        inner = (os.path.join(path, "work", name) for name in _OF_WORK)
        directories += filter(os.path.lexists, inner)
        right = right and all(stat.S_ISDIR(os.lstat(it).st_mode) for it in directories)
        for name in names.intersection(_FILES):
            info = os.lstat(f"{path}/{name}")
            right = right and stat.S_ISREG(info.st_mode) and info.st_nlink == 1
    if not right:
        raise StateError(f"look into {path}: what has arrived is no volume of a VE")


def _put_kept(site: Site, source: str, target: str, data: str) -> None:
    """Make a snapshot, or the state that a memory goes on from, of what has arrived of it and the data it is of."""
    with file_errors("make", target):
        os.makedirs(target, mode=0o700)
    made = f"{target}/{kept.VOLUME}"
    if data.startswith(f"{source}/"):
        _put_volume(site, source, made, ParcelNote())
        btrfs.make_read_only(made)
    else:
        kept.copy(site, data, made, read_only=True)
    if os.path.isdir(f"{source}/{kept.MEMORY}"):
        snapshots.link_memory(f"{source}/{kept.MEMORY}", f"{target}/{kept.MEMORY}")
    path = f"{source}/{META}"
    meta = decode_meta(files.read_bytes_if_exists(path) or b"", where=path)
    kept.write_meta(target, replace(meta, name=os.path.basename(target)))


def _put_ledger(site: Site, uid: Uid, data: str, begun: str) -> None:
    """Go on with what was counted of a VE elsewhere, if that can be read."""
    content = files.read_bytes_if_exists(f"{data}/{LEDGER}")
    if content is not None:
        files.write_whole(f"{begun}/{LEDGER}", content)
    site.ledgers.forget(uid)


def _set_limits(site: Site, target: str, note: ParcelNote) -> None:
    """Hold a volume to the limits that it had, before anybody writes to it; an image has no other than its size."""
    if os.path.exists(image.path_in(target)):
        return
    grouped = kept.group_above(site, target) is not None
    volume.set_limits(site, target, size=note.size, total=note.total if grouped else None)
