"""Limits on cgroup v1: which file holds which, and the orders of writing that the kernel insists on.

Source: Linux Documentation/admin-guide/cgroup-v1/memory.rst, cpusets.rst, pids.rst; scheduler/sched-bwc.rst.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from reconciler.errors import KernelError
from reconciler.kernel import cgroup_file
from reconciler.kernel import cgroup_values as values
from reconciler.kernel.cgroup_values import LimitFiles, LimitValue, NoMeaningError
from reconciler.kernel.syscalls import translated

_LOWER_TRIES = 5
_CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")


def _number(texts: tuple[str, ...]) -> LimitValue:
    return values.parse_number(texts[0])


def _weight(texts: tuple[str, ...]) -> LimitValue:
    shares = values.parse_number(texts[0])
    return None if shares is None else values.weight_of_shares(shares)


def _cpu_limit(texts: tuple[str, ...]) -> LimitValue:
    return values.parse_quota(texts[0], texts[1])


def _swap(texts: tuple[str, ...]) -> LimitValue:
    together, memory = values.parse_number(texts[0]), values.parse_number(texts[1])
    if memory is None:
        raise NoMeaningError
    return None if together is None else together - memory


def _members(texts: tuple[str, ...]) -> LimitValue:
    own, parents = values.parse_list(texts[0]), values.parse_list(texts[1])
    return None if own == parents else own


FILES: Mapping[str, LimitFiles] = {
    "cpu.weight": LimitFiles("cpu", ("cpu.shares",), _weight),
    "cpu.limit": LimitFiles("cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us"), _cpu_limit),
    "cpu.cpus": LimitFiles("cpuset", ("cpuset.cpus", "../cpuset.cpus"), _members),
    "cpu.nodes": LimitFiles("cpuset", ("cpuset.mems", "../cpuset.mems"), _members),
    "memory.limit": LimitFiles("memory", ("memory.limit_in_bytes",), _number),
    "memory.swap": LimitFiles("memory", ("memory.memsw.limit_in_bytes", "memory.limit_in_bytes"), _swap),
    "processes": LimitFiles("pids", ("pids.max",), _number),
}

EVENT_FILES = ("pids.events",)
"""Files whose change inotify reports. Of memory v1 tells by eventfd only: `watch_oom`."""


def watch_oom(directory: str) -> int:
    """Open an eventfd that is written to when a cgroup is out of memory, just before something is killed for it.

    It is written to once more when the cgroup is removed.
    Raises: KernelError.
    Source: Linux Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control".
    """
    path = f"{directory}/memory.oom_control"
    with translated("watch", path):
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            control = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                cgroup_file.write(f"{directory}/cgroup.event_control", f"{event} {control}")
            finally:
                os.close(control)
        except (OSError, KernelError):
            os.close(event)
            raise
    return event


def create(mount: str, cgroup: str) -> None:
    """Make a cgroup and fill the CPU sets on the way to it: an empty one admits no process.

    Raises: KernelError.
    """
    parent = mount
    inherited = [file for file in _CPUSET_FILES if os.path.exists(f"{mount}/{file}")]
    for name in cgroup.strip("/").split("/"):
        directory = f"{parent}/{name}"
        cgroup_file.make_directory(directory)
        for file in inherited:
            _inherit_members(f"{parent}/{file}", f"{directory}/{file}")
        parent = directory


def _inherit_members(source: str, target: str) -> None:
    members = cgroup_file.read_optional(target)
    if members is not None and not members.strip():
        cgroup_file.write(target, cgroup_file.read(source).strip())


def write_limit(directory: str, limit: str, value: LimitValue) -> None:
    """Write one limit.

    Raises: InUseError, if memory in use cannot be reclaimed down to a lower limit; KernelError; with EINVAL for a limit
    of swap while memory is unlimited, as v1 limits only the sum of both.
    """
    match limit, value:
        case (("memory.limit" | "memory.swap"), int() | None):
            write_memory(directory, {limit: value})
        case "cpu.weight", int():
            cgroup_file.write(f"{directory}/cpu.shares", str(values.shares_of_weight(value)))
        case "cpu.limit", int() | None:
            _write_cpu_limit(directory, value)
        case (("cpu.cpus" | "cpu.nodes"), frozenset() | None):
            _write_members(directory, FILES[limit].names[0], value)
        case "processes", int() | None:
            cgroup_file.write(f"{directory}/pids.max", values.format_number(value))
        case _:
            raise AssertionError(f"{limit} = {value!r} is no limit of cgroup v1")


def write_memory(directory: str, limits: Mapping[str, int | None]) -> None:
    """Write the limits of memory and swap, or one of them while the other stays as it is.

    The kernel keeps memory <= memory and swap together at every moment: the sum is raised first and lowered last.
    Raises: InUseError, KernelError, as for `write_limit`.
    """
    file, sum_file = f"{directory}/memory.limit_in_bytes", f"{directory}/memory.memsw.limit_in_bytes"
    memory_now = values.parse_number(cgroup_file.read(file))
    sum_text = cgroup_file.read_optional(sum_file)
    sum_now = None if sum_text is None else values.parse_number(sum_text)
    memory = values.whole_pages(limits.get("memory.limit", memory_now))
    swap = limits["memory.swap"] if "memory.swap" in limits else _difference(sum_now, memory_now)
    together = _sum(directory, memory, swap, asked="memory.swap" in limits)
    if sum_text is None:
        _require_no_swap_limit(sum_file, limits)
        _lower(file, memory)
    elif _exceeds(sum_now, together):
        _lower(file, memory)
        _lower(sum_file, together)
    else:
        _lower(sum_file, together)
        _lower(file, memory)


def _difference(together: int | None, memory: int | None) -> int | None:
    return None if together is None or memory is None else together - memory


def _sum(directory: str, memory: int | None, swap: int | None, *, asked: bool) -> int | None:
    if memory is not None:
        return None if swap is None else values.whole_pages(memory + swap)
    if asked and swap is not None:
        text = f"limit swap of {directory}: cgroup v1 limits memory and swap together; set memory.limit as well"
        raise KernelError(text, errno=errno.EINVAL)
    return None


def _require_no_swap_limit(sum_file: str, limits: Mapping[str, int | None]) -> None:
    if limits.get("memory.swap") is not None:
        text = f"write {sum_file}: swap is not accounted; boot the host with swapaccount=1"
        raise KernelError(text, errno=errno.ENOENT)


def _exceeds(one: int | None, other: int | None) -> bool:
    return other is not None and (one is None or one > other)


def _lower(file: str, limit: int | None) -> None:
    """Write a memory limit; below the use the kernel reclaims first, and refuses if that is not enough.

    What was refused leaves the limit as it was. To go down to the use instead would leave no room at all, and the next
    page that anybody in there needs would get him killed.
    """
    for _ in range(_LOWER_TRIES):
        try:
            cgroup_file.write(file, values.format_number(limit, unlimited="-1"))
            return
        except KernelError as err:
            if err.errno != errno.EBUSY:
                raise
    name = "memory.limit and memory.swap together" if "memsw" in file else "memory.limit"
    raise values.in_use(name, limit, use=_use(file), now=values.parse_number(cgroup_file.read(file)))


def _use(limit_file: str) -> int:
    return int(cgroup_file.read(limit_file.replace("limit_in_bytes", "usage_in_bytes")))


def _write_cpu_limit(directory: str, limit: int | None) -> None:
    period = f"{directory}/cpu.cfs_period_us"
    if cgroup_file.read(period).strip() != str(values.PERIOD_US):
        cgroup_file.write(period, str(values.PERIOD_US))
    cgroup_file.write(f"{directory}/cpu.cfs_quota_us", values.format_number(limit, unlimited="-1"))


def _write_members(directory: str, file: str, members: frozenset[int] | None) -> None:
    """Set the CPUs or nodes of a cgroup and of all below it; None takes all of the parent.

    A child's set must lie in its parent's at every moment: sets first grow from the top, then shrink from the bottom.
    """
    wanted = all_members(directory, file) if members is None else members
    below = cgroup_file.directories(directory)
    for path in below:
        now = values.parse_list(cgroup_file.read(f"{path}/{file}"))
        cgroup_file.write(f"{path}/{file}", values.format_list(now | wanted))
    for path in reversed(below):
        cgroup_file.write(f"{path}/{file}", values.format_list(wanted))


def all_members(directory: str, file: str) -> frozenset[int]:
    """Read the CPUs or nodes of a cgroup's parent, which are all that it can have.

    Raises: KernelError.
    """
    return values.parse_list(cgroup_file.read(f"{os.path.dirname(directory)}/{file}"))
