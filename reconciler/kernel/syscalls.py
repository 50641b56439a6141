"""The C library behind one error path: a failed call becomes one of our errors that names the call and its object."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from reconciler.errors import KernelError, NoSpaceError, VectlError

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


class _Translation:
    """Turns an OSError of its block into ours. Each look at the host opens thousands: a generator would cost thrice."""

    __slots__ = ("_call", "_error", "_what")

    def __init__(self, error: Callable[[str, str, int], VectlError], call: str, what: str) -> None:
        self._error, self._call, self._what = error, call, what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise self._error(self._call, self._what, error.errno or 0) from error


def translated(call: str, what: str) -> AbstractContextManager[None]:
    """Turn an OSError of the block into ours.

    Raises: KernelError.
    """
    return _Translation(kernel_error, call, what)


def file_errors(call: str, what: str) -> AbstractContextManager[None]:
    """Turn an OSError of the block, which works on files, into ours.

    Raises: KernelError, NoSpaceError.
    """
    return _Translation(file_error, call, what)


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
