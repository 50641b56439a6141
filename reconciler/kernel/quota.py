"""Disk quotas of a mounted file system: limits by user, group and project, and what is used of them.

The kernel knows a file system by its device, whichever mount tables show it.
"""

from __future__ import annotations

import ctypes
import errno
import gzip
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from reconciler.errors import KernelError
from reconciler.kernel.syscalls import kernel_error, libc

_SETQUOTA = 0x800008
_GETQUOTA = 0x800007
_GETNEXTQUOTA = 0x800009
_GETINFO = 0x800005
_SETINFO = 0x800006

_BLIMITS, _ILIMITS = 1, 4
_BGRACE, _IGRACE = 1, 2
_UNIT = 1024  # of limits of space: QIF_DQBLKSIZE


class Kind(IntEnum):
    """Whose quota. Source: quotactl(2), USRQUOTA and the others."""

    USER = 0
    GROUP = 1
    PROJECT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one id; None where there is none. Units: bytes, in whole kibibytes, and files."""

    soft: int | None = None
    hard: int | None = None
    soft_files: int | None = None
    hard_files: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the kernel keeps of one id. ``space_until`` and ``files_until``: when the grace of an exceeded soft limit
    ends, None while it is not exceeded.

    Units: bytes, files, seconds since the epoch.
    """

    id: int
    limits: Limits
    space: int
    files: int
    space_until: int | None
    files_until: int | None


class _Dqblk(ctypes.Structure):
    """Source: linux/quota.h, struct if_nextdqblk, of which the first fields are if_dqblk."""

    _fields_ = (
        ("bhardlimit", ctypes.c_uint64),
        ("bsoftlimit", ctypes.c_uint64),
        ("curspace", ctypes.c_uint64),
        ("ihardlimit", ctypes.c_uint64),
        ("isoftlimit", ctypes.c_uint64),
        ("curinodes", ctypes.c_uint64),
        ("btime", ctypes.c_uint64),
        ("itime", ctypes.c_uint64),
        ("valid", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
    )


class _Dqinfo(ctypes.Structure):
    _fields_ = (
        ("bgrace", ctypes.c_uint64),
        ("igrace", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("valid", ctypes.c_uint32),
    )


def read(device: str, kind: Kind, number: int) -> Entry:
    """Read what the kernel keeps of an id.

    Raises: KernelError; its errno is ESRCH where quotas are not on.
    """
    data = _Dqblk()
    _call(_GETQUOTA, kind, device, number, data, "read")
    return _entry(number, data)


def read_all(device: str, kind: Kind, *, first: int = 0, most: int) -> Iterator[Entry]:
    """Read the ids that have files or limits, in their order, from one on and no more than so many.

    Raises: KernelError; its errno is ESRCH where quotas are not on.
    """
    number = first
    for _ in range(most):
        data = _Dqblk()
        try:
            _call(_GETNEXTQUOTA, kind, device, number, data, "read")
        except KernelError as err:
            if err.errno == errno.ENOENT:
                return
            raise
        yield _entry(data.id, data)
        number = data.id + 1


def set_limits(device: str, kind: Kind, number: int, limits: Limits) -> None:
    """Set all limits of an id; none where None.

    Raises: KernelError; its errno is ESRCH where quotas are not on.
    """
    data = _Dqblk(
        bhardlimit=(limits.hard or 0) // _UNIT,
        bsoftlimit=(limits.soft or 0) // _UNIT,
        ihardlimit=limits.hard_files or 0,
        isoftlimit=limits.soft_files or 0,
        valid=_BLIMITS | _ILIMITS,
    )
    _call(_SETQUOTA, kind, device, number, data, "set")


def read_grace(device: str, kind: Kind) -> tuple[int, int]:
    """Read for how long soft limits of space and of files may be exceeded. Units: seconds.

    Raises: KernelError.
    """
    data = _Dqinfo()
    _call(_GETINFO, kind, device, 0, data, "read grace of")
    return data.bgrace, data.igrace


def set_grace(device: str, kind: Kind, seconds: int) -> None:
    """Set for how long soft limits may be exceeded. What is exceeded already keeps the time that it was given.

    Units: seconds.
    Raises: KernelError.
    """
    data = _Dqinfo(bgrace=seconds, igrace=seconds, valid=_BGRACE | _IGRACE)
    _call(_SETINFO, kind, device, 0, data, "set grace of")


def missing() -> str | None:
    """Say why this kernel cannot keep the quotas of ext4, or None if it can, loading a module if need be."""
    if os.path.isdir("/sys/module/quota_v2") or _is_in_list() or _is_in_config():
        return None
    return "this kernel has no quota format for ext4 (CONFIG_QFMT_V2); boot one that has it, such as Debian's"


def _is_in_list() -> bool:
    for name in ("modules.dep", "modules.builtin"):
        data = _read(f"/lib/modules/{os.uname().release}/{name}")
        if b"/quota_v2.ko" in data:
            return True
    return False


def _is_in_config() -> bool:
    try:
        lines = gzip.decompress(_read("/proc/config.gz")).splitlines()
    except (OSError, EOFError):
        return False
    return b"CONFIG_QFMT_V2=y" in lines or b"CONFIG_QFMT_V2=m" in lines


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _call(command: int, kind: Kind, device: str, number: int, data: ctypes.Structure, verb: str) -> None:
    code = ctypes.c_int(command << 8 | kind).value
    if libc.quotactl(code, os.fsencode(device), number, ctypes.byref(data)) == 0:
        return
    error = ctypes.get_errno()
    what = f"{kind.name.lower()} quota {number} of {device}"
    if error == errno.ESRCH:
        raise KernelError(f"{verb} {what}: quotas are not on", errno=error)
    raise kernel_error(verb, what, error)


def _entry(number: int, data: _Dqblk) -> Entry:
    limits = Limits(
        soft=data.bsoftlimit * _UNIT or None,
        hard=data.bhardlimit * _UNIT or None,
        soft_files=data.isoftlimit or None,
        hard_files=data.ihardlimit or None,
    )
    return Entry(
        id=number,
        limits=limits,
        space=data.curspace,
        files=data.curinodes,
        space_until=data.btime or None,
        files_until=data.itime or None,
    )
