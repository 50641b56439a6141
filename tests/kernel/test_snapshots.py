"""Snapshots, returns to them, clones and new root file systems, with real data, on both forms of volumes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import stat
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import BusyError, NoSpaceError, StateError
from reconciler.host import debris, execute, kept
from reconciler.host import image as images
from reconciler.host.execute import Program
from reconciler.host.host import RealHost
from reconciler.host.site import Site
from reconciler.kernel import btrfs, files, overlay_index, qgroup, userns
from reconciler.kernel import image as disks
from reconciler.model.compute import CreateCgroup, Limit, RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.identity import SnapshotName, Uid
from reconciler.model.observation import EVERYTHING, Scope
from reconciler.model.power import DeleteRuntime, DiscardMemory, Launch, PowerObservation, StartRuntime, StopRuntime
from reconciler.model.snapshots import (
    CloneVolume,
    DeleteSnapshot,
    ReplaceVolume,
    RollBack,
    SnapshotKind,
    SnapshotsObservation,
    TakeSnapshot,
)
from reconciler.model.volume import CreateVolume, PurgeTrash, RemoveTemplate, RestoreVe, TrashVe, VolumeObservation
from tests.support import real_host, storage
from tests.support.effect_choices import TEMPLATE
from tests.support.patience import PATIENCE
from tests.support.twins import SETTING, A, B, data, launch

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

MIB = 1 << 20
SIZE = 48 * MIB
GOLDEN, SAFETY, AGAIN = SnapshotName("golden"), SnapshotName("before-golden"), SnapshotName("before-again")

Story = Callable[[RealHost], Awaitable[Any]]


def on_a_host(story: Story) -> None:
    """Let a story happen on a host of its own."""

    async def tell() -> None:
        async with real_host.real_host() as host:
            await story(host)
            assert qgroup.read_qgroups(host.site.instance.pool).consistent, "no limit of any VE holds any more"

    def in_namespaces() -> None:
        real_host.enter_private_namespaces()
        asyncio.run(tell())

    storage.in_child(in_namespaces)


def born(uid: Uid, *, is_image: bool) -> tuple[Effect, ...]:
    """Give the effects that make a VE with an empty volume."""
    return (*data(uid)[:2], CreateVolume(uid=uid, size=SIZE, is_image=is_image, room=2000 if is_image else None))


def up(uid: Uid) -> tuple[Effect, ...]:
    """Give the effects that start a VE that has a volume."""
    return CreateCgroup(uid=uid, limits={Limit.MEMORY_LIMIT: 1 << 27}), launch(uid), StartRuntime(uid=uid)


def down(uid: Uid) -> tuple[Effect, ...]:
    """Give the effects that take a VE down."""
    return StopRuntime(uid=uid, timeout_s=2.0), DeleteRuntime(uid=uid), RemoveCgroup(uid=uid)


def back(to: str, request: str, safety: str, *, size: int | None = SIZE) -> RollBack:
    return RollBack(uid=A, to=SnapshotName(to), request=request, safety=SnapshotName(safety), size=size)


async def perform(host: RealHost, *effects: Effect) -> None:
    for effect in effects:
        await host.perform(effect)


async def root_of(host: RealHost, uid: Uid) -> Path:
    power = (await host.observe()).ves[uid].power
    assert isinstance(power, PowerObservation)
    assert power.pid is not None, "it does not run"
    return Path(f"/proc/{power.pid}/root")


async def snapshots_of(host: RealHost, uid: Uid, *, use: bool = False) -> SnapshotsObservation:
    seen = (await host.observe(Scope(uids=frozenset({uid}), host=False, use=use))).ves[uid].snapshots
    assert isinstance(seen, SnapshotsObservation), seen
    return seen


def fill(root: Path, owner: int) -> dict[str, str]:
    """Write files as a VE's root does; give their checksums."""
    made = root / "srv/data"
    with userns.acting_as(owner, owner):
        made.mkdir(parents=True)
        for number in range(40):
            path = made / f"f{number}"
            path.write_bytes(os.urandom(40_000 + number))
            os.chown(path, owner + number, owner)
        os.link(made / "f0", made / "linked")
        (root / "etc/motd").write_text("golden\n")
    return checksums(root)


def spoil(root: Path, owner: int) -> dict[str, str]:
    """Change, delete and add files; give their checksums."""
    with userns.acting_as(owner, owner):
        for number in range(10):
            (root / f"srv/data/f{number}").write_bytes(b"spoilt")
        for number in range(10, 20):
            (root / f"srv/data/f{number}").unlink()
        (root / "srv/data/new").write_text("new")
        (root / "etc/motd").write_text("spoilt\n")
    return checksums(root)


def checksums(root: Path) -> dict[str, str]:
    found = {}
    for path in [*sorted((root / "srv/data").iterdir()), root / "etc/motd"]:
        info = path.lstat()
        text = f"{info.st_mode:o} {info.st_uid} {info.st_nlink}".encode() + path.read_bytes()
        found[path.name] = hashlib.sha256(text).hexdigest()
    return found


@pytest.mark.parametrize("is_image", [False, True], ids=["directory", "image"])
def test_a_ve_is_what_it_was_after_a_rollback_and_what_it_became_after_the_way_back(is_image: bool) -> None:
    async def story(host: RealHost) -> None:
        owner = SETTING.record(A).id_base
        await perform(host, *born(A, is_image=is_image), *up(A))
        golden = fill(await root_of(host, A), owner)
        await perform(host, TakeSnapshot(uid=A, name=GOLDEN))
        spoilt = spoil(await root_of(host, A), owner)
        with pytest.raises(BusyError, match="stop it first"):
            await host.perform(back("golden", "r1", "before-golden"))
        await perform(host, *down(A), back("golden", "r1", "before-golden"), *up(A))
        assert checksums(await root_of(host, A)) == golden != spoilt
        seen = await snapshots_of(host, A)
        assert {name: it.kind for name, it in seen.snapshots.items()} == {
            GOLDEN: SnapshotKind.NAMED,
            SAFETY: SnapshotKind.SAFETY,
        }
        assert seen.mark is not None
        assert seen.mark.request == "r1"
        await perform(host, *down(A), back("golden", "r1", "before-x"), back("before-golden", "undo", "before-again"))
        await perform(host, *up(A))
        assert checksums(await root_of(host, A)) == spoilt
        assert set((await snapshots_of(host, A)).snapshots) == {GOLDEN, SAFETY, AGAIN}
        volume = (await host.observe(EVERYTHING)).ves[A].volume
        assert isinstance(volume, VolumeObservation)
        assert (volume.size, volume.is_image) == (SIZE, is_image)
        await perform(host, *down(A))

    on_a_host(story)


@pytest.mark.parametrize("is_image", [False, True], ids=["directory", "image"])
def test_a_snapshot_of_a_running_ve_is_one_instant_and_the_ve_goes_on(is_image: bool) -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *born(A, is_image=is_image), *up(A))
        root = await root_of(host, A)
        await count_inside(host, A)
        passed = await come_past(root, 0)
        for number in range(4):
            await perform(host, TakeSnapshot(uid=A, name=SnapshotName(f"s{number}")))
            passed = await come_past(root, passed)
        for number in range(4):
            await perform(host, *down(A), back(f"s{number}", f"r{number}", f"b{number}"), *up(A))
            one, two = counts(await root_of(host, A))
            assert one - two in (0, 1), "the two were not kept as they were at one instant"
        await perform(host, *down(A))

    on_a_host(story)


async def count_inside(host: RealHost, uid: Uid) -> None:
    """Have a VE count, in one file and then in the other, by renames; it ends with the VE."""
    step = "echo $i >/srv/new; mv /srv/new /srv/one; echo $i >/srv/new; mv /srv/new /srv/two"
    program = Program(args=("/bin/sh", "-c", f"i=0; while :; do i=$((i+1)); {step}; done"))
    reading, writing = os.pipe()
    await execute.start(host.site, uid, program, stdio=(reading, writing, writing))


def counts(root: Path) -> tuple[int, int]:
    return int((root / "srv/one").read_text()), int((root / "srv/two").read_text())


async def come_past(root: Path, number: int) -> int:
    """Wait until the count of a VE has come past a number."""
    deadline = time.monotonic() + 30 * PATIENCE
    while True:
        found = counts(root)[1] if (root / "srv/two").exists() else 0
        if found > number:
            return found
        assert time.monotonic() < deadline, "it does not count on"
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("is_image", [False, True], ids=["directory", "image"])
def test_a_clone_has_the_data_in_its_own_ids_and_goes_its_own_way(is_image: bool) -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *born(A, is_image=is_image), *up(A))
        root, owner, other = await root_of(host, A), SETTING.record(A).id_base, SETTING.record(B).id_base
        fill(root, owner)
        with userns.acting_as(owner, owner):
            (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
            (root / "usr/bin/own").write_text("")
        (root / "usr/bin/own").chmod(0o4755)
        await perform(host, TakeSnapshot(uid=A, name=GOLDEN), *data(B)[:2])
        await perform(host, CloneVolume(uid=B, source=A, snapshot=GOLDEN, size=SIZE), *up(B))
        clone = await root_of(host, B)
        assert contents(clone) == contents(root)
        for number in range(40):
            info = (clone / f"srv/data/f{number}").stat()
            assert (info.st_uid, info.st_gid) == (other + number, other)
        assert (clone / "usr/bin/own").stat().st_mode & 0o7777 == 0o4755
        assert (clone / "etc/machine-id").read_text() == ""
        with userns.acting_as(other, other):
            (clone / "etc/motd").write_text("the clone's\n")
        assert (root / "etc/motd").read_text() == "golden\n"
        await perform(host, CloneVolume(uid=B, source=A, snapshot=GOLDEN, size=SIZE))
        assert (clone / "etc/motd").read_text() == "the clone's\n"
        assert (await snapshots_of(host, B)).mark is None
        await perform(host, *down(A), *down(B), DeleteSnapshot(uid=A, name=GOLDEN), *up(B))
        assert contents(await root_of(host, B))["f39"] == contents_of_upper(host, A, is_image).get("f39", "")
        await perform(host, *down(B))

    on_a_host(story)


def contents(root: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / "srv/data").iterdir()}


def contents_of_upper(host: RealHost, uid: Uid, is_image: bool) -> dict[str, str]:
    """Read what a VE that is down holds in its volume."""
    volume = host.site.instance.volume(uid)
    if not is_image:
        return contents(Path(f"{volume}/upper"))
    with disks.opened(f"{volume}/disk.img", quotas=images.has_quotas(f"{volume}/disk.img")) as root:
        return contents(Path(f"/proc/self/fd/{root}/upper"))


def test_the_present_data_of_a_running_ve_is_cloned_as_well() -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *born(A, is_image=False), *up(A))
        await count_inside(host, A)
        await come_past(await root_of(host, A), 5)
        await perform(host, *data(B)[:2], CloneVolume(uid=B, source=A, snapshot=None, size=SIZE), *up(B))
        one, two = counts(await root_of(host, B))
        assert one - two in (0, 1)
        await perform(host, *down(A), *down(B))

    on_a_host(story)


def test_what_is_kept_of_a_root_file_system_is_as_it_was_and_nothing_else_is() -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *born(A, is_image=False), *up(A))
        root, owner = await root_of(host, A), SETTING.record(A).id_base
        fill(root, owner)
        with userns.acting_as(owner, owner):
            write_oddities(root / "home")
            (root / "etc/gone").write_text("not kept")
            (root / "srv/empty").mkdir()
        before = oddities(root / "home"), checksums(root)
        await perform(host, *down(A), replacement(keep=("/home", "/srv/data", "/no/such", "/etc/motd")), *up(A))
        root = await root_of(host, A)
        assert (oddities(root / "home"), checksums(root)) == before
        assert not (root / "etc/gone").exists()
        assert not (root / "srv/empty").exists()
        await perform(host, *down(A))
        storage.commit(host.site.instance.pool)
        group = group_of(host, host.site.instance.volume(A))
        assert group.exclusive < MIB < group.referenced, "the blocks are not shared"
        await perform(host, back("before-recreate", "undo", "before-undo"), *up(A))
        assert (await root_of(host, A) / "etc/gone").read_text() == "not kept"
        await perform(host, *down(A))

    on_a_host(story)


@pytest.mark.parametrize("to_image", [False, True], ids=["to a directory", "to an image"])
def test_what_is_kept_goes_from_one_form_of_volume_to_the_other(to_image: bool) -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *born(A, is_image=not to_image), *up(A))
        root, owner = await root_of(host, A), SETTING.record(A).id_base
        fill(root, owner)
        with userns.acting_as(owner, owner):
            write_oddities(root / "home")
        before = oddities(root / "home"), checksums(root)
        change = replacement(keep=("/home", "/srv", "/etc/motd"), is_image=to_image)
        await perform(host, *down(A), change, *up(A))
        root = await root_of(host, A)
        assert (oddities(root / "home"), checksums(root)) == before
        await perform(host, *down(A))

    on_a_host(story)


def replacement(*, keep: tuple[str, ...], is_image: bool = False) -> ReplaceVolume:
    return ReplaceVolume(
        uid=A,
        template=TEMPLATE.name,
        template_key=TEMPLATE.key,
        safety=SnapshotName("before-recreate"),
        size=SIZE,
        keep=keep,
        is_image=is_image,
        room=2000 if is_image else None,
    )


def write_oddities(home: Path) -> None:
    """Make what a copy easily gets wrong."""
    (home / "a/b").mkdir(parents=True)
    (home / "a/b").chmod(0o1750)
    with open(home / "a/sparse", "wb") as file:
        file.seek(20 * MIB)
        file.write(b"end")
    (home / "a/suid").write_text("x")
    (home / "a/suid").chmod(0o6711)
    os.link(home / "a/suid", home / "a/b/linked")
    os.symlink("/nowhere/at all", home / "link")
    os.mkfifo(home / "fifo", 0o640)
    os.setxattr(home / "a/suid", "user.note", b"kept")
    os.utime(home / "a/b", ns=(1_000_000_001, 1_500_000_001))
    os.utime(home / "a/suid", ns=(1_000_000_002, 1_500_000_002))


def oddities(home: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in [home, *sorted(home.rglob("*"))]:
        info = path.lstat()
        holes = info.st_size - info.st_blocks * 512 > MIB
        attributes = [] if path.is_symlink() else [(key, os.getxattr(path, key)) for key in os.listxattr(path)]
        links = info.st_nlink if stat.S_ISREG(info.st_mode) else 0
        target = os.readlink(path) if path.is_symlink() else ""
        facts = info.st_mode, info.st_uid, info.st_gid, info.st_size if path.is_file() else 0
        found[str(path.relative_to(home))] = (*facts, info.st_mtime_ns, links, target, attributes, holes)
    return found


def fill_up(path: Path) -> None:
    """Write to a file until there is no more room for it."""
    with open(path, "wb", buffering=0) as file, pytest.raises(OSError, match="quota exceeded"):
        write_on(file)


def write_on(file: FileIO) -> None:
    while True:
        file.write(os.urandom(MIB))
        os.fsync(file.fileno())


def group_of(host: RealHost, volume: str) -> qgroup.Qgroup:
    return qgroup.read_qgroups(host.site.instance.pool).groups[btrfs.subvolume_id(volume)]


def test_a_volume_that_is_full_is_kept_returned_to_and_cloned_and_stays_full() -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *born(A, is_image=False), *up(A))
        root, owner = await root_of(host, A), SETTING.record(A).id_base
        with userns.acting_as(owner, owner):
            fill_up(root / "full")
        await perform(host, TakeSnapshot(uid=A, name=GOLDEN), *down(A), back("golden", "r", "before-golden"), *up(A))
        root = await root_of(host, A)
        with userns.acting_as(owner, owner), pytest.raises(OSError, match="quota exceeded"):
            (root / "more").write_bytes(os.urandom(4 * MIB))
        await perform(host, *data(B)[:2], CloneVolume(uid=B, source=A, snapshot=GOLDEN, size=2 * SIZE), *up(B))
        other = SETTING.record(B).id_base
        with userns.acting_as(other, other):
            (await root_of(host, B) / "more").write_bytes(os.urandom(4 * MIB))
        await perform(host, *down(A), *down(B))

    on_a_host(story)


def test_snapshots_that_are_limited_take_no_clone_and_hold_their_limit_after_a_rollback() -> None:
    async def story(host: RealHost) -> None:
        if not qgroup.keeps_count_of_snapshots():
            pytest.skip("before Linux 6.9 a snapshot in a group makes a rescan necessary")
        total = SIZE + 8 * MIB
        await perform(host, *data(A)[:2], CreateVolume(uid=A, size=SIZE, total=total))
        upper = Path(f"{host.site.instance.volume(A)}/upper")
        (upper / "f").write_bytes(os.urandom(32 * MIB))
        await perform(host, TakeSnapshot(uid=A, name=GOLDEN), *data(B)[:2])
        with pytest.raises(StateError, match=r"disk\.snapshots"):
            await host.perform(CloneVolume(uid=B, source=A, snapshot=GOLDEN, size=SIZE))
        await perform(host, RollBack(uid=A, to=GOLDEN, request="r", safety=SAFETY, size=SIZE, total=total))
        volume = (await host.observe(EVERYTHING)).ves[A].volume
        assert isinstance(volume, VolumeObservation)
        assert (volume.size, volume.total) == (SIZE, total)
        fill_up(upper / "f")

    on_a_host(story)


def test_an_image_is_not_kept_where_the_pool_could_not_hold_it_twice() -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *born(A, is_image=True), *up(A))
        fill(await root_of(host, A), SETTING.record(A).id_base)
        before = checksums(await root_of(host, A))
        pool = host.site.instance.pool
        others = 0
        while (free := btrfs.read_space(pool).free) >= SIZE:
            files.allocate(f"{pool}/other{others}", free - SIZE // 2)
            others += 1
            storage.commit(pool)
        with pytest.raises(NoSpaceError, match="needs as much room again"):
            await host.perform(TakeSnapshot(uid=A, name=GOLDEN))
        assert (await snapshots_of(host, A)).snapshots == {}
        assert checksums(await root_of(host, A)) == before
        for number in range(others):
            os.unlink(f"{pool}/other{number}")
        await perform(host, *down(A))

    on_a_host(story)


def test_what_is_kept_of_a_ve_goes_with_it_into_the_trash_and_out_again_and_ends_with_it() -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *born(A, is_image=False), TakeSnapshot(uid=A, name=GOLDEN))
        await perform(host, back("golden", "r", "before-golden"), TrashVe(uid=A))
        with pytest.raises(BusyError, match="uses it"):
            await host.perform(RemoveTemplate(key=TEMPLATE.key))
        seen = await host.observe()
        assert isinstance(seen.trash, tuple)
        await perform(host, RestoreVe(uid=A, trash_id=seen.trash[0].id))
        assert set((await snapshots_of(host, A)).snapshots) == {GOLDEN, SAFETY}
        await perform(host, TrashVe(uid=A))
        seen = await host.observe()
        assert isinstance(seen.trash, tuple)
        await perform(host, PurgeTrash(trash_id=seen.trash[0].id), RemoveTemplate(key=TEMPLATE.key))
        assert os.listdir(host.site.instance.trash) == []

    on_a_host(story)


def test_what_a_snapshot_holds_alone_is_told_when_it_is_asked_for() -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *born(A, is_image=False))
        upper = Path(f"{host.site.instance.volume(A)}/upper")
        (upper / "f").write_bytes(os.urandom(8 * MIB))
        await perform(host, TakeSnapshot(uid=A, name=GOLDEN))
        (upper / "f").unlink()
        storage.commit(str(upper))
        used = (await snapshots_of(host, A, use=True)).snapshots[GOLDEN].used
        assert used is not None
        assert 8 * MIB <= used < 9 * MIB
        assert (await snapshots_of(host, A)).snapshots[GOLDEN].used is None

    on_a_host(story)


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Kill this process before the given call, counted from 0, of those that change something on disk."""
    calls = iter(range(1_000_000))

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return called

    with pytest.MonkeyPatch.context() as patched:
        for module, name in (
            (btrfs, "snapshot"),
            (btrfs, "create_subvolume"),
            (btrfs, "delete_subvolume"),
            (btrfs, "make_read_only"),
            (files, "exchange"),
            (files, "write_atomic"),
            (files, "remove_tree"),
            (files, "sync_directory"),
            (overlay_index, "renew"),
            (qgroup, "set_limit"),
            (os, "rename"),
            (os, "mkdir"),
        ):
            patched.setattr(module, name, before(getattr(module, name)))
        yield


def outlives(host: RealHost, effect: Effect, step: int) -> bool:
    """Perform an effect in a process that is killed at a step; tell whether it came to its end before."""

    def work() -> str:
        with killed_at(step):
            asyncio.run(RealHost(Site(host.site.instance)).perform(effect))
        return "done"

    with suppress(storage.NoAnswerError):
        return storage.in_child(work) == "done"
    return False


@pytest.mark.parametrize("is_image", [False, True], ids=["directory", "image"])
def test_a_rollback_that_is_killed_anywhere_leaves_the_old_data_or_the_new_and_loses_neither(is_image: bool) -> None:
    async def story(host: RealHost) -> None:
        instance = host.site.instance
        await perform(host, *born(A, is_image=is_image), TakeSnapshot(uid=A, name=GOLDEN))
        note = Path(f"{instance.volume(A)}/note")
        done, step, outcomes = False, 0, set()
        while not done:
            note.write_text(f"present {step}")
            safety = f"before-{step}"
            done = outlives(host, back("golden", f"r{step}", safety), step)
            site = Site(instance)
            debris.sweep(site)
            seen = await snapshots_of(RealHost(site), A)
            switched = seen.mark is not None and seen.mark.request == f"r{step}"
            outcomes.add(switched)
            assert note.exists() is not switched
            assert (SnapshotName(safety) in seen.snapshots) is switched
            if switched:
                old = f"{instance.snapshots_dir(A)}/{safety}/volume"
                assert Path(f"{old}/note").read_text() == f"present {step}"
                await perform(RealHost(site), DeleteSnapshot(uid=A, name=SnapshotName(safety)))
            assert sorted(os.listdir(instance.ve_dir(A))) == ["record.json", "snapshots", "volume"]
            assert os.listdir(instance.snapshots_dir(A)) == ["golden"]
            step += 3 if is_image else 1
        assert outcomes == {False, True}
        assert step > 12

    on_a_host(story)


def give_memory(host: RealHost, directory: str, text: str) -> None:
    """Put down what stands for the processes of a VE, with the data that they go on from."""
    os.makedirs(f"{directory}/memory", exist_ok=True)
    Path(f"{directory}/memory/pages").write_text(text)
    if not os.path.exists(f"{directory}/volume"):
        btrfs.snapshot(host.site.instance.volume(A), f"{directory}/volume", read_only=True)
    about = kept.read_meta(host.site, f"{host.site.instance.snapshots_dir(A)}/golden")
    assert about is not None
    kept.write_meta(directory, replace(about, launch=Launch(id_base=1 << 20)))


def memory_in(directory: str) -> str:
    path = Path(f"{directory}/memory/pages")
    return path.read_text() if path.exists() else ""


def test_a_rollback_of_memories_that_is_killed_anywhere_leaves_each_with_its_data() -> None:
    async def story(host: RealHost) -> None:
        instance = host.site.instance
        golden, suspended = f"{instance.snapshots_dir(A)}/golden", instance.suspended_dir(A)
        await perform(host, *born(A, is_image=False), TakeSnapshot(uid=A, name=GOLDEN))
        give_memory(host, golden, "golden")
        done, step, outcomes = False, 0, set()
        while not done:
            present = f"present {step}"
            if os.path.isdir(suspended):
                await perform(RealHost(Site(instance)), DiscardMemory(uid=A))
            give_memory(host, suspended, present)
            Path(f"{instance.volume(A)}/note").write_text(present)
            done = outlives(host, back("golden", f"r{step}", f"before-{step}"), step)
            site = Site(instance)
            debris.sweep(site)
            safety = f"{instance.snapshots_dir(A)}/before-{step}"
            switched = os.path.isdir(safety)
            outcomes.add(switched)
            assert memory_in(suspended) == ("golden" if switched else present)
            assert btrfs.is_subvolume(f"{suspended}/volume")
            assert memory_in(golden) == "golden"
            if switched:
                assert (memory_in(safety), Path(f"{safety}/volume/note").read_text()) == (present, present)
                await perform(RealHost(site), DeleteSnapshot(uid=A, name=SnapshotName(f"before-{step}")))
            else:
                assert Path(f"{instance.volume(A)}/note").read_text() == present
            step += 3
        assert outcomes == {False, True}

    on_a_host(story)


@pytest.mark.parametrize("kind", ["snapshot", "clone", "recreate", "delete"])
def test_what_is_killed_anywhere_is_whole_or_not_there_and_succeeds_the_next_time(kind: str) -> None:
    async def story(host: RealHost) -> None:
        instance, uid = host.site.instance, B if kind == "clone" else A
        await perform(host, *born(A, is_image=False), *data(B)[:2], TakeSnapshot(uid=A, name=GOLDEN))
        Path(f"{instance.volume(A)}/upper/home").mkdir()
        Path(f"{instance.volume(A)}/upper/home/f").write_text("kept")
        effects: dict[str, Effect] = {
            "snapshot": TakeSnapshot(uid=A, name=AGAIN),
            "clone": CloneVolume(uid=B, source=A, snapshot=GOLDEN, size=SIZE),
            "recreate": replacement(keep=("/home",)),
            "delete": DeleteSnapshot(uid=A, name=GOLDEN),
        }
        effect, step, ended = effects[kind], 0, False
        while not ended and step < 60:
            ended = outlives(host, effect, step)
            site = Site(instance)
            debris.sweep(site)
            names = {name for name in os.listdir(instance.ve_dir(uid)) if name.startswith(".")}
            assert names == set()
            if os.path.isdir(instance.snapshots_dir(uid)):
                assert not [name for name in os.listdir(instance.snapshots_dir(uid)) if name.startswith(".")]
            observation = (await RealHost(site).observe()).ves[uid]
            assert isinstance(observation.snapshots, SnapshotsObservation)
            assert kept.is_whole(instance.volume(A))
            assert kept.is_whole(instance.volume(uid)) or kind == "clone"
            step += 1
        assert ended
        await perform(host, effect)
        if kind == "recreate":
            assert Path(f"{instance.volume(A)}/upper/home/f").read_text() == "kept"

    on_a_host(story)


def test_an_error_in_the_middle_is_told_and_leaves_nothing() -> None:
    def full(*_: Any, **__: Any) -> None:
        raise NoSpaceError("renew index: No space left on device")

    async def story(host: RealHost) -> None:
        instance = host.site.instance
        await perform(host, *born(A, is_image=False), *data(B)[:2], TakeSnapshot(uid=A, name=GOLDEN))
        before = sorted(os.listdir(instance.ve_dir(A))), sorted(os.listdir(instance.ve_dir(B)))
        clone = CloneVolume(uid=B, source=A, snapshot=GOLDEN, size=SIZE)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(overlay_index, "renew", full)
            patched.setattr(kept, "write_meta", full)
            for effect in (TakeSnapshot(uid=A, name=AGAIN), back("golden", "r", "before-golden"), clone):
                with pytest.raises(NoSpaceError):
                    await host.perform(effect)
        assert (sorted(os.listdir(instance.ve_dir(A))), sorted(os.listdir(instance.ve_dir(B)))) == before
        assert os.listdir(instance.snapshots_dir(A)) == ["golden"]

    on_a_host(story)


@pytest.mark.parametrize("name", ["../volume", ".hidden", "", "a/b", "x" * 64])
def test_no_name_leads_out_of_the_snapshots(name: str) -> None:
    with pytest.raises(StateError, match="find snapshot"):
        kept.need_name(name)
