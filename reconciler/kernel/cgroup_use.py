"""What a cgroup uses now."""

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
    cpu_us: int | None = None
    processes: int | None = None


def read_use(layout: Layout, cgroup: str) -> CgroupUse:
    """Read what a cgroup uses now.

    Raises: KernelError, with ENOENT if it is not there.
    """
    return CgroupUse(
        memory=_integer(_text(layout, "memory", cgroup, v1="memory.usage_in_bytes", v2="memory.current")),
        cpu_us=_cpu_us(layout, cgroup),
        processes=_integer(_text(layout, "pids", cgroup, v1="pids.current", v2="pids.current")),
    )


def _cpu_us(layout: Layout, cgroup: str) -> int | None:
    text = _text(layout, "cpuacct", cgroup, v1="cpuacct.usage", v2="cpu.stat")
    if text is None:
        return None
    return values.parse_counters(text)["usage_usec"] if " " in text else int(text) // 1000


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
