"""Sendings: what there is of a VE to be sent to another host, and the bytes of each parcel."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from reconciler.errors import StateError
from reconciler.host import arrivals, image, images, kept, memory_files, parcel_notes, volume
from reconciler.host.parcel_frames import LONGEST, FrameKind, frame
from reconciler.host.parcel_notes import MEMORY, ParcelNote
from reconciler.host.site import Site
from reconciler.kernel import btrfs, files, qgroup, sending
from reconciler.kernel.syscalls import file_errors
from reconciler.model.identity import Digest, Uid
from reconciler.model.kept import KeptMeta
from reconciler.model.placement import Parcel, ParcelKind

IMAGE = "image.erofs"
_CLONES_MOST = 16


@dataclass(frozen=True, slots=True)
class _Subvolume:
    """A state of the VE's data that is sent. They are sent in the order in which they were made."""

    parcel: Parcel
    path: str


def list_parcels(site: Site, uid: Uid, move: str) -> tuple[Parcel, ...]:
    """Give what there is to be sent at present, each after its parent.

    Raises: StateError, if there is no such VE; KernelError.
    """
    directory = parcel_notes.directory_of(site, uid, move)
    base = kept.base_of(site, uid)[1]
    needed = {base, *(meta.template_digest for _, meta in _snapshots(site, uid))}
    found = [_template(site, digest) for digest in sorted(needed)]
    found += [one.parcel for one in _subvolumes(site, uid, directory)]
    memory = _memory_of(site, uid, directory)
    if memory is not None:
        found.append(Parcel(kind=ParcelKind.MEMORY, name=MEMORY, size=memory_files.size_of(memory)))
    return tuple(found)


def _template(site: Site, digest: Digest) -> Parcel:
    path = site.instance.template_image(digest)
    with file_errors("look at", path):
        return Parcel(kind=ParcelKind.TEMPLATE, name=digest, size=os.stat(path).st_size)


def _snapshots(site: Site, uid: Uid) -> Iterator[tuple[str, KeptMeta]]:
    directory = site.instance.snapshots_dir(uid)
    for name in sorted(parcel_notes.listed(directory)):
        meta = None if name.startswith(".") else kept.read_meta(site, f"{directory}/{name}")
        if meta is not None:
            yield f"{directory}/{name}", meta


def _subvolumes(site: Site, uid: Uid, directory: str) -> list[_Subvolume]:
    """List the states of the data in the order in which they were made, each a difference of the one before it."""
    named = [(ParcelKind.SNAPSHOT, os.path.basename(it), f"{it}/{kept.VOLUME}") for it, _ in _snapshots(site, uid)]
    numbers = parcel_notes.numbers_in(directory)
    named += [(ParcelKind.DATA, str(number), parcel_notes.data_in(directory, number)) for number in numbers]
    found: list[_Subvolume] = []
    for kind, name, path in sorted(named, key=lambda one: btrfs.subvolume_id(one[2])):
        parent = str(found[-1].parcel) if found else None
        size = None if found else _size_of(site, path)
        found.append(_Subvolume(Parcel(kind=kind, name=name, parent=parent, size=size), path))
    return found


def _size_of(site: Site, path: str) -> int | None:
    number = btrfs.subvolume_id(path)
    group = qgroup.read_qgroups(site.instance.pool, {number}).groups.get(number)
    return None if group is None else group.referenced


def _memory_of(site: Site, uid: Uid, directory: str) -> str | None:
    """Find the images of a memory that is to be sent: of processes that are held, or of a VE that is suspended.

    What it is lies beside them.
    """
    held, suspended = f"{directory}/{MEMORY}/{kept.MEMORY}", f"{site.instance.suspended_dir(uid)}/{kept.MEMORY}"
    return next((path for path in (held, suspended) if os.path.isdir(path)), None)


async def send(site: Site, uid: Uid, move: str, parcel: Parcel) -> AsyncGenerator[bytes, None]:
    """Give a parcel's bytes.

    Raises: StateError, if there is none; KernelError.
    """
    directory = parcel_notes.directory_of(site, uid, move)
    match parcel.kind:
        case ParcelKind.TEMPLATE:
            pieces = _send_template(site, Digest(parcel.name))
        case ParcelKind.MEMORY:
            pieces = _send_memory(site, uid, directory)
        case ParcelKind.SNAPSHOT | ParcelKind.DATA:
            pieces = _send_data(site, uid, directory, parcel)
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece
    yield frame(FrameKind.END)


async def _send_template(site: Site, digest: Digest) -> AsyncGenerator[bytes, None]:
    path = site.instance.template_image(digest)
    if not os.path.exists(path):
        raise StateError(f"send template image {digest}: it is not here")
    note = images.read_note(site, digest)
    yield frame(FrameKind.NOTE, note)
    async with aclosing(_send_file(IMAGE, path)) as pieces:
        async for piece in pieces:
            yield piece


async def _send_memory(site: Site, uid: Uid, directory: str) -> AsyncGenerator[bytes, None]:
    memory = _memory_of(site, uid, directory)
    if memory is None:
        raise StateError(f"send the memory of VE {uid}: it has none")
    yield frame(FrameKind.NOTE, parcel_notes.encode(ParcelNote()))
    meta = f"{os.path.dirname(memory)}/{arrivals.META}"
    yield _content(arrivals.META, files.read_bytes_if_exists(meta) or b"")
    async with aclosing(_send_images(memory)) as pieces:
        async for piece in pieces:
            yield piece


async def _send_data(site: Site, uid: Uid, directory: str, parcel: Parcel) -> AsyncGenerator[bytes, None]:
    chain = _subvolumes(site, uid, directory)
    at = next((at for at, one in enumerate(chain) if str(one.parcel) == str(parcel)), None)
    if at is None:
        raise StateError(f"send {parcel} of VE {uid}: there is no such parcel")
    path, before = chain[at].path, [one.path for one in chain[:at] if parcel.parent is not None]
    yield frame(FrameKind.NOTE, parcel_notes.encode(_note(site, uid, path)))
    if parcel.kind is ParcelKind.DATA:
        async with aclosing(_send_ledger(site, uid)) as pieces:
            async for piece in pieces:
                yield piece
    else:
        async with aclosing(_send_kept(os.path.dirname(path))) as pieces:
            async for piece in pieces:
                yield piece
    yield frame(FrameKind.STREAM)
    parent = next((one.path for one in chain[:at] if str(one.parcel) == parcel.parent), None)
    if parent is None and parcel.parent is not None:
        raise StateError(f"send {parcel} of VE {uid}: {parcel.parent}, of which it is a difference, is not here")
    async with aclosing(sending.send(path, parent=parent, clones=before[-_CLONES_MOST:])) as pieces:
        async for piece in pieces:
            yield frame(FrameKind.BYTES, piece)


def _note(site: Site, uid: Uid, path: str) -> ParcelNote:
    size, total = volume.read_limits(site, site.instance.volume(uid))
    return ParcelNote(size=size, total=total, is_image=os.path.exists(image.path_in(path)))


async def _send_ledger(site: Site, uid: Uid) -> AsyncGenerator[bytes, None]:
    site.ledgers.flush(uid)
    content = files.read_bytes_if_exists(site.instance.ledger_file(uid))
    if content is not None:
        yield _content(arrivals.LEDGER, content)


async def _send_kept(directory: str) -> AsyncGenerator[bytes, None]:
    yield _content(arrivals.META, files.read_bytes_if_exists(f"{directory}/{arrivals.META}") or b"")
    if os.path.isdir(f"{directory}/{kept.MEMORY}"):
        async with aclosing(_send_images(f"{directory}/{kept.MEMORY}")) as pieces:
            async for piece in pieces:
                yield piece


async def _send_images(directory: str) -> AsyncGenerator[bytes, None]:
    for name in sorted(parcel_notes.listed(directory)):
        path = f"{directory}/{name}"
        if stat.S_ISREG(os.lstat(path).st_mode):
            async with aclosing(_send_file(f"{MEMORY}/{name}", path)) as pieces:
                async for piece in pieces:
                    yield piece


def _content(name: str, content: bytes) -> bytes:
    head = json.dumps({"name": name, "size": len(content)}).encode()
    return frame(FrameKind.FILE, head) + (frame(FrameKind.BYTES, content) if content else b"")


async def _send_file(name: str, path: str) -> AsyncGenerator[bytes, None]:
    """Give a file that nobody writes to."""
    with file_errors("read", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        left = os.fstat(descriptor).st_size
        yield frame(FrameKind.FILE, json.dumps({"name": name, "size": left}).encode())
        while left:
            with file_errors("read", path):
                data = await asyncio.to_thread(os.read, descriptor, min(left, LONGEST))
            if not data:
                raise StateError(f"send {path}: it became shorter meanwhile")
            left -= len(data)
            yield frame(FrameKind.BYTES, data)
    finally:
        os.close(descriptor)
