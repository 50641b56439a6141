"""Opening paths that somebody else may be changing: the kernel, not a check before the call, keeps them in bounds."""

from __future__ import annotations

import ctypes
import errno
import os

from reconciler.errors import KernelError
from reconciler.kernel.syscalls import syscall

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_SYS_OPENAT2 = 437

# The kernel answers EAGAIN when a rename or a mount anywhere raced with a "..". A busy host makes that common, so
# a few rounds are needed, and a hostile renamer must not hold us for ever.
_ROUNDS = 128


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open a path relative to a directory, with limits on how it is resolved; the descriptor closes on exec.

    Raises: KernelError; its errno is EXDEV where a limit was met and ELOOP for a symbolic link that is not allowed.
    Source: openat2(2).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_ROUNDS - 1):
        try:
            return _openat2(directory, path, how)
        except KernelError as err:
            if err.errno != errno.EAGAIN:
                raise
    return _openat2(directory, path, how)


def _openat2(directory: int, path: str, how: _OpenHow) -> int:
    return syscall(_SYS_OPENAT2, "open", path, directory, os.fsencode(path), how, ctypes.sizeof(how))
