"""`vectl down` on a host of its own: it says what goes, and takes nothing that somebody may want to keep."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from reconciler.cli import down
from reconciler.errors import RefusedError, UsageError
from reconciler.host import ground
from reconciler.host.host import RealHost
from reconciler.kernel import files, loop, mount
from reconciler.model.volume import TrashVe, WriteRecord
from reconciler.state.config import Config
from tests.support import real_host, storage
from tests.support.effect_choices import TEMPLATE
from tests.support.twins import SETTING, A, B, data

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

PROTECT = WriteRecord(record=replace(SETTING.record(B), protect=True), template_key=TEMPLATE.key)
NAME_A, NAME_B = SETTING.name(A), SETTING.name(B)

_Result = TypeVar("_Result")


def with_ves(work: Callable[[RealHost, str], Awaitable[_Result]]) -> _Result:
    """Do work on a host with two VEs that do not run, whose pool is in a file."""

    async def there() -> _Result:
        async with real_host.real_host() as host:
            for effect in (*data(A), *data(B)):
                await host.perform(effect)
            return await work(host, ground.pool_image(host.site.instance))

    def in_namespaces() -> _Result:
        real_host.enter_private_namespaces()
        return asyncio.run(there())

    return storage.in_child(in_namespaces)


async def say_down(host: RealHost, *destroy: str, yes: bool = False) -> str:
    """Give what `down` says; without a terminal nobody agrees."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            await down.take_down(Config(instance=host.site.instance), yes=yes, destroy=frozenset(destroy))
        except (RefusedError, UsageError) as err:
            said.write(str(err))
    return said.getvalue()


def test_what_goes_is_said_before_it_is_asked() -> None:
    async def ask(host: RealHost, image: str) -> tuple[str, list[str]]:
        await host.perform(TrashVe(uid=A))
        said = await say_down(host)
        return said.replace(image, "IMAGE"), os.listdir(host.site.instance.ves)

    said, left = with_ves(ask)
    assert f"VEs with their data: 1: {NAME_B}\n" in said
    assert "in the trash: 1\n" in said
    assert "the pool in IMAGE\n" in said
    assert said.endswith("no terminal to ask on")
    assert left == [B]


def test_a_pool_that_is_not_mounted_is_said_not_to_be_counted() -> None:
    async def ask(host: RealHost, image: str) -> tuple[str, bool]:
        mount.unmount(host.site.instance.pool)
        said = await say_down(host), Path(image).exists()
        ground.prepare(host.site.instance)
        return said

    said, is_left = with_ves(ask)
    assert "it is not mounted, so they cannot be counted\n" in said
    assert "VEs with their data" not in said
    assert is_left


def test_a_protected_ve_is_kept_though_its_pool_was_not_mounted() -> None:
    async def insist(host: RealHost, image: str) -> tuple[str, list[str]]:
        await host.perform(PROTECT)
        mount.unmount(host.site.instance.pool)
        return await say_down(host, yes=True), sorted(os.listdir(host.site.instance.ves))

    said, left = with_ves(insist)
    assert said.endswith(f"protected VEs are here: {NAME_B}; destroy them with --destroy-data {NAME_B}")
    assert left == sorted([A, B])


def test_a_ve_whose_record_cannot_be_read_is_destroyed_only_by_name() -> None:
    async def insist(host: RealHost, image: str) -> tuple[str, list[str], str, bool]:
        Path(host.site.instance.record_file(B)).write_text("{")
        refused, left = await say_down(host, yes=True), sorted(os.listdir(host.site.instance.ves))
        done = await say_down(host, B, yes=True)
        is_left = Path(host.site.instance.state_dir).exists()
        ground.prepare(host.site.instance)
        return refused, left, done, is_left

    refused, left, done, is_left = with_ves(insist)
    assert refused.endswith(f"as their records cannot be read; destroy them with --destroy-data {B}")
    assert left == sorted([A, B])
    assert done.endswith("is gone\n")
    assert not is_left


def test_a_pool_is_not_unmounted_before_the_last_disk_in_it_is_let_go() -> None:
    async def take(host: RealHost, image: str) -> tuple[str, bool]:
        disk = f"{host.site.instance.pool}/disk"
        files.allocate(disk, 1 << 20)
        with contextlib.ExitStack() as held, pytest.MonkeyPatch.context() as patched:
            device = held.enter_context(loop.attached(disk, read_only=False))
            find = loop.find_below

            def look(directory: str) -> list[str]:
                found = find(directory)
                if device in found:
                    held.close()
                return found

            patched.setattr(loop, "find_below", look)
            said = await say_down(host, yes=True)
        is_left = Path(image).exists()
        ground.prepare(host.site.instance)
        return said, is_left

    said, is_left = with_ves(take)
    assert "is gone\n" in said
    assert not is_left


def test_the_ground_is_not_removed_with_a_pool_that_nobody_looked_into() -> None:
    async def remove(host: RealHost, image: str) -> tuple[str, bool]:
        mount.unmount(host.site.instance.pool)
        with pytest.raises(RefusedError) as caught:
            ground.remove(host.site.instance)
        is_left = Path(image).exists()
        ground.prepare(host.site.instance)
        return str(caught.value).replace(image, "IMAGE"), is_left

    said, is_left = with_ves(remove)
    assert said.startswith("remove IMAGE: it is not mounted, and may hold VEs")
    assert is_left
