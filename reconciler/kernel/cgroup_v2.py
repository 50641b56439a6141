"""Limits on cgroup v2: which file holds which, and how a limit is lowered without killing anybody.

Source: Linux Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping

from reconciler.errors import KernelError
from reconciler.kernel import cgroup_file
from reconciler.kernel import cgroup_values as values
from reconciler.kernel.cgroup_layout import INNER
from reconciler.kernel.cgroup_values import LimitFiles, LimitValue

CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")
"""The controllers that a VE's limits need, and that its own init may use below."""

MAX_DEPTH = 16
"""Levels below a VE's cgroup: with 255 bytes for each name, no path in it is longer than a path may be (4096)."""

MAX_DESCENDANTS = 4096
"""Cgroups below a VE's cgroup: whoever lists or removes them all is done in a moment."""

_RECLAIM_STEP = 64 << 20
_RECLAIM_S = 10.0


def _number(texts: tuple[str, ...]) -> LimitValue:
    return values.parse_number(texts[0])


def _weight(texts: tuple[str, ...]) -> LimitValue:
    return values.parse_number(texts[0])


def _cpu_limit(texts: tuple[str, ...]) -> LimitValue:
    return values.parse_cpu_max(texts[0])


def _members(texts: tuple[str, ...]) -> LimitValue:
    own, parents = values.parse_list(texts[0]), values.parse_list(texts[1])
    return None if not own or own == parents else own


FILES: Mapping[str, LimitFiles] = {
    "cpu.weight": LimitFiles("cpu", ("cpu.weight",), _weight),
    "cpu.limit": LimitFiles("cpu", ("cpu.max",), _cpu_limit),
    "cpu.cpus": LimitFiles("cpuset", ("cpuset.cpus", "../cpuset.cpus.effective"), _members),
    "cpu.nodes": LimitFiles("cpuset", ("cpuset.mems", "../cpuset.mems.effective"), _members),
    "memory.limit": LimitFiles("memory", ("memory.max",), _number),
    "memory.barrier": LimitFiles("memory", ("memory.high",), _number),
    "memory.guarantee": LimitFiles("memory", ("memory.low",), _number),
    "memory.swap": LimitFiles("memory", ("memory.swap.max",), _number),
    "processes": LimitFiles("pids", ("pids.max",), _number),
}

EVENT_FILES = ("cgroup.events", "memory.events", "pids.events")
"""Files whose change inotify reports: population, memory limits met, forks refused."""


def create(mount: str, cgroup: str) -> None:
    """Make a cgroup and hand its parents' controllers down to it, from the root on.

    Raises: KernelError; with EBUSY if processes live in one of the parents.
    """
    directory = mount
    for name in cgroup.strip("/").split("/"):
        enable_controllers(directory)
        directory = f"{directory}/{name}"
        cgroup_file.make_directory(directory)


def bound(directory: str) -> None:
    """Bound what the owner of a delegated part can build below a cgroup that is not his.

    Raises: KernelError.
    """
    cgroup_file.write(f"{directory}/cgroup.max.depth", str(MAX_DEPTH))
    cgroup_file.write(f"{directory}/cgroup.max.descendants", str(MAX_DESCENDANTS))


def enable_controllers(directory: str) -> None:
    """Enable, for the children of a cgroup, those of our controllers that it has itself.

    Raises: KernelError.
    Source: cgroup-v2.rst, "Top-down Constraint", "No Internal Process Constraint".
    """
    control = f"{directory}/cgroup.subtree_control"
    offered = cgroup_file.read(f"{directory}/cgroup.controllers").split()
    enabled = cgroup_file.read(control).split()
    missing = [name for name in CONTROLLERS if name in offered and name not in enabled]
    if missing:
        cgroup_file.write(control, " ".join(f"+{name}" for name in missing))


def write_limit(directory: str, limit: str, value: LimitValue) -> None:
    """Write one limit.

    Raises: InUseError, if memory in use cannot be reclaimed down to a lower limit; KernelError.
    """
    match limit, value:
        case "memory.limit", int() | None:
            _write_memory_limit(directory, values.whole_pages(value))
        case "cpu.limit", int() | None:
            cgroup_file.write(f"{directory}/cpu.max", f"{values.format_number(value)} {values.PERIOD_US}")
        case (("cpu.cpus" | "cpu.nodes"), frozenset() | None):
            _write_members(directory, FILES[limit].names, value)
        case "memory.guarantee", int() | None:
            _write_guarantee(directory, values.format_number(value))
        case _:
            assert not isinstance(value, frozenset), f"{limit} is a number"
            cgroup_file.write(f"{directory}/{FILES[limit].names[0]}", values.format_number(value))


def _write_members(directory: str, names: tuple[str, ...], members: frozenset[int] | None) -> None:
    own, parents = (f"{directory}/{name}" for name in names)
    try:
        cgroup_file.write(own, values.format_list(members or ()))
    except KernelError as err:
        if members is not None or err.errno != errno.ENOSPC:
            raise
        # Once set, it cannot be emptied while processes are inside: all that the parent has means the same.
        cgroup_file.write(own, cgroup_file.read(parents).strip())


def _write_guarantee(directory: str, guarantee: str) -> None:
    """Guarantee memory to the cgroup and to its inner part, where the processes are.

    Where cgroup v2 is mounted without memory_recursiveprot, which lxcfs for one takes away, a guarantee protects no
    cgroup below the one that it is written to.
    """
    cgroup_file.write(f"{directory}/memory.low", guarantee)
    if os.path.isdir(f"{directory}/{INNER}"):
        cgroup_file.write(f"{directory}/{INNER}/memory.low", guarantee)


def _write_memory_limit(directory: str, limit: int | None) -> None:
    """Raise the limit, or lower it behind the reclaim: writing it first would invite the OOM killer."""
    if limit is not None and _memory_use(directory) > limit:
        _reclaim(directory, limit)
        _lower_behind_barrier(directory, limit)
    else:
        cgroup_file.write(f"{directory}/memory.max", values.format_number(limit))


def _lower_behind_barrier(directory: str, limit: int) -> None:
    """Keep the use from growing while the limit is lowered; the barrier is put back in any case.

    Writing ``memory.high`` reclaims too, so this alone serves a kernel without ``memory.reclaim``.
    """
    barrier = f"{directory}/memory.high"
    before = cgroup_file.read(barrier).strip()
    try:
        cgroup_file.write(barrier, str(limit))
        use = _memory_use(directory)
        if use > limit:
            now = values.parse_number(cgroup_file.read(f"{directory}/memory.max"))
            raise values.in_use("memory.limit", limit, use=use, now=now)
        cgroup_file.write(f"{directory}/memory.max", str(limit))
    finally:
        cgroup_file.write(barrier, before)


def _reclaim(directory: str, limit: int) -> None:
    """Reclaim in steps until the use fits, nothing more comes, or the time is over."""
    deadline = time.monotonic() + _RECLAIM_S
    use = _memory_use(directory)
    while use > limit and time.monotonic() < deadline:
        reclaimed = _reclaim_step(directory, min(use - limit, _RECLAIM_STEP))
        before, use = use, _memory_use(directory)
        if not reclaimed and use >= before:
            return


def _reclaim_step(directory: str, size: int) -> bool:
    """Ask for some bytes; False if the kernel found less, or is older than 5.19."""
    try:
        cgroup_file.write(f"{directory}/memory.reclaim", str(size))
    except KernelError as err:
        if err.errno in (errno.EAGAIN, errno.ENOENT):
            return False
        raise
    return True


def _memory_use(directory: str) -> int:
    return int(cgroup_file.read(f"{directory}/memory.current"))
