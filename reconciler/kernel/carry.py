"""Carrying: directories of an overlay, as they show, put into the volume of another one of the same owners.

What is read is the merged view, so that it does not matter which layer a file is in. Where its blocks lie in the old
volume, and both volumes in one pool, they are shared and not copied. Written is below the other overlay while that is
not mounted: there a directory is marked to hide what the template has in its place.

Both roots are those of a VE that is hostile. Nobody else uses them; every path is resolved below them.

Source: ioctl_ficlonerange(2); Linux Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from reconciler.errors import KernelError
from reconciler.kernel import image, mount, rootfs, userns
from reconciler.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from reconciler.kernel.overlay import OverlayMount
from reconciler.kernel.syscalls import file_errors

_FICLONE = 0x40049409
_OPAQUE = "trusted.overlay.opaque"
_OF_OVERLAY = "trusted.overlay."
_PART = 1 << 30
_PROBE = ".vectl-carry"
_BELOW = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_HARMLESS = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LINK = frozenset({errno.ELOOP, errno.ENOTDIR})
_NO_SHARING = frozenset({errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY})
_Identity = tuple[int, int]


def make_parents(new: OverlayMount, paths: Sequence[str]) -> None:
    """Have the directories that paths lie in written into a mounted overlay's volume, as its template has them.

    Raises: KernelError; NoSpaceError.
    """
    owner = new.id_base
    with _opened(new.target) as root, userns.acting_as(owner, owner):
        for path in paths:
            parent = rootfs.make_directory_in_root(root, _parent_of(path), owner=owner)
            try:
                with file_errors("make", path):
                    # A change in it is what takes a directory from the template into the volume.
                    os.mkdir(_PROBE, dir_fd=parent)
                    os.rmdir(_PROBE, dir_fd=parent)
            finally:
                os.close(parent)


def carry_over(old: OverlayMount, new: OverlayMount, paths: Sequence[str]) -> None:
    """Put what paths show in a mounted overlay into the volume of one that is not mounted, whose parents are made.

    Owners, modes, times, attributes, links among them and holes stay. A path that is not there is left out; one that
    is a symbolic link is carried as such. For a thread of its own, as `userns.acting_as` is.

    Raises: KernelError, also for a path in a directory that became a symbolic link; NoSpaceError.
    """
    with ExitStack() as held:
        merged = held.enter_context(_opened(old.target))
        shared = held.enter_context(_layer(old)) if old.image is None and new.image is None else None
        layer = held.enter_context(_layer(new))
        held.enter_context(userns.acting_as(old.id_base, old.id_base))
        work = _Carrying(merged=merged, shared=shared, layer=layer)
        for path in paths:
            work.carry(path.strip("/"))


@contextmanager
def _layer(spec: OverlayMount) -> Iterator[int]:
    """Open the upper layer of a volume with its owners shown as the overlay shows them."""
    if spec.image is not None:
        tree = image.open_device(spec.image.device, quotas=spec.image.quotas)
    else:
        id_map = userns.open_user_namespace(spec.id_base, spec.id_count)
        try:
            tree = mount.clone(spec.volume, id_map=id_map)
        finally:
            os.close(id_map)
    try:
        layer = openat2(tree, image.LAYERS[0], os.O_RDONLY | os.O_DIRECTORY, resolve=_BELOW)
    finally:
        os.close(tree)
    try:
        yield layer
    finally:
        os.close(layer)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Carrying:
    """``merged``: the old root; ``shared``: the old upper layer, if its blocks can be; ``layer``: the new one."""

    merged: int
    shared: int | None
    layer: int
    linked: dict[_Identity, str] = field(default_factory=dict)

    def carry(self, path: str) -> None:
        """Carry a path and all below it."""
        parent, _, name = path.rpartition("/")
        try:
            source = self._open_old(parent)
        except KernelError as err:
            if err.errno == errno.ENOENT:
                return
            raise
        directories: list[tuple[str, os.stat_result]] = []
        with _closing(source), _closing(self._open_new(parent)) as target:
            directories.extend(self._carry_one(source, target, name, path))
        if directories:
            with _closing(self._open_new(path)) as top, file_errors("mark", path):
                os.setxattr(top, _OPAQUE, b"y")
        for at, _ in directories:
            directories.extend(self._carry_below(at))
        for at, info in reversed(directories):
            self._end(at, info)

    def _carry_below(self, path: str) -> Iterator[tuple[str, os.stat_result]]:
        with (
            _closing(self._open_old(path)) as source,
            _closing(self._open_new(path)) as target,
            os.scandir(source) as entries,
        ):
            for name in [entry.name for entry in entries]:
                yield from self._carry_one(source, target, name, f"{path}/{name}")

    def _end(self, path: str, info: os.stat_result) -> None:
        """Give a directory what it has, once all is in it: entries made before would inherit its access list."""
        with _closing(self._open_old(path)) as old, _closing(self._open_new(path)) as new, file_errors("end", path):
            _copy_attributes(f"/proc/self/fd/{old}/.", f"/proc/self/fd/{new}/.", info)
            os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))

    def _carry_one(self, source: int, target: int, name: str, path: str) -> Iterator[tuple[str, os.stat_result]]:
        """Carry an entry of a directory; gives it back if it is a directory itself."""
        with file_errors("carry over", path):
            try:
                info = os.stat(name, dir_fd=source, follow_symlinks=False)
            except FileNotFoundError:
                return
            identity = info.st_dev, info.st_ino
            if info.st_nlink > 1 and identity in self.linked and not stat.S_ISDIR(info.st_mode):
                self._link(self.linked[identity], target, name)
                return
            self._make(source, target, name, path, info)
            if stat.S_ISDIR(info.st_mode):
                yield path, info
                return
            self.linked[identity] = path
            _copy_attributes(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}", info)
            os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def _make(self, source: int, target: int, name: str, path: str, info: os.stat_result) -> None:
        match stat.S_IFMT(info.st_mode):
            case stat.S_IFDIR:
                os.mkdir(name, 0o700, dir_fd=target)
            case stat.S_IFLNK:
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            case stat.S_IFREG:
                self._copy(source, target, name, path)
            case _:
                # No device works in a VE's file system, and one without a number would hide a file of the template.
                if not (stat.S_ISCHR(info.st_mode) and info.st_rdev == 0):
                    os.mknod(name, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev, dir_fd=target)

    def _copy(self, source: int, target: int, name: str, path: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with _closing(os.open(name, flags, 0o600, dir_fd=target)) as made:
            if self._share(path, made):
                return
            with _closing(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | _HARMLESS, dir_fd=source)) as content:
                _copy_content(content, made)

    def _share(self, path: str, made: int) -> bool:
        """Let a new file have the blocks of the old one; False, if they do not lie in the old volume."""
        if self.shared is None:
            return False
        try:
            before = openat2(self.shared, path, os.O_RDONLY | _HARMLESS, resolve=_BELOW)
        except KernelError as err:
            if err.errno == errno.ENOENT or err.errno in _LINK:
                return False
            raise
        with _closing(before):
            if not stat.S_ISREG(os.fstat(before).st_mode):
                return False
            try:
                fcntl.ioctl(made, _FICLONE, before)
            except OSError as err:
                if err.errno in _NO_SHARING:
                    return False
                raise
        return True

    def _link(self, path: str, target: int, name: str) -> None:
        parent, _, before = path.rpartition("/")
        with _closing(self._open_new(parent)) as directory:
            os.link(before, name, src_dir_fd=directory, dst_dir_fd=target, follow_symlinks=False)

    def _open_old(self, path: str) -> int:
        return openat2(self.merged, path or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_BELOW)

    def _open_new(self, path: str) -> int:
        return openat2(self.layer, path or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_BELOW)


def _copy_content(source: int, target: int) -> None:
    """Copy what a file holds, and leave its holes."""
    size = os.fstat(source).st_size
    os.truncate(target, size)
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
            end = os.lseek(source, start, os.SEEK_HOLE)
        except OSError as err:
            if err.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        os.lseek(target, start, os.SEEK_SET)
        while start < end:
            copied = os.sendfile(target, source, start, min(_PART, end - start))
            if copied == 0:
                return
            start += copied
        at = end


def _copy_attributes(old: str, new: str, info: os.stat_result) -> None:
    """Give a new entry the owners, the mode and the attributes of the old one; changing owners takes some away."""
    os.chown(new, info.st_uid, info.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(new, stat.S_IMODE(info.st_mode))
    for key in os.listxattr(old, follow_symlinks=False):
        if not key.startswith(_OF_OVERLAY):
            os.setxattr(new, key, os.getxattr(old, key, follow_symlinks=False), follow_symlinks=False)


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    with file_errors("open", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with _closing(descriptor):
        yield descriptor


def _parent_of(path: str) -> str:
    return path.rstrip("/").rpartition("/")[0] or "/"
