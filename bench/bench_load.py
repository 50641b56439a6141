"""Load, validate and plan 1,000 manifests, cold and warm; and how soon the command answers."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import common
from reconciler.manifests.load import ParseCache, load_fleet
from reconciler.model.action import Plan
from reconciler.model.compute import HostComputeObservation, Limit
from reconciler.model.fleet import Fleet
from reconciler.model.identity import Allocation, HostName, Uid
from reconciler.model.network import FilterObservation, FilterRules
from reconciler.model.observation import Capabilities, HostObservation, PoolObservation
from reconciler.plan import planner
from reconciler.plan.inputs import Inputs

COUNT = 1000

_COLD = """
import sys, time
started = time.perf_counter()
from pathlib import Path
from bench.bench_load import load_and_plan
from reconciler.manifests.load import ParseCache
plan = load_and_plan({p.name: p.read_bytes() for p in Path(sys.argv[1]).iterdir()}, ParseCache())
assert sum(a.op == "create" for a in plan.actions) == 1001, len(plan.actions)
print(time.perf_counter() - started)
"""


def load_and_plan(files: dict[str, bytes], cache: ParseCache) -> Plan:
    """Load a revision and plan it for a host that has nothing."""
    fleet = load_fleet(files, revision="bench", cache=cache).fleet
    assert fleet is not None
    return planner.plan_host(_inputs(fleet))


def _inputs(fleet: Fleet) -> Inputs:
    observed = HostObservation(
        capabilities=Capabilities(cgroup="v2", enforceable=frozenset(Limit), cpus=frozenset({0, 1})),
        ves={},
        complete=True,
        compute=HostComputeObservation(limits={Limit.CPU_WEIGHT: 100, Limit.MEMORY_GUARANTEE: 0}),
        networks={},
        filter=FilterObservation(rules=FilterRules()),
        templates={},
        trash=(),
        pool=PoolObservation(size=1, free=1),
    )
    allocations = {
        name: Allocation(uid=Uid(f"00000000-0000-4000-8000-{number:012d}"), id_base=number << 16)
        for number, name in enumerate(fleet.ves)
    }
    return Inputs(
        instance="bench",
        host=HostName("bench"),
        source="bench",
        fleet=fleet,
        observed=observed,
        allocations=allocations,
    )


def main() -> None:
    """Print each figure with its goal."""
    common.machine()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "manifests"
        common.write_manifests(directory, COUNT)
        cold = statistics.median(_cold(directory) for _ in range(5))
        common.report(f"load, validate and plan {COUNT} manifests, cold", f"{cold:.2f} s", "<= 1.5 s", met=cold <= 1.5)
        warm = statistics.median(_warm(directory))
        common.report("the same again after one file changed", f"{warm:.3f} s", "<= 0.2 s", met=warm <= 0.2)
    floor = statistics.median(_command([sys.executable, "-c", "pass"]) for _ in range(11))
    version = statistics.median(_command([*common.VECTL, "--version"]) for _ in range(11))
    ratio = f"{version * 1000:.0f} ms, {version / floor:.1f}x bare python"
    common.report("vectl --version", ratio, "<= 100 ms", met=version <= 0.1)


def _cold(directory: Path) -> float:
    command = [sys.executable, "-c", _COLD, str(directory)]
    done = subprocess.run(command, cwd=common.ROOT, check=True, capture_output=True, text=True, timeout=60)
    return float(done.stdout)


def _warm(directory: Path) -> list[float]:
    cache = ParseCache()
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    load_and_plan(files, cache)
    samples = []
    for number in range(5):
        files["ve0500.yaml"] = files["ve0500.yaml"].replace(b"weight: 10", b"weight: 11")
        files["ve0500.yaml"] += b"# %d\n" % number
        samples.append(common.timed(lambda: load_and_plan(files, cache)))
    return samples


def _command(command: list[str]) -> float:
    return common.timed(lambda: subprocess.run(command, cwd=common.ROOT, check=True, capture_output=True))


if __name__ == "__main__":
    main()
