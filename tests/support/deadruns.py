"""Runs that were killed: what lives on of them is ended and taken away by the next run, and by what is left of them.

Everything that a test starts lies in the directory of its run, or is named after a directory there.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from reconciler.errors import VectlError
from reconciler.kernel import cgroup_layout, loop, pidfd
from reconciler.kernel.cgroup import CgroupTree
from tests.support import scratch

_INSTANCE = re.compile(r"t[0-9a-f]{4}|vt[0-9a-f]{6}|vectl-test-\d+-[0-9a-f]{6}")
_DEPTHS = ("*", "t/*", "t/*/*")
_OURS = ("reconciler.agent", "reconciler.web", "reconciler.cli.entry", "reconciler.host.keeper", "lxcfs", "etcd")


def sweep_place(place: str) -> None:
    """End what is left of all runs in a directory that nobody carries on."""
    ours = _ours()
    for entry in scratch.runs(place):
        with scratch.lock_if_free(entry) as free:
            if free:
                _sweep(str(entry), ours)


def sweep(run: str) -> None:
    """End what is left of one run: its programs, VEs and mounts; its files stay for a look."""
    _sweep(run, _ours())


def _sweep(run: str, ours: Mapping[int, Sequence[str]]) -> None:
    for pid, words in ours.items():
        if any(f"{run}/" in word for word in words):
            _kill(pid)
    for name in _instances(run):
        _remove_cgroups(name)
    scratch.unmount_below(run)
    for device in loop.find_below(run):
        subprocess.run(["losetup", "--detach", device], check=False, capture_output=True, timeout=10)


def _ours() -> dict[int, Sequence[str]]:
    """Find all processes of any run, with their command lines: once, however many runs are looked for."""
    found: dict[int, Sequence[str]] = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            words = entry.read_bytes().decode(errors="replace").split("\0")
            if not {os.path.basename(words[0]), *words}.isdisjoint(_OURS):
                found[int(entry.parent.name)] = words
    return found


def _kill(pid: int) -> None:
    process = pidfd.identify(pid)
    descriptor = None if process is None else pidfd.open_process(process)
    if descriptor is not None:
        pidfd.send_signal(descriptor, signal.SIGKILL)
        pidfd.has_ended(descriptor, timeout_s=5.0)
        os.close(descriptor)


def _instances(run: str) -> set[str]:
    found = (path.name for depth in _DEPTHS for path in Path(run).glob(depth))
    return {name for name in found if _INSTANCE.fullmatch(name)}


def _remove_cgroups(instance: str) -> None:
    layout = cgroup_layout.detect()
    tops = [Path(hierarchy.path(f"/{instance}")) for hierarchy in layout.hierarchies()]
    for name in {entry.name for top in tops if top.is_dir() for entry in top.iterdir() if entry.is_dir()}:
        with suppress(VectlError):
            tree = CgroupTree(layout, f"/{instance}/{name}")
            tree.kill()
            tree.remove()
    for top in tops:
        with suppress(OSError):
            top.rmdir()
