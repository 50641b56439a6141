"""Where the control groups of this host are mounted, and which hierarchy holds which controller.

Three layouts occur: everything on cgroup v2, everything on v1, and hybrid, where each controller is on one of the
two. Nothing here assumes one of them: it asks controller by controller.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.errors import MissingToolError
from reconciler.kernel import cgroup_file
from reconciler.kernel.disks import UNKNOWN_DISKS, Disks

INNER = "ve"
"""The child of a VE's cgroup in which its processes are: the root of its cgroup namespace."""

_LEGACY_CONTROLLERS = frozenset(
    {"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb"}
    | {"memory", "misc", "net_cls", "net_prio", "perf_event", "pids", "rdma"}
)
_CORE_OF_V2 = frozenset({"cpuacct", "devices", "freezer"})  # there in every cgroup, without a controller of the name


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """One mounted tree of control groups."""

    directory: str
    unified: bool

    def path(self, cgroup: str) -> str:
        """Give the directory of a cgroup, whose path begins with a slash."""
        return f"{self.directory}{cgroup}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The hierarchies of a host.

    Shape: ``legacy`` maps a v1 controller, or ``name=...``, to its mount point; ``unified`` is the mount point of
    cgroup v2; ``unified_controllers`` are those that v2 offers at its root. ``disks``: those that I/O is limited on.
    """

    unified: str | None
    unified_controllers: frozenset[str]
    legacy: Mapping[str, str]
    disks: Disks = UNKNOWN_DISKS

    @property
    def is_pure_v2(self) -> bool:
        """Tell whether v2 is all there is."""
        return self.unified is not None and not self.legacy

    def of(self, controller: str) -> Hierarchy | None:
        """Find the hierarchy that holds a controller; ``freezer`` and ``cpuacct`` are part of v2 itself."""
        if controller in self.legacy:
            return Hierarchy(directory=self.legacy[controller], unified=False)
        if self.unified is not None and controller in self.unified_controllers | _CORE_OF_V2:
            return Hierarchy(directory=self.unified, unified=True)
        return None

    def hierarchies(self) -> tuple[Hierarchy, ...]:
        """List every hierarchy once, v2 last; controllers may share one."""
        mounts = dict.fromkeys(self.legacy.values())
        legacy = tuple(Hierarchy(directory=directory, unified=False) for directory in mounts)
        return legacy if self.unified is None else (*legacy, Hierarchy(directory=self.unified, unified=True))


def detect() -> Layout:
    """Read the layout of this host, as this process sees it.

    Raises: MissingToolError, if no cgroup file system is mounted; KernelError.
    Source: cgroups(7); proc_pid_mountinfo(5).
    """
    legacy, unified = parse_mounts(cgroup_file.read("/proc/self/mountinfo"))
    if unified is None and not legacy:
        raise MissingToolError("find control groups: no cgroup file system is mounted; mount cgroup2 on /sys/fs/cgroup")
    controllers = frozenset(cgroup_file.read(f"{unified}/cgroup.controllers").split()) if unified else frozenset()
    return Layout(unified=unified, unified_controllers=controllers, legacy=legacy)


def passes_protection_down(mountinfo: str) -> bool:
    """Tell whether what protects a cgroup's memory protects that of its children; so without cgroup v2 as well.

    All mounts of the hierarchy share the option, and whoever mounts it anew without it takes it from all.
    Source: Linux Documentation/admin-guide/cgroup-v2.rst, "memory_recursiveprot".
    """
    found = (line.partition(" - ")[2].split() for line in mountinfo.splitlines())
    options = [after[-1].split(",") for after in found if after[:1] == ["cgroup2"]]
    return all("memory_recursiveprot" in entry for entry in options)


def parse_mounts(mountinfo: str) -> tuple[dict[str, str], str | None]:
    """Find the mount points of the v1 controllers and of v2 in the text of ``/proc/PID/mountinfo``.

    Of several mounts of one hierarchy, one of its root beats one of a part, and one below ``/sys/fs/cgroup`` the rest.
    """
    legacy: dict[str, str] = {}
    unified: str | None = None
    for mount in sorted(_cgroup_mounts(mountinfo), key=_preference):
        if mount.kind == "cgroup2":
            unified = unified or mount.directory
        for controller in mount.controllers:
            legacy.setdefault(controller, mount.directory)
    return legacy, unified


@dataclass(frozen=True, slots=True)
class _Mount:
    root: str
    directory: str
    kind: str
    controllers: tuple[str, ...]


def _cgroup_mounts(mountinfo: str) -> Iterator[_Mount]:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, *source) = before.split(), after.split(maxsplit=2)
        if kind not in ("cgroup", "cgroup2") or len(fields) < 5:
            continue
        options = source[-1].split(",") if kind == "cgroup" and source else []
        controllers = tuple(o for o in options if o in _LEGACY_CONTROLLERS or o.startswith("name="))
        yield _Mount(fields[3], fields[4], kind, controllers)


def _preference(mount: _Mount) -> tuple[bool, bool]:
    return mount.root != "/", not os.path.normpath(mount.directory).startswith("/sys/fs/cgroup")
