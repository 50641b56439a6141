"""Files inside a root directory whose owner is hostile: no path leads out of it, no symbolic link is written through.

Every path is resolved by the kernel with that directory as root. No mount point below it is crossed either: what an
environment's root mounts there, a FUSE file system that never answers for one, is not ours to open.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice

from reconciler.errors import KernelError
from reconciler.kernel.openat2 import (
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from reconciler.kernel.syscalls import file_errors

READ_LIMIT = 1 << 20
"""The most that is read of one file; a tenant can make a sparse one of any size."""

ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
"""How opening fails where nothing is."""

_CHUNK = 1 << 14

_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV

# A FIFO or a terminal opened without these would block or become ours.
_HARMLESS = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_PARENT_MODE = 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    data: bytes
    mode: int
    uid: int
    gid: int


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open a path as a process whose root directory is ``root_fd`` would, without crossing into another mount.

    Raises: KernelError.
    Source: openat2(2), RESOLVE_IN_ROOT.
    """
    return openat2(root_fd, path, flags, mode=mode, resolve=_RESOLVE)


def read_in_root(root_fd: int, path: str) -> bytes | None:
    """Read a regular file of at most `READ_LIMIT` bytes; None, if there is none. Symbolic links are followed.

    Raises: KernelError, for anything else than a file of that size.
    """
    try:
        fd = open_in_root(root_fd, path, os.O_RDONLY | _HARMLESS)
    except KernelError as err:
        if err.errno in ABSENT:
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise KernelError(f"read {path}: expected a regular file")
        return _read_all(fd, path)
    finally:
        os.close(fd)


def write_in_root(root_fd: int, path: str, data: bytes, *, mode: int, uid: int, gid: int) -> bool:
    """Make a file have this content, mode and owner; return whether anything had to be done.

    A symbolic link in its place is replaced, never followed; one among its parents is followed inside the root. A
    directory with something in it keeps that under another name beside it. Missing parents are made, with the same
    owner and mode 0755. Nothing is flushed to disk: what an environment reads at its start is written again at its
    next start.

    Units: owners as the caller sees them, so through an id-mapped mount those of the mapped range.
    Raises: KernelError, NoSpaceError.
    """
    parent, _, name = path.rpartition("/")
    if name in ("", ".", ".."):
        raise KernelError(f"write {path}: expected a path that ends with a file name", errno=errno.EINVAL)
    wanted = _Wanted(data=data, mode=mode, uid=uid, gid=gid)
    with _parent(root_fd, parent or "/", wanted) as directory, file_errors("write", path):
        if _is_already(directory, name, wanted):
            return False
        _replace(directory, name, wanted)
        return True


def remove_in_root(root_fd: int, path: str) -> bool:
    """Remove a regular file; return whether there was one. What is something else is left, a symbolic link as well.

    Raises: KernelError.
    """
    parent, _, name = path.rpartition("/")
    try:
        directory = open_in_root(root_fd, parent or "/", os.O_RDONLY | os.O_DIRECTORY)
    except KernelError as err:
        if err.errno in ABSENT:
            return False
        raise
    try:
        with file_errors("remove", path):
            found = stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
            if found:
                os.unlink(name, dir_fd=directory)
            return found
    except KernelError as err:
        if err.errno in ABSENT:
            return False
        raise
    finally:
        os.close(directory)


def list_in_root(root_fd: int, path: str, *, most: int) -> list[str]:
    """List a directory, as far as so many names; none if there is no such directory.

    Raises: KernelError.
    """
    try:
        directory = open_in_root(root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
    except KernelError as err:
        if err.errno in ABSENT:
            return []
        raise
    try:
        with file_errors("list", path), os.scandir(directory) as entries:
            return [entry.name for entry in islice(entries, most)]
    finally:
        os.close(directory)


def make_directory_in_root(root_fd: int, path: str, *, owner: int) -> int:
    """Open a directory; it and its missing parents are made, with mode 0755. Symbolic links are followed inside.

    Units: ``owner`` as for `write_in_root`, user and group alike.
    Raises: KernelError, with EXDEV if something is mounted there or above.
    """
    return _open_or_make(root_fd, f"/{path}", _Wanted(data=b"", mode=_PARENT_MODE, uid=owner, gid=owner))


def make_file_in_root(root_fd: int, path: str, *, owner: int) -> int:
    """Open a file of whatever kind to mount something over it; an empty one is made if there is none.

    Raises: KernelError, with EXDEV if something is mounted there or above, with ELOOP if it is a symbolic link.
    """
    parent, _, name = f"/{path}".rpartition("/")
    wanted = _Wanted(data=b"", mode=0, uid=owner, gid=owner)
    with _parent(root_fd, parent or "/", wanted) as directory, file_errors("make", path), suppress(FileExistsError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0, dir_fd=directory))
    return openat2(root_fd, path, os.O_PATH, resolve=_RESOLVE | RESOLVE_NO_SYMLINKS)


def _read_all(fd: int, path: str) -> bytes:
    chunks, left = [], READ_LIMIT + 1
    with file_errors("read", path):
        while left > 0 and (chunk := os.read(fd, min(left, _CHUNK))):
            chunks.append(chunk)
            left -= len(chunk)
    if left <= 0:
        raise KernelError(f"read {path}: expected at most {READ_LIMIT} bytes", errno=errno.EFBIG)
    return b"".join(chunks)


@contextmanager
def _parent(root_fd: int, path: str, wanted: _Wanted) -> Iterator[int]:
    fd = _open_or_make(root_fd, path, wanted)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_or_make(root_fd: int, path: str, wanted: _Wanted) -> int:
    try:
        return open_in_root(root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
    except KernelError as err:
        if err.errno != errno.ENOENT or not path.strip("/"):
            raise
    above, _, name = path.rstrip("/").rpartition("/")
    with _parent(root_fd, above or "/", wanted) as directory, file_errors("make", path), suppress(FileExistsError):
        os.mkdir(name, _PARENT_MODE, dir_fd=directory)
        os.chown(name, wanted.uid, wanted.gid, dir_fd=directory, follow_symlinks=False)
    return open_in_root(root_fd, path, os.O_RDONLY | os.O_DIRECTORY)


def _is_already(directory: int, name: str, wanted: _Wanted) -> bool:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | _HARMLESS, dir_fd=directory)
    except OSError:
        # Absent, a link, a socket, a device: whatever cannot be opened as a file is not the file that is wanted,
        # and what is really wrong the replacement will meet as well.
        return False
    try:
        info = os.fstat(fd)
        same = stat.S_ISREG(info.st_mode) and info.st_size == len(wanted.data)
        same = same and (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (wanted.mode, wanted.uid, wanted.gid)
        return same and _read_all(fd, name) == wanted.data
    finally:
        os.close(fd)


def _replace(directory: int, name: str, wanted: _Wanted) -> None:
    # One fixed name per file, so that what a crash left is removed by the next write and never piles up.
    temporary = f".{name}.vectl-new"
    _make_way(directory, temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        with open(fd, "wb") as file:
            file.write(wanted.data)
            os.fchown(fd, wanted.uid, wanted.gid)
            os.fchmod(fd, wanted.mode)
        try:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except IsADirectoryError:
            _make_way(directory, name)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise


def _make_way(directory: int, name: str) -> None:
    """Take away whatever has a name. What is in a directory is the owner's, and walking it would be at his pace."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError as err:
            if err.errno != errno.ENOTEMPTY:
                raise
            aside = f"{name}.replaced-{os.urandom(4).hex()}"
            os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
