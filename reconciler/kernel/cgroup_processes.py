"""Power over the processes of a cgroup: list, freeze, thaw, kill. Only what is inside the given path is touched."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator

from reconciler.errors import KernelError, MissingToolError, TimeLimitError
from reconciler.kernel import cgroup_file, command, pidfd
from reconciler.kernel.cgroup_layout import Hierarchy, Layout

_PAUSE_S = 0.002  # between looks at a state that the kernel reaches by itself
_RETRY_KILL_S = 0.2  # after that, something forked away from under the signals


def processes(layout: Layout, cgroup: str) -> frozenset[int]:
    """List the processes in a cgroup and below it; empty if it is not there.

    Raises: KernelError.
    """
    pids: set[int] = set()
    for directory in cgroup_file.directories(_freezer(layout).path(cgroup)):
        pids.update(int(word) for word in _listed(directory).split())
    return frozenset(pids)


def _listed(directory: str) -> str:
    try:
        return cgroup_file.read_optional(f"{directory}/cgroup.procs") or ""
    except KernelError as err:
        if err.errno == errno.EOPNOTSUPP:  # a threaded cgroup: the nearest domain above lists its processes
            return ""
        raise


def freezer_directory(layout: Layout, cgroup: str) -> str:
    """Give the directory that `freeze` freezes: what criu must be told as ``--freeze-cgroup``."""
    return _freezer(layout).path(cgroup)


def freeze(layout: Layout, cgroup: str, *, timeout_s: float = 5.0) -> None:
    """Stop every process of a cgroup until `thaw`; already frozen is success.

    If the time is over the cgroup is thawed again: nothing stays half frozen.
    Raises: TimeLimitError; KernelError.
    Source: cgroup-v2.rst, "cgroup.freeze"; Linux Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst.
    """
    hierarchy = _freezer(layout)
    deadline = time.monotonic() + timeout_s
    _write_state(hierarchy, cgroup, frozen=True)
    while not is_frozen(layout, cgroup):
        if time.monotonic() > deadline:
            thaw(layout, cgroup)
            raise TimeLimitError(f"freeze {hierarchy.path(cgroup)}: not frozen after {timeout_s} s")
        time.sleep(_PAUSE_S)
        if not hierarchy.unified:  # v1 gives up on a task that was busy; writing again makes it try again
            _write_state(hierarchy, cgroup, frozen=True)


def thaw(layout: Layout, cgroup: str) -> None:
    """Let the processes of a cgroup run again; already running is success.

    Raises: KernelError.
    """
    _write_state(_freezer(layout), cgroup, frozen=False)


@contextlib.contextmanager
def standing_still(layout: Layout, cgroup: str, *, timeout_s: float = 15.0) -> Iterator[None]:
    """Freeze a cgroup for the block. It is thawed afterwards even if this process is killed in the block.

    Raises: TimeLimitError, and then nothing is frozen; KernelError.
    """
    path, value = _state_file(_freezer(layout), cgroup, frozen=False)
    with command.at_the_end('echo "$1" >"$2"', value, path):
        freeze(layout, cgroup, timeout_s=timeout_s)
        try:
            yield
        finally:
            thaw(layout, cgroup)


def is_frozen(layout: Layout, cgroup: str) -> bool:
    """Tell whether every process of a cgroup stands still.

    Raises: KernelError.
    """
    hierarchy = _freezer(layout)
    directory = hierarchy.path(cgroup)
    if hierarchy.unified:
        return "frozen 1" in cgroup_file.read(f"{directory}/cgroup.events").splitlines()
    return cgroup_file.read(f"{directory}/freezer.state").strip() == "FROZEN"


def _write_state(hierarchy: Hierarchy, cgroup: str, *, frozen: bool) -> None:
    cgroup_file.write(*_state_file(hierarchy, cgroup, frozen=frozen))


def _state_file(hierarchy: Hierarchy, cgroup: str, *, frozen: bool) -> tuple[str, str]:
    directory = hierarchy.path(cgroup)
    if hierarchy.unified:
        return f"{directory}/cgroup.freeze", "1" if frozen else "0"
    return f"{directory}/freezer.state", "FROZEN" if frozen else "THAWED"


def kill(layout: Layout, cgroup: str, *, timeout_s: float = 10.0) -> None:
    """Kill every process of a cgroup and wait until none is left; no such cgroup is success.

    Zombies do not count: the kernel does not list them, and they do not keep a cgroup from being removed.
    Raises: TimeLimitError; KernelError.
    """
    deadline = time.monotonic() + timeout_s
    while left := processes(layout, cgroup):
        if time.monotonic() > deadline:
            raise TimeLimitError(f"kill processes of {cgroup}: {sorted(left)} are still there after {timeout_s} s")
        _kill_once(layout, cgroup)
        _await_empty(layout, cgroup, until=min(deadline, time.monotonic() + _RETRY_KILL_S))


def _kill_once(layout: Layout, cgroup: str) -> None:
    hierarchy = _freezer(layout)
    if not (hierarchy.unified and _kill_by_kernel(hierarchy.path(cgroup))):
        _kill_one_by_one(layout, cgroup)


def _await_empty(layout: Layout, cgroup: str, *, until: float) -> None:
    while processes(layout, cgroup) and time.monotonic() < until:
        time.sleep(_PAUSE_S)


def _kill_by_kernel(directory: str) -> bool:
    """Use ``cgroup.kill``; False before Linux 5.14."""
    try:
        cgroup_file.write(f"{directory}/cgroup.kill", "1")
    except KernelError as err:
        if err.errno == errno.ENOENT:
            return False
        raise
    return True


def _kill_one_by_one(layout: Layout, cgroup: str) -> None:
    """Freeze, so that nothing forks away meanwhile, signal what is listed, and thaw, so that the signal is taken."""
    with contextlib.suppress(TimeLimitError):  # a task that cannot be frozen can still be signalled
        freeze(layout, cgroup, timeout_s=1.0)
    try:
        for pid in processes(layout, cgroup):
            _kill_member(cgroup, pid)
    finally:
        thaw(layout, cgroup)


def _kill_member(cgroup: str, pid: int) -> None:
    """Kill one process, if it still is one of this cgroup once a descriptor holds it."""
    process = pidfd.identify(pid)
    descriptor = None if process is None else pidfd.open_process(process)
    if descriptor is None:
        return
    try:
        if _is_member(cgroup, pid):
            pidfd.send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _is_member(cgroup: str, pid: int) -> bool:
    """Tell whether a process is in a cgroup or below it, in any hierarchy.

    Source: cgroups(7), "/proc/pid/cgroup".
    """
    text = cgroup_file.read_optional(f"/proc/{pid}/cgroup") or ""
    paths = (line.split(":", 2)[-1] for line in text.splitlines())
    return any(path == cgroup or path.startswith(f"{cgroup}/") for path in paths)


def _freezer(layout: Layout) -> Hierarchy:
    hierarchy = layout.of("freezer")
    if hierarchy is None:
        raise MissingToolError("find the freezer: neither cgroup v2 nor v1's freezer is mounted")
    return hierarchy
