"""A VE with 256 MB of memory to disk and back, beside `runc checkpoint` and `runc restore` of as much, in one run."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import common
from reconciler.agent.session import Session, open_session
from reconciler.host.bundle import BundleSpec, build_config
from reconciler.kernel import cgroup, cgroup_file, cgroup_layout, cgroup_use, criu_program, files
from reconciler.manifests.load import load_fleet
from reconciler.model.fleet import Fleet
from reconciler.model.identity import Uid
from reconciler.state.config import Config
from tests.support.inside import Ve

ROUNDS = 5
MIB = 1 << 20
HELD = 256 * MIB
HOLD = "dd if=/dev/zero bs=256M count=1 2>/dev/null | sleep 1000000"
"""A process whose memory is its own: dd has read it, and waits for one that never takes it."""

BASE = 3 << 29
NAME = "bnsuspendrunc"
DEADLINE_S = 120.0


def main() -> None:
    """Alternate them, and print each round and the medians."""
    common.machine()
    with common.place("bnsusp", ves=0) as place:
        (place.manifests / "ve.yaml").write_text(manifest("running"))
        applied = place.vectl("apply", "--yes", str(place.manifests))
        assert applied.returncode == 0, applied.stderr
        images = Path(place.instance.pool, "bench-runc")  # where a VE's memory is written, too
        images.mkdir()
        try:
            with container(images) as floor:
                rounds = asyncio.run(_rounds(place, floor))
        finally:
            _remove_images(images)
    for word, ours, theirs in (("suspend", "suspend", "checkpoint"), ("resume", "resume", "restore")):
        middle = statistics.median(one[ours] / one[theirs] for one in rounds)
        milliseconds = statistics.median(one[ours] for one in rounds) * 1000
        what = f"{word} of a VE with {HELD // MIB} MB / runc {theirs}"
        common.report(what, f"{middle:.2f}x, {milliseconds:.0f} ms (medians)", "none")


def manifest(power: str) -> str:
    """Give the manifest of the VE."""
    spec = {"power": power, "memory": {"limit": "400Mi"}, "disk": {"size": "256Mi"}, "interfaces": []}
    return json.dumps(
        {"apiVersion": "ve/v1", "kind": "VirtualEnvironment", "metadata": {"name": "sleeper"}, "spec": spec}
    )


async def _rounds(place: common.Place, floor: Container) -> list[Mapping[str, float]]:
    fleets = {power: _fleet(power) for power in ("running", "suspended")}
    source = f"dir:{place.manifests}"
    async with open_session(Config(instance=place.instance), source=source, fleet=fleets["running"]) as session:
        await session.reconciler.converge()
        (uid,) = session.site.uids()
        await asyncio.to_thread(_hold, Ve(place.instance, uid))
        return [await _round(session, fleets, uid, floor, number + 1) for number in range(ROUNDS)]


async def _round(
    session: Session, fleets: Mapping[str, Fleet], uid: Uid, floor: Container, number: int
) -> Mapping[str, float]:
    took = {
        "suspend": await _converge(session, fleets["suspended"]),
        "checkpoint": await asyncio.to_thread(common.timed, floor.checkpoint),
        "resume": await _converge(session, fleets["running"]),
        "restore": await asyncio.to_thread(common.timed, floor.restore),
    }
    status, _ = await asyncio.to_thread(Ve(session.site.instance, uid).try_run, "pidof", "dd")
    assert status == 0, "what held the memory did not go on"
    assert await asyncio.to_thread(floor.holds), "what held the memory of the container did not go on"
    shown = ", ".join(f"{what} {seconds * 1000:.0f} ms" for what, seconds in took.items())
    print(f"round {number}: {shown}", flush=True)
    return took


def _fleet(power: str) -> Fleet:
    loaded = load_fleet({"ve.yaml": manifest(power).encode()}, revision=power)
    assert loaded.fleet is not None, loaded.findings
    return loaded.fleet


async def _converge(session: Session, fleet: Fleet) -> float:
    """Make the pass that brings the VE to what a revision says; plan, record and read-back are in it."""
    session.reconciler.fleet = fleet
    started = time.perf_counter()
    result = await session.reconciler.pass_all()
    elapsed = time.perf_counter() - started
    assert result.outcomes, result.plan
    assert all(outcome.ok for outcome in result.outcomes), result.outcomes
    return elapsed


def _hold(one: Ve) -> None:
    one.shell(f"setsid sh -c '{HOLD}' >/dev/null 2>&1 </dev/null &")
    _await_held(one.cgroup.cgroup)


def _await_held(path: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while (cgroup_use.read_use(cgroup_layout.detect(), path).memory or 0) < HELD:
        assert time.monotonic() < deadline, "the memory is not taken"
        time.sleep(0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container of runc's own, with the template, the namespaces and the options that a VE has."""

    run: Path
    images: Path
    criu: str

    def checkpoint(self) -> None:
        """Write it to disk and end it."""
        self._runc("checkpoint", *self._options(), NAME)

    def restore(self) -> None:
        """Let it go on."""
        self._runc("restore", "--detach", *self._options(), "--bundle", str(self.run / "bundle"), NAME)

    def start(self) -> None:
        """Start it, and let a process take the memory."""
        self._runc("run", "--detach", "--bundle", str(self.run / "bundle"), NAME)
        self._runc("exec", NAME, "sh", "-c", f"setsid sh -c '{HOLD}' >/dev/null 2>&1 </dev/null &")
        _await_held(_tree().cgroup)

    def holds(self) -> bool:
        """Say whether the process that has taken the memory is there."""
        return self._runc("exec", NAME, "pidof", "dd", check=False) == 0

    def delete(self) -> None:
        """Kill it."""
        self._runc("delete", "--force", NAME, check=False)

    def _options(self) -> tuple[str, ...]:
        places = ("--image-path", str(self.images), "--work-path", str(self.run / "work"))
        return (*places, "--tcp-established", "--file-locks", "--empty-ns", "network", "--manage-cgroups-mode", "soft")

    def _runc(self, *words: str, check: bool = True) -> int:
        """Run runc where nothing that criu mounts is seen by anybody else."""
        apart = ("unshare", "--mount", "--propagation", "private")
        argv = (*apart, "runc", "--root", str(self.run / "runc"), "--criu", self.criu, *words)
        null = subprocess.DEVNULL
        return subprocess.run(argv, check=check, stdin=null, stdout=null, stderr=null, timeout=DEADLINE_S).returncode


@contextmanager
def container(images: Path) -> Iterator[Container]:
    """Run a container with as much memory, for the length of the block."""
    scratch = Path(tempfile.mkdtemp(prefix="vectl-bench-runc-", dir="/var/tmp"))
    run = Path(tempfile.mkdtemp(prefix="vectl-bench-runc-", dir=common.volatile()))
    try:
        rootfs = scratch / "rootfs"
        rootfs.mkdir()
        common.build_template(rootfs)
        subprocess.run(["chown", "-R", "-h", f"{BASE}:{BASE}", str(rootfs)], check=True)
        scratch.chmod(0o755)
        made = Container(run=run, images=images, criu=criu_program.find("/usr/lib/vectl/bin").path)
        _write_bundle(run, rootfs)
        try:
            made.start()
            yield made
        finally:
            made.delete()
            _tree().remove()
            for hierarchy in cgroup_layout.detect().hierarchies():
                cgroup_file.remove_directory(hierarchy.path(f"/{NAME}"))
    finally:
        files.remove_tree(str(scratch))
        files.remove_tree(str(run))


def _tree() -> cgroup.CgroupTree:
    return cgroup.CgroupTree(cgroup_layout.detect(), f"/{NAME}/v")


def _write_bundle(run: Path, rootfs: Path) -> None:
    (run / "bundle").mkdir()
    (run / "work").mkdir()
    (run / "criu.conf").write_text("network-lock nftables\nlink-remap\nghost-limit 67108864\n")
    _tree().create()
    spec = BundleSpec(
        hostname="sleeper",
        rootfs=str(rootfs),
        id_base=BASE,
        cgroup=_tree().cgroup,
        criu_config=str(run / "criu.conf"),
    )
    (run / "bundle" / "config.json").write_text(json.dumps(build_config(spec)))


def _remove_images(images: Path) -> None:
    """Unlink plain files only: a criu that was killed leaves the host's cgroups mounted in its directories."""
    for path in images.iterdir():
        os.unlink(path)
    images.rmdir()


if __name__ == "__main__":
    main()
