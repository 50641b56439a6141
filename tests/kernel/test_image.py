"""Volumes that are images: a file system of a VE's own in a file of the pool, there only while something uses it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import BusyError, NoSpaceError
from reconciler.host import image as volumes
from reconciler.host.host import RealHost
from reconciler.kernel import btrfs, ext4, fscontext, image, loop, mount, qgroup, quota
from reconciler.model.compute import CreateCgroup, Limit, RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.identity import TemplateName
from reconciler.model.observation import EVERYTHING, HostObservation
from reconciler.model.power import DeleteRuntime, PowerObservation, StartRuntime, StopRuntime
from reconciler.model.quota import Quotas
from reconciler.model.volume import (
    CreateVolume,
    RestoreVe,
    SetVolumeSize,
    TrashVe,
    VolumeObservation,
    VolumeSpec,
    pool_bytes,
)
from tests.support import real_host, storage
from tests.support.twins import A, data, launch

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

MIB = 1 << 20
QUOTAS = quota.missing() is None
OWNER = 100_000


@pytest.fixture(scope="module")
def shared_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with storage.pool(str(tmp_path_factory.mktemp("images"))) as path:
        yield path


def made(pool: str, name: str, size: int) -> str:
    """Make an image in a subvolume of its own."""
    btrfs.create_subvolume(f"{pool}/{name}")
    path = f"{pool}/{name}/disk.img"
    volumes.create(path, size=size, room=None, owner=OWNER)
    return path


def holes(path: str) -> int:
    info = os.stat(path)
    return info.st_size - info.st_blocks * 512


def fill(root: int, name: str) -> None:
    """Write a file until the file system is full, and have all of it on disk."""
    file = os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=root)
    try:
        with pytest.raises(OSError, match="No space left"):
            write_on(file)
        os.fsync(file)
    finally:
        os.close(file)


def write_on(file: int) -> None:
    while True:
        os.write(file, os.urandom(MIB))
        os.fsync(file)


def test_an_image_has_all_its_place_from_the_start_and_keeps_it(shared_pool: str) -> None:
    path = made(shared_pool, "whole", 48 * MIB)
    assert holes(path) == 0
    with image.opened(path, quotas=QUOTAS) as root:
        fill(root, "upper/f")
        os.unlink("upper/f", dir_fd=root)
        assert os.stat("upper", dir_fd=root).st_uid == OWNER
    assert holes(path) == 0
    volumes.set_size(path, 64 * MIB)
    volumes.set_size(path, 32 * MIB)
    assert holes(path) == 0
    assert volumes.measure(path)[0] == 32 * MIB
    os.unlink(path)


def test_an_image_does_not_shrink_below_its_files_nor_under_somebody(shared_pool: str) -> None:
    path = made(shared_pool, "small", 48 * MIB)
    with image.opened(path, quotas=QUOTAS) as root:
        fill(root, "upper/f")
        with pytest.raises(BusyError, match="stop the VE first"):
            volumes.set_size(path, 32 * MIB)
    asyncio.run(volumes.await_released(path))
    with pytest.raises(NoSpaceError, match="its files do not fit"):
        volumes.set_size(path, 32 * MIB)
    assert ext4.read_superblock(path).size == 48 * MIB
    with image.opened(path, quotas=QUOTAS) as root:
        assert os.stat("upper/f", dir_fd=root).st_size > 30 * MIB
    os.unlink(path)


def test_an_image_that_does_not_fit_leaves_nothing(shared_pool: str) -> None:
    btrfs.create_subvolume(f"{shared_pool}/none")
    with pytest.raises(NoSpaceError):
        volumes.create(f"{shared_pool}/none/disk.img", size=2 * storage.POOL_BYTES, room=None, owner=OWNER)
    assert os.listdir(f"{shared_pool}/none") == []


def test_a_whole_image_is_overwritten_after_a_snapshot_though_the_pool_is_otherwise_full(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    spec = VolumeSpec(template=TemplateName("busybox"), size=40 * MIB, quotas=Quotas(inodes=100))
    assert spec.size is not None
    with storage.pool(str(tmp_path_factory.mktemp("reserve"))) as pool:
        free = btrfs.read_space(pool).free
        claimed = pool_bytes(spec, snapshots=1)
        assert claimed == 2 * spec.size
        path = made(pool, "v", spec.size)
        with image.opened(path, quotas=QUOTAS) as root:
            fill(root, "upper/f")
            take_the_rest(pool, free - claimed)
            os.sync()
            storage.snapshot(f"{pool}/v", f"{pool}/kept", "-r")
            file = os.open("upper/f", os.O_WRONLY, dir_fd=root)
            for _ in range(os.fstat(file).st_size // MIB):
                os.write(file, os.urandom(MIB))
            os.fsync(file)
            os.close(file)
            os.unlink("upper/f", dir_fd=root)
            fill(root, "upper/again")
        asyncio.run(volumes.await_released(path))
        ext4.check(path)


def take_the_rest(pool: str, size: int) -> None:
    """Let somebody else fill what the arithmetic leaves others, up to a limit of his."""
    btrfs.create_subvolume(f"{pool}/other")
    qgroup.set_limit(f"{pool}/other", size)
    with open(f"{pool}/other/f", "wb", buffering=0) as file, pytest.raises(OSError, match=r"quota exceeded|No space"):
        write_on(file.fileno())


def test_what_was_flushed_is_in_a_copy_for_whoever_reads_it_without_its_journal(shared_pool: str) -> None:
    path = made(shared_pool, "flushed", 32 * MIB)
    with image.opened(path, quotas=QUOTAS) as root:
        for number in range(50):
            os.mkdir(f"upper/d{number}", dir_fd=root)
            with open(os.open(f"upper/d{number}/f", os.O_CREAT | os.O_WRONLY, dir_fd=root), "w") as file:
                file.write(f"{number}")
        image.flush(loop.find(path)[0], quotas=QUOTAS)
        btrfs.snapshot(f"{shared_pool}/flushed", f"{shared_pool}/flushed.copy", read_only=True)
    with loop.attached(f"{shared_pool}/flushed.copy/disk.img", read_only=True, direct_io=False) as device:
        settings = (("source", device), ("ro", None), ("noload", None))
        tree = fscontext.mount_detached("ext4", settings, what="the copy", attributes=0)
        for number in range(50):
            with open(os.open(f"upper/d{number}/f", os.O_RDONLY, dir_fd=tree)) as file:
                assert file.read() == f"{number}"
        os.close(tree)
    for name in ("flushed.copy", "flushed"):
        btrfs.delete_subvolume(f"{shared_pool}/{name}")


def on_image() -> tuple[Effect, ...]:
    """Give the effects that bring a VE up on an image."""
    template_and_record = data(A)[:2]
    volume = CreateVolume(uid=A, size=48 * MIB, is_image=True)
    cgroup = CreateCgroup(uid=A, limits={Limit.MEMORY_LIMIT: 1 << 27})
    return (*template_and_record, volume, cgroup, launch(A), StartRuntime(uid=A))


def test_a_ve_lives_on_an_image_that_comes_and_goes_with_it() -> None:
    def in_namespaces() -> None:
        real_host.enter_private_namespaces()
        asyncio.run(_live_on_image())

    storage.in_child(in_namespaces)


async def _live_on_image() -> None:
    async with real_host.real_host() as host:
        path = f"{host.site.instance.volume(A)}/disk.img"
        await _perform(host, *on_image())
        pid = await _pid(host)
        inside = os.statvfs(f"/proc/{pid}/root")
        assert 32 * MIB < inside.f_blocks * inside.f_frsize < 48 * MIB
        Path(f"/proc/{pid}/root/kept").write_text("kept")
        assert len(loop.find(path)) == 1
        assert not [there for there in mount.read_mounts() if there.source in loop.find(path)]
        with pytest.raises(BusyError):
            await host.perform(SetVolumeSize(uid=A, size=40 * MIB))
        await _perform(host, StopRuntime(uid=A, timeout_s=2.0), DeleteRuntime(uid=A))
        assert loop.find(path) == []
        await _perform(host, SetVolumeSize(uid=A, size=40 * MIB), RemoveCgroup(uid=A), TrashVe(uid=A))
        seen = await host.observe()
        assert isinstance(seen.trash, tuple)
        await _perform(host, RestoreVe(uid=A, trash_id=seen.trash[0].id), *on_image()[3:])
        assert _volume(await host.observe(EVERYTHING)).size == 40 * MIB
        assert Path(f"/proc/{await _pid(host)}/root/kept").read_text() == "kept"


async def _perform(host: RealHost, *effects: Effect) -> None:
    for effect in effects:
        await host.perform(effect)


async def _pid(host: RealHost) -> int:
    power = (await host.observe()).ves[A].power
    assert isinstance(power, PowerObservation)
    assert power.pid is not None
    return power.pid


def _volume(seen: HostObservation) -> VolumeObservation:
    volume = seen.ves[A].volume
    assert isinstance(volume, VolumeObservation), volume
    return volume
