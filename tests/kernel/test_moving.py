"""A VE that moves: two instances with a pool each on this machine, and nothing between them but parcels."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import NoSpaceError, StateError, VectlError
from reconciler.host import images
from reconciler.host.carrier import HostCarrier
from reconciler.host.host import RealHost
from reconciler.host.parcel_frames import FrameKind, frame
from reconciler.host.parcel_notes import ParcelNote, encode
from reconciler.host.site import Site
from reconciler.kernel import btrfs, files, qgroup, userns
from reconciler.model.compute import CreateCgroup, Limit, RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.identity import Digest, SnapshotName
from reconciler.model.instance import Instance
from reconciler.model.observation import Scope
from reconciler.model.placement import ClearMove, CutParcel, EndHeld, HoldRuntime, Parcel, ParcelKind, PlaceArrival
from reconciler.model.power import (
    CreateRuntime,
    DeleteRuntime,
    PowerObservation,
    PowerState,
    StartRuntime,
    StopRuntime,
    SuspendRuntime,
)
from reconciler.model.snapshots import RollBack, SnapshotKind, TakeSnapshot
from reconciler.model.volume import CreateVolume, Record, VolumeObservation, WriteRecord
from tests.support import holding, real_host, storage
from tests.support.inside import Ve
from tests.support.real_host import perform
from tests.support.suspended import power_of, shell, until
from tests.support.twins import A, data, launch

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

MIB = 1 << 20
SIZE = 64 * MIB
TOTAL = 160 * MIB if qgroup.keeps_count_of_snapshots() else None
MOVE = "m1"
_COUNT = "i=0; while :; do i=$((i+1)); echo $i >/tmp/next; mv /tmp/next /tmp/count; sleep 0.02; done"
COUNTER = f"setsid sh -c '{_COUNT}' >/dev/null 2>&1 </dev/null &"
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
        if TOTAL is not None:
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


def test_a_suspended_ve_goes_on_elsewhere_where_it_was() -> None:
    async def move(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=False), *up())
        live(await root_of(source), owner(source))
        await shell(source, COUNTER)
        await until(source, "test $(cat /tmp/count) -gt 5")
        await perform(source, SuspendRuntime(uid=A), DeleteRuntime(uid=A), RemoveCgroup(uid=A), cut(0))
        count = counted(source)
        assert (await send_all(source, target))[1:] == ["data:0", "memory:memory"]
        await place(source, target)
        seen = await power_of(target)
        assert seen.state is PowerState.SUSPENDED
        assert seen.launch == (await power_of(source)).launch
        cgroup, create, start = up()
        assert isinstance(create, CreateRuntime)
        await perform(target, cgroup, replace(create, resume=True), start)
        await until(target, f"test $(cat /tmp/count) -gt {count}")
        assert counted(target) > count
        await perform(target, *down())

    between_hosts(move)


def counted(host: RealHost) -> int:
    return int(Path(host.site.instance.volume(A), "upper/tmp/count").read_text())


def test_a_snapshot_with_memory_arrives_with_it() -> None:
    async def move(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=False), *up())
        await shell(source, COUNTER)
        await until(source, "test $(cat /tmp/count) -gt 5")
        taken = TakeSnapshot(uid=A, name=S1, kind=SnapshotKind.NAMED, memory=True)
        await perform(source, taken, *down(), cut(0))
        await send_all(source, target)
        await place(source, target)
        await target.perform(ClearMove(uid=A, move=MOVE))
        back = RollBack(uid=A, to=S1, request="r", safety=BEFORE, size=SIZE)
        await target.perform(back)
        count = counted(target)
        cgroup, create, start = up()
        assert isinstance(create, CreateRuntime)
        launch = (await power_of(target)).launch
        assert launch is not None
        await perform(target, cgroup, replace(create, resume=True, launch=launch), start)
        await until(target, f"test $(cat /tmp/count) -gt {count}")
        await perform(target, *down())

    between_hosts(move)


def test_what_is_remembered_of_a_ve_goes_along() -> None:
    async def move(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=False), *up())
        await source.count(A, deep=True)
        peaks = source.site.ledgers.read(A).tallies
        assert any(tally.peak for tally in peaks.values())
        record = replace(source.site.need_record(A), protect=True, requests_done=("r1", "r2"), applied={"a": 1})
        await perform(source, WriteRecord(record=record, template_key=None), *down(), cut(0))
        await send_all(source, target)
        await place(source, target)
        assert target.site.need_record(A) == record
        arrived = target.site.ledgers.read(A).tallies
        assert {name: tally.peak for name, tally in arrived.items()} == {
            name: tally.peak for name, tally in source.site.ledgers.read(A).tallies.items()
        }
        assert arrived.keys() >= peaks.keys()

    between_hosts(move)


def everything_of(host: RealHost) -> set[str]:
    """List what lies in a pool, and which templates there are; not what a volume holds."""
    instance = host.site.instance
    found = {f"{instance.templates}/{name}" for name in os.listdir(instance.templates) if name.startswith("build-")}
    for top, directories, names in os.walk(instance.pool):
        found.update(f"{top}/{name}" for name in (*directories, *names))
    return found


async def refused(target: RealHost, parcel: Parcel, *pieces: bytes) -> str:
    """Have a parcel refused, and say with what words; nothing is left of it."""

    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    before = everything_of(target)
    with pytest.raises(VectlError) as caught:
        await HostCarrier(target.site).receive(A, MOVE, parcel, chunks())
    left = everything_of(target) - before - {target.site.instance.moves}
    move = f"{target.site.instance.moves}/{A}.{MOVE}"
    assert left <= {move, f"{move}/received"}
    return str(caught.value)


async def bytes_of(host: RealHost, parcel: Parcel) -> bytes:
    return b"".join([piece async for piece in HostCarrier(host.site).send(A, MOVE, parcel)])


NOTE = frame(FrameKind.NOTE, encode(ParcelNote()))


def file_of(name: str, content: bytes = b"x", *, size: int | None = None) -> bytes:
    head = json.dumps({"name": name, "size": len(content) if size is None else size}).encode()
    return frame(FrameKind.FILE, head) + frame(FrameKind.BYTES, content)


def test_a_parcel_that_is_not_what_it_says_is_refused_and_nothing_of_it_is_left() -> None:
    async def story(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=False), cut(0), cut(1))
        template, first, second = await HostCarrier(source.site).parcels(A, MOVE)
        whole, memory = await bytes_of(source, first), Parcel(kind=ParcelKind.MEMORY, name="memory")
        assert "is to be here before it" in await refused(target, second, await bytes_of(source, second))
        assert "an end before its end" in await refused(target, first)
        for length in (3, 9, len(whole) // 2, len(whole) - 1):
            assert "it has" in await refused(target, first, whole[:length])
        assert "more after its end" in await refused(target, first, whole, b"x")
        assert "a frame" in await refused(target, first, b"garbage" * 100)
        assert "no such file" not in await refused(target, first, whole.replace(b"btrfs-stream", b"btrfs-stroam"))
        for name in ("../f", "/etc/f", "memory/../../f", "memory/.f", "memory/a/b", "f", "meta.json/", ""):
            assert "has none such" in await refused(target, memory, NOTE, file_of(name))
        assert "longer than it says" in await refused(target, memory, NOTE, file_of("memory/f", b"xx", size=1))
        assert "expected its name" in await refused(target, memory, NOTE, frame(FrameKind.FILE, b"[]"))
        assert await refused(target, memory, NOTE, file_of("memory/f"), file_of("memory/f"))
        assert await refused(target, memory, NOTE, file_of("memory/f"), frame(FrameKind.END))
        deep = await refused(target, memory, NOTE, frame(FrameKind.FILE, b"[" * 100_000))
        assert "expected its name" in deep
        for wrong in (b"{}", b"[" * 100_000, encode(ParcelNote(size=-1)), encode(ParcelNote(total=1 << 70))):
            assert "data:0" in await refused(target, first, frame(FrameKind.NOTE, wrong))
        other = replace(template, name="0" * 64)
        assert "has the digest" in await refused(target, other, await bytes_of(source, template))
        shown = (await bytes_of(source, template)).replace(b'"builtin busybox"', b'"builtin \\u001bu"')
        assert "that can be shown" in await refused(target, template, shown)
        assert "has none such" in await refused(
            target, other, frame(FrameKind.NOTE, images.read_note(source.site, Digest("0" * 64))), huge_image()
        )
        for kind in ParcelKind:
            for name in ("../x", "x" * 65, ".x", "", "-1", "01", "x/y"):
                with pytest.raises(StateError, match="expected another name"):
                    await refused_name(target, Parcel(kind=kind, name=name if name != "01" else "0 1"))
        endless = [frame(FrameKind.BYTES, bytes(1 << 20))] * 1200
        text = await refused(target, memory, NOTE, file_of("memory/f", size=1 << 50), *endless)
        assert "no space left" in text.lower() or "larger than the pool" in text

    between_hosts(story)


def huge_image() -> bytes:
    return file_of("image.erofs", size=1 << 35)


async def refused_name(target: RealHost, parcel: Parcel) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    await HostCarrier(target.site).receive(A, MOVE, parcel, nothing())


def test_what_looks_like_a_volume_and_is_none_is_not_taken() -> None:
    async def story(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=False))
        directory = f"{source.site.instance.moves}/{A}.{MOVE}"
        os.makedirs(directory)
        for number, twist in enumerate((link_upper, add_stranger, link_index, drop_work)):
            made = f"{directory}/data-{number}"
            btrfs.snapshot(source.site.instance.volume(A), made, read_only=False)
            twist(made)
            btrfs.make_read_only(made)
            parcel = Parcel(kind=ParcelKind.DATA, name=str(number))
            assert "no volume of a VE" in await refused(target, parcel, await bytes_of(source, parcel))

    between_hosts(story)


def link_upper(volume: str) -> None:
    os.rmdir(f"{volume}/upper")
    os.symlink("/etc", f"{volume}/upper")


def add_stranger(volume: str) -> None:
    os.symlink("/etc/shadow", f"{volume}/mark.json")


def link_index(volume: str) -> None:
    os.symlink("/etc", os.path.join(volume, "work", "index"))


def drop_work(volume: str) -> None:
    os.rmdir(f"{volume}/work")


def test_a_full_pool_takes_nothing_and_places_nothing() -> None:
    async def story(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=False), *up())
        root = await root_of(source)
        with userns.acting_as(owner(source), owner(source)):
            (root / "srv/large").write_bytes(os.urandom(40 * MIB))
        await perform(source, *down(), cut(0))
        template, parcel = await HostCarrier(source.site).parcels(A, MOVE)
        await HostCarrier(target.site).receive(A, MOVE, template, HostCarrier(source.site).send(A, MOVE, template))
        ballast = f"{target.site.instance.pool}/ballast"
        free = btrfs.read_space(target.site.instance.pool).free
        files.allocate(ballast, free - 20 * MIB)
        whole = await bytes_of(source, parcel)
        text = await refused(target, parcel, *(whole[at : at + MIB] for at in range(0, len(whole), MIB)))
        assert "no space left" in text.lower()
        with pytest.raises(StateError, match="have not arrived"):
            await place(source, target)
        assert target.site.uids() == []
        os.unlink(ballast)

    between_hosts(story)


def test_an_image_that_has_no_room_for_its_holes_is_not_placed() -> None:
    async def story(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=True), cut(0))
        await send_all(source, target)
        ballast, pool = f"{target.site.instance.pool}/ballast", target.site.instance.pool
        storage.commit(pool)
        files.allocate(ballast, btrfs.read_space(pool).free - 16 * MIB)
        before = everything_of(target)
        with pytest.raises(NoSpaceError):
            await place(source, target)
        assert everything_of(target) == before
        os.unlink(ballast)
        storage.commit(pool)
        await place(source, target)
        assert target.site.uids() == [A]

    between_hosts(story)


def test_whoever_is_killed_while_receiving_or_placing_leaves_what_is_cleared_away() -> None:
    async def story(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=False), TakeSnapshot(uid=A, name=S1, kind=SnapshotKind.NAMED), cut(0))
        instance = target.site.instance
        empty = everything_of(target)
        parcels = await HostCarrier(source.site).parcels(A, MOVE)
        contents = {parcel: await bytes_of(source, parcel) for parcel in parcels}
        for parcel, content in contents.items():
            killed(partial(receive_half, instance, parcel, content))
            assert str(parcel) not in await HostCarrier(target.site).received(A, MOVE)
            await HostCarrier(target.site).receive(A, MOVE, parcel, HostCarrier(source.site).send(A, MOVE, parcel))
        killed(partial(receive_half, instance, replace(parcels[-1], name="1"), contents[parcels[-1]]))
        await target.perform(ClearMove(uid=A, move=MOVE))
        assert everything_of(target) - {instance.moves} == empty
        await send_all(source, target)
        effect = PlaceArrival(record=source.site.need_record(A), move=MOVE)
        killed(partial(place_half, instance, effect))
        assert target.site.uids() == []
        await target.perform(effect)
        assert target.site.uids() == [A]

    between_hosts(story)


def killed(work: Callable[[], object]) -> None:
    """Have work done in a process that kills itself in it."""
    with pytest.raises(storage.NoAnswerError):
        storage.in_child(work)


def receive_half(instance: Instance, parcel: Parcel, content: bytes) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield content[: len(content) - 30]
        await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(HostCarrier(Site(instance)).receive(A, MOVE, parcel, half()))


def place_half(instance: Instance, effect: PlaceArrival) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    btrfs.sync = die  # type: ignore[assignment]  # it never returns
    asyncio.run(RealHost(Site(instance)).perform(effect))


def test_what_was_placed_stays_and_may_be_placed_again() -> None:
    async def story(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=False), cut(0), cut(0))
        await send_all(source, target)
        assert await send_all(source, target) == []
        await place(source, target)
        await place(source, target)
        await perform(target, ClearMove(uid=A, move=MOVE), ClearMove(uid=A, move=MOVE))
        await place(source, target)
        assert target.site.need_record(A) == source.site.need_record(A)
        assert isinstance((await target.observe()).ves[A].volume, VolumeObservation)

    between_hosts(story)


def test_a_ve_that_is_held_is_sent_with_its_memory_and_goes_on_elsewhere() -> None:
    async def move(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=False), *up(), cut(0))
        await shell(source, COUNTER)
        await until(source, "test $(cat /tmp/count) -gt 5")
        assert "data:0" in await send_all(source, target)
        await source.perform(HoldRuntime(uid=A, move=MOVE, number=1))
        assert await send_all(source, target) == ["data:1", "memory:memory"]
        await place(source, target)
        count = counted(target)
        assert count > 5
        assert counted(source) == count
        launch = (await power_of(source)).launch
        assert launch is not None
        assert (await power_of(target)).launch == launch
        await perform(source, EndHeld(uid=A, move=MOVE), DeleteRuntime(uid=A), RemoveCgroup(uid=A))
        cgroup, create, start = up()
        assert isinstance(create, CreateRuntime)
        await perform(target, cgroup, replace(create, resume=True, launch=launch), start)
        await until(target, f"test $(cat /tmp/count) -gt {count}")
        await perform(target, *down())

    between_hosts(move)


def test_what_a_suspended_ve_watches_is_watched_elsewhere(tmp_path: Path) -> None:
    program = holding.compiled(tmp_path, holding.SOURCE.with_name("watcher.c"))
    places = ("/etc", "/srv/made", "/srv/made/deep/within", "/home/new")

    async def move(source: RealHost, target: RealHost) -> None:
        await perform(source, *born(is_image=False), *up())
        live(await root_of(source), owner(source))
        await shell(source, f"mkdir -p {' '.join(places)}")
        holding.put(Ve(source.site.instance, A), program)
        await shell(source, f"setsid {holding.HOLDER} {' '.join(places)} >/dev/null 2>&1 </dev/null &")
        await until(source, "test -s /tmp/seen")
        await perform(source, SuspendRuntime(uid=A), DeleteRuntime(uid=A), RemoveCgroup(uid=A), cut(0))
        await send_all(source, target)
        await place(source, target)
        cgroup, create, start = up()
        assert isinstance(create, CreateRuntime)
        await perform(target, cgroup, replace(create, resume=True), start)
        await shell(target, f"for place in {' '.join(places)}; do touch $place/made-here; done")
        await until(target, f"test $(wc -l </tmp/seen) -gt {len(places)}")
        expected = [f"{number} made-here" for number in range(1, len(places) + 1)]
        assert (await shell(target, "cat /tmp/seen")).split("\n")[1:-1] == expected
        await perform(target, *down())

    between_hosts(move)
