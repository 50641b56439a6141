"""What a cgroup has counted: use, peaks and refusals of memory, swap and tasks, and the cgroups below it.

Source: Linux Documentation/admin-guide/cgroup-v2.rst; cgroup-v1/memory.rst; cgroup-v1/pids.rst.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from reconciler.kernel import cgroup_file
from reconciler.kernel.cgroup_layout import INNER, Layout
from reconciler.kernel.cgroup_values import parse_counters


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """One counter; None is what this kernel does not count. ``failures``: how often the limit was met."""

    held: int | None = None
    peak: int | None = None
    failures: int | None = None


NOT_COUNTED = Counter()


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupCounters:
    """The counters of a cgroup and all below it, since it was made.

    ``kernel``: memory of the kernel on its behalf; ``reclaimable``: the part of it that caches directories and inodes;
    ``locked``: memory that cannot be reclaimed; ``below_guarantee``: how often memory under the guarantee was
    reclaimed; ``oom_kills``: processes that were killed for memory; ``descendants``: cgroups below.
    Units: bytes; tasks.
    """

    identity: str
    memory: Counter = NOT_COUNTED
    swap: Counter = NOT_COUNTED
    tasks: Counter = NOT_COUNTED
    kernel: Counter = NOT_COUNTED
    shared: int | None = None
    reclaimable: int | None = None
    locked: int | None = None
    below_guarantee: int | None = None
    oom_kills: int | None = None
    descendants: int | None = None


def read_counters(layout: Layout, cgroup: str) -> CgroupCounters | None:
    """Read the counters of a cgroup; None, if it is not there.

    Raises: KernelError.
    """
    tasks, memory = _directory(layout, "pids", cgroup), _directory(layout, "memory", cgroup)
    try:
        identity = _identity(memory or tasks or f"{layout.unified or ''}{cgroup}")
    except FileNotFoundError:
        return None
    is_legacy = "pids" in layout.legacy
    counted = CgroupCounters(
        identity=identity, tasks=_tasks(tasks, inner=is_legacy), descendants=_descendants(layout, cgroup)
    )
    if memory is None:
        return counted
    return _with_memory_v1(counted, memory) if "memory" in layout.legacy else _with_memory_v2(counted, memory)


def _directory(layout: Layout, controller: str, cgroup: str) -> str | None:
    hierarchy = layout.of(controller)
    return None if hierarchy is None else hierarchy.path(cgroup)


def _identity(directory: str) -> str:
    """Name a cgroup so that no other one, also of another boot, has the name. Source: kernfs, 64-bit inode numbers."""
    return f"{cgroup_file.read('/proc/sys/kernel/random/boot_id').strip()}:{os.stat(directory).st_ino}"


def _tasks(directory: str | None, *, inner: bool) -> Counter:
    """Read the counters of tasks. ``inner``: v1 counts a fork that is refused only where it was tried."""
    if directory is None:
        return NOT_COUNTED
    places = (directory, f"{directory}/{INNER}") if inner else (directory,)
    found = [_numbers(f"{place}/pids.events").get("max") for place in places]
    counts = [count for count in found if count is not None]
    return Counter(
        held=_number(f"{directory}/pids.current"),
        peak=_number(f"{directory}/pids.peak"),
        failures=sum(counts) if counts else None,
    )


def _with_memory_v2(counted: CgroupCounters, directory: str) -> CgroupCounters:
    stat, events = _numbers(f"{directory}/memory.stat"), _numbers(f"{directory}/memory.events")
    swapped = _numbers(f"{directory}/memory.swap.events")
    return replace(
        counted,
        memory=Counter(
            held=_number(f"{directory}/memory.current"),
            peak=_number(f"{directory}/memory.peak"),
            failures=events.get("max"),
        ),
        swap=Counter(
            held=_number(f"{directory}/memory.swap.current"),
            peak=_number(f"{directory}/memory.swap.peak"),
            failures=swapped.get("fail"),
        ),
        kernel=Counter(held=stat.get("kernel")),
        shared=stat.get("shmem"),
        reclaimable=stat.get("slab_reclaimable"),
        locked=stat.get("unevictable"),
        below_guarantee=events.get("low"),
        oom_kills=events.get("oom_kill"),
    )


def _with_memory_v1(counted: CgroupCounters, directory: str) -> CgroupCounters:
    """Add memory's counters. What memory and swap together are refused is memory that is refused, and swap as well.

    Without a limit of swap of its own only the sum is met, as both limits are equal then; and as kernels since 6.14 do
    not count that, the kills that come of it count too.
    """
    stat, own, both = _numbers(f"{directory}/memory.stat"), _v1(f"{directory}/memory"), _v1(f"{directory}/memory.memsw")
    has_swap = _number(f"{directory}/memory.limit_in_bytes") != _number(f"{directory}/memory.memsw.limit_in_bytes")
    kills = _oom_kills_v1(directory)
    return replace(
        counted,
        memory=replace(own, failures=(own.failures or 0) + (both.failures or 0) + (kills or 0)),
        swap=Counter(held=stat.get("total_swap"), failures=both.failures if has_swap else 0),
        kernel=_v1(f"{directory}/memory.kmem"),
        shared=stat.get("total_shmem"),
        locked=stat.get("total_unevictable"),
        oom_kills=kills,
    )


def _oom_kills_v1(directory: str) -> int | None:
    """Count in the inner cgroup as well: v1 counts a kill only where the process was."""
    places = (directory, f"{directory}/{INNER}")
    found = [_numbers(f"{place}/memory.oom_control").get("oom_kill") for place in places]
    counts = [count for count in found if count is not None]
    return sum(counts) if counts else None


def _v1(prefix: str) -> Counter:
    return Counter(
        held=_number(f"{prefix}.usage_in_bytes"),
        peak=_number(f"{prefix}.max_usage_in_bytes"),
        failures=_number(f"{prefix}.failcnt"),
    )


def _descendants(layout: Layout, cgroup: str) -> int | None:
    if layout.unified is None:
        return None
    return _numbers(f"{layout.unified}{cgroup}/cgroup.stat").get("nr_descendants")


def _number(path: str) -> int | None:
    text = cgroup_file.read_optional(path)
    return None if text is None else int(text)


def _numbers(path: str) -> dict[str, int]:
    return parse_counters(cgroup_file.read_optional(path) or "")
