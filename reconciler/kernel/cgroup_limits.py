"""The limits of a cgroup by name, whichever version holds each: writing, and reading over and over.

Names are the manifest's field paths (`cgroup_v2.FILES`, `cgroup_io.LIMITS`), values the canonical form of
`cgroup_values`. A name is absent from what is read if this host cannot enforce it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from reconciler.errors import TerminalError
from reconciler.kernel import cgroup_file, cgroup_io, cgroup_v1, cgroup_v2
from reconciler.kernel import cgroup_values as values
from reconciler.kernel.cgroup_layout import Hierarchy, Layout
from reconciler.kernel.cgroup_values import LimitFiles, LimitValue, NoMeaningError
from reconciler.kernel.syscalls import kernel_error

_Name = TypeVar("_Name", bound=str)

_MOST_BYTES = 4096  # a page: what the kernel prints into a limit file fits


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
    # The root of v2 has no limit files: ask a child that has memory's.
    children = (entry.path for entry in os.scandir(memory.directory) if entry.is_dir(follow_symlinks=False))
    limited = [child for child in children if os.path.exists(f"{child}/memory.max")]
    return not limited or os.path.exists(f"{limited[0]}/memory.swap.max")


def write_limit(layout: Layout, cgroup: str, limit: str, value: LimitValue) -> None:
    """Write one limit of an existing cgroup. A lower limit of memory reclaims first, and never opens a gap.

    Raises: InUseError, if more is in use than can be reclaimed; KernelError; TerminalError, if this host cannot enforce
    the limit.
    """
    hierarchy = _hierarchy(layout, limit)
    if limit in cgroup_io.LIMITS:
        cgroup_io.write_limit(layout, cgroup, limit, value)
        return
    version = cgroup_v2 if hierarchy.unified else cgroup_v1
    version.write_limit(hierarchy.path(cgroup), limit, value)


def write_limits(layout: Layout, cgroup: str, limits: Mapping[str, LimitValue]) -> None:
    """Write several limits; on v1, memory and swap in one go, as they depend on each other.

    Raises: as `write_limit`.
    """
    rest = dict(limits)
    memory = layout.of("memory")
    if memory is not None and not memory.unified and {"memory.limit", "memory.swap"} <= rest.keys():
        pair = ((name, rest.pop(name)) for name in ("memory.limit", "memory.swap"))
        numbers = {name: value for name, value in pair if not isinstance(value, frozenset)}
        cgroup_v1.write_memory(memory.path(cgroup), numbers)
    for limit, value in rest.items():
        write_limit(layout, cgroup, limit, value)


def stored_value(layout: Layout, limit: str, value: LimitValue) -> LimitValue:
    """Give the value that is read back after this one was written: whole pages, and None for all CPUs there are.

    Raises: KernelError.
    """
    if isinstance(value, int) and limit.startswith("memory."):
        return values.whole_pages(value)
    if isinstance(value, frozenset):
        return None if value == all_members(layout, limit) else value
    return value


def all_members(layout: Layout, limit: str) -> frozenset[int]:
    """List the CPUs or the memory nodes that this host has to share out.

    Raises: KernelError; TerminalError, if this host cannot enforce the limit.
    """
    hierarchy = _hierarchy(layout, limit)
    name = cgroup_v1.FILES[limit].names[0]
    return values.parse_list(
        cgroup_file.read(hierarchy.path(f"/{name}.effective" if hierarchy.unified else f"/{name}"))
    )


def limit_paths(layout: Layout, cgroup: str) -> Iterator[str]:
    """List the files that hold the limits of a cgroup."""
    for _, hierarchy, limit in _limit_files(layout):
        for name in limit.names:
            if not name.startswith("../"):
                yield f"{hierarchy.path(cgroup)}/{name}"


@dataclass(eq=False, slots=True)
class _Kept(Generic[_Name]):
    """The open files of one cgroup, and what they held when they were read last."""

    descriptors: dict[str, int]
    texts: list[bytes]
    limits: Mapping[_Name, LimitValue]

    def read(self) -> list[bytes]:
        return [os.pread(descriptor, _MOST_BYTES, 0) for descriptor in self.descriptors.values()]

    def close(self) -> None:
        for descriptor in self.descriptors.values():
            os.close(descriptor)


class LimitReader(Generic[_Name]):
    """Reads the limits of many VEs over and over, on descriptors that stay open.

    A kept descriptor costs one pread(2) for each file, and text is parsed only where it changed. Removal of a cgroup
    is noticed by ENODEV, also if one of the same path was made again since. ``name``: what a limit is called in what
    is read. ``keep`` bounds how many VEs keep descriptors; further ones, and all of them once the process has no
    descriptor left, are opened for each read.
    """

    def __init__(self, layout: Layout, *, name: Callable[[str], _Name], keep: int = 256) -> None:
        self._limits = tuple((name(limit), hierarchy, files) for limit, hierarchy, files in _limit_files(layout))
        self._keep = keep
        self._kept: dict[str, _Kept[_Name]] = {}

    def read(self, cgroup: str) -> Mapping[_Name, LimitValue] | None:
        """Read the limits of one cgroup; None if it is missing in a hierarchy that holds one of them.

        As long as nothing changed it is the very mapping of the last read.

        Raises: KernelError.
        """
        kept = self._kept.get(cgroup)
        if kept is not None and self._refresh(cgroup, kept):
            return kept.limits
        fresh = self._open(cgroup)
        if fresh is None:
            return None
        self._kept[cgroup] = fresh
        read = self._refresh(cgroup, fresh)
        if len(self._kept) > self._keep:
            self.forget(cgroup)
        return fresh.limits if read else None

    def forget(self, cgroup: str) -> None:
        """Close what is kept of one cgroup."""
        kept = self._kept.pop(cgroup, None)
        if kept is not None:
            kept.close()

    def close(self) -> None:
        """Close all that is kept."""
        while self._kept:
            self._kept.popitem()[1].close()

    def _refresh(self, cgroup: str, kept: _Kept[_Name]) -> bool:
        """Read the open files again; False, and nothing kept, if the cgroup was removed."""
        try:
            texts = kept.read()
        except OSError as err:
            self.forget(cgroup)
            if err.errno == errno.ENODEV:
                return False
            raise kernel_error("read limits of", cgroup, err.errno or 0) from err
        if texts != kept.texts:
            kept.limits = self._decode(cgroup, dict(zip(kept.descriptors, (text.decode() for text in texts))))
            kept.texts = texts
        return True

    def _open(self, cgroup: str) -> _Kept[_Name] | None:
        kept = _Kept[_Name]({}, [], {})
        try:
            for _, hierarchy, limit in self._limits:
                directory = hierarchy.path(cgroup)
                for path in (f"{directory}/{name}" for name in limit.names):
                    if path not in kept.descriptors and (descriptor := _open_optional(path)) is not None:
                        kept.descriptors[path] = descriptor
        except _AbsentError:
            kept.close()
            return None
        except OSError as err:
            kept.close()
            if err.errno == errno.EMFILE and self._kept:
                self.close()
                self._keep = 0
                return self._open(cgroup)
            raise kernel_error("read limits of", cgroup, err.errno or 0) from err
        return kept

    def _decode(self, cgroup: str, texts: dict[str, str]) -> Mapping[_Name, LimitValue]:
        found: dict[_Name, LimitValue] = {}
        for name, hierarchy, limit in self._limits:
            directory = hierarchy.path(cgroup)
            parts = tuple(texts[path] for file in limit.names if (path := f"{directory}/{file}") in texts)
            if len(parts) == len(limit.names):
                try:
                    found[name] = limit.decode(parts)
                except NoMeaningError:
                    continue
        return found


class _AbsentError(Exception):
    """The directory of a file is missing, not only a file that this kernel does not have."""


def _open_optional(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        if err.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        if not os.path.isdir(os.path.dirname(path)):  # a cgroup that is half made has no inner one yet
            raise _AbsentError from err
        return None


def read_limits(layout: Layout, cgroup: str) -> Mapping[str, LimitValue] | None:
    """Read all limits once; None if the cgroup is not there. For many reads, keep a `LimitReader`.

    Raises: KernelError.
    """
    return LimitReader(layout, name=str, keep=0).read(cgroup)


def _limit_files(layout: Layout) -> Iterator[tuple[str, Hierarchy, LimitFiles]]:
    for name, on_v2 in cgroup_v2.FILES.items():
        hierarchy = layout.of(on_v2.controller)
        files = None if hierarchy is None else (cgroup_v2 if hierarchy.unified else cgroup_v1).FILES.get(name)
        if hierarchy is not None and files is not None:
            yield name, hierarchy, files
    yield from cgroup_io.files(layout)


def _hierarchy(layout: Layout, limit: str) -> Hierarchy:
    for name, hierarchy, _ in _limit_files(layout):
        if name == limit:
            return hierarchy
    raise TerminalError(f"write {limit}: this host's cgroups cannot enforce it")
