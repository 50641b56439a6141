"""A pass over 300 converged VEs that reads the kernel: how long, whether it sees, and whether it truly does nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import common
from reconciler.agent.session import Session, open_session
from reconciler.kernel import inotify
from reconciler.kernel.netevents import NftEvents, RouteEvents
from reconciler.manifests.load import load_fleet
from reconciler.model.identity import Uid
from reconciler.model.network import VeNetworkObservation
from reconciler.model.power import PowerObservation
from reconciler.state.config import Config

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 300
PASSES = 15
BOOT_S = 5.0
"""How long the VEs take until they have booted, and share the CPUs no more. Units: seconds."""


def main() -> None:
    """Create, measure, check by hand and from outside."""
    common.machine()
    with common.place("bnnoop", ves=COUNT, pool_gib=8) as place:
        made = place.vectl("apply", "--yes", str(place.manifests), timeout_s=900)
        assert made.returncode == 0, made.stderr[-2000:]
        asyncio.run(_measure(place))


async def _measure(place: common.Place) -> None:
    files = {path.name: path.read_bytes() for path in place.manifests.iterdir()}
    fleet = load_fleet(files, revision="bench").fleet
    assert fleet is not None
    source = f"dir:{place.manifests}"
    async with open_session(Config(instance=place.instance), source=source, fleet=fleet) as session:
        await session.reconciler.converge()
        await asyncio.sleep(BOOT_S)
        before = session.counter.total
        samples = [await _pass(session) for _ in range(PASSES)]
        print("no-op pass:", common.distribution(samples))
        middle = sorted(samples)[PASSES // 2]
        common.report(f"no-op pass over {COUNT} VEs, median", f"{middle * 1000:.0f} ms", "<= 100 ms", met=middle <= 0.1)
        _report_effects(session.counter.total - before)
        await _watched_from_outside(session)
        await _sees_changes_by_hand(session)


async def _pass(session: Session) -> float:
    started = time.perf_counter()
    result = await session.reconciler.pass_all()
    elapsed = time.perf_counter() - started
    assert not result.plan.actions, result.plan.actions
    return elapsed


def _report_effects(count: int) -> None:
    common.report("effects of these passes, by our counter", str(count), "0", met=count == 0)


async def _watched_from_outside(session: Session) -> None:
    """Watch the limit files, the networks and the tables while a pass is made."""
    with inotify.Inotify() as limits, RouteEvents() as routes, NftEvents() as tables:
        for uid in session.site.uids():
            cgroup = session.site.instance.ve_cgroup(uid)
            limits.add(f"{session.site.layout.of('memory').path(cgroup)}", inotify.MODIFY)  # type: ignore[union-attr]
        await _pass(session)
        seen = [*limits.read(), *routes.read(), *tables.read()]
    common.report("changes seen from outside during a pass", str(len(seen)), "0", met=not seen)


async def _sees_changes_by_hand(session: Session) -> None:
    """Change one field of each facet behind its back; the next timed pass has to find it."""
    observed = await session.reconciler.observe()
    uid, seen = sorted(observed.ves.items())[COUNT // 2]
    assert isinstance(seen.power, PowerObservation)
    pid = seen.power.pid
    memory = session.site.layout.of("pids")
    assert memory is not None
    limit_file = f"{memory.path(session.site.instance.ve_cgroup(uid))}/pids.max"
    enter = ["nsenter", "-t", str(pid), "-n", "ip"]
    changes: dict[str, Callable[[], object]] = {
        "compute": lambda: Path(limit_file).write_text("33"),
        "network": lambda: subprocess.run([*enter, "addr", "add", "10.9.9.9/24", "dev", "eth0"], check=True),
        "link": lambda: subprocess.run([*enter, "link", "set", "eth0", "down"], check=True),
        "hostname": lambda: subprocess.run(["nsenter", "-t", str(pid), "-u", "hostname", "other"], check=True),
        "power": lambda: subprocess.run(["kill", "-9", str(pid)], check=True),
    }
    for facet, change in changes.items():
        change()
        await _until_seen(session, uid, facet)


async def _until_seen(session: Session, uid: Uid, facet: str) -> None:
    started = time.perf_counter()
    result = await session.reconciler.pass_all()
    found = [action.path for action in result.plan.actions if action.uid == uid]
    elapsed = time.perf_counter() - started
    common.report(
        f"changed by hand: {facet}; found by the pass", ",".join(found) or "nothing", "found", met=bool(found)
    )
    print(f"    put right in the same pass, {elapsed * 1000:.0f} ms in all")
    network = (await session.reconciler.observe()).ves[uid].network
    assert isinstance(network, VeNetworkObservation)


if __name__ == "__main__":
    main()
