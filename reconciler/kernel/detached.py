"""Detached mounts: copies and file systems that are nowhere in a mount table until they are attached.

Source: open_tree(2); move_mount(2); mount_setattr(2); fsopen(2).
"""

from __future__ import annotations

import ctypes
import os

from reconciler.errors import KernelError
from reconciler.kernel.syscalls import checked, libc, syscall

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_MOUNT_SETATTR = 442

_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_AT_STATX_DONT_SYNC = 0x4000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_CLOEXEC = 1

_ATTR_RDONLY = 0x1
_ATTR_NOSUID = 0x2
_ATTR_NODEV = 0x4
_ATTR_NOEXEC = 0x8
_ATTR_IDMAP = 0x100000
_MS_PRIVATE = 1 << 18
_MS_SHARED = 1 << 20

_STATX_SIZE = 256
_STATX_MNT_ID = 0x1000
_STATX_MNT_ID_OFFSET = 144
_STATX_INO = 0x100
_STATX_INO_OFFSET = 32
_STATX_DEV_OFFSET = 136


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def clone_at(directory: int, name: str, *, what: str, shared: bool = False) -> int:
    """Open a detached copy of the mount that a path below a directory lies in, with that path as its root.

    Unless it stays ``shared``, nothing that is mounted below one of the two shows below the other. ``name`` may be
    empty.
    Raises: KernelError.
    """
    flags = _OPEN_TREE_CLONE | _AT_EMPTY_PATH | _AT_SYMLINK_NOFOLLOW | os.O_CLOEXEC
    tree = syscall(_SYS_OPEN_TREE, "clone mount of", what, directory, os.fsencode(name), flags)
    try:
        if not shared:
            _set_attributes(tree, what, _MountAttr(propagation=_MS_PRIVATE))
    except KernelError:
        os.close(tree)
        raise
    return tree


def restrict(tree: int, what: str, *, read_only: bool, id_map: int | None = None) -> None:
    """Take devices and set-user-id away from a detached mount, and show its owners by the map of a user namespace.

    Raises: KernelError, with EINVAL if its file system cannot show other owners.
    """
    flags = _ATTR_NOSUID | _ATTR_NODEV | (_ATTR_RDONLY if read_only else 0)
    if id_map is None:
        _set_attributes(tree, what, _MountAttr(set=flags))
    else:
        _set_attributes(tree, what, _MountAttr(set=flags | _ATTR_IDMAP, userns_fd=id_map))


def share(tree: int) -> None:
    """Let what is mounted below a mount show below all copies of it that are made from now on.

    Raises: KernelError.
    """
    _set_attributes(tree, "shared mount", _MountAttr(propagation=_MS_SHARED))


def make_tmpfs(*, size: int) -> int:
    """Make an empty tmpfs, and give it as a detached mount; nosuid and noexec. Device nodes in it work.

    Units: bytes.
    Raises: KernelError.
    """
    context = syscall(_SYS_FSOPEN, "open", "tmpfs", b"tmpfs", _CLOEXEC)
    try:
        for key, value in (("size", str(size)), ("nr_inodes", "8"), ("mode", "755")):
            data = value.encode()
            syscall(_SYS_FSCONFIG, "set", f"{key} of tmpfs", context, _FSCONFIG_SET_STRING, key.encode(), data, 0)
        syscall(_SYS_FSCONFIG, "make", "tmpfs", context, _FSCONFIG_CMD_CREATE, None, None, 0)
        flags = _ATTR_NOSUID | _ATTR_NOEXEC
        return syscall(_SYS_FSMOUNT, "mount", "tmpfs", context, _CLOEXEC, flags)
    finally:
        os.close(context)


def attach_at(tree: int, place: int, what: str) -> None:
    """Attach a detached mount at an open file or directory of the namespace that the calling thread is in.

    Raises: KernelError.
    """
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    syscall(_SYS_MOVE_MOUNT, "attach mount at", what, tree, b"", place, b"", flags)


def number_of(descriptor: int) -> int:
    """Give the number, as `mount.Mount.mount_id`, of the mount that an open file lies in; asks the kernel alone.

    Raises: KernelError.
    Source: statx(2), STATX_MNT_ID.
    """
    return int.from_bytes(_look(descriptor, _STATX_MNT_ID)[_STATX_MNT_ID_OFFSET:][:8], "little")


def identity_of(descriptor: int) -> bytes:
    """Give what is equal for two open files exactly if they are the same; asks the kernel alone, no file system.

    Raises: KernelError.
    """
    seen = _look(descriptor, _STATX_INO)
    return seen[_STATX_DEV_OFFSET:][:8] + seen[_STATX_INO_OFFSET:][:8]


def _look(descriptor: int, asked: int) -> bytes:
    answer = ctypes.create_string_buffer(_STATX_SIZE)
    flags = _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC
    checked(libc.statx(descriptor, b"", flags, asked, answer), "look at", "mount")
    return answer.raw


def _set_attributes(tree: int, what: str, change: _MountAttr) -> None:
    size = ctypes.sizeof(change)
    syscall(_SYS_MOUNT_SETATTR, "set mount attributes of", what, tree, b"", _AT_EMPTY_PATH, change, size)
