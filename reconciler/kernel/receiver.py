"""Receiving: the commands of a stream carried out in one subvolume, whoever made them.

Every path is resolved by the kernel below the subvolume, without following any link, and what a part is copied from
is looked for only in the subvolumes that the caller names. `btrfs receive` finds these by UUID anywhere in the file
system, and takes neither limits nor quota groups nor attributes for what it makes, all of which are to be there before
the first byte is written.

For a process of its own with one thread: it changes its working directory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from reconciler.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from reconciler.kernel.send_stream import Command, Key, Verb, broken
from reconciler.kernel.syscalls import file_errors

_BELOW = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_HARMLESS = os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORIES_MOST = 64
_FICLONERANGE = 0x4020940D
_CLONE = struct.Struct("<qQQQ")
_CAPABILITY = "security.capability"
_LARGEST_ID = (1 << 32) - 2
_LARGEST = (1 << 63) - 1
_SPECIAL = stat.S_ISUID | stat.S_ISGID
_NODES = (stat.S_IFCHR, stat.S_IFBLK)


class Receiver:
    """Makes what a stream says in a subvolume. ``sources``: descriptors of subvolumes that may be copied from."""

    def __init__(self, root: int, sources: Mapping[str, int]) -> None:
        self._root, self._sources = root, sources
        self._directories: dict[bytes, int] = {}
        self._entered = -1
        self._written: tuple[bytes, int] | None = None
        self._verbs: Mapping[Verb, Callable[[Command], None]] = {
            Verb.FILE: self._make_file,
            Verb.DIRECTORY: lambda it: os.mkdir(self._enter(it.path(Key.PATH)), 0o700),
            Verb.NODE: self._make_node,
            Verb.FIFO: lambda it: os.mkfifo(self._enter(it.path(Key.PATH)), 0o600),
            Verb.SOCKET: lambda it: os.mknod(self._enter(it.path(Key.PATH)), stat.S_IFSOCK | 0o600),
            Verb.SYMLINK: lambda it: os.symlink(it.text(Key.PATH_LINK), self._enter(it.path(Key.PATH))),
            Verb.RENAME: self._rename,
            Verb.LINK: self._link,
            Verb.UNLINK: self._unlink,
            Verb.RMDIR: self._remove_directory,
            Verb.SET_ATTRIBUTE: self._set_attribute,
            Verb.REMOVE_ATTRIBUTE: self._remove_attribute,
            Verb.WRITE: self._write,
            Verb.CLONE: self._clone,
            Verb.TRUNCATE: lambda it: os.ftruncate(self._open_file(it.path(Key.PATH)), _offset(it, Key.SIZE)),
            Verb.CHMOD: self._change_mode,
            Verb.CHOWN: self._change_owner,
            Verb.TIMES: self._set_times,
        }

    def carry_out(self, commands: Iterable[Command]) -> None:
        """Carry out all commands but the first, which makes the subvolume, and the last.

        Raises: StateError, if they are none for one subvolume; KernelError; NoSpaceError.
        """
        try:
            for command in commands:
                act = self._verbs.get(command.verb)
                if act is None:
                    raise broken(f"a second {command.verb.name}")
                with file_errors("receive", command.verb.name):
                    act(command)
        finally:
            self._forget()

    def _directory_of(self, path: bytes) -> tuple[int, bytes]:
        """Give the directory that a path is in, which stays open for the next one to ask for, and its name there."""
        directory, _, name = path.rpartition(b"/")
        descriptor = self._directories.pop(directory, None)
        if descriptor is None:
            if len(self._directories) >= _DIRECTORIES_MOST:
                self._forget_directory(next(iter(self._directories)))
            descriptor = _open_directory(self._root, directory)
        self._directories[directory] = descriptor  # the one asked for last is the last one to be closed
        return descriptor, name or b"."

    def _enter(self, path: bytes) -> bytes:
        """Go to the directory that a path is in, and give its name there."""
        descriptor, name = self._directory_of(path)
        if descriptor != self._entered:
            os.fchdir(descriptor)
            self._entered = descriptor
        return name

    def _forget(self) -> None:
        """Forget what paths stand for: names of directories have changed."""
        for path in [*self._directories]:
            self._forget_directory(path)
        self._forget_file()

    def _forget_directory(self, path: bytes) -> None:
        descriptor = self._directories.pop(path)
        os.close(descriptor)
        if descriptor == self._entered:
            self._entered = -1

    def _forget_file(self) -> None:
        if self._written is not None:
            os.close(self._written[1])
            self._written = None

    def _open_file(self, path: bytes) -> int:
        """Open a file to be written to; it stays open for the next one to ask for."""
        if self._written is not None and self._written[0] == path:
            return self._written[1]
        self._forget_file()
        descriptor = os.open(self._enter(path), os.O_RDWR | _HARMLESS)
        self._written = path, descriptor
        _expect_regular(descriptor)
        return descriptor

    def _make_file(self, command: Command) -> None:
        name = self._enter(command.path(Key.PATH))
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _make_node(self, command: Command) -> None:
        mode, device = command.number(Key.MODE), command.number(Key.DEVICE)
        if stat.S_IFMT(mode) not in _NODES:
            raise broken(f"a node of mode {mode:o}")
        major, minor = (device & 0xFFF00) >> 8, (device & 0xFF) | ((device >> 12) & 0xFFF00)
        os.mknod(self._enter(command.path(Key.PATH)), stat.S_IFMT(mode) | 0o600, os.makedev(major, minor))

    def _rename(self, command: Command) -> None:
        other, target = self._directory_of(command.path(Key.PATH_TO))
        name = self._enter(command.path(Key.PATH))
        is_directory = stat.S_ISDIR(os.lstat(name).st_mode)
        os.rename(name, target, dst_dir_fd=other)
        self._forget_file()
        if is_directory:
            self._forget()

    def _link(self, command: Command) -> None:
        other, existing = self._directory_of(command.path(Key.PATH_LINK))
        name = self._enter(command.path(Key.PATH))
        os.link(existing, name, src_dir_fd=other, follow_symlinks=False)

    def _unlink(self, command: Command) -> None:
        os.unlink(self._enter(command.path(Key.PATH)))
        self._forget_file()

    def _remove_directory(self, command: Command) -> None:
        os.rmdir(self._enter(command.path(Key.PATH)))
        self._forget()

    def _set_attribute(self, command: Command) -> None:
        name, value = command.text(Key.XATTR_NAME), bytes(command.data(Key.XATTR_DATA))
        os.setxattr(self._enter(command.path(Key.PATH, may_be_root=True)), name, value, follow_symlinks=False)

    def _remove_attribute(self, command: Command) -> None:
        path = self._enter(command.path(Key.PATH, may_be_root=True))
        try:
            os.removexattr(path, command.text(Key.XATTR_NAME), follow_symlinks=False)
        except OSError as err:
            if err.errno != errno.ENODATA:  # as with one that went with a change of the owner
                raise

    def _write(self, command: Command) -> None:
        descriptor, data = self._open_file(command.path(Key.PATH)), command.data(Key.DATA)
        at = _offset(command, Key.OFFSET)
        while data:
            written = os.pwrite(descriptor, data, at)
            data, at = data[written:], at + written

    def _clone(self, command: Command) -> None:
        source = self._sources.get(command.uuid(Key.CLONE_UUID))
        if source is None:
            raise broken("a copy from a subvolume that is not of this move")
        target = self._open_file(command.path(Key.PATH))
        origin = _open_regular(source, command.path(Key.CLONE_PATH))
        try:
            fcntl.ioctl(
                target,
                _FICLONERANGE,
                _CLONE.pack(
                    origin,
                    _offset(command, Key.CLONE_OFFSET),
                    _offset(command, Key.CLONE_LENGTH),
                    _offset(command, Key.OFFSET),
                ),
            )
        finally:
            os.close(origin)

    def _change_mode(self, command: Command) -> None:
        path = self._enter(command.path(Key.PATH, may_be_root=True))
        if stat.S_ISLNK(os.lstat(path).st_mode):
            raise broken("a mode for a symbolic link")
        os.chmod(path, stat.S_IMODE(command.number(Key.MODE)))

    def _change_owner(self, command: Command) -> None:
        """Change the owner, and nothing else: the kernel takes set-user-id bits and capabilities away with it."""
        path = self._enter(command.path(Key.PATH, may_be_root=True))
        user, group = command.number(Key.USER), command.number(Key.GROUP)
        if max(user, group) > _LARGEST_ID:
            raise broken(f"an owner {user}:{group}")
        info, capability = os.lstat(path), None
        if (info.st_uid, info.st_gid) == (user, group):
            return
        if stat.S_ISREG(info.st_mode):
            with suppress(OSError):
                capability = os.getxattr(path, _CAPABILITY, follow_symlinks=False)
        os.chown(path, user, group, follow_symlinks=False)
        if stat.S_ISREG(info.st_mode) and info.st_mode & _SPECIAL:
            os.chmod(path, stat.S_IMODE(info.st_mode))
        if capability is not None:
            os.setxattr(path, _CAPABILITY, capability, follow_symlinks=False)

    def _set_times(self, command: Command) -> None:
        path = self._enter(command.path(Key.PATH, may_be_root=True))
        os.utime(path, ns=(command.time(Key.ATIME), command.time(Key.MTIME)), follow_symlinks=False)


def _offset(command: Command, key: Key) -> int:
    number = command.number(key)
    if number > _LARGEST:
        raise broken(f"{key.name} {number}")
    return number


def _open_directory(root: int, path: bytes) -> int:
    return openat2(root, os.fsdecode(path) or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_BELOW)


def _open_regular(root: int, path: bytes) -> int:
    descriptor = openat2(root, os.fsdecode(path), os.O_RDONLY | _HARMLESS, resolve=_BELOW)
    _expect_regular(descriptor)
    return descriptor


def _expect_regular(descriptor: int) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise broken("content for what is no file")
