"""The C library behind one error path: a failed call becomes one of our errors that names the call and its object."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.errors import KernelError, NoSpaceError

libc = ctypes.CDLL(None, use_errno=True)

AT_FDCWD = -100

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def kernel_error(call: str, what: str, error: int) -> KernelError:
    """Build the exception for a failed call; ENOSYS is explained by the kernel's version.

    Units: ``error`` is an errno.
    """
    reason = os.strerror(error)
    if error == errno.ENOSYS:
        reason = f"not in this kernel ({os.uname().release}) or forbidden by a seccomp filter"
    return KernelError(f"{call} {what}: {reason}", errno=error)


def file_error(call: str, what: str, error: int) -> KernelError | NoSpaceError:
    """Build the exception for a failed call on a file, where ENOSPC and EDQUOT mean a full disk or quota.

    They mean other things elsewhere: too many mounts, too many user namespaces, a cpuset without CPUs.

    Units: ``error`` is an errno.
    """
    if error in _FULL:
        return NoSpaceError(f"{call} {what}: {os.strerror(error)}")
    return kernel_error(call, what, error)


@contextmanager
def translated(call: str, what: str) -> Iterator[None]:
    """Turn an OSError of the block into ours.

    Raises: KernelError.
    """
    try:
        yield
    except OSError as err:
        raise kernel_error(call, what, err.errno or 0) from err


@contextmanager
def file_errors(call: str, what: str) -> Iterator[None]:
    """Turn an OSError of the block, which works on files, into ours.

    Raises: KernelError, NoSpaceError.
    """
    try:
        yield
    except OSError as err:
        raise file_error(call, what, err.errno or 0) from err


def checked(result: int, call: str, what: str) -> int:
    """Pass a C library result through, or raise for a negative one.

    Raises: KernelError, with the thread's errno.
    """
    if result < 0:
        raise kernel_error(call, what, ctypes.get_errno())
    return result


def syscall(
    number: int, call: str, what: str, *args: int | bytes | ctypes.Structure | ctypes.Array[ctypes.c_char] | None
) -> int:
    """Make a system call that the C library has no wrapper for.

    Raises: KernelError.
    Source: syscall(2).
    """
    converted = [ctypes.c_long(a) if isinstance(a, int) else _pointer(a) for a in args]
    return checked(libc.syscall(ctypes.c_long(number), *converted), call, what)


def _pointer(value: bytes | ctypes.Structure | ctypes.Array[ctypes.c_char] | None) -> object:
    return ctypes.byref(value) if isinstance(value, ctypes.Structure) else value
