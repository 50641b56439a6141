"""btrfs quota groups: what each subvolume refers to, and how much it may.

Each subvolume has a group of its own number, made with it. The kernel brings the figures up to date when it commits,
each 30 seconds or when it is asked to.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from reconciler.errors import BusyError, KernelError
from reconciler.kernel import btrfs
from reconciler.kernel.btrfs_call import Key, call, opened, search

_IOC_QUOTA_CTL = 0xC0109428
_IOC_QGROUP_CREATE = 0x4010942A
_IOC_QGROUP_LIMIT = 0x8030942B
_IOC_QUOTA_RESCAN = 0x4040942C
_QUOTA_ENABLE = 1

_ROOT_TREE = 1
_QUOTA_TREE = 8
_ROOT_ITEM = 132
_STATUS_ITEM = 240
_INFO_ITEM = 242
_LIMIT_ITEM = 244

_STATUS = struct.Struct("<16xQ")  # version, generation, flags
_INFO = struct.Struct("<8xQ8xQ")  # generation, referenced, the same compressed, exclusive
_LIMIT = struct.Struct("<QQ")  # flags, most referenced
_STATUS_UNSURE = 1 << 1 | 1 << 2  # a rescan is under way, or is necessary
_STATUS_SIMPLE = 1 << 3
_LIMIT_REFERENCED = 1 << 0
_MAX = (1 << 64) - 1  # as a limit: none

_STATUS_KEY = Key(0, _STATUS_ITEM, 0)
_ALL = [(_STATUS_KEY, Key(0, _LIMIT_ITEM, _MAX))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Qgroup:
    """A quota group: bytes its subvolumes refer to, bytes that nothing else refers to, the limit on the first."""

    referenced: int
    exclusive: int
    max_referenced: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaTable:
    """Quota groups of a file system by number; while not ``consistent``, their bytes are not to be relied on."""

    consistent: bool
    groups: Mapping[int, Qgroup]


def enable_quota(path: str) -> None:
    """Switch on full quota groups on a file system; on is success.

    What was on it is counted in the background: the table is not consistent until then.

    Raises: KernelError, also if simple quotas are on, which bill a volume for its snapshots' data.
    """
    with opened(path) as fd:
        call(fd, _IOC_QUOTA_CTL, bytearray(struct.pack("<QQ", _QUOTA_ENABLE, 0)), "enable quota on", path)
        for _, data in search(fd, _QUOTA_TREE, Key(0, _STATUS_ITEM, 0), Key(0, _STATUS_ITEM, _MAX), path):
            if _status_flags(data) & _STATUS_SIMPLE:
                raise KernelError(
                    f"enable quota on {path}: simple quotas are on; run `btrfs quota disable {path}` first"
                )


def read_qgroups(path: str, only: Collection[int] | None = None) -> QuotaTable:
    """Read all quota groups of a file system at once, or only those of some numbers.

    A table that is not consistent is no mere matter of figures: the kernel enforces no limit until a rescan is done.

    Units: bytes, as of the last commit.
    Raises: KernelError, if quotas are not on.
    """
    items = _read_items(path, _ALL if only is None else [(_STATUS_KEY, _STATUS_KEY), *_places(only)])
    consistent = any(key.type == _STATUS_ITEM and not _status_flags(data) & _STATUS_UNSURE for key, data in items)
    limits = {key.offset: _limit(data) for key, data in items if key.type == _LIMIT_ITEM}
    groups = {}
    for key, data in items:
        if key.type == _INFO_ITEM:
            number, (referenced, exclusive) = key.offset, _INFO.unpack_from(data)
            groups[number] = Qgroup(
                referenced=referenced,
                exclusive=exclusive,
                max_referenced=limits.get(number),
            )
    return QuotaTable(consistent=consistent, groups=groups)


def set_limit(path: str, max_referenced: int | None) -> None:
    """Set how much a subvolume may refer to; None lifts the limit.

    Units: bytes.
    Raises: KernelError, if there is no subvolume or quotas are not on.
    """
    value = _MAX if max_referenced is None else max_referenced
    arguments = struct.pack("<QQQQQQ", btrfs.subvolume_id(path), _LIMIT_REFERENCED, value, 0, 0, 0)
    # By way of the directory around it: a subvolume over its limit refuses the ioctl, as it does any other change.
    with opened(os.path.dirname(path) or ".") as fd:
        call(fd, _IOC_QGROUP_LIMIT, bytearray(arguments), "set quota limit of", path)


def start_rescan(path: str) -> None:
    """Have all quota groups counted anew in the background; under way is success.

    Raises: KernelError.
    """
    with opened(path) as fd:
        _call_unless(fd, _IOC_QUOTA_RESCAN, bytes(64), "rescan quota of", path, errno.EINPROGRESS)


def remove_qgroup(path: str, qgroup: int) -> None:
    """Remove a quota group of the file system; absent is success.

    Raises: BusyError, while it has members or its subvolume, deleted though it may be, is not cleaned up yet;
    KernelError.
    """
    with opened(path) as fd:
        if _has_subvolume(fd, qgroup, path):
            raise BusyError(f"remove quota group {qgroup} of {path}: its subvolume is there or still being cleaned up")
        try:
            arguments = struct.pack("<QQ", 0, qgroup)
            _call_unless(fd, _IOC_QGROUP_CREATE, arguments, "remove quota group of", path, errno.ENOENT)
        except KernelError as err:
            if err.errno == errno.EBUSY:
                raise BusyError(f"remove quota group {qgroup} of {path}: it has members or data") from err
            raise


def _places(numbers: Iterable[int]) -> Iterator[tuple[Key, Key]]:
    for number in numbers:
        for kind in (_INFO_ITEM, _LIMIT_ITEM):
            key = Key(0, kind, number)
            yield key, key


def _read_items(path: str, places: Iterable[tuple[Key, Key]]) -> list[tuple[Key, memoryview]]:
    try:
        with opened(path) as fd:
            what = f"quota of {path}"
            return [item for first, last in places for item in search(fd, _QUOTA_TREE, first, last, what)]
    except KernelError as err:
        if err.errno == errno.ENOENT and os.path.exists(path):
            raise KernelError(f"read quota of {path}: quotas are not on", errno=errno.ENOTCONN) from err
        raise


def _has_subvolume(fd: int, number: int, path: str) -> bool:
    return any(search(fd, _ROOT_TREE, Key(number, _ROOT_ITEM, 0), Key(number, _ROOT_ITEM, _MAX), path))


def _call_unless(fd: int, request: int, arguments: bytes, verb: str, what: str, already: int) -> None:
    try:
        call(fd, request, bytearray(arguments), verb, what)
    except KernelError as err:
        if err.errno != already:
            raise


def _status_flags(data: memoryview) -> int:
    flags: int = _STATUS.unpack_from(data)[0]
    return flags


def _limit(data: memoryview) -> int | None:
    flags, value = _LIMIT.unpack_from(data)
    return value if flags & _LIMIT_REFERENCED else None
