"""Files of our own: whole or not there, one writer at a time, and removal that stays on one file system."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from reconciler.errors import BusyError, KernelError, RefusedError
from reconciler.kernel import mount
from reconciler.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from reconciler.kernel.syscalls import AT_FDCWD, checked, file_errors, libc

_PRIVATE_MODE = 0o700
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_LOCK_POLL_SECONDS = 0.02
_PID_DIGITS = 10
_RENAME_EXCHANGE = 2
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def write_atomic(path: str, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file so that a crash at any moment leaves the old or the new content, on disk when this returns.

    A crash may leave a ``.<name>.<8 hex digits>.tmp`` beside it.

    Raises: KernelError, NoSpaceError.
    """
    write_whole(path, data, mode=mode)
    sync_directory(os.path.dirname(path) or ".")


def write_whole(path: str, data: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Replace a file as `write_atomic` does, but after a power cut it may be the old one, or none if there was none.

    Shape: ``owner`` is a user's and a group's id, None for our own.
    Raises: KernelError, NoSpaceError.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.urandom(4).hex()}.tmp")
    with file_errors("write", path):
        try:
            _write_new(temporary, data, mode, owner)
            os.rename(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def rewrite_atomic(path: str, data: bytes) -> None:
    """Replace the content of a file that is there, as `write_atomic` does; its mode and its owner stay.

    Raises: KernelError, NoSpaceError.
    """
    with file_errors("write", path):
        info = os.stat(path)
    where, owner = os.path.realpath(path), (info.st_uid, info.st_gid)
    write_whole(where, data, mode=stat.S_IMODE(info.st_mode), owner=owner)
    sync_directory(os.path.dirname(where))


def write_volatile(path: str, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file that need not outlive this boot: whole at any moment, and not flushed to disk.

    Raises: KernelError, NoSpaceError.
    """
    temporary = f"{path}.{os.urandom(4).hex()}.tmp"
    with file_errors("write", path):
        os.makedirs(os.path.dirname(path) or ".", mode=_PRIVATE_MODE, exist_ok=True)
        with open(os.open(temporary, _NEW_FILE, mode), "wb") as file:
            file.write(data)
        os.rename(temporary, path)


def sync_directory(path: str) -> None:
    """Flush a directory's entries to disk: only then does a rename in it survive a power cut.

    Raises: KernelError, NoSpaceError.
    """
    with file_errors("flush", path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def exchange(one: str, other: str) -> None:
    """Let two files or directories of one file system take each other's place, at one instant for whoever looks.

    On disk only after `sync_directory` of both directories.

    Raises: KernelError, if one of them is not there.
    Source: rename(2), RENAME_EXCHANGE.
    """
    names = os.fsencode(one), os.fsencode(other)
    result = libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], _RENAME_EXCHANGE)
    checked(result, "exchange", f"{one} and {other}")


def read_bytes_if_exists(path: str) -> bytes | None:
    """Read a file whole; None, if there is no such file.

    Raises: KernelError, if it is there but cannot be read.
    """
    with file_errors("read", path):
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None


def read_trusted_if_exists(path: str) -> bytes | None:
    """Read a file whole that root alone may write; None, if there is no such file.

    Raises: RefusedError, if somebody else may write it; KernelError.
    """
    with file_errors("read", path):
        try:
            # A fifo in its place would hold us up for ever.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != 0 or found.st_mode & _OTHERS_WRITE:
                owner, mode = found.st_uid, stat.filemode(found.st_mode)
                raise RefusedError(
                    f"read {path}: expected a file that only root may write, got {mode} of user {owner}; "
                    f"use `chown root {path}` and `chmod go-w {path}`"
                )
            return file.read()


def allocate(path: str, size: int) -> None:
    """Make sure that a file has at least this size and that every byte of it has its place on disk.

    Units: bytes.
    Raises: NoSpaceError, if there is no room; KernelError.
    """
    with file_errors("allocate", path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)


@contextmanager
def lock(path: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a file's lock; it ends with the block or with the process. The file stays, with the holder's pid in it.

    Units: seconds, of waiting for another holder.
    Raises: BusyError, naming the holder; KernelError.
    Source: flock(2).
    """
    with file_errors("lock", path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with file_errors("lock", path):
            _acquire(fd, path, time.monotonic() + wait_s)
            # In place: ext4 writes out at once what follows a truncation, which takes milliseconds.
            os.pwrite(fd, b"%-*d\n" % (_PID_DIGITS, os.getpid()), 0)
        yield
    finally:
        # Closing alone would not free it if a child process had inherited the descriptor.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def remove_tree(path: str) -> None:
    """Remove a directory with all that is in it, or a single file; absent is success.

    Follows no symbolic link and enters no mount point. Any depth takes two descriptors.

    Raises: BusyError, if something is mounted at or below it; KernelError.
    """
    where = os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))
    _refuse_mounts(where)
    with file_errors("remove", path):
        try:
            fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            os.unlink(where)
            return
        _empty(fd, where)
        os.rmdir(where)


def directories_below(top: int, path: str) -> Iterator[int]:
    """Give a descriptor of a directory and of each one below it, for as long as it takes to ask for the next.

    Follows no symbolic link and enters no mount point. Any depth takes two descriptors. ``path``: for errors.

    Raises: KernelError, also if a directory is moved away meanwhile.
    """
    with file_errors("walk", path):
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)
        levels = []
        try:
            yield fd
            levels.append(_listed(fd, ""))
            while levels:
                if levels[-1].left:
                    name = levels[-1].left.pop()
                    fd = _step(fd, name, path, resolve=RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH)
                    yield fd
                    levels.append(_listed(fd, name))
                    continue
                levels.pop()
                if levels:
                    fd = _step(fd, "..", path, resolve=RESOLVE_NO_XDEV)
                    _expect(fd, levels[-1], path)
        finally:
            os.close(fd)


def _write_new(path: str, data: bytes, mode: int, owner: tuple[int, int] | None) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        made = os.fstat(fd)
        if owner not in (None, (made.st_uid, made.st_gid)):
            os.fchown(fd, *owner)
        os.fchmod(fd, mode)
        os.fsync(fd)


def _acquire(fd: int, path: str, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            if time.monotonic() >= deadline:
                holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "not known"
                raise BusyError(f"lock {path}: held by another process, pid {holder}") from err
        time.sleep(_LOCK_POLL_SECONDS)


def _refuse_mounts(path: str) -> None:
    for found in mount.read_mounts():
        if found.target == path or found.target.startswith(path + "/"):
            raise BusyError(f"remove {path}: {found.source} is mounted at {found.target}; unmount it first")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """A directory on the way down: its identity, its name in the one above, and its directories still to empty."""

    identity: tuple[int, int]
    name: str
    left: list[str]


def _empty(fd: int, path: str) -> None:
    """Empty the directory behind a descriptor, which is closed; depth costs memory, neither stack nor descriptors."""
    levels = [_level(fd, "")]
    try:
        while levels:
            if levels[-1].left:
                name = levels[-1].left.pop()
                fd = _step(fd, name, path, resolve=RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH)
                levels.append(_level(fd, name))
                continue
            done = levels.pop()
            if levels:
                fd = _step(fd, "..", path, resolve=RESOLVE_NO_XDEV)
                _expect(fd, levels[-1], path)
                os.rmdir(done.name, dir_fd=fd)
    finally:
        os.close(fd)


def _step(fd: int, name: str, path: str, *, resolve: int) -> int:
    following = openat2(fd, name, os.O_RDONLY | os.O_DIRECTORY, resolve=resolve)
    os.close(fd)
    return following


def _level(fd: int, name: str) -> _Level:
    directories = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=fd)
    return _Level(identity=_identity(fd), name=name, left=directories)


def _listed(fd: int, name: str) -> _Level:
    with os.scandir(fd) as entries:
        directories = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return _Level(identity=_identity(fd), name=name, left=directories)


def _expect(fd: int, level: _Level, path: str) -> None:
    # Without this a directory moved elsewhere while we were in it would let us go on removing there.
    if _identity(fd) != level.identity:
        raise KernelError(f"remove {path}: a directory in it was moved meanwhile; nothing outside was touched")


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino
