"""Receptions: a parcel taken from another host, of which nothing is believed but that it is that host.

It lies under a name that counts for nothing until all of it is on disk, and then appears by a rename.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import replace

from reconciler.errors import StateError
from reconciler.host import arrivals, images, kept, parcel_notes, sendings, templates
from reconciler.host.parcel_frames import FrameKind, Frames
from reconciler.host.parcel_notes import MEMORY, ParcelNote
from reconciler.host.site import Site
from reconciler.kernel import btrfs, files, qgroup, receiving
from reconciler.kernel.criu import IMAGES_MODE
from reconciler.kernel.receive_child import Reception
from reconciler.kernel.syscalls import file_errors
from reconciler.model.counters import decode_ledger
from reconciler.model.identity import Digest, Uid
from reconciler.model.kept import decode_meta
from reconciler.model.placement import Parcel, ParcelKind
from reconciler.model.volume import ImageObservation

_IMAGE_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FILES_MOST = 100_000
_SMALL = 1 << 20
_IMAGE_MOST = 1 << 34
_SLACK = 64 << 20
_MODE = 0o644  # a restore opens some images as the VE's root; what keeps others out is the way to them
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


async def receive(site: Site, uid: Uid, move: str, parcel: Parcel, chunks: AsyncIterator[bytes]) -> None:
    """Take a parcel: afterwards it is here whole and on disk, or not at all.

    Raises: StateError, if its parent is not here, or it is not what it says; NoSpaceError; CommandError; KernelError;
    whatever ``chunks`` raises.
    """
    received = parcel_notes.received_in(parcel_notes.directory_of(site, uid, move))
    place = parcel_notes.place_of(received, parcel)
    frames = Frames(chunks, most=2 * btrfs.read_space(site.instance.pool).size)
    if parcel.kind is ParcelKind.TEMPLATE:
        await _receive_template(site, parcel, frames)
        return
    begun = await asyncio.to_thread(kept.begin, site, place)
    try:
        note = await _fill(begun, received, parcel, frames)
        await frames.finish()
        await asyncio.to_thread(_finish, begun, place, parcel, note)
    except BaseException:
        await asyncio.to_thread(kept.delete, site, begun)
        raise


async def _receive_template(site: Site, parcel: Parcel, frames: Frames) -> None:
    digest = Digest(parcel.name)
    if os.path.exists(site.instance.template_image(digest)):
        return
    note = images.parse_note(await frames.take(FrameKind.NOTE), where=str(parcel))
    with templates.scratch_of(site.instance.templates) as scratch:
        path = f"{scratch}/{sendings.IMAGE}"
        await _take_file(frames, {sendings.IMAGE: path})
        await frames.finish()
        await asyncio.to_thread(_publish, site, path, digest, note)


def _publish(site: Site, path: str, digest: Digest, note: ImageObservation) -> None:
    templates.publish_received(site, path, digest, note)


async def _fill(begun: str, received: str, parcel: Parcel, frames: Frames) -> ParcelNote:
    note = parcel_notes.decode(await frames.take(FrameKind.NOTE), where=str(parcel))
    count = 0
    while await frames.peek() is FrameKind.FILE:
        count += 1
        if count > _FILES_MOST:
            raise StateError(f"receive {parcel}: it has more than {_FILES_MOST} files")
        await _take_file(frames, _expected_files(begun, parcel))
    if parcel.kind is ParcelKind.MEMORY:
        return replace(note, uuid=None)
    await frames.take(FrameKind.STREAM)
    job = _reception(begun, received, parcel, note)
    return replace(note, uuid=await receiving.receive(job, frames.bytes_of_stream()))


def _expected_files(begun: str, parcel: Parcel) -> dict[str, str]:
    """Say which files a parcel may have, and where they go; ``memory/`` stands for all files in there."""
    if parcel.kind is ParcelKind.DATA:
        return {arrivals.LEDGER: f"{begun}/{arrivals.LEDGER}"}
    return {arrivals.META: f"{begun}/{arrivals.META}", f"{MEMORY}/": f"{begun}/{kept.MEMORY}"}


async def _take_file(frames: Frames, expected: dict[str, str]) -> None:
    """Write a file that arrives, if it is one of those that may."""
    path, left = _file_of(await frames.take(FrameKind.FILE), expected)
    with file_errors("write", path):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path, _NEW_FILE, _MODE)
        os.fchmod(descriptor, _MODE)
    try:
        while left:
            data = await frames.take(FrameKind.BYTES)
            if len(data) > left:
                raise StateError(f"receive {os.path.basename(path)}: it is longer than it says")
            left -= len(data)
            with file_errors("write", path):
                await asyncio.to_thread(_write_all, descriptor, data)
    finally:
        os.close(descriptor)


def _file_of(head: bytes, expected: dict[str, str]) -> tuple[str, int]:
    try:
        said = json.loads(head)
        name, size = said["name"], said["size"]
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise StateError("receive a file: expected its name and its size") from err
    if not isinstance(name, str) or type(size) is not int or size < 0:
        raise StateError("receive a file: expected its name and its size")
    directory, slash, last = name.rpartition("/")
    path = expected.get(name) if not slash else None
    if slash and f"{directory}/" in expected and _IMAGE_FILE.fullmatch(last):
        path = f"{expected[f'{directory}/']}/{last}"
    most = _IMAGE_MOST if name == sendings.IMAGE else _SMALL
    if path is None or (not slash and size > most):
        raise StateError(f"receive file {name!r} of {size} bytes: a parcel of this kind has none such")
    return path, size


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _reception(begun: str, received: str, parcel: Parcel, note: ParcelNote) -> Reception:
    """Say how a subvolume is to be received, with limits from the beginning.

    It may hold somewhat more than the volume it comes from: the same files take other metadata elsewhere.
    """
    sources = {}
    for other in parcel_notes.arrived_in(received):
        uuid = parcel_notes.read(parcel_notes.place_of(received, other)).uuid
        if uuid is not None:
            sources[uuid] = _volume_of(received, other)
    parent = None
    if parcel.parent is not None:
        before = parcel_notes.named(parcel.parent)
        parent = _volume_of(received, before)
        if parent not in sources.values():
            raise StateError(f"receive {parcel}: {parcel.parent} is to be here before it")
    return Reception(
        directory=received,
        target=f"{os.path.basename(begun)}/{kept.VOLUME}",
        parent=parent,
        sources=sources,
        limit=None if note.size is None else note.size + note.size // 16 + _SLACK,
        grouped=note.total is not None and not note.is_image and qgroup.keeps_count_of_snapshots(),
        in_place=note.is_image,
    )


def _volume_of(received: str, parcel: Parcel) -> str:
    return f"{os.path.basename(parcel_notes.place_of(received, parcel))}/{kept.VOLUME}"


def _finish(begun: str, place: str, parcel: Parcel, note: ParcelNote) -> None:
    _expect_whole(begun, parcel)
    parcel_notes.write(begun, note)
    if os.path.isdir(f"{begun}/{kept.MEMORY}"):
        os.chmod(f"{begun}/{kept.MEMORY}", IMAGES_MODE)
    btrfs.sync(begun)
    if parcel.kind is not ParcelKind.MEMORY:
        btrfs.make_read_only(f"{begun}/{kept.VOLUME}")
    kept.finish(place)


def _expect_whole(begun: str, parcel: Parcel) -> None:
    """Refuse a parcel without what belongs to one of its kind, and drop what only looks like it."""
    if parcel.kind is not ParcelKind.MEMORY:
        arrivals.expect_volume(f"{begun}/{kept.VOLUME}")
    if parcel.kind is ParcelKind.DATA:
        _drop_damaged_ledger(f"{begun}/{arrivals.LEDGER}")
        return
    path = f"{begun}/{arrivals.META}"
    meta = decode_meta(files.read_bytes_if_exists(path) or b"", where=str(parcel))
    if parcel.kind is ParcelKind.SNAPSHOT and meta.name != kept.need_name(parcel.name):
        raise StateError(f"receive {parcel}: it says that it is {meta.name!r}")
    if parcel.kind is ParcelKind.MEMORY and not os.path.isdir(f"{begun}/{kept.MEMORY}"):
        raise StateError(f"receive {parcel}: it has no memory in it")


def _drop_damaged_ledger(path: str) -> None:
    content = files.read_bytes_if_exists(path)
    if content is None:
        return
    try:
        decode_ledger(content, where=path)
    except StateError:
        os.unlink(path)
