"""Busy loops in VEs and beside them, all on one CPU, and how they share it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from reconciler.kernel import cgroup_file, cgroup_layout
from reconciler.kernel.cgroup import CgroupTree
from tests.support.fleet import until
from tests.support.inside import Ve

BURN_S = 60
"""How long a busy loop lasts if nobody ends it."""

_LOOP = "while :; do :; done"


def measured_cpu() -> int:
    """Give the CPU on which everybody is put: the last one, as the first has the most other work."""
    return max(os.sched_getaffinity(0))


def burn_inside(one: Ve, loops: int = 1) -> None:
    """Start busy loops in a VE, as its root."""
    one.shell(f"for i in $(seq {loops}); do timeout {BURN_S} sh -c '{_LOOP}' >/dev/null 2>&1 & done")


def quench(one: Ve) -> None:
    """End the busy loops in a VE."""
    one.as_host("killall", "-9", "timeout", "sh", check=False)


@contextmanager
def rival(name: str, *, weight: int, cpu: int, loops: int = 1) -> Iterator[CgroupTree]:
    """Make a cgroup at the root of the host, beside all instances, and burn in it."""
    tree = CgroupTree(cgroup_layout.detect(), f"/{name}/burn")
    tree.create()
    top = cgroup_layout.detect().of("cpu")
    assert top is not None
    file, value = ("cpu.weight", weight) if top.unified else ("cpu.shares", weight * 1024 // 100)
    cgroup_file.write(f"{top.path(f'/{name}')}/{file}", str(value))
    tree.write_limits({"cpu.cpus": frozenset({cpu})})
    started = [_burner() for _ in range(loops)]
    try:
        for process in started:
            for directory in tree.inner_directories():
                cgroup_file.write(f"{directory}/cgroup.procs", str(process.pid))
        yield tree
    finally:
        for process in started:
            process.kill()
            process.wait(10)
        tree.remove()
        for hierarchy in tree.layout.hierarchies():
            with suppress(FileNotFoundError):
                os.rmdir(hierarchy.path(f"/{name}"))


@contextmanager
def loose(cpu: int) -> Iterator[Callable[[], int]]:
    """Burn in the cgroup in which this process is; give what tells the CPU time that it got, in microseconds."""
    process = _burner()
    os.sched_setaffinity(process.pid, {cpu})

    def used_us() -> int:
        with open(f"/proc/{process.pid}/stat", encoding="utf-8") as file:
            user, system = file.read().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) * 1_000_000 // os.sysconf("SC_CLK_TCK")

    try:
        yield used_us
    finally:
        process.kill()
        process.wait(10)


def _burner() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "while True: pass"])


def shares(meters: Mapping[str, Callable[[], int]], *, cpu_s: float = 2.0) -> dict[str, float]:
    """Let everybody burn until they had some seconds of CPU together; give the part that each had of that.

    Whatever else the machine does takes from all of them alike, so that it does not matter.
    """
    before = {name: meter() for name, meter in meters.items()}

    def had() -> dict[str, int]:
        return {name: meter() - before[name] for name, meter in meters.items()}

    until(lambda: sum(had().values()) >= cpu_s * 1e6, "busy loops to have had their time", deadline_s=BURN_S - 5)
    total = sum(had().values())
    return {name: used / total for name, used in had().items()}


def cpu_used(tree: CgroupTree) -> Callable[[], int]:
    """Give what tells the CPU time that a cgroup had. Units: microseconds."""
    return lambda: tree.use().cpu_us or 0
