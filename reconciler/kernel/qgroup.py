"""btrfs quota groups: what each subvolume refers to, and how much it may.

Each subvolume has a group of its own number, made with it; groups of level 1, whose number says so in its upper 16
bits, hold several of these to a limit together. The kernel brings the figures up to date when it commits, each 30
seconds or when it is asked to.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from reconciler.errors import BusyError, KernelError
from reconciler.kernel import btrfs
from reconciler.kernel.btrfs_call import Key, call, opened, search
from reconciler.kernel.syscalls import file_errors

_IOC_QUOTA_CTL = 0xC0109428
_IOC_QGROUP_ASSIGN = 0x40189429
_IOC_QGROUP_CREATE = 0x4010942A
_IOC_QGROUP_LIMIT = 0x8030942B
_IOC_QUOTA_RESCAN = 0x4040942C
_QUOTA_ENABLE = 1
_IOC_FS_INFO = 0x8400941F
_FS_INFO_BYTES = 1024
_FSID_AT = 16
_DEEPEST_TREE = 8

_ROOT_TREE = 1
_QUOTA_TREE = 8
_ROOT_ITEM = 132
_STATUS_ITEM = 240
_INFO_ITEM = 242
_LIMIT_ITEM = 244
_RELATION_ITEM = 246

_STATUS = struct.Struct("<16xQ")  # version, generation, flags
_INFO = struct.Struct("<8xQ8xQ")  # generation, referenced, the same compressed, exclusive
_LIMIT = struct.Struct("<QQ")  # flags, most referenced
_STATUS_UNSURE = 1 << 1 | 1 << 2  # a rescan is under way, or is necessary
_STATUS_SIMPLE = 1 << 3
_LIMIT_REFERENCED = 1 << 0
_MAX = (1 << 64) - 1  # as a limit: none
_LEVEL_SHIFT = 48

_RELEASE = re.compile(r"(\d+)\.(\d+)")

_STATUS_KEY = Key(0, _STATUS_ITEM, 0)
_NO_PARENTS: frozenset[int] = frozenset()

_ALL = [(_STATUS_KEY, Key(_MAX, _RELATION_ITEM, _MAX))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Qgroup:
    """A quota group: bytes its subvolumes refer to, bytes that nothing else refers to, the limit on the first.

    ``parents``: the groups of a higher level that it is a member of.
    """

    referenced: int
    exclusive: int
    max_referenced: int | None
    parents: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaTable:
    """Quota groups of a file system by number; while not ``consistent``, their bytes are not to be relied on."""

    consistent: bool
    groups: Mapping[int, Qgroup]


def group_of_level_1(number: int) -> int:
    """Give the number of a quota group of level 1. Shape: 48 bits of one's own choice."""
    return 1 << _LEVEL_SHIFT | number


def is_level_1(number: int) -> bool:
    """Say whether a quota group is one above those of subvolumes."""
    return number >> _LEVEL_SHIFT == 1


def keeps_count_of_snapshots() -> bool:
    """Say whether a snapshot may join the group above its source without all groups being counted anew.

    Source: Linux 6.9, "btrfs: qgroup: allow quick inherit if snapshot is created and added to the same parent".
    """
    found = _RELEASE.match(os.uname().release)
    return found is not None and (int(found[1]), int(found[2])) >= (6, 9)


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


def count_large_deletions(path: str) -> None:
    """Have the kernel count what any deleted subvolume lets go of, however large: by default it stops counting then.

    Before Linux 6.1 it always counts.

    Raises: KernelError.
    Source: btrfs(5), "/sys/fs/btrfs/<UUID>/qgroups/drop_subtree_threshold".
    """
    answer = bytearray(_FS_INFO_BYTES)
    with opened(path) as fd:
        call(fd, _IOC_FS_INFO, answer, "look at", path)
    fsid = uuid.UUID(bytes=bytes(answer[_FSID_AT : _FSID_AT + 16]))
    threshold = f"/sys/fs/btrfs/{fsid}/qgroups/drop_subtree_threshold"
    with file_errors("write", threshold), suppress(FileNotFoundError), open(threshold, "wb", buffering=0) as file:
        file.write(b"%d" % _DEEPEST_TREE)


def read_qgroups(path: str, only: Collection[int] | None = None) -> QuotaTable:
    """Read all quota groups of a file system at once, or only those of some numbers with the groups above them.

    A table that is not consistent is no mere matter of figures: the kernel enforces no limit until a rescan is done.

    Units: bytes, as of the last commit.
    Raises: KernelError, if quotas are not on.
    """
    items = _read_items(path, _ALL if only is None else [(_STATUS_KEY, _STATUS_KEY), *_places(only)])
    if only is not None:
        above = {key.offset for key, _ in items if key.type == _RELATION_ITEM}
        items += _read_items(path, _places(above))
    consistent = any(key.type == _STATUS_ITEM and not _status_flags(data) & _STATUS_UNSURE for key, data in items)
    limits = {key.offset: _limit(data) for key, data in items if key.type == _LIMIT_ITEM}
    parents = _parents(key for key, _ in items if key.type == _RELATION_ITEM)
    groups = {}
    for key, data in items:
        if key.type == _INFO_ITEM:
            number, (referenced, exclusive) = key.offset, _INFO.unpack_from(data)
            groups[number] = Qgroup(
                referenced=referenced,
                exclusive=exclusive,
                max_referenced=limits.get(number),
                parents=parents.get(number, _NO_PARENTS),
            )
    return QuotaTable(consistent=consistent, groups=groups)


def read_parents(path: str, qgroup: int) -> frozenset[int]:
    """Read which higher groups a quota group of the file system is a member of.

    Raises: KernelError, if quotas are not on.
    """
    place = (Key(qgroup, _RELATION_ITEM, 0), Key(qgroup, _RELATION_ITEM, _MAX))
    return _parents(key for key, _ in _read_items(path, [place])).get(qgroup, _NO_PARENTS)


def set_limit(path: str, max_referenced: int | None) -> None:
    """Set how much a subvolume may refer to; None lifts the limit.

    Units: bytes.
    Raises: KernelError, if there is no subvolume or quotas are not on.
    """
    # By way of the directory around it: a subvolume over its limit refuses the ioctl, as it does any other change.
    set_group_limit(os.path.dirname(path) or ".", btrfs.subvolume_id(path), max_referenced)


def set_group_limit(path: str, qgroup: int, max_referenced: int | None) -> None:
    """Set how much the subvolumes of a quota group of the file system may refer to together; None lifts the limit.

    Units: bytes.
    Raises: KernelError, if there is no such group.
    """
    value = _MAX if max_referenced is None else max_referenced
    arguments = struct.pack("<QQQQQQ", qgroup, _LIMIT_REFERENCED, value, 0, 0, 0)
    with opened(path) as fd:
        call(fd, _IOC_QGROUP_LIMIT, bytearray(arguments), "set quota limit of", path)


def create_qgroup(path: str, qgroup: int) -> None:
    """Make a quota group of level 1 or higher; there is success.

    Raises: KernelError.
    """
    with opened(path) as fd:
        _call_unless(fd, _IOC_QGROUP_CREATE, struct.pack("<QQ", 1, qgroup), "make quota group on", path, errno.EEXIST)


def assign_qgroup(path: str, qgroup: int, parent: int) -> None:
    """Make a quota group a member of a higher one; is success.

    Where the members share data already, all groups are counted anew, and no limit holds until that is done.

    Raises: KernelError.
    """
    with opened(path) as fd:
        arguments = struct.pack("<QQQ", 1, qgroup, parent)
        _call_unless(fd, _IOC_QGROUP_ASSIGN, arguments, "assign quota group on", path, errno.EEXIST)


def release_qgroup(path: str, qgroup: int, parent: int) -> None:
    """End the membership of a quota group in a higher one; not a member is success.

    Only where nothing else refers to its data: else the figures of all groups become inconsistent.

    Raises: KernelError.
    """
    with opened(path) as fd:
        arguments = struct.pack("<QQQ", 0, qgroup, parent)
        _call_unless(fd, _IOC_QGROUP_ASSIGN, arguments, "release quota group on", path, errno.ENOENT)


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
        if qgroup >> _LEVEL_SHIFT == 0 and _has_subvolume(fd, qgroup, path):
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
        if number >> _LEVEL_SHIFT == 0:
            yield Key(number, _RELATION_ITEM, 0), Key(number, _RELATION_ITEM, _MAX)


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


def _parents(relations: Iterable[Key]) -> dict[int, frozenset[int]]:
    """Collect the parents of each group; the tree holds every relation in both directions."""
    parents: dict[int, frozenset[int]] = {}
    for key in relations:
        if key.offset >> _LEVEL_SHIFT > key.objectid >> _LEVEL_SHIFT:
            parents[key.objectid] = parents.get(key.objectid, _NO_PARENTS) | {key.offset}
    return parents


def _limit(data: memoryview) -> int | None:
    flags, value = _LIMIT.unpack_from(data)
    return value if flags & _LIMIT_REFERENCED else None
