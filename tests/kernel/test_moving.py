"""A VE that moves: two instances with a pool each on this machine, and nothing between them but parcels."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.host.carrier import HostCarrier
from reconciler.host.host import RealHost
from reconciler.kernel import qgroup, userns
from reconciler.model.compute import CreateCgroup, Limit, RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.identity import SnapshotName
from reconciler.model.observation import Scope
from reconciler.model.placement import ClearMove, CutParcel, PlaceArrival
from reconciler.model.power import DeleteRuntime, PowerObservation, StartRuntime, StopRuntime
from reconciler.model.snapshots import RollBack, SnapshotKind, TakeSnapshot
from reconciler.model.volume import CreateVolume, Record, VolumeObservation
from tests.support import real_host, storage
from tests.support.real_host import perform
from tests.support.twins import A, data, launch

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

MIB = 1 << 20
SIZE, TOTAL = 64 * MIB, 160 * MIB
MOVE = "m1"
S1, S2, BEFORE = SnapshotName("s1"), SnapshotName("s2"), SnapshotName("before-s1")

Story = Callable[[RealHost, RealHost], Awaitable[Any]]


def between_hosts(story: Story) -> None:
    """Let a story happen on two hosts of its own."""

    async def tell() -> None:
        async with real_host.real_host() as source, real_host.real_host() as target:
            await story(source, target)
            for host in (source, target):
                await host.perform(ClearMove(uid=A, move=MOVE))
                moves = Path(host.site.instance.moves)
                assert not moves.exists() or list(moves.iterdir()) == []
                assert qgroup.read_qgroups(host.site.instance.pool).consistent, "no limit of any VE holds any more"

    def in_namespaces() -> None:
        real_host.enter_private_namespaces()
        asyncio.run(tell())

    storage.in_child(in_namespaces)


def up() -> tuple[Effect, ...]:
    return CreateCgroup(uid=A, limits={Limit.MEMORY_LIMIT: 1 << 27}), launch(A), StartRuntime(uid=A)


def down() -> tuple[Effect, ...]:
    return StopRuntime(uid=A, timeout_s=2.0), DeleteRuntime(uid=A), RemoveCgroup(uid=A)


def born(*, is_image: bool, total: int | None = None) -> tuple[Effect, ...]:
    room = 2000 if is_image else None
    return (*data(A)[:2], CreateVolume(uid=A, size=SIZE, total=total, is_image=is_image, room=room))


def cut(number: int) -> CutParcel:
    return CutParcel(uid=A, move=MOVE, number=number)


async def send_all(source: RealHost, target: RealHost) -> list[str]:
    """Send what is not there yet."""
    sender, receiver = HostCarrier(source.site), HostCarrier(target.site)
    sent = []
    for parcel in await sender.parcels(A, MOVE):
        if str(parcel) not in await receiver.received(A, MOVE):
            await receiver.receive(A, MOVE, parcel, sender.send(A, MOVE, parcel))
            sent.append(str(parcel))
    return sent


async def place(source: RealHost, target: RealHost) -> None:
    await target.perform(PlaceArrival(record=source.site.need_record(A), move=MOVE))


async def root_of(host: RealHost) -> Path:
    power = (await host.observe()).ves[A].power
    assert isinstance(power, PowerObservation)
    assert power.pid is not None, "it does not run"
    return Path(f"/proc/{power.pid}/root")


def owner(host: RealHost) -> int:
    return host.site.need_record(A).id_base


def live(root: Path, base: int) -> None:
    """Do in a VE what leaves every kind of trace in its volume."""
    with userns.acting_as(base, base):
        made = root / "srv/made"
        made.mkdir(parents=True)
        for number in range(20):
            (made / f"f{number}").write_bytes(os.urandom(30_000 + number))
            os.chown(made / f"f{number}", base + number, base + 2 * number)
        os.link(made / "f0", made / "linked")
        os.symlink("../made/f1", made / "symbolic")
        os.mkfifo(made / "fifo", 0o640)
        os.setxattr(made / "f2", "user.note", b"\0\1note")
        (made / "f3").chmod(0o4755)
        with open(made / "sparse", "wb") as file:
            file.truncate(16 * MIB)
            file.seek(9 * MIB)
            file.write(b"island")
        os.utime(made / "f4", ns=(1_000_000_007, -2_000_000_009))
        (root / "etc/motd").write_text("changed\n")
        (root / "etc/passwd").chmod(0o600)


def what_is_in(volume: str) -> dict[str, tuple[object, ...]]:
    """Give all that a volume holds below its upper layer, by path, but for what names a file system."""
    found: dict[str, tuple[object, ...]] = {}
    names: dict[int, list[str]] = {}
    for top, directories, entries in os.walk(f"{volume}/upper"):
        for name in (*directories, *entries):
            path = f"{top}/{name}"
            info = os.lstat(path)
            content = Path(path).read_bytes() if info.st_mode >> 12 == 8 else None
            link = os.readlink(path) if info.st_mode >> 12 == 10 else None
            attributes = {key: os.getxattr(path, key, follow_symlinks=False) for key in _attributes(path)}
            names.setdefault(info.st_ino, []).append(path.removeprefix(volume))
            about = info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_rdev, info.st_mtime_ns
            found[path.removeprefix(volume)] = (*about, content, link, tuple(sorted(attributes.items())))
    found["links"] = tuple(sorted(tuple(sorted(paths)) for paths in names.values() if len(paths) > 1))
    return found


def _attributes(path: str) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


def numbers_in(root: Path, names: dict[str, tuple[object, ...]]) -> dict[str, int]:
    """Give the numbers of files of the template as the VE sees them."""
    return {str(path): path.lstat().st_ino for top in ("bin", "etc", "sbin") for path in (root / top).glob("*")}


def test_a_stopped_ve_moves_with_all_that_it_has() -> None:
    async def move(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=False, total=TOTAL), *up())
        live(await root_of(source), owner(source))
        await perform(source, *down())
        before = what_is_in(source.site.instance.volume(A))
        assert len(before) > 25
        await perform(source, cut(0))
        sent = await send_all(source, target)
        assert [words.partition(":")[0] for words in sent] == ["template", "data"]
        await place(source, target)
        assert what_is_in(target.site.instance.volume(A)) == before
        here, there = (await source.observe()).ves[A], (await target.observe()).ves[A]
        assert isinstance(there.record, Record)
        assert there.record == here.record
        assert isinstance(there.volume, VolumeObservation)
        assert (there.volume.size, there.volume.total) == (SIZE, TOTAL)
        await perform(target, *up())
        root = await root_of(target)
        assert (root / "etc/motd").read_text() == "changed\n"
        assert (root / "srv/made/sparse").stat().st_blocks * 512 < MIB
        await perform(target, *down())

    between_hosts(move)


def test_a_ve_whose_volume_is_an_image_moves_with_every_block_in_its_place() -> None:
    async def move(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=True), *up())
        live(await root_of(source), owner(source))
        await perform(source, *down(), TakeSnapshot(uid=A, name=S1, kind=SnapshotKind.NAMED), cut(0))
        assert await send_all(source, target)
        await place(source, target)
        here, there = (f"{host.site.instance.volume(A)}/disk.img" for host in (source, target))
        assert Path(there).read_bytes() == Path(here).read_bytes()
        assert os.stat(there).st_blocks == os.stat(here).st_blocks
        assert overwritten_in_place(there)
        assert not overwritten_in_place(os.path.dirname(there))
        await perform(target, *up())
        assert ((await root_of(target)) / "srv/made/f1").stat().st_size == 30_001
        await perform(target, *down())

    between_hosts(move)


def overwritten_in_place(path: str) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return bool(int.from_bytes(fcntl.ioctl(descriptor, 0x80086601, bytes(8)), "little") & 0x00800000)
    finally:
        os.close(descriptor)


def test_snapshots_arrive_with_what_they_share_and_can_be_returned_to() -> None:
    async def move(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=False, total=TOTAL), *up())
        root, base = await root_of(source), owner(source)
        live(root, base)
        await perform(source, TakeSnapshot(uid=A, name=S1, kind=SnapshotKind.NAMED))
        with userns.acting_as(base, base):
            (root / "srv/made/f0").write_bytes(b"later")
            (root / "srv/large").write_bytes(os.urandom(16 * MIB))
        await perform(source, TakeSnapshot(uid=A, name=S2, kind=SnapshotKind.SCHEDULED), *down(), cut(0))
        sent = await send_all(source, target)
        assert sent[1:] == ["snapshot:s1", "snapshot:s2", "data:0"]
        await place(source, target)
        await target.perform(ClearMove(uid=A, move=MOVE))
        here, there = (await source.observe()).ves[A], (await target.observe()).ves[A]
        assert there.snapshots == here.snapshots
        for name in (S1, S2):
            kept = (f"{host.site.instance.snapshots_dir(A)}/{name}/volume" for host in (source, target))
            assert what_is_in(next(kept)) == what_is_in(next(kept))
        assert await held_by(target) < 24 * MIB, "the snapshots share nothing any more"
        back = RollBack(uid=A, to=S1, request="r", safety=BEFORE, size=SIZE, total=TOTAL)
        await perform(target, back, *up())
        root = await root_of(target)
        assert (root / "srv/made/f0").stat().st_size == 30_000
        assert not (root / "srv/large").exists()
        await perform(target, *down())

    between_hosts(move)


async def held_by(host: RealHost) -> int:
    """Measure what a volume and its snapshots refer to together."""
    storage.commit(host.site.instance.pool)
    seen = (await host.observe(Scope(uids=frozenset({A}), host=False, use=True))).ves[A].volume
    assert isinstance(seen, VolumeObservation)
    assert seen.held is not None
    return seen.held


def test_what_a_running_ve_wrote_before_and_after_the_first_parcel_is_there() -> None:
    async def move(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=False), *up())
        root, base = await root_of(source), owner(source)
        live(root, base)
        await source.perform(cut(0))
        assert "data:0" in await send_all(source, target)
        with userns.acting_as(base, base):
            (root / "srv/made/f5").write_bytes(b"after")
            (root / "srv/made/f6").unlink()
            (root / "srv/made").rename(root / "srv/moved")
            (root / "etc/new").mkdir()
            (root / "etc/new/file").write_text("new")
            os.link(root / "srv/moved/f7", root / "etc/new/linked")
            (root / "bin/vi").unlink()
        await perform(source, *down(), cut(1))
        assert await send_all(source, target) == ["data:1"]
        await place(source, target)
        volumes = [host.site.instance.volume(A) for host in (source, target)]
        assert what_is_in(volumes[1]) == what_is_in(volumes[0])
        await perform(target, *up())
        root = await root_of(target)
        assert (root / "etc/new/file").read_text() == "new"
        assert not (root / "bin/vi").exists()
        await perform(target, *down())

    between_hosts(move)
