"""The overlay that is an environment's root directory: a shared template below, the environment's volume above.

Owners on disk count from 0 in both layers. They are shown through the environment's id map, which only works if the
process that mounts acts under an id of that map: overlayfs makes its own files as the mounter.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from reconciler.errors import BusyError, KernelError
from reconciler.kernel import fscontext, image, mount, userns
from reconciler.kernel.image import ImageMount
from reconciler.kernel.syscalls import file_errors

_TMPFS_BYTES = 1 << 16
_LAYER_MODE = 0o755

# index: hard links of the template stay links when written to. xino: no two files share a number. metacopy off: a
# file in the volume has its content there, so a volume can be read, sent and measured by itself.
# redirect_dir: without it rename(2) of a directory of the template fails with EXDEV. The kernel's default depends on
# how it was built and on a module parameter, and a volume written with it loses directories where it is not
# followed; so it is said here, the same on every host. It gives a tenant nothing: a redirect is an attribute in the
# trusted namespace, which only the overlay writes (a user namespace's root cannot), and it is looked up from the
# root of the template, without "..", all of which the tenant may read anyway.
_OPTIONS = (("index", "on"), ("xino", "on"), ("metacopy", "off"), ("redirect_dir", "on"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayMount:
    """What to mount: a template's directory below, ``volume`` with ``upper`` and ``work`` above, the result at target.

    ``image``: the layers above lie in it and not in the volume. On disk the owners in it are ids of the host, as the
    kernel keeps quotas by the ids on disk and shows each user its own; in a directory they count from 0.
    With ``nfs_export`` inotify watches survive a checkpoint, and a file copied up shows one link too many.
    """

    lower: str
    volume: str
    target: str
    id_base: int
    id_count: int
    nfs_export: bool
    image: ImageMount | None = None


def make_layers(volume: str) -> None:
    """Make the two directories of an empty volume; those that are there are left alone.

    Raises: KernelError, NoSpaceError.
    """
    for name in ("upper", "work"):
        with file_errors("make", f"{volume}/{name}"), suppress(FileExistsError):
            os.mkdir(f"{volume}/{name}")
            os.chmod(f"{volume}/{name}", _LAYER_MODE)


def mount_overlay(spec: OverlayMount) -> None:
    """Mount an environment's root directory at ``spec.target``, nodev and with set-user-id programs.

    To be called by a process with one thread that has entered a private mount namespace, in which the mount lives;
    the layers are not left attached there. The process's ids and working directory are as before afterwards.

    Raises: BusyError, if the volume is mounted already; KernelError, also where the kernel would have mounted it
    read-only without a word.
    Source: Linux Documentation/filesystems/overlayfs.rst.
    """
    id_map = userns.open_user_namespace(spec.id_base, spec.id_count)
    try:
        with _layers(spec, id_map), userns.acting_as(spec.id_base, spec.id_base):
            overlay = _create(spec)
    finally:
        os.close(id_map)
    try:
        _expect_writable(overlay, spec)
        mount.attach(overlay, spec.target)
    finally:
        os.close(overlay)


@contextmanager
def _layers(spec: OverlayMount, id_map: int) -> Iterator[None]:
    """Attach the id-mapped layers on a tmpfs at the target, as ``lower`` and ``volume`` in the working directory.

    The names that the environment will see in its mount table are these, equal on every host. Detached layers would
    spare the tmpfs, but kernels before 6.13 do not take them.
    """
    with file_errors("open", "working directory"):
        before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount.mount_tmpfs(spec.target, size=_TMPFS_BYTES)
        try:
            _attach_layers(spec, id_map)
            yield
        finally:
            os.fchdir(before)
            mount.unmount(spec.target, lazy=True)
    finally:
        os.close(before)


def _attach_layers(spec: OverlayMount, id_map: int) -> None:
    with file_errors("enter", spec.target):
        os.chdir(spec.target)
        os.mkdir("lower")
        os.mkdir("volume")
    _attach(mount.clone(spec.lower, id_map=id_map), "lower")
    if spec.image is None:
        _attach(mount.clone(spec.volume, id_map=id_map), "volume")
    else:
        _attach(image.open_device(spec.image.device, quotas=spec.image.quotas), "volume")
        _attach(image.open_device(spec.image.device, quotas=spec.image.quotas), spec.image.attached_at)


def _attach(tree: int, name: str) -> None:
    try:
        mount.attach(tree, name)
    finally:
        os.close(tree)


def _create(spec: OverlayMount) -> int:
    what = f"overlay of {spec.volume}"
    try:
        return fscontext.mount_detached("overlay", _parameters(spec), what=what, attributes=mount.MOUNT_ATTR_NODEV)
    except KernelError as err:
        if err.errno == errno.EBUSY:
            raise BusyError(f"mount {what}: the volume is in use by another overlay") from err
        hint = "; its index belongs to another subvolume, renew it" if err.errno == errno.ESTALE else ""
        raise KernelError(f"{err}{hint}", errno=err.errno) from err


def _parameters(spec: OverlayMount) -> tuple[tuple[str, str], ...]:
    layers = (("lowerdir", "lower"), ("upperdir", "volume/upper"), ("workdir", "volume/work"))
    return (("source", "overlay"), *layers, *_OPTIONS, ("nfs_export", "on" if spec.nfs_export else "off"))


def _expect_writable(overlay: int, spec: OverlayMount) -> None:
    with file_errors("look at", spec.target):
        flags = os.fstatvfs(overlay).f_flag
    if flags & os.ST_RDONLY:
        raise KernelError(
            f"mount overlay of {spec.volume}: the kernel made it read-only, as it does when it cannot write "
            f"to {spec.volume}/work; look for overlayfs in the kernel log"
        )
