"""The root directories of VEs that are down: mounted for one call, where nobody else sees them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from reconciler.host import image
from reconciler.host.site import Site
from reconciler.kernel import mount, overlay, own_thread
from reconciler.kernel.overlay import OverlayMount
from reconciler.kernel.syscalls import file_errors
from reconciler.model.identity import IDS_PER_VE

_Result = TypeVar("_Result")

_TMPFS_BYTES = 1 << 16


def call(site: Site, function: Callable[[str], _Result]) -> _Result:
    """Call a function in a thread with mounts of its own; it gets an empty directory, to make mount points in.

    Raises: KernelError; whatever the function raises.
    """
    place = f"{site.instance.run_dir}/offline"
    with file_errors("make", place):
        os.makedirs(place, mode=0o711, exist_ok=True)

    def enter() -> _Result:
        mount.mount_tmpfs(place, size=_TMPFS_BYTES)
        return function(place)

    return own_thread.call_with_own_mounts(enter)


@contextmanager
def prepared(place: str, *, volume: str, lower: str, id_base: int) -> Iterator[OverlayMount]:
    """Make the overlay of a volume that nothing uses ready to be mounted below a directory that `call` gave.

    ``lower``: where its template is mounted, for everybody. Owners are shown as those of a VE of that range of ids; 0
    shows them as the VE itself sees them, which an image does only if its own are counted from 0.

    Raises: KernelError; MissingToolError.
    """
    stem = f"{place}/{len(os.listdir(place))}"
    target, disk = f"{stem}.root", f"{stem}.disk"
    with file_errors("make", target):
        os.mkdir(target, 0o711)
        os.mkdir(disk, 0o711)
    with image.attached(volume, at=disk) as attached:
        yield OverlayMount(
            lower=lower,
            volume=volume,
            target=target,
            id_base=id_base,
            id_count=IDS_PER_VE,
            nfs_export=True,
            image=attached,
        )


@contextmanager
def mounted(spec: OverlayMount) -> Iterator[OverlayMount]:
    """Mount an overlay until the block ends.

    Raises: BusyError, if something uses the volume; KernelError.
    """
    overlay.mount_overlay(spec)
    try:
        yield spec
    finally:
        mount.unmount(spec.target)
        if spec.image is not None:
            mount.unmount(spec.image.attached_at)


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Open a directory for the block.

    Raises: KernelError.
    """
    with file_errors("open", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
