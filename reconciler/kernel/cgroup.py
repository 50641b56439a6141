"""The control groups of one VE: made, delegated, limited, observed, emptied and removed.

A VE has one path, ``/<instance>/<uid>``, in every hierarchy. That directory holds the limits and belongs to the
host's root; its child ``ve`` is the root of the VE's cgroup namespace and the only part that may be delegated. So
nothing inside can write the files that bound it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress

from reconciler.errors import BusyError, TerminalError
from reconciler.kernel import cgroup_file, cgroup_limits, cgroup_processes, cgroup_use, cgroup_v1, cgroup_v2
from reconciler.kernel.cgroup_layout import INNER, Layout
from reconciler.kernel.cgroup_use import CgroupUse
from reconciler.kernel.cgroup_values import LimitValue
from reconciler.kernel.syscalls import translated

_DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")
_DELEGATE_LIST = "/sys/kernel/cgroup/delegate"
_PAUSE_S = 0.005
_CPU_LIMIT = "cpu.limit"


class CgroupTree:
    """The cgroup of one VE in all hierarchies. Holds no state: every call looks at the kernel."""

    def __init__(self, layout: Layout, cgroup: str) -> None:
        self.layout = layout
        self.cgroup = _checked(cgroup)
        self.inner = f"{cgroup}/{INNER}"

    def create(self) -> None:
        """Make the cgroup and its inner part in every hierarchy; what is there already stays as it is.

        Raises: KernelError.
        """
        for hierarchy in self.layout.hierarchies():
            version = cgroup_v2 if hierarchy.unified else cgroup_v1
            version.create(hierarchy.directory, self.inner)
        if self.layout.unified is not None:
            cgroup_v2.bound(f"{self.layout.unified}{self.cgroup}")

    def exists(self) -> bool:
        """Tell whether the cgroup and its inner part are there in every hierarchy."""
        return all(os.path.isdir(directory) for directory in self.inner_directories())

    def inner_directories(self) -> tuple[str, ...]:
        """List the directories whose ``cgroup.procs`` a process joins to be inside the VE."""
        return tuple(hierarchy.path(self.inner) for hierarchy in self.layout.hierarchies())

    def delegate(self, *, uid: int, gid: int) -> None:
        """Give the inner part on cgroup v2 to the VE's root; v1 is never delegated, which is not safe there.

        Units: ids of the host.
        Raises: KernelError.
        Source: cgroup-v2.rst, "Delegation"; cgroups(7), "/sys/kernel/cgroup/delegate".
        """
        if self.layout.unified is None:
            return
        directory = f"{self.layout.unified}{self.inner}"
        listed = (cgroup_file.read_optional(_DELEGATE_LIST) or "").split()
        _give(directory, uid, gid)
        for name in sorted({*_DELEGATED, *listed}):
            _give(f"{directory}/{name}", uid, gid)

    def write_limits(self, limits: Mapping[str, LimitValue]) -> None:
        """Write limits; see `cgroup_limits.write_limit` for what may be raised."""
        with self._shown_inside(limits):
            cgroup_limits.write_limits(self.layout, self.cgroup, limits)

    def write_limit(self, limit: str, value: LimitValue) -> None:
        """Write one limit; see `cgroup_limits.write_limit` for what may be raised."""
        with self._shown_inside((limit,)):
            cgroup_limits.write_limit(self.layout, self.cgroup, limit, value)

    @contextmanager
    def _shown_inside(self, limits: Collection[str]) -> Iterator[None]:
        """Let the inner part say the same of CPU time afterwards: lxcfs, and a runtime that counts CPUs inside, look
        there and no further up. On v1 a part may not have more than the whole, not even for a moment.
        """
        if _CPU_LIMIT not in limits:
            yield
            return
        cgroup_limits.write_limit(self.layout, self.inner, _CPU_LIMIT, None)
        try:
            yield
        finally:
            value = (self.read_limits() or {}).get(_CPU_LIMIT)
            if value is not None:
                cgroup_limits.write_limit(self.layout, self.inner, _CPU_LIMIT, value)

    def read_limits(self) -> Mapping[str, LimitValue] | None:
        """Read all limits; None if the cgroup is not there.

        Raises: KernelError.
        """
        return cgroup_limits.read_limits(self.layout, self.cgroup)

    def use(self) -> CgroupUse:
        """Read what the VE uses now.

        Raises: KernelError, with ENOENT if the cgroup is not there.
        """
        return cgroup_use.read_use(self.layout, self.cgroup)

    def watch_paths(self) -> tuple[str, ...]:
        """List the files that inotify should watch for modification: limits and events."""
        paths = set(cgroup_limits.limit_paths(self.layout, self.cgroup))
        for hierarchy in self.layout.hierarchies():
            events = cgroup_v2.EVENT_FILES if hierarchy.unified else cgroup_v1.EVENT_FILES
            paths.update(f"{hierarchy.path(self.cgroup)}/{name}" for name in events)
            if not hierarchy.unified:  # which tells of a refused fork only where it was tried
                paths.update(f"{hierarchy.path(self.inner)}/{name}" for name in events)
        return tuple(sorted(path for path in paths if os.path.exists(path)))

    @property
    def freezer_directory(self) -> str:
        """The directory that `freeze` freezes: what criu must be told as ``--freeze-cgroup``."""
        return cgroup_processes.freezer_directory(self.layout, self.cgroup)

    def freeze(self, *, timeout_s: float = 5.0) -> None:
        """Stop every process until `thaw`.

        Raises: TimeLimitError, and then nothing is frozen; KernelError.
        """
        cgroup_processes.freeze(self.layout, self.cgroup, timeout_s=timeout_s)

    def thaw(self) -> None:
        """Let the processes run again.

        Raises: KernelError.
        """
        cgroup_processes.thaw(self.layout, self.cgroup)

    def standing_still(self) -> AbstractContextManager[None]:
        """Freeze for a block. It is thawed afterwards even if this process is killed in the block.

        Raises: TimeLimitError, and then nothing is frozen; KernelError.
        """
        return cgroup_processes.standing_still(self.layout, self.cgroup)

    def is_frozen(self) -> bool:
        """Tell whether every process stands still.

        Raises: KernelError.
        """
        return cgroup_processes.is_frozen(self.layout, self.cgroup)

    def processes(self) -> frozenset[int]:
        """List the processes of the VE, by their pids on the host.

        Raises: KernelError.
        """
        return cgroup_processes.processes(self.layout, self.cgroup)

    def kill(self, *, timeout_s: float = 10.0) -> None:
        """Kill every process and wait until none is left.

        Raises: TimeLimitError; KernelError.
        """
        cgroup_processes.kill(self.layout, self.cgroup, timeout_s=timeout_s)

    def remove(self, *, timeout_s: float = 5.0) -> None:
        """Remove the cgroup and all below it in every hierarchy; not there is success. Kills nothing.

        Raises: BusyError, if processes are still in it when the time is over; KernelError.
        """
        deadline = time.monotonic() + timeout_s
        for hierarchy in self.layout.hierarchies():
            for directory in reversed(cgroup_file.directories(hierarchy.path(self.cgroup))):
                _remove_by(deadline, directory)


def _remove_by(deadline: float, directory: str) -> None:
    while not cgroup_file.remove_directory(directory):
        if time.monotonic() > deadline:
            raise BusyError(f"remove cgroup {directory}: processes or cgroups are still in it")
        time.sleep(_PAUSE_S)


def _give(path: str, uid: int, gid: int) -> None:
    # A file may be missing: its controller is not enabled here.
    with translated("delegate", path), suppress(FileNotFoundError):
        os.chown(path, uid, gid, follow_symlinks=False)


def _checked(cgroup: str) -> str:
    """Refuse a path that cannot be a VE's: the root, the instance's own, or one that leads up."""
    parts = cgroup.split("/")
    if len(parts) < 3 or parts[0] or any(part in ("", ".", "..") for part in parts[1:]):
        raise TerminalError(f"use cgroup {cgroup!r}: expected a path such as /instance/uid")
    return cgroup
