"""What a cgroup uses now, and how often it met its limits."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from reconciler.errors import KernelError
from reconciler.kernel import cgroup_file
from reconciler.kernel import cgroup_values as values
from reconciler.kernel.cgroup_layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupUse:
    """What a cgroup and all below it use. None: this host does not count it.

    Units: bytes; microseconds of CPU since the cgroup was made; tasks.
    """

    memory: int | None = None
    memory_peak: int | None = None
    swap: int | None = None
    cpu_us: int | None = None
    processes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupEvents:
    """How often a limit was met since the cgroup was made. None: this host does not count it."""

    oom_kills: int | None = None
    memory_failures: int | None = None
    fork_failures: int | None = None


def read_use(layout: Layout, cgroup: str) -> CgroupUse:
    """Read what a cgroup uses now.

    Raises: KernelError, with ENOENT if it is not there.
    """
    memory, swap = _memory_and_swap(layout, cgroup)
    return CgroupUse(
        memory=memory,
        memory_peak=_integer(_text(layout, "memory", cgroup, v1="memory.max_usage_in_bytes", v2="memory.peak")),
        swap=swap,
        cpu_us=_cpu_us(layout, cgroup),
        processes=_integer(_text(layout, "pids", cgroup, v1="pids.current", v2="pids.current")),
    )


def _memory_and_swap(layout: Layout, cgroup: str) -> tuple[int | None, int | None]:
    memory = _integer(_text(layout, "memory", cgroup, v1="memory.usage_in_bytes", v2="memory.current"))
    swap = _integer(_text(layout, "memory", cgroup, v1="memory.memsw.usage_in_bytes", v2="memory.swap.current"))
    hierarchy = layout.of("memory")
    if hierarchy is not None and not hierarchy.unified and swap is not None and memory is not None:
        swap = max(0, swap - memory)  # v1 counts the sum, and the two are read one after the other
    return memory, swap


def _cpu_us(layout: Layout, cgroup: str) -> int | None:
    text = _text(layout, "cpuacct", cgroup, v1="cpuacct.usage", v2="cpu.stat")
    if text is None:
        return None
    return values.parse_counters(text)["usage_usec"] if " " in text else int(text) // 1000


def read_events(layout: Layout, cgroup: str, inner: str) -> CgroupEvents:
    """Read how often a cgroup met its limits.

    v1, and v2 before Linux 6.12 for forks, count in the cgroup of the process that met the limit of its parent: so
    the inner one is read as well.
    Raises: KernelError, with ENOENT if one is not there.
    """
    forks = [_counters(layout, "pids", path, v1="pids.events", v2="pids.events") for path in (cgroup, inner)]
    oom_kills, failures = _memory_events(layout, cgroup, inner)
    return CgroupEvents(oom_kills=oom_kills, memory_failures=failures, fork_failures=_total("max", forks))


def _memory_events(layout: Layout, cgroup: str, inner: str) -> tuple[int | None, int | None]:
    memory = layout.of("memory")
    if memory is not None and memory.unified:
        counters = _counters(layout, "memory", cgroup, v1="", v2="memory.events")
        return counters.get("oom_kill"), counters.get("max")
    killed = [_counters(layout, "memory", path, v1="memory.oom_control", v2="") for path in (cgroup, inner)]
    return _total("oom_kill", killed), _integer(_text(layout, "memory", cgroup, v1="memory.failcnt", v2=""))


def _counters(layout: Layout, controller: str, cgroup: str, *, v1: str, v2: str) -> dict[str, int]:
    text = _text(layout, controller, cgroup, v1=v1, v2=v2)
    return {} if text is None else values.parse_counters(text)


def _total(name: str, counters: list[dict[str, int]]) -> int | None:
    found = [counter[name] for counter in counters if name in counter]
    return sum(found) if found else None


def _text(layout: Layout, controller: str, cgroup: str, *, v1: str, v2: str) -> str | None:
    """Read the file of whichever version holds the controller; None if that has no such file."""
    hierarchy = layout.of(controller)
    if hierarchy is None:
        return None
    directory = hierarchy.path(cgroup)
    text = cgroup_file.read_optional(f"{directory}/{v2 if hierarchy.unified else v1}")
    if text is None and not os.path.isdir(directory):
        raise KernelError(f"read {directory}: no such cgroup", errno=errno.ENOENT)
    return text


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)
