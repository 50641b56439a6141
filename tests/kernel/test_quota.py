"""Quotas inside a VE, as the kernel holds them: against its users, and against its root when he gives files away."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from reconciler.errors import KernelError, StateError
from reconciler.host.host import RealHost
from reconciler.kernel import loop, quota
from reconciler.model.compute import CreateCgroup, Limit
from reconciler.model.effects import Effect
from reconciler.model.power import StartRuntime
from reconciler.model.quota import LoadQuotas, QuotaKind, QuotaLimit, Quotas, SetInodes, SetQuota
from reconciler.model.volume import CreateVolume, SetVolumeSize, VolumeObservation
from tests.support import real_host, storage
from tests.support.inside import Ve
from tests.support.twins import A, data, launch

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(900)]

MIB = 1 << 20
USER, GROUP = 1000, 50
OVER = "Disk quota exceeded"
WITHOUT = quota.missing()
needs_quotas = pytest.mark.skipif(WITHOUT is not None, reason="this kernel has no quota format for ext4")

LIMIT = QuotaLimit(soft=2 * MIB, hard=4 * MIB, soft_files=20, hard_files=30, grace_s=3600)
QUOTAS = Quotas(inodes=500, users={USER: LIMIT}, groups={GROUP: QuotaLimit(hard=6 * MIB)})

Claim = Callable[[RealHost, Ve], Awaitable[None]]


def on_ve(claim: Claim) -> None:
    """Hold a claim against a VE with quotas, on a host of its own in a process of its own."""

    async def there() -> None:
        async with real_host.real_host() as host:
            up: tuple[Effect, ...] = (
                *data(A)[:2],
                CreateVolume(uid=A, size=64 * MIB, is_image=True, room=500),
                CreateCgroup(uid=A, limits={Limit.MEMORY_LIMIT: 1 << 28}),
                launch(A),
                *(() if WITHOUT else (LoadQuotas(uid=A, quotas=QUOTAS),)),
                StartRuntime(uid=A),
            )
            for effect in up:
                await host.perform(effect)
            one = Ve(host.site.instance, A)
            inside(one, f"echo u:x:{USER}:{USER}::/:/bin/sh >> /etc/passwd; mkdir /all; chmod 777 /all")
            await claim(host, one)

    def in_namespaces() -> None:
        real_host.enter_private_namespaces()
        asyncio.run(there())

    storage.in_child(in_namespaces)


def inside(one: Ve, script: str) -> str:
    """Run a script as the VE's root, with all the capabilities that he can have; give all that it printed."""
    return one.as_host("sh", "-c", f"exec 2>&1; {script}", check=False)


def as_user(one: Ve, script: str) -> str:
    return inside(one, f"su u -c '{script}'")


def size(one: Ve, path: str) -> int:
    return int(inside(one, f"stat -c %s {path}"))


def device(one: Ve) -> str:
    """The device that the VE's image is attached to."""
    (found,) = loop.find(f"{one.instance.volume(one.uid)}/disk.img")
    return found


async def seen(host: RealHost) -> VolumeObservation:
    volume = (await host.observe()).ves[A].volume
    assert isinstance(volume, VolumeObservation), volume
    return volume


@pytest.mark.skipif(WITHOUT is None, reason="this kernel has the quota format of ext4")
def test_a_kernel_without_the_format_says_so() -> None:
    async def claim(host: RealHost, one: Ve) -> None:
        assert "CONFIG_QFMT_V2" in (await host.observe()).capabilities.why_not["disk.users"]
        assert (await seen(host)).quotas is None
        with pytest.raises(KernelError, match="CONFIG_QFMT_V2"):
            await host.perform(SetInodes(uid=A, inodes=9))

    on_ve(claim)


@needs_quotas
def test_users_and_what_root_gives_them_stay_within_the_limits() -> None:
    async def claim(host: RealHost, one: Ve) -> None:
        assert OVER in as_user(one, "dd if=/dev/zero of=/all/f bs=64k count=128; sync")
        assert 3 * MIB < size(one, "/all/f") <= 4 * MIB
        inside(one, "dd if=/dev/zero of=/all/gift bs=1M count=6; dd if=/dev/zero of=/all/more bs=1M count=3; sync")
        assert size(one, "/all/gift") == 6 * MIB, "the limit is the user's alone"
        assert OVER in inside(one, f"chown {USER} /all/gift")
        assert inside(one, f"chgrp {GROUP} /all/gift") == ""
        assert OVER in inside(one, f"chgrp {GROUP} /all/more")
        told = (await seen(host)).quota_use[QuotaKind.USERS][USER]
        assert told.space >= 3 * MIB
        assert told.space_until is not None
        inside(one, "rm /all/f")
        assert OVER in as_user(one, "cd /all; i=0; while [ $i -lt 40 ]; do : > f$i; i=$((i + 1)); done")
        assert int(inside(one, "ls /all/f* | wc -l")) == 30

    on_ve(claim)


@needs_quotas
def test_a_ve_sees_its_own_size_and_gets_no_more_files() -> None:
    async def claim(host: RealHost, one: Ve) -> None:
        blocks, files = (int(inside(one, f"df {option} / | tail -1").split()[1]) for option in ("-k", "-i"))
        assert 48 << 10 < blocks < 64 << 10
        assert files == 500
        inside(one, "cd /all; i=0; while [ $i -lt 600 ]; do : > f$i; i=$((i + 1)); done")
        assert 400 < int(inside(one, "ls /all | wc -l")) < 500
        await host.perform(SetInodes(uid=A, inodes=550))
        inside(one, "cd /all; i=600; while [ $i -lt 1200 ]; do : > f$i; i=$((i + 1)); done")
        assert 500 < int(inside(one, "ls /all | wc -l")) < 550

    on_ve(claim)


@needs_quotas
def test_limits_change_live_and_what_is_set_by_hand_is_seen() -> None:
    async def claim(host: RealHost, one: Ve) -> None:
        init, base = one.init, host.site.need_record(A).id_base
        assert (await seen(host)).quotas == QUOTAS
        wider = QuotaLimit(hard=8 * MIB)
        await host.perform(SetQuota(uid=A, kind=QuotaKind.USERS, number=USER, limit=wider))
        assert OVER in as_user(one, "dd if=/dev/zero of=/all/f bs=64k count=256; sync")
        assert 7 * MIB < size(one, "/all/f") <= 8 * MIB
        quota.set_limits(device(one), quota.Kind.USER, base + 7, quota.Limits(hard_files=3))
        assert (await seen(host)).quotas == Quotas(
            inodes=500, users={USER: wider, 7: QuotaLimit(hard_files=3)}, groups=QUOTAS.groups
        )
        await host.perform(LoadQuotas(uid=A, quotas=QUOTAS))
        assert (await seen(host)).quotas == QUOTAS
        assert one.init == init

    on_ve(claim)


@needs_quotas
def test_a_disk_grows_under_its_ve() -> None:
    async def claim(host: RealHost, one: Ve) -> None:
        await host.perform(SetVolumeSize(uid=A, size=96 * MIB))
        assert 80 << 10 < int(inside(one, "df -k / | tail -1").split()[1]) < 96 << 10
        assert (await seen(host)).size == 96 * MIB
        inside(one, "dd if=/dev/zero of=/all/big bs=1M count=70; sync")
        assert size(one, "/all/big") == 70 * MIB
        info = os.stat(f"{one.instance.volume(A)}/disk.img")
        assert info.st_blocks * 512 >= info.st_size

    on_ve(claim)


@needs_quotas
def test_the_program_quota_tells_a_user_inside_his_limits_and_the_device_stays_closed() -> None:
    async def claim(host: RealHost, one: Ve) -> None:
        as_user(one, "dd if=/dev/zero of=/all/f bs=1M count=1; sync")
        program = shutil.which("quota")
        assert program is not None, "the package quota is not installed"
        copy_with_libraries(program, Path(f"/proc/{one.pid}/root"))
        told = as_user(one, f"{program} -v -w -p")
        values = told.splitlines()[-1].split()
        assert values[0] == device(one), told
        assert int(values[1].rstrip("*")) >= 1024
        assert values[2:4] == ["2048", "4096"]
        assert values[6:8] == ["20", "30"]
        assert "can't open" in inside(one, f"dd if={device(one)} of=/dev/null count=1")
        inside(one, "touch /dev/quota/x")
        assert inside(one, "ls -A /dev/quota") == ""

    on_ve(claim)


def copy_with_libraries(program: str, root: Path) -> None:
    """Put a program of the host into a root, with what it is linked to."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True, timeout=60).stdout
    for path in [program, *(word for word in listed.split() if word.startswith("/"))]:
        copied = root / path.lstrip("/")
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(path), copied)


@needs_quotas
def test_quotas_of_a_ve_that_is_down_are_not_known() -> None:
    async def claim(host: RealHost, one: Ve) -> None:
        one.cgroup.kill()
        while one.runs:  # noqa: ASYNC110 - it is the kernel that ends it
            await asyncio.sleep(0.01)
        with pytest.raises(StateError, match="it is not up"):
            await host.perform(SetInodes(uid=A, inodes=None))
        assert (await seen(host)).quotas is None

    on_ve(claim)
