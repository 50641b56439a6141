"""Limits of I/O: on the disks of the layout, each of which holds them for itself.

cgroup v1 throttles the processes of one cgroup and not those of the cgroups below, so there the limits are written
where the processes are; what the kernel writes back later is nobody's there. cgroup v2 attributes that too.
Source: Linux Documentation/admin-guide/cgroup-v2.rst, "IO"; cgroup-v1/blkio-controller.rst; block/bfq-iosched.rst.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from functools import partial

from reconciler.errors import KernelError
from reconciler.kernel import cgroup_file
from reconciler.kernel import cgroup_values as values
from reconciler.kernel.cgroup_layout import INNER, Hierarchy, Layout
from reconciler.kernel.cgroup_values import LimitFiles, LimitValue
from reconciler.kernel.disks import Sharing

WEIGHT = "io.weight"
_KEYS = {"io.read": "rbps", "io.write": "wbps", "io.readOps": "riops", "io.writeOps": "wiops"}
_V1_NAMES = {
    limit: f"{INNER}/blkio.throttle.{name}_device"
    for limit, name in (
        ("io.read", "read_bps"),
        ("io.write", "write_bps"),
        ("io.readOps", "read_iops"),
        ("io.writeOps", "write_iops"),
    )
}
LIMITS = (WEIGHT, *_KEYS)

DIFFERING = 0
"""What is read of a limit that the disks do not have alike: no limit can be this."""


def hierarchy(layout: Layout) -> Hierarchy | None:
    """Find the hierarchy that holds the limits of I/O."""
    return layout.of("io") or layout.of("blkio")


def files(layout: Layout) -> Iterator[tuple[str, Hierarchy, LimitFiles]]:
    """List the limits that this host can hold, and their files; none before the disks are known."""
    held_by = hierarchy(layout)
    if held_by is None or not layout.disks.numbers:
        return
    if (weight := _weight_name(held_by, layout.disks.sharing)) is not None:
        yield WEIGHT, held_by, LimitFiles("io", (weight,), partial(_decode_weight, layout.disks.numbers))
    for limit, key in _KEYS.items():
        if held_by.unified:
            yield limit, held_by, LimitFiles("io", ("io.max",), partial(_decode_max, layout.disks.numbers, key))
        else:
            name = _V1_NAMES[limit]
            yield limit, held_by, LimitFiles("blkio", (name,), partial(_decode_v1, layout.disks.numbers))


def _weight_name(held_by: Hierarchy, sharing: Sharing | None) -> str | None:
    match sharing:
        case Sharing.BFQ:
            return "io.bfq.weight" if held_by.unified else "blkio.bfq.weight"
        case Sharing.IOCOST:
            return "io.weight"
        case None:
            return None


def _decode_weight(disks: tuple[str, ...], texts: tuple[str, ...]) -> LimitValue:
    """Parse a weight. Shape: a number, or lines of ``default <n>`` and ``<disk> <n>``."""
    lines = [line.split() for line in texts[0].splitlines()]
    default = next((words[-1] for words in lines if len(words) == 1 or words[0] == "default"), "")
    own = {words[0]: words[1] for words in lines if len(words) == 2}
    return _alike([values.parse_number(own.get(disk, default)) for disk in disks])


def _decode_max(disks: tuple[str, ...], key: str, texts: tuple[str, ...]) -> LimitValue:
    """Parse io.max. Shape: lines of ``<disk> rbps=<n|max> wbps=... riops=... wiops=...``."""
    if not texts[0]:
        return None
    lines = {words[0]: dict(word.split("=", 1) for word in words[1:]) for words in map(str.split, _lines(texts[0]))}
    return _alike([values.parse_number(lines.get(disk, {}).get(key, "max")) for disk in disks])


def _decode_v1(disks: tuple[str, ...], texts: tuple[str, ...]) -> LimitValue:
    """Parse a throttle file of v1. Shape: lines of ``<disk> <n>``, none for a disk without a limit."""
    if not texts[0]:
        return None
    lines: Mapping[str, str] = {words[0]: words[1] for words in map(str.split, _lines(texts[0])) if len(words) == 2}
    return _alike([values.parse_number(lines.get(disk, "max")) for disk in disks])


def _lines(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line.strip())


def _alike(found: list[int | None]) -> LimitValue:
    return found[0] if len(set(found)) == 1 else DIFFERING


def write_limit(layout: Layout, cgroup: str, limit: str, value: LimitValue) -> None:
    """Write one limit for every disk.

    Raises: KernelError.
    """
    held_by = hierarchy(layout)
    assert held_by is not None, "only limits that `files` lists are written"
    assert not isinstance(value, frozenset), f"{limit} is a number"
    directory, disks = held_by.path(cgroup), layout.disks.numbers
    if value is not None and value < 1:
        raise KernelError(f"write {limit} of {directory}: expected at least 1, got {value}", errno=errno.EINVAL)
    if limit == WEIGHT:
        name = _weight_name(held_by, layout.disks.sharing)
        _write_weight(f"{directory}/{name}", value, disks)
    for disk in disks if limit in _KEYS else ():
        if held_by.unified:
            cgroup_file.write(f"{directory}/io.max", f"{disk} {_KEYS[limit]}={values.format_number(value)}")
        else:
            cgroup_file.write(f"{directory}/{_V1_NAMES[limit]}", f"{disk} {value or 0}")


def _write_weight(path: str, weight: int | None, disks: tuple[str, ...]) -> None:
    """Set the weight, and drop what overrides it on our disks."""
    if weight is None:
        raise KernelError(f"write io.weight to {path}: expected a number", errno=errno.EINVAL)
    cgroup_file.write(path, str(weight))
    overridden = {line.split()[0] for line in cgroup_file.read(path).splitlines() if ":" in line}
    for disk in sorted(overridden.intersection(disks)):
        cgroup_file.write(path, f"{disk} default")
