"""Claims about dumps and restores that hang, are killed, or whose client is: the VE goes on, or is suspended."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import CommandError, VectlError
from reconciler.host import compute, debris, externals, memory, preflight, resuming
from reconciler.host.host import RealHost
from reconciler.model.power import PowerState, SuspendRuntime
from tests.kernel.test_memory import counting, goes_on, nothing_left
from tests.support.inside import Ve
from tests.support.patience import PATIENCE
from tests.support.real_host import on_real_host, perform
from tests.support.suspended import RESUMED, power_of
from tests.support.twins import A

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

SHORT_S = 1.0 * PATIENCE
ASKED = '#!/bin/sh\n[ "$1" != --version ] || exec {criu} "$@"\n'
# Whoever hangs reads from what nobody writes to; at the end of the block it is let go.
HANGS = "read line <{here}/go"
# The action that is named last comes first: ours is never reached; everything is written by then, and stands still.
HANGS_AT_THE_END = 'exec {criu} "$@" --action-script {here}/hang'
HANG = '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0\necho $PPID >{here}/pid; read line <{here}/go\n'
# Ours comes first, and makes the dump count.
HANGS_ONCE_IT_COUNTS = 'what=$1; shift; exec {criu} $what --action-script {here}/hang "$@"'
WAITS = 'echo $$ >{here}/pid; read line <{here}/go; exec {criu} "$@"'


@contextmanager
def instead_of_criu(host: RealHost, script: str) -> Iterator[Path]:
    """Have a script run in the place of criu for the block; gives the directory that it may use."""
    before = host.site.instance
    real = externals.program(host.site)
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        (here / "bin").mkdir()
        for path, text in {"bin/criu": f"{ASKED}{script}\n", "hang": HANG}.items():
            (here / path).write_text(text.replace("{criu}", real).replace("{here}", name))
            (here / path).chmod(0o755)
        os.mkfifo(here / "go")
        host.site.instance = replace(before, lib_dir=name)
        try:
            yield here
        finally:
            host.site.instance = before
            os.close(os.open(here / "go", os.O_RDWR | os.O_NONBLOCK))


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(1000):
        if await true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("never came true")


async def pid_in(here: Path) -> int:
    async def there() -> bool:
        return (here / "pid").exists() and (here / "pid").read_text().endswith("\n")

    await eventually(there)
    return int((here / "pid").read_text())


async def is_unharmed(host: RealHost) -> None:
    """Expect a VE of which nothing was asked: it runs, reaches the host, and nothing is left."""
    seen = await power_of(host)
    assert seen.state is PowerState.RUNNING
    assert not seen.stop_requested
    await goes_on(host)
    one = Ve(host.site.instance, A)
    assert not await asyncio.to_thread(compute.tree(host.site, A).is_frozen)
    assert "CRIU" not in await asyncio.to_thread(one.net, "nft", "list", "ruleset")
    assert await asyncio.to_thread(one.can_reach, "10.77.0.1")
    assert nothing_left(host)


@pytest.mark.parametrize("script", [HANGS, HANGS_AT_THE_END])
def test_a_dump_that_hangs_is_given_up_and_the_ve_goes_on(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_DUMP_S", SHORT_S)

    async def story(host: RealHost) -> None:
        await counting(host)
        with instead_of_criu(host, script), pytest.raises(CommandError, match="within its time"):
            await perform(host, SuspendRuntime(uid=A))
        await is_unharmed(host)
        await perform(host, SuspendRuntime(uid=A), *RESUMED)
        await goes_on(host)

    on_real_host(story)


def test_a_dump_that_hangs_once_it_counts_is_brought_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_DUMP_S", SHORT_S)

    async def story(host: RealHost) -> None:
        await counting(host)
        with instead_of_criu(host, HANGS_ONCE_IT_COUNTS):
            await perform(host, SuspendRuntime(uid=A))
        seen = await power_of(host)
        assert seen.state is PowerState.SUSPENDED
        assert seen.stop_requested
        await perform(host, *RESUMED)
        await goes_on(host)

    on_real_host(story)


@pytest.mark.parametrize("kills", ["criu", "who leads it"])
def test_a_dump_of_which_somebody_is_killed_leaves_the_ve_going(kills: str) -> None:
    async def story(host: RealHost) -> None:
        await counting(host)
        with instead_of_criu(host, HANGS_AT_THE_END) as here:
            dumping = asyncio.create_task(host.perform(SuspendRuntime(uid=A)))
            criu = await pid_in(here)
            os.kill(criu if kills == "criu" else parent_of(criu), signal.SIGKILL)
            with pytest.raises(VectlError):
                await dumping

        async def thawed() -> bool:
            return not compute.tree(host.site, A).is_frozen() and nothing_left(host)

        await eventually(thawed)
        await is_unharmed(host)

    on_real_host(story)


@pytest.mark.parametrize("comes_upon_it", ["an agent that starts", "a look at what runs in it"])
def test_a_dump_whose_keeper_is_killed_as_well_is_undone_by_whoever_comes_upon_it(comes_upon_it: str) -> None:
    async def story(host: RealHost) -> None:
        await counting(host)
        with instead_of_criu(host, HANGS_AT_THE_END) as here:
            dumping = asyncio.create_task(host.perform(SuspendRuntime(uid=A)))
            leader = parent_of(await pid_in(here))
            for pid in (parent_of(leader), leader):
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(VectlError):
                await dumping
        assert not nothing_left(host)

        async def is_undone() -> bool:
            if comes_upon_it == "an agent that starts":
                debris.sweep(host.site)
                return nothing_left(host)
            return not await preflight.find_obstacles(host.site, A)

        await eventually(is_undone)  # who was killed may take a moment to be gone
        debris.sweep(host.site)
        await host.site.keeper()
        await is_unharmed(host)

    on_real_host(story)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_dump_outlives_its_client() -> None:
    async def story(host: RealHost) -> None:
        await counting(host)
        with instead_of_criu(host, WAITS) as here:
            dumping = asyncio.create_task(host.perform(SuspendRuntime(uid=A)))
            await pid_in(here)
            (await host.site.keeper()).close()
            with pytest.raises(VectlError):
                await dumping
            (here / "go").write_text("go\n")

            async def suspended() -> bool:
                return (await power_of(host)).state is PowerState.SUSPENDED

            await eventually(suspended)
        await perform(host, *RESUMED)
        await goes_on(host)

    on_real_host(story)


def test_a_restore_that_hangs_is_killed_with_all_that_it_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "_RESTORE_S", SHORT_S)

    async def story(host: RealHost) -> None:
        await counting(host)
        await perform(host, SuspendRuntime(uid=A))
        with instead_of_criu(host, HANGS), pytest.raises(CommandError, match="within its time"):
            await perform(host, *RESUMED)
        assert (await power_of(host)).state is PowerState.SUSPENDED
        assert nothing_left(host)
        monkeypatch.setattr(resuming, "_RESTORE_S", 60.0)
        await perform(host, *RESUMED)
        await goes_on(host)

    on_real_host(story)
