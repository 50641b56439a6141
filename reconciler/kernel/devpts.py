"""The pseudo terminals of somebody's mount namespace, reached through a descriptor of his root and never by entering.

Source: Linux Documentation/filesystems/devpts.rst; fspick(2), fsconfig(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.errors import KernelError
from reconciler.kernel import openat2
from reconciler.kernel.syscalls import checked, libc, syscall, translated

_PATH = "dev/pts"
_MAGIC = 0x1CD1
_SYS_FSCONFIG, _SYS_FSPICK = 431, 433
_FSPICK_CLOEXEC, _FSPICK_EMPTY_PATH = 1, 8
_SET_STRING, _RECONFIGURE = 1, 7
_ALL = 1 << 20
"""What the kernel gives an instance of its own. Source: Linux include/uapi/linux/tty.h, NR_UNIX98_PTY_MAX."""

_MOUNTINFO_MAX = 1 << 20
_TTY_GROUP = 5
_STATFS_BYTES = 256


def set_max(root: int, most: int | None, *, id_base: int) -> None:
    """Limit the pseudo terminals of the instance on ``/dev/pts``; those above the limit stay. None: unlimited.

    All options are given anew, as what is left out would return to the kernel's default.
    Units: ``id_base`` the host's id of the VE's first.
    Raises: KernelError, with ENODEV if something else is mounted there.
    """
    options = {
        "gid": str(id_base + _TTY_GROUP),
        "mode": "0620",
        "ptmxmode": "0666",
        "max": str(_ALL if most is None else most),
    }
    with _instance(root) as mounted:
        context = syscall(_SYS_FSPICK, "pick", _PATH, mounted, b"", _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH)
        try:
            for name, value in options.items():
                syscall(_SYS_FSCONFIG, "set", f"{name} of {_PATH}", context, _SET_STRING, _text(name), _text(value), 0)
            syscall(_SYS_FSCONFIG, "reconfigure", _PATH, context, _RECONFIGURE, None, None, 0)
        finally:
            os.close(context)


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def read_max(root: int, pid: int) -> int | None:
    """Read the limit of the instance on ``/dev/pts``; None: unlimited.

    Raises: KernelError, with ENODEV if something else is mounted there, or too much is mounted to find it.
    """
    with _instance(root) as mounted:
        device = os.fstat(mounted).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    path = f"/proc/{pid}/mountinfo"
    with translated("read", path), open(path, "rb") as file:
        lines = file.read(_MOUNTINFO_MAX).decode(errors="replace").splitlines()
    for words in (line.split() for line in lines):
        if len(words) > 2 and words[2] == number:
            given = [option for option in words[-1].split(",") if option.startswith("max=")]
            return int(given[0].removeprefix("max=")) if given else None
    raise KernelError(f"read {path}: expected the mount of {_PATH} in it", errno=errno.ENODEV)


def count(root: int) -> int:
    """Count the pseudo terminals of the instance on ``/dev/pts``.

    Raises: KernelError, with ENODEV if something else is mounted there.
    """
    with _instance(root) as mounted, translated("list", _PATH):
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
        try:
            return sum(name.isdecimal() for name in os.listdir(directory))
        finally:
            os.close(directory)


@contextmanager
def _instance(root: int) -> Iterator[int]:
    resolve = openat2.RESOLVE_IN_ROOT | openat2.RESOLVE_NO_SYMLINKS | openat2.RESOLVE_NO_MAGICLINKS
    mounted = openat2.openat2(root, _PATH, os.O_PATH | os.O_DIRECTORY, resolve=resolve)
    try:
        if _kind(mounted) != _MAGIC:
            raise KernelError(f"use {_PATH}: expected pseudo terminals to be mounted there", errno=errno.ENODEV)
        yield mounted
    finally:
        os.close(mounted)


def _kind(descriptor: int) -> int:
    """Read the magic number of a file system. Source: fstatfs(2), f_type."""
    content = ctypes.create_string_buffer(_STATFS_BYTES)
    checked(libc.fstatfs(descriptor, content), "look at", _PATH)
    return ctypes.c_long.from_buffer(content).value
