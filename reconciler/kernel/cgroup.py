"""Control groups of a VE: its limits, its use, and power over its processes.

A VE has one path, ``/<instance>/<uid>``, in every hierarchy. That directory holds the limits and belongs to the
host's root; its child ``ve`` is the root of the VE's cgroup namespace and the only part that may be delegated. So
nothing inside can write the files that bound it.

Limits go by the names of the manifest's fields, in the canonical form of `cgroup_values`. A name is absent from what
is read if this host cannot enforce it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.errors import KernelError, TerminalError
from reconciler.kernel import cgroup_file, cgroup_v1, cgroup_v2
from reconciler.kernel import cgroup_values as values
from reconciler.kernel.cgroup_layout import Hierarchy, Layout, detect
from reconciler.kernel.cgroup_values import LimitFiles, LimitValue, NoMeaningError

__all__ = [
    "INNER",
    "LIMITS",
    "CgroupEvents",
    "CgroupUse",
    "Hierarchy",
    "Layout",
    "LimitReader",
    "LimitValue",
    "create",
    "delegate",
    "detect",
    "enforceable",
    "exists",
    "inner",
    "inner_directories",
    "read_events",
    "read_limits",
    "read_use",
    "stored_value",
    "watch_paths",
    "write_limit",
    "write_limits",
]

INNER = "ve"
LIMITS = tuple(cgroup_v2.FILES)

_DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")
_DELEGATE_LIST = "/sys/kernel/cgroup/delegate"


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


def inner(cgroup: str) -> str:
    """Give the path of the part that holds the processes and may be delegated."""
    return f"{cgroup}/{INNER}"


def create(layout: Layout, cgroup: str) -> None:
    """Make a cgroup and its inner part in every hierarchy; what is there already stays as it is.

    Raises: KernelError.
    """
    for hierarchy in layout.hierarchies():
        version = cgroup_v2 if hierarchy.unified else cgroup_v1
        version.create(hierarchy.directory, inner(_checked(cgroup)))


def exists(layout: Layout, cgroup: str) -> bool:
    """Tell whether the cgroup and its inner part are there in every hierarchy."""
    return all(os.path.isdir(directory) for directory in inner_directories(layout, cgroup))


def inner_directories(layout: Layout, cgroup: str) -> tuple[str, ...]:
    """List the directories whose ``cgroup.procs`` a process joins to be inside the VE."""
    return tuple(hierarchy.path(inner(_checked(cgroup))) for hierarchy in layout.hierarchies())


def delegate(layout: Layout, cgroup: str, *, uid: int, gid: int) -> None:
    """Give the inner part on cgroup v2 to the VE's root; v1 is never delegated, which is not safe there.

    Units: ids of the host.
    Raises: KernelError.
    Source: cgroup-v2.rst, "Delegation"; cgroups(7), "/sys/kernel/cgroup/delegate".
    """
    if layout.unified is None:
        return
    directory = f"{layout.unified}{inner(_checked(cgroup))}"
    listed = (cgroup_file.read_optional(_DELEGATE_LIST) or "").split()
    for path in (directory, *(f"{directory}/{name}" for name in sorted({*_DELEGATED, *listed}))):
        try:
            os.chown(path, uid, gid, follow_symlinks=False)
        except FileNotFoundError:
            continue  # a file of a controller that is not enabled here
        except OSError as err:
            raise cgroup_file.failure("delegate", path, err) from err


def enforceable(layout: Layout) -> frozenset[str]:
    """List the limits that this host's kernel enforces; v1 knows no barrier and no guarantee of memory."""
    names = {name for name, _, _ in _limit_files(layout)}
    if not _accounts_swap(layout):
        names.discard("memory.swap")
    return frozenset(names)


def _accounts_swap(layout: Layout) -> bool:
    memory = layout.of("memory")
    if memory is None or not memory.unified:
        return memory is not None and os.path.exists(memory.path("/memory.memsw.limit_in_bytes"))
    # The root has no limit files: ask any child that has memory's.
    children = (entry.path for entry in os.scandir(memory.directory) if entry.is_dir())
    limited = [child for child in children if os.path.exists(f"{child}/memory.max")]
    return not limited or os.path.exists(f"{limited[0]}/memory.swap.max")


def write_limit(layout: Layout, cgroup: str, limit: str, value: LimitValue) -> None:
    """Write one limit of an existing cgroup. A lower limit of memory reclaims first, and never opens a gap.

    Raises: KernelError; with EBUSY if more is in use than can be reclaimed, and the old limit stays.
    TerminalError: if this host cannot enforce the limit.
    """
    hierarchy = _hierarchy(layout, limit)
    version = cgroup_v2 if hierarchy.unified else cgroup_v1
    version.write_limit(hierarchy.path(_checked(cgroup)), limit, value)


def write_limits(layout: Layout, cgroup: str, limits: Mapping[str, LimitValue]) -> None:
    """Write several limits; on v1, memory and swap together, as they depend on each other.

    Raises: as `write_limit`.
    """
    rest = dict(limits)
    memory = layout.of("memory")
    if memory is not None and not memory.unified and {"memory.limit", "memory.swap"} <= limits.keys():
        pair = {name: rest.pop(name) for name in ("memory.limit", "memory.swap")}
        numbers = {name: value for name, value in pair.items() if not isinstance(value, frozenset)}
        cgroup_v1.write_memory(memory.path(_checked(cgroup)), numbers)
    for limit, value in rest.items():
        write_limit(layout, cgroup, limit, value)


def stored_value(layout: Layout, limit: str, value: LimitValue) -> LimitValue:
    """Give the value that is read back after this one was written: whole pages; on v1, None for all CPUs there are."""
    if isinstance(value, int) and limit.startswith("memory."):
        return values.whole_pages(value)
    hierarchy = layout.of("cpuset")
    if isinstance(value, frozenset) and hierarchy is not None and not hierarchy.unified:
        file = cgroup_v1.FILES[limit].names[0]
        everything = values.parse_list(cgroup_file.read(f"{hierarchy.directory}/{file}"))
        return None if value == everything else value
    return value


def read_limits(layout: Layout, cgroup: str) -> dict[str, LimitValue] | None:
    """Read all limits once; None if the cgroup is not there. For many reads, keep a `LimitReader`.

    Raises: KernelError.
    """
    reader = LimitReader(layout, keep=0)
    return reader.read(cgroup)


def watch_paths(layout: Layout, cgroup: str) -> tuple[str, ...]:
    """List the files of a cgroup that inotify should watch for modification: limits and events."""
    files = {
        os.path.join(hierarchy.path(cgroup), name)
        for _, hierarchy, limit in _limit_files(layout)
        for name in limit.names
        if not name.startswith("../")
    }
    for hierarchy in layout.hierarchies():
        events = cgroup_v2.EVENT_FILES if hierarchy.unified else cgroup_v1.EVENT_FILES
        files.update(hierarchy.path(f"{cgroup}/{name}") for name in events)
    return tuple(sorted(path for path in files if os.path.exists(path)))


def read_use(layout: Layout, cgroup: str) -> CgroupUse:
    """Read what a VE uses now.

    Raises: KernelError.
    """
    memory, swap, peak = _memory_use(layout, cgroup)
    cpu = _file(layout, "cpuacct", cgroup, v1="cpuacct.usage", v2="cpu.stat")
    pids = _file(layout, "pids", cgroup, v1="pids.current", v2="pids.current")
    return CgroupUse(
        memory=memory,
        memory_peak=peak,
        swap=swap,
        cpu_us=None if cpu is None else _cpu_us(cpu),
        processes=_integer(pids),
    )


def _memory_use(layout: Layout, cgroup: str) -> tuple[int | None, int | None, int | None]:
    memory = _integer(_file(layout, "memory", cgroup, v1="memory.usage_in_bytes", v2="memory.current"))
    peak = _integer(_file(layout, "memory", cgroup, v1="memory.max_usage_in_bytes", v2="memory.peak"))
    swap = _integer(_file(layout, "memory", cgroup, v1="memory.memsw.usage_in_bytes", v2="memory.swap.current"))
    hierarchy = layout.of("memory")
    if hierarchy is not None and not hierarchy.unified and swap is not None and memory is not None:
        swap = max(0, swap - memory)  # v1 counts the sum; the two are read one after the other
    return memory, swap, peak


def _cpu_us(text: str) -> int:
    return values.parse_counters(text)["usage_usec"] if " " in text else int(text) // 1000


def read_events(layout: Layout, cgroup: str) -> CgroupEvents:
    """Read how often the VE met its limits.

    v1, and v2 before Linux 6.12 for forks, count in the cgroup of the process that met the limit of its parent: so
    the inner part is read as well.
    Raises: KernelError.
    """
    memory = layout.of("memory")
    forks = [_counters(layout, "pids", path, v1="pids.events", v2="pids.events") for path in (cgroup, inner(cgroup))]
    if memory is not None and memory.unified:
        counters = _counters(layout, "memory", cgroup, v1="", v2="memory.events")
        oom_kills, failures = counters.get("oom_kill"), counters.get("max")
    else:
        killed = [_counters(layout, "memory", p, v1="memory.oom_control", v2="") for p in (cgroup, inner(cgroup))]
        oom_kills = _total("oom_kill", killed)
        failures = _integer(_file(layout, "memory", cgroup, v1="memory.failcnt", v2=""))
    return CgroupEvents(oom_kills=oom_kills, memory_failures=failures, fork_failures=_total("max", forks))


def _counters(layout: Layout, controller: str, cgroup: str, *, v1: str, v2: str) -> dict[str, int]:
    text = _file(layout, controller, cgroup, v1=v1, v2=v2)
    return {} if text is None else values.parse_counters(text)


def _total(name: str, counters: list[dict[str, int]]) -> int | None:
    found = [counter[name] for counter in counters if name in counter]
    return sum(found) if found else None


def _file(layout: Layout, controller: str, cgroup: str, *, v1: str, v2: str) -> str | None:
    """Read the file of whichever version holds the controller; None if that version has no such file."""
    hierarchy = layout.of(controller)
    if hierarchy is None:
        return None
    directory = hierarchy.path(_checked(cgroup))
    text = cgroup_file.read_optional(f"{directory}/{v2 if hierarchy.unified else v1}")
    if text is None and not os.path.isdir(directory):
        raise KernelError(f"read {directory}: no such cgroup", errno=errno.ENOENT)
    return text


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)


class LimitReader:
    """Reads the limits of many VEs over and over, on descriptors that stay open.

    A kept descriptor costs one pread(2) for each file. Removal of a cgroup is noticed by ENODEV, also if one of the
    same path was made again since. ``keep`` bounds how many VEs keep descriptors; further ones, and all of them once
    the process has no descriptor left, are opened for each read.
    """

    def __init__(self, layout: Layout, *, keep: int = 256) -> None:
        self._limits = list(_limit_files(layout))
        self._keep = keep
        self._kept: dict[str, dict[str, int]] = {}

    def read(self, cgroup: str) -> dict[str, LimitValue] | None:
        """Read the limits of one VE; None if it has no cgroup.

        Raises: KernelError.
        """
        files = self._kept.get(cgroup)
        texts = None if files is None else self._read_kept(cgroup, files)
        if texts is None:
            texts = self._read_new(cgroup)
        return None if texts is None else self._decode(cgroup, texts)

    def forget(self, cgroup: str) -> None:
        """Close what is kept of one VE."""
        for descriptor in self._kept.pop(cgroup, {}).values():
            os.close(descriptor)

    def close(self) -> None:
        """Close all that is kept."""
        for cgroup in list(self._kept):
            self.forget(cgroup)

    def _read_kept(self, cgroup: str, files: dict[str, int]) -> dict[str, str] | None:
        try:
            return {path: os.pread(descriptor, 4096, 0).decode() for path, descriptor in files.items()}
        except OSError as err:
            self.forget(cgroup)
            if err.errno == errno.ENODEV:
                return None
            raise cgroup_file.failure("read limits of", cgroup, err) from err

    def _read_new(self, cgroup: str) -> dict[str, str] | None:
        files = self._open(cgroup)
        if not files:
            return None
        self._kept[cgroup] = files
        texts = self._read_kept(cgroup, files)
        if len(self._kept) > self._keep:
            self.forget(cgroup)
        return texts

    def _open(self, cgroup: str) -> dict[str, int]:
        files: dict[str, int] = {}
        try:
            for path in self._paths(cgroup):
                files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as err:
            for descriptor in files.values():
                os.close(descriptor)
            if err.errno in (errno.ENOENT, errno.ENODEV):
                return {}
            if err.errno == errno.EMFILE and self._kept:
                self.close()
                self._keep = 0
                return self._open(cgroup)
            raise cgroup_file.failure("read limits of", cgroup, err) from err
        return files

    def _paths(self, cgroup: str) -> Iterator[str]:
        for name, hierarchy, limit in self._limits:
            for file in limit.names:
                path = os.path.join(hierarchy.path(cgroup), file)
                if name != "memory.swap" or os.path.exists(path):
                    yield path

    def _decode(self, cgroup: str, texts: dict[str, str]) -> dict[str, LimitValue]:
        found: dict[str, LimitValue] = {}
        for name, hierarchy, limit in self._limits:
            directory = hierarchy.path(cgroup)
            parts = tuple(texts[path] for file in limit.names if (path := f"{directory}/{file}") in texts)
            if len(parts) == len(limit.names):
                try:
                    found[name] = limit.decode(parts)
                except NoMeaningError:
                    continue
        return found


def _limit_files(layout: Layout) -> Iterator[tuple[str, Hierarchy, LimitFiles]]:
    for name, on_v2 in cgroup_v2.FILES.items():
        hierarchy = layout.of(on_v2.controller)
        files = None if hierarchy is None else (cgroup_v2 if hierarchy.unified else cgroup_v1).FILES.get(name)
        if hierarchy is not None and files is not None:
            yield name, hierarchy, files


def _hierarchy(layout: Layout, limit: str) -> Hierarchy:
    for name, hierarchy, _ in _limit_files(layout):
        if name == limit:
            return hierarchy
    raise TerminalError(f"write {limit}: this host's cgroups cannot enforce it")


def _checked(cgroup: str) -> str:
    """Refuse a path that is not one of ours: never the root, never up."""
    if not cgroup.startswith("/") or any(part in ("", ".", "..") for part in cgroup[1:].split("/")):
        raise TerminalError(f"use cgroup {cgroup!r}: expected a path such as /instance/uid")
    return cgroup
