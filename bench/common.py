"""What the benchmarks share: a throw-away instance, manifests for it, and a way to print what was measured."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconciler.kernel import busybox
from reconciler.model.identity import HostName
from reconciler.model.instance import DEFAULT_LIB, Instance

VECTL = [sys.executable, "-m", "reconciler.cli.entry"]
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Place:
    """An instance of a benchmark's own, with its manifests and its configuration file."""

    instance: Instance
    manifests: Path
    config: Path

    def vectl(self, *arguments: str, timeout_s: float = 600.0) -> subprocess.CompletedProcess[str]:
        """Run the command on this instance."""
        command = [*VECTL, "--config", str(self.config), *arguments]
        return subprocess.run(
            command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL
        )


def volatile() -> Path:
    """Give a directory in memory, as /run is on a host that systemd has booted."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", "/run"], check=True, capture_output=True, text=True).stdout
    return Path("/run" if kind == "tmpfs\n" else "/dev/shm")


@contextmanager
def place(name: str, *, ves: int, pool_gib: int = 4) -> Iterator[Place]:
    """Make an instance with manifests of so many VEs; everything is removed at the end."""
    scratch = Path(tempfile.mkdtemp(prefix=f"vectl-bench-{name}-", dir="/var/tmp"))
    state, run = scratch / "state", volatile() / f"vectl-bench-{name}"
    instance = Instance(
        name=name,
        host=HostName("bench"),
        state_dir=str(state),
        run_dir=str(run),
        cgroup=f"/{name}",
        pool_size=pool_gib << 30,
    )
    config = scratch / "config.yaml"
    config.write_text(
        f"instance: {name}\nhost: bench\nstateDir: {state}\nrunDir: {run}\nresync: 1h\npool: {{size: {pool_gib}Gi}}\n"
    )
    manifests = scratch / "manifests"
    write_manifests(manifests, ves)
    made = Place(instance, manifests, config)
    try:
        yield made
    finally:
        gone = made.vectl("down", "--yes")
        if gone.returncode:
            sys.stderr.write(gone.stderr)
        else:
            shutil.rmtree(scratch)


@contextmanager
def agent(place: Place) -> Iterator[int]:
    """Run an agent on the manifests for the length of the block; gives its pid."""
    command = [*VECTL, "--config", str(place.config), "agent", "--source", str(place.manifests)]
    null = subprocess.DEVNULL
    running = subprocess.Popen(command, cwd=ROOT, stdout=null, stderr=null, stdin=null)
    try:
        yield running.pid
    finally:
        running.terminate()
        running.wait(30)


def write_manifests(directory: Path, ves: int) -> None:
    """Write a network and so many full VEs, one file each: limits, a volume, an interface with an address."""
    directory.mkdir(parents=True)
    (directory / "network.yaml").write_text(
        "apiVersion: ve/v1\nkind: Network\nmetadata: {name: lan}\n"
        "spec: {mode: bridged, subnets: [10.202.0.0/16], gateway: [10.202.0.1]}\n"
    )
    for number in range(ves):
        (directory / f"ve{number:04d}.yaml").write_text(manifest(number))


def manifest(number: int) -> str:
    """Give the manifest of one VE."""
    address = f"10.202.{1 + number // 250}.{1 + number % 250}/16"
    return (
        f"apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata:\n  name: ve{number:04d}\n  labels: {{tier: bench}}\n"
        f"spec:\n  description: one of many\n  cpu: {{weight: 100, limit: 0.5}}\n"
        f"  memory: {{limit: 64Mi, swap: 0}}\n  processes: 64\n  disk: {{size: 64Mi}}\n"
        f"  interfaces:\n    - name: eth0\n      network: lan\n      addresses: [{address}]\n"
    )


def build_template(directory: Path) -> None:
    """Fill an empty directory with the built-in template, for a peer."""
    busybox.build_tree(str(directory), programs=f"{DEFAULT_LIB}/bin")


def timed(work: Callable[[], object]) -> float:
    """Give the seconds that some work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def distribution(samples: Sequence[float]) -> str:
    """Describe samples. Units: seconds in, milliseconds out."""
    ordered = sorted(samples)
    parts = {
        "min": ordered[0],
        "median": statistics.median(ordered),
        "p90": ordered[int(len(ordered) * 0.9)],
        "max": ordered[-1],
    }
    return "  ".join(f"{name} {value * 1000:.1f} ms" for name, value in parts.items()) + f"  (n={len(ordered)})"


def report(what: str, value: str, goal: str, *, met: bool | None = None) -> None:
    """Print one measured line with its goal."""
    verdict = "" if met is None else ("  met" if met else "  NOT MET")
    sys.stdout.write(f"{what:58} {value:28} goal {goal}{verdict}\n")
    sys.stdout.flush()


def machine() -> None:
    """Print what this was measured on."""
    load = os.getloadavg()[0]
    kernel = os.uname().release
    sys.stdout.write(f"kernel {kernel}, {os.cpu_count()} CPUs, load {load:.1f}, Python {sys.version.split()[0]}\n")
