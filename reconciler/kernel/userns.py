"""User namespaces as id maps, and acting under an id of such a map.

Light on imports and free of threads: the keeper, which lives as long as the environments do, holds this module.
"""

from __future__ import annotations

import ctypes
import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from reconciler.errors import KernelError
from reconciler.kernel.syscalls import checked, file_errors, kernel_error, libc

_CLONE_NEWUSER = 0x10000000
_PR_GET_SECUREBITS = 27
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_NO_ID = 0xFFFFFFFF  # as an argument of setfsuid: an id that is never valid, so the call only reads


def open_user_namespace(base: int, count: int, *, inside: int = 0) -> int:
    """Open a new user namespace that maps ``count`` ids from ``inside`` to ``base`` and up, users and groups alike.

    No process is left in it: it lives as long as the descriptor, or as a mount that is mapped by it.

    Raises: KernelError.
    Source: user_namespaces(7).
    """
    ready, ready_child = os.pipe()
    hold_child, hold = os.pipe()
    with warnings.catch_warnings():
        # That there are other threads: the child does nothing that could wait for one of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(hold)
        _stay_in_namespace(ready_child, hold_child)
    os.close(ready_child)
    os.close(hold_child)
    try:
        _expect_ready(ready)
        return _map_and_open(pid, (inside, base, count))
    finally:
        os.close(hold)
        os.close(ready)
        # A keeper that reaps everything may have been faster.
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


@contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Access files as this user and group within the block, with all capabilities kept.

    For the calling thread only. The block must not fork or execute anything: the bit that keeps the capabilities
    would be inherited.

    Raises: KernelError.
    Source: setfsuid(2); capabilities(7), SECBIT_NO_SETUID_FIXUP.
    """
    bits = checked(libc.prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0), "read", "securebits")
    old_uid, old_gid = _setfsuid(_NO_ID), _setfsgid(_NO_ID)
    _set_securebits(bits | _SECBIT_NO_SETUID_FIXUP)
    try:
        _set_file_ids(uid, gid)
        yield
    finally:
        _set_file_ids(old_uid, old_gid)
        _set_securebits(bits)


def _stay_in_namespace(ready: int, hold: int) -> NoReturn:
    try:
        error = ctypes.get_errno() if libc.unshare(_CLONE_NEWUSER) else 0
        os.write(ready, bytes([error]))
        os.read(hold, 1)
    finally:
        os._exit(0)


def _expect_ready(ready: int) -> None:
    answer = os.read(ready, 1)
    if not answer:
        raise KernelError("make user namespace: its process ended early")
    if answer[0] in (errno.ENOSPC, errno.EUSERS):
        raise KernelError("make user namespace: too many; raise the sysctl user.max_user_namespaces", errno=answer[0])
    if answer[0]:
        raise kernel_error("make", "user namespace", answer[0])


def _map_and_open(pid: int, extent: tuple[int, int, int]) -> int:
    inside, base, count = extent
    line = f"{inside} {base} {count}\n".encode()
    for name in ("uid_map", "gid_map"):
        with file_errors("map", f"ids {base} to {base + count - 1}"):
            fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, line)
            finally:
                os.close(fd)
    with file_errors("open", "user namespace"):
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def _set_securebits(bits: int) -> None:
    checked(libc.prctl(_PR_SET_SECUREBITS, bits, 0, 0, 0), "set", "securebits")


def _set_file_ids(uid: int, gid: int) -> None:
    _setfsgid(gid)
    _setfsuid(uid)
    # Neither call reports a failure: only reading back tells.
    if (_setfsuid(_NO_ID), _setfsgid(_NO_ID)) != (uid, gid):
        raise KernelError(f"act as user {uid} and group {gid}: refused by the kernel")


def _setfsuid(uid: int) -> int:
    return ctypes.c_uint32(libc.setfsuid(ctypes.c_uint32(uid))).value


def _setfsgid(gid: int) -> int:
    return ctypes.c_uint32(libc.setfsgid(ctypes.c_uint32(gid))).value
