"""Snapshot, rollback and clone of a VE with 1 GB of its own data, beside the bare btrfs operation on that volume."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench import common
from reconciler.host import ground
from reconciler.host.host import RealHost
from reconciler.host.site import Site
from reconciler.model.effects import Effect
from reconciler.model.identity import Digest, SnapshotName, TemplateName, Uid, VeName
from reconciler.model.snapshots import CloneVolume, DeleteSnapshot, RollBack, TakeSnapshot
from reconciler.model.volume import (
    BuildTemplate,
    BuiltinSource,
    CreateVolume,
    Record,
    TemplateSpec,
    TrashVe,
    WriteRecord,
)

ROUNDS, GOAL = 9, 3
OWN_BYTES, FILES = 1 << 30, 2000
TEMPLATE = TemplateSpec(name=TemplateName("busybox"), key=Digest("b" * 64), source=BuiltinSource())
SOURCE = Uid("00000000-0000-4000-8000-000000000001")
GOLDEN = SnapshotName("golden")
SIZE = 2 << 30


def main() -> None:
    """Alternate ours and the bare operation, and print the medians and their ratio."""
    common.machine()
    with common.place("bntime", ves=0, pool_gib=6) as place:
        ground.prepare(place.instance)
        asyncio.run(_measure(RealHost(Site(place.instance))))


async def _measure(host: RealHost) -> None:
    await _perform(host, BuildTemplate(template=TEMPLATE), *_born(SOURCE, 0), CreateVolume(uid=SOURCE, size=SIZE))
    _fill(Path(host.site.instance.volume(SOURCE)) / "upper")
    await host.perform(TakeSnapshot(uid=SOURCE, name=GOLDEN))
    await _compare("snapshot", host, _snapshot)
    await _compare("rollback (stopped)", host, _rollback)
    await _compare("clone", host, _clone)
    await host.perform(TrashVe(uid=SOURCE))


def _born(uid: Uid, number: int) -> tuple[Effect, ...]:
    record = Record(
        uid=uid,
        name=VeName(f"ve{number}"),
        id_base=(1 << 20) + (number << 16),
        template=TEMPLATE.name,
        template_digest=None,
        init=TEMPLATE.init,
        source="bench",
        created_at=0.0,
    )
    return (WriteRecord(record=record, template_key=TEMPLATE.key),)


def _fill(upper: Path) -> None:
    """Write 1 GB in so many files."""
    block = os.urandom(OWN_BYTES // FILES)
    for number in range(FILES):
        directory = upper / f"srv/d{number % 50}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_bytes(block)
    os.sync()


async def _perform(host: RealHost, *effects: Effect) -> None:
    for effect in effects:
        await host.perform(effect)


_Round = Callable[[RealHost, int], Awaitable[tuple[float, float]]]


async def _compare(what: str, host: RealHost, one: _Round) -> None:
    rounds = [await one(host, number) for number in range(ROUNDS)]
    ours, bare = (statistics.median(times) * 1000 for times in zip(*rounds, strict=True))
    ratio = statistics.median(one / other for one, other in rounds)
    print(f"{what}: vectl {ours:.1f} ms, btrfs {bare:.1f} ms")
    common.report(
        f"{what} of 1 GB / the bare btrfs operation", f"{ratio:.2f}x (median)", f"<= {GOAL}x", met=ratio <= GOAL
    )


async def _timed(work: Awaitable[None]) -> float:
    started = asyncio.get_running_loop().time()
    await work
    return asyncio.get_running_loop().time() - started


async def _bare(*commands: tuple[str, ...]) -> None:
    """Run btrfs as an administrator would."""
    for command in commands:
        await asyncio.to_thread(subprocess.run, ["btrfs", *command], check=True, capture_output=True, timeout=60)


async def _snapshot(host: RealHost, number: int) -> tuple[float, float]:
    name, instance = SnapshotName(f"s{number}"), host.site.instance
    ours = await _timed(host.perform(TakeSnapshot(uid=SOURCE, name=name)))
    target = f"{instance.pool}/bare{number}"
    bare = await _timed(_bare(("subvolume", "snapshot", "-r", instance.volume(SOURCE), target)))
    await _bare(("subvolume", "delete", target))
    await host.perform(DeleteSnapshot(uid=SOURCE, name=name))
    return ours, bare


async def _rollback(host: RealHost, number: int) -> tuple[float, float]:
    """Beside ours: a snapshot of the snapshot, and its limit, which is what nobody could do without."""
    safety = SnapshotName(f"before{number}")
    effect = RollBack(uid=SOURCE, to=GOLDEN, request=f"r{number}", safety=safety, size=SIZE)
    ours = await _timed(host.perform(effect))
    bare = await _bare_copy(host, number)
    await host.perform(DeleteSnapshot(uid=SOURCE, name=safety))
    return ours, bare


async def _clone(host: RealHost, number: int) -> tuple[float, float]:
    uid = Uid(f"00000000-0000-4000-8000-0000000001{number:02d}")
    await _perform(host, *_born(uid, number + 1))
    ours = await _timed(host.perform(CloneVolume(uid=uid, source=SOURCE, snapshot=GOLDEN, size=SIZE)))
    bare = await _bare_copy(host, number)
    await host.perform(TrashVe(uid=uid))
    return ours, bare


async def _bare_copy(host: RealHost, number: int) -> float:
    kept, target = (
        f"{host.site.instance.snapshots_dir(SOURCE)}/{GOLDEN}/volume",
        f"{host.site.instance.pool}/bare{number}",
    )
    commands = ("subvolume", "snapshot", kept, target), ("qgroup", "limit", str(SIZE), target)
    spent = await _timed(_bare(*commands))
    await _bare(("subvolume", "delete", target))
    return spent


if __name__ == "__main__":
    main()
