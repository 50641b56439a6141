"""The disks under a btrfs: which they are, and whether anything shares them out by weight.

An I/O limit is held by the topmost block device, where what a process asks for still carries its cgroup: that is the
one which the file system itself is on, be it a disk, a mapped device, or a loop device. Limits further down would count
it again, and would stall what others of the machine wait for, such as the journal of the file system below.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from reconciler.kernel import btrfs_call
from reconciler.kernel.syscalls import file_errors

_IOC_FS_INFO = 0x8400941F
_FS_INFO_BYTES = 1024
_FSID = struct.Struct("<16x16s")


class Sharing(StrEnum):
    """What divides a busy disk by the weights of cgroups."""

    BFQ = "bfq"
    IOCOST = "iocost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disks:
    """The disks of a file system. ``sharing`` None: nothing that all of them have; ``why_not`` says what is missing.

    Shape: a number is ``<major>:<minor>``, of a whole disk: limits of a partition do not exist.
    """

    numbers: tuple[str, ...] = ()
    sharing: Sharing | None = None
    why_not: str = "the pool's disks are not known"


UNKNOWN_DISKS = Disks()


def examine(path: str, *, cost_model: str | None) -> Disks:
    """Find the disks under the btrfs that a path is on. ``cost_model``: cgroup v2's io.cost.qos, if it has one.

    Raises: KernelError.
    Source: linux/btrfs.h, BTRFS_IOC_FS_INFO; Linux Documentation/ABI/testing/sysfs-block.
    """
    with btrfs_call.opened(path) as fd:
        answer = bytearray(_FS_INFO_BYTES)
        btrfs_call.call(fd, _IOC_FS_INFO, answer, "look at", path)
    (identity,) = _FSID.unpack_from(answer)
    members = f"/sys/fs/btrfs/{uuid.UUID(bytes=identity)}/devices"
    with file_errors("list", members):
        return describe([os.path.realpath(f"{members}/{name}") for name in os.listdir(members)], cost_model=cost_model)


def describe(devices: Iterable[str], *, cost_model: str | None) -> Disks:
    """Describe the disks of block devices. Shape: ``devices`` are directories of sysfs, of disks or of partitions."""
    found = sorted(set(map(_whole, devices)))
    numbers = tuple(_number(disk) for disk in found)
    if numbers and _weighed(cost_model).issuperset(numbers):
        return Disks(numbers=numbers, sharing=Sharing.IOCOST, why_not="")
    for lowest in (lowest for disk in found for lowest in _lowest(disk)):
        if (scheduler := _scheduler(lowest)) != Sharing.BFQ:
            name = os.path.basename(lowest)
            remedy = f"echo bfq > /sys/block/{name}/queue/scheduler"
            return Disks(numbers=numbers, why_not=f"{name} is not shared by weight, but by {scheduler}; {remedy}")
    return Disks(numbers=numbers, sharing=Sharing.BFQ, why_not="") if numbers else UNKNOWN_DISKS


def _whole(device: str) -> str:
    return os.path.dirname(device) if os.path.exists(f"{device}/partition") else device


def _lowest(disk: str) -> Iterator[str]:
    """Give the disks that a mapped device is made of: itself it has no scheduler."""
    below = os.listdir(f"{disk}/slaves") if os.path.isdir(f"{disk}/slaves") else []
    if not below:
        yield disk
    for name in sorted(below):
        yield from _lowest(_whole(os.path.realpath(f"{disk}/slaves/{name}")))


def _number(disk: str) -> str:
    with open(f"{disk}/dev", encoding="ascii") as file:
        return file.read().strip()


def _scheduler(disk: str) -> str:
    """Give the scheduler in use. Shape: all that there are, with that one in brackets; alone where it is the only."""
    try:
        with open(f"{disk}/queue/scheduler", encoding="ascii") as file:
            words = file.read().split()
    except FileNotFoundError:
        return "none"
    return next((word.strip("[]") for word in words if word.startswith("[")), "none")


def _weighed(cost_model: str | None) -> frozenset[str]:
    """Find the disks that are shared by cost. Source: cgroup-v2.rst, "io.cost.qos"."""
    if cost_model is None or not os.path.exists(cost_model):
        return frozenset()
    with open(cost_model, encoding="ascii") as file:
        lines = [line.split() for line in file]
    return frozenset(words[0] for words in lines if "enable=1" in words)
