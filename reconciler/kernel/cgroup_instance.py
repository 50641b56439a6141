"""The cgroup of an instance, parent of those of its VEs: its weight, the memory kept for all of them, its rivals."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

from reconciler.errors import TerminalError
from reconciler.kernel import cgroup_file, cgroup_v1, cgroup_v2
from reconciler.kernel import cgroup_values as values
from reconciler.kernel.cgroup_layout import Hierarchy, Layout
from reconciler.kernel.syscalls import translated

FRESH: Mapping[str, int] = {"cpu.weight": 100, "memory.guarantee": 0}
"""The limits, by name, with the values of a cgroup in which nothing was written yet."""


def read_limits(layout: Layout, cgroup: str) -> dict[str, int]:
    """Read the limits that this host can enforce; of a cgroup that is not there, those that it would be made with.

    Raises: KernelError.
    """
    return {name: _read(hierarchy, cgroup, name) for name, hierarchy in _hierarchies(layout)}


def _read(hierarchy: Hierarchy, cgroup: str, name: str) -> int:
    files = (cgroup_v2 if hierarchy.unified else cgroup_v1).FILES[name]
    text = cgroup_file.read_optional(f"{hierarchy.path(cgroup)}/{files.names[0]}")
    value = FRESH[name] if text is None else files.decode((text,))
    return value if isinstance(value, int) else values.LARGEST


def write_limit(layout: Layout, cgroup: str, limit: str, value: int) -> None:
    """Write one limit of an instance's cgroup, and make that if it is not there.

    Raises: KernelError; TerminalError, if this host cannot enforce the limit.
    """
    for name, hierarchy in _hierarchies(layout):
        if name == limit:
            version = cgroup_v2 if hierarchy.unified else cgroup_v1
            version.create(hierarchy.directory, cgroup)
            version.write_limit(hierarchy.path(cgroup), limit, value)
            return
    raise TerminalError(f"write {limit} of {cgroup}: this host's cgroups cannot enforce it")


def limit_paths(layout: Layout, cgroup: str) -> Iterator[str]:
    """List the files that hold the limits."""
    for name, hierarchy in _hierarchies(layout):
        files = (cgroup_v2 if hierarchy.unified else cgroup_v1).FILES[name]
        yield f"{hierarchy.path(cgroup)}/{files.names[0]}"


def rivals(layout: Layout, cgroup: str) -> int:
    """Sum up the weights of what else is at the root: on cgroup v2 where processes are in it, on v1 wherever.

    Raises: KernelError.
    """
    hierarchy = layout.of("cpu")
    if hierarchy is None:
        return 0
    weigh: Callable[[str], int] = _weight_v2 if hierarchy.unified else _weight_v1
    with translated("list", hierarchy.directory), os.scandir(hierarchy.directory) as entries:
        others = [e.path for e in entries if e.is_dir(follow_symlinks=False) and f"/{e.name}" != cgroup]
    return sum(weigh(path) for path in others)


def _weight_v1(directory: str) -> int:
    shares = cgroup_file.read_optional(f"{directory}/cpu.shares")
    return 0 if shares is None else values.weight_of_shares(int(shares))


def _weight_v2(directory: str) -> int:
    weight = cgroup_file.read_optional(f"{directory}/cpu.weight")
    events = cgroup_file.read_optional(f"{directory}/cgroup.events") or ""
    return int(weight) if weight is not None and "populated 1" in events else 0


def _hierarchies(layout: Layout) -> Iterator[tuple[str, Hierarchy]]:
    for name in FRESH:
        hierarchy = layout.of(cgroup_v2.FILES[name].controller)
        if hierarchy is not None and name in (cgroup_v2 if hierarchy.unified else cgroup_v1).FILES:
            yield name, hierarchy
