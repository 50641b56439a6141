"""A volume in an image file: an ext4 of its own size, with the two layers of an overlay in it.

Its owners on disk are ids of the host: the kernel keeps quotas by the ids on disk, and shows a user inside those of
the id that the host knows it by. An image is attached and mounted only as long as something uses it.

Light on imports: the keeper holds this module.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from reconciler.kernel import fscontext, loop
from reconciler.kernel.syscalls import checked, file_errors, libc

LAYERS = ("upper", "work")
QUOTA_DIRECTORY = "quota"
"""An empty directory of the image, of which nobody inside is the owner: what may be shown of its file system."""

_NOSUID_NODEV = 0x2 | 0x4
_LAYER_MODE = 0o755
# An image that lost blocks to a discard would need them back when the pool may be full.
_SETTINGS: tuple[fscontext.Setting, ...] = (("nodiscard", None), ("errors", "remount-ro"))
_LIMITS: tuple[fscontext.Setting, ...] = (("usrquota", None), ("grpquota", None), ("prjquota", None))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMount:
    """An image behind a loop device, and where its root is mounted for the runtime, and for nobody else."""

    device: str
    quotas: bool
    attached_at: str


def open_device(device: str, *, quotas: bool) -> int:
    """Mount the image behind a loop device, and give the descriptor of the mount; mounted elsewhere it is the same.

    Raises: KernelError.
    """
    settings = (("source", device), *_SETTINGS, *(_LIMITS if quotas else ()))
    return fscontext.mount_detached("ext4", settings, what=f"ext4 of {device}", attributes=_NOSUID_NODEV)


@contextmanager
def opened(file: str, *, quotas: bool) -> Iterator[int]:
    """Mount an image that nothing uses for the block; gives a descriptor of its root directory.

    Raises: KernelError; MissingToolError.
    """
    with loop.attached(file, read_only=False, direct_io=True) as device, reopened(device, quotas=quotas) as root:
        yield root


@contextmanager
def reopened(device: str, *, quotas: bool) -> Iterator[int]:
    """Mount the image behind a loop device for the block; gives a descriptor of its root directory.

    Raises: KernelError.
    """
    tree = open_device(device, quotas=quotas)
    try:
        with file_errors("open", device):
            root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
        try:
            yield root
        finally:
            os.close(root)
    finally:
        os.close(tree)


def flush(device: str, *, quotas: bool) -> None:
    """Write all that the file system of the image behind a loop device holds in memory to the image, in its place.

    So what reads the image by itself finds all of it there, and needs nothing of its journal.

    Raises: KernelError.
    Source: syncfs(2); Linux fs/sync.c, sync_filesystem.
    """
    with reopened(device, quotas=quotas) as root:
        checked(libc.syncfs(root), "flush", device)


def make_layers(root: int, *, owner: int) -> Iterator[int]:
    """Make the layers in an image's root, for an owner; gives a descriptor of each while it is empty.

    Raises: KernelError.
    """
    with file_errors("make", QUOTA_DIRECTORY):
        os.mkdir(QUOTA_DIRECTORY, 0o555, dir_fd=root)
    for name in LAYERS:
        with file_errors("make", name):
            os.mkdir(name, dir_fd=root)
            layer = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        try:
            with file_errors("make", name):
                os.fchmod(layer, _LAYER_MODE)
                os.fchown(layer, owner, owner)
            yield layer
        finally:
            os.close(layer)
