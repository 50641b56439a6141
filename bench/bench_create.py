"""Fifty VEs from manifests to running, beside `runc run -d` alone, LXC and Incus for as many, four at a time."""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import common, peers
from reconciler.agent.session import open_session
from reconciler.host.bundle import BundleSpec, build_config
from reconciler.kernel import cgroup, cgroup_file, cgroup_layout
from reconciler.manifests.load import load_fleet
from reconciler.model.condition import Condition, ConditionType, Status
from reconciler.model.fleet import Fleet
from reconciler.state import layout
from reconciler.state.conditions import Conditions
from reconciler.state.config import Config

COUNT, WORKERS, ROUNDS = 50, 4, 3
GOAL = 2
IN_PROCESS, BY_AGENT, BY_COMMAND = "vectl in process", "vectl agent", "vectl apply"
WAYS = {IN_PROCESS: "<= 2x", BY_AGENT: "", BY_COMMAND: ""}
"""How manifests become VEs, with the goal. An agent waits 0.3 s for its directory to be still; a command is started."""

BASE = 3 << 29
NAME = "bnrunc"


def main() -> None:
    """Alternate them, and print each round and the medians."""
    common.machine()
    rounds = [_round(number + 1) for number in range(ROUNDS)]
    for way, goal in WAYS.items():
        middle = statistics.median(one.ours[way] / one.floor for one in rounds)
        met = middle <= GOAL if goal else None
        common.report(f"{COUNT} VEs, {way} / runc run -d", f"{middle:.2f}x (median)", goal or "none", met=met)
    ours = statistics.median(one.ours[IN_PROCESS] for one in rounds)
    for outcomes in zip(*(one.peers for one in rounds)):
        print(_beside(ours, outcomes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round took, ours by each way. Units: seconds."""

    ours: Mapping[str, float]
    floor: float
    peers: tuple[peers.Outcome, ...]


def _round(number: int) -> Round:
    ours = {IN_PROCESS: _in_process(), BY_AGENT: _by_agent(), BY_COMMAND: _by_command()}
    one = Round(ours=ours, floor=_runc(), peers=tuple(peers.measure(COUNT, WORKERS)))
    shown = [*one.ours.items(), ("runc run -d", one.floor)]
    shown += [(peer.name, peer.seconds) for peer in one.peers if peer.seconds is not None]
    print(f"round {number}: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in shown), flush=True)
    return one


def _beside(ours: float, outcomes: Sequence[peers.Outcome]) -> str:
    """Say how a peer did in all rounds."""
    last = outcomes[-1]
    if not (seconds := [one.seconds for one in outcomes if one.seconds is not None]):
        return f"{last.name}: {last.remark}"
    middle = statistics.median(seconds)
    return f"{last.name}: {middle:.2f} s (median; {last.remark}); vectl / {last.name} {ours / middle:.2f}x"


@contextmanager
def _prepared() -> Iterator[common.Place]:
    """Give a place whose pool, template and network are there, as on a host that is in use."""
    with common.place("bncreate", ves=1) as place:
        _apply(place)
        yield place
        listed = place.vectl("get", "-o", "json")
        states = [item["power"] for item in json.loads(listed.stdout)["items"]]
        assert states == ["running"] * (COUNT + 1), states


def _write_manifests(place: common.Place) -> None:
    for number in range(1, COUNT + 1):
        (place.manifests / f"ve{number:04d}.yaml").write_text(common.manifest(number))


def _in_process() -> float:
    """Load, validate, plan, create and read back in a process that is up, as an agent is."""
    with _prepared() as place:
        return asyncio.run(_reconcile(place))


async def _reconcile(place: common.Place) -> float:
    source, config = f"dir:{place.manifests}", Config(instance=place.instance, workers=WORKERS)
    async with open_session(config, source=source, fleet=_load(place, "before")) as session:
        await session.reconciler.converge()
        _write_manifests(place)
        started = time.perf_counter()
        session.reconciler.fleet = _load(place, "after")
        result = await session.reconciler.pass_all()
        seconds = time.perf_counter() - started
        assert all(outcome.ok for outcome in result.outcomes), result.outcomes
        return seconds


def _load(place: common.Place, revision: str) -> Fleet:
    loaded = load_fleet({path.name: path.read_bytes() for path in place.manifests.iterdir()}, revision=revision)
    assert loaded.fleet is not None, loaded.findings
    return loaded.fleet


def _by_agent() -> float:
    """Write the manifests below an agent that runs, and wait until it says that all are ready."""
    with _prepared() as place, common.agent(place):
        _await_ready(place, 1)
        started = time.perf_counter()
        _write_manifests(place)
        _await_ready(place, COUNT + 1)
        return time.perf_counter() - started


def _await_ready(place: common.Place, count: int) -> None:
    stored = Conditions(layout.conditions_dir(place.instance))
    deadline = time.monotonic() + 120
    while sum(map(_is_ready, stored.read_all().values())) < count:
        assert time.monotonic() < deadline, "the VEs do not become ready"
        time.sleep(0.02)


def _is_ready(conditions: Iterable[Condition]) -> bool:
    return any(found.type is ConditionType.READY and found.status is Status.TRUE for found in conditions)


def _by_command() -> float:
    """Run `vectl apply`, from the start of Python to its end."""
    with _prepared() as place:
        _write_manifests(place)
        return common.timed(lambda: _apply(place))


def _apply(place: common.Place) -> None:
    done = place.vectl("apply", "--yes", str(place.manifests))
    assert done.returncode == 0, done.stderr


def _runc() -> float:
    """Run the same template with the same namespaces, limits left out, and nothing else around it."""
    scratch = Path(tempfile.mkdtemp(prefix="vectl-bench-runc-", dir="/var/tmp"))
    run = Path(tempfile.mkdtemp(prefix="vectl-bench-runc-", dir=common.volatile()))
    try:
        rootfs = scratch / "rootfs"
        rootfs.mkdir()
        common.build_template(rootfs)
        subprocess.run(["chown", "-R", "-h", f"{BASE}:{BASE}", str(rootfs)], check=True)
        scratch.chmod(0o755)
        bundles = [_bundle(run, rootfs, number) for number in range(COUNT)]
        try:
            return common.timed(lambda: _run_all(run, bundles))
        finally:
            for number in range(COUNT):
                _delete(run, number)
            for hierarchy in cgroup_layout.detect().hierarchies():
                cgroup_file.remove_directory(hierarchy.path(f"/{NAME}"))
    finally:
        shutil.rmtree(scratch)
        shutil.rmtree(run)


def _tree(number: int) -> cgroup.CgroupTree:
    return cgroup.CgroupTree(cgroup_layout.detect(), f"/{NAME}/v{number}")


def _bundle(run: Path, rootfs: Path, number: int) -> Path:
    bundle = run / f"b{number}"
    bundle.mkdir()
    _tree(number).create()
    spec = BundleSpec(hostname=f"v{number}", rootfs=str(rootfs), id_base=BASE, cgroup=f"/{NAME}/v{number}")
    (bundle / "config.json").write_text(json.dumps(build_config(spec)))
    return bundle


def _run_all(run: Path, bundles: list[Path]) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda pair: _run(run, *pair), enumerate(bundles)))


def _run(run: Path, number: int, bundle: Path) -> None:
    argv = ["runc", "--root", str(run / "runc"), "run", "-d", "--bundle", str(bundle), f"{NAME}-{number}"]
    null = subprocess.DEVNULL
    subprocess.run(argv, check=True, stdin=null, stdout=null, stderr=null, timeout=60)


def _delete(run: Path, number: int) -> None:
    argv = ["runc", "--root", str(run / "runc"), "delete", "--force", f"{NAME}-{number}"]
    subprocess.run(argv, check=False, capture_output=True, timeout=60)
    _tree(number).remove()


if __name__ == "__main__":
    main()
