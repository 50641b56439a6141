"""Images: the volumes of VEs that have quotas inside, each a file in the VE's subvolume."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.errors import BusyError, NoSpaceError, VectlError
from reconciler.kernel import ext4, files, image, loop, quota
from reconciler.kernel.image import ImageMount
from reconciler.kernel.syscalls import file_errors

_RELEASED_S = 10.0
_POLL_S = 0.005
_GROUP = 128 << 20  # of ext4 with blocks of 4 KiB


def path_in(volume: str) -> str:
    """Give the path of the image in a volume."""
    return f"{volume}/disk.img"


@contextmanager
def attached(volume: str, *, at: str) -> Iterator[ImageMount | None]:
    """Attach the image of a volume for the block, if it is one; what mounts it meanwhile keeps it.

    Raises: KernelError; MissingToolError.
    """
    path = path_in(volume)
    if not os.path.exists(path):
        yield None
        return
    with loop.attached(path, read_only=False, direct_io=True) as device:
        yield ImageMount(device=device, quotas=has_quotas(path), attached_at=at)


def has_quotas(path: str) -> bool:
    """Say whether an image is to be mounted with quotas: it was made for them, and this kernel has them.

    Raises: KernelError.
    """
    return quota.missing() is None and ext4.read_superblock(path).has_quotas


def create(path: str, *, size: int, room: int | None, owner: int) -> None:
    """Make an image with its layers; it gets its name when it is whole. ``room``: for how many files at least.

    Raises: NoSpaceError; CommandError; KernelError.
    """
    partial, quotas = f"{path}.partial", quota.missing() is None
    files.remove_tree(partial)
    with file_errors("make", partial):
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    ext4.keep_in_place(partial)
    try:
        files.allocate(partial, size)
        ext4.make_filesystem(partial, files=room, quotas=quotas)
        with image.opened(partial, quotas=quotas) as root:
            for layer in image.make_layers(root, owner=owner):
                if quotas:
                    ext4.join_project(layer)
        files.allocate(partial, size)
    except NoSpaceError:
        files.remove_tree(partial)
        raise
    with file_errors("make", path):
        os.rename(partial, path)
    files.sync_directory(os.path.dirname(path))


def set_size(path: str, size: int) -> None:
    """Grow an image, in use or not, or shrink one that is not.

    Raises: BusyError, if one in use would have to shrink; NoSpaceError, if its files do not fit; KernelError.
    """
    with file_errors("look at", path):
        present = os.stat(path).st_size
    devices = loop.find(path)
    if size == present:
        return
    if devices and size < present:
        raise BusyError(f"shrink {path}: the VE uses it; stop the VE first")
    if size > present:
        files.allocate(path, size)
    if devices:
        _grow_in_use(path, devices[0], present, size)
    elif ext4.read_superblock(path).size != size:
        ext4.resize(path, size)
    with file_errors("resize", path):
        os.truncate(path, size)
    # New tables are emptied by giving their blocks back; they are taken again before anybody else is there.
    files.allocate(path, size)


def _grow_in_use(path: str, device: str, before: int, size: int) -> None:
    loop.refresh_size(device)
    try:
        with image.reopened(device, quotas=ext4.read_superblock(path).has_quotas) as root:
            ext4.grow(root, size)
    except VectlError:
        # What the file system did not take would else look as if it had.
        with file_errors("resize", path):
            os.truncate(path, before)
        loop.refresh_size(device)
        raise


def measure(path: str) -> tuple[int, int]:
    """Read the size of an image's file system, and for how many files it has room. Units: bytes.

    Raises: KernelError.
    """
    with file_errors("look at", path):
        size = os.stat(path).st_size
    seen = ext4.read_superblock(path)
    # A last part that is too small to hold tables of its own is left unused.
    return (size if size - seen.size < _GROUP else seen.size), seen.files


async def await_released(path: str) -> None:
    """Wait until nothing uses an image any more: the kernel lets go of it a moment after the last process has ended.

    Raises: BusyError, if something does for long.
    """
    if not os.path.exists(path):
        return
    deadline = time.monotonic() + _RELEASED_S
    while devices := await asyncio.to_thread(loop.find, path):
        if time.monotonic() > deadline:
            raise BusyError(f"release {path}: {devices[0]} still uses it")
        await asyncio.sleep(_POLL_S)
