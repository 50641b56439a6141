"""A VE that moves while it runs: connections in both directions never notice, whether it arrives or goes on here."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from reconciler.host.host import RealHost
from reconciler.model.compute import CreateCgroup, Limit, RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.network import (
    AddGateway,
    AnnounceAddress,
    AttachInterface,
    CreateNetwork,
    SetNetworkUp,
    SetUplink,
)
from reconciler.model.placement import (
    ClearMove,
    CutParcel,
    EndHeld,
    Held,
    HoldRuntime,
    OpenRuntime,
    PlaceArrival,
    ResumeHeld,
)
from reconciler.model.power import DeleteRuntime, PowerObservation, PowerState, StartRuntime
from tests.support import two_hosts
from tests.support.effect_choices import LAN
from tests.support.suspended import RESUME
from tests.support.traffic import Client, listening, talking
from tests.support.twins import ADDRESS, SIX, A, data, launch, linked
from tests.support.two_hosts import CLIENT, UPLINK, FailedThereError, Remote, between_hosts

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

SOURCE = Path(__file__).parent / "state" / "talk.c"
MOVE = "m1"
VE = (str(ADDRESS.ip), str(SIX.ip))
CGROUP = CreateCgroup(uid=A, limits={Limit.MEMORY_LIMIT: 1 << 27, Limit.PROCESSES: 100})
NETWORK: tuple[Effect, ...] = (SetUplink(network=LAN, uplink=UPLINK),)
INSIDE = tuple(it for it in linked(A) if not isinstance(it, AddGateway | AttachInterface))
LAID = tuple(it for it in INSIDE if isinstance(it, CreateNetwork | SetNetworkUp))
WIRED = tuple(it for it in INSIDE if it not in LAID)
ATTACH = tuple(it for it in linked(A) if isinstance(it, AttachInterface))
ANNOUNCE = tuple(AnnounceAddress(uid=A, interface="eth0", address=it.ip) for it in (ADDRESS, SIX))
HOLD = HoldRuntime(uid=A, move=MOVE, number=1)
GIVE_UP: tuple[Effect, ...] = (DeleteRuntime(uid=A), RemoveCgroup(uid=A))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The program that talks."""
    built, compiler = tmp_path_factory.mktemp("talk") / "talk", shutil.which("gcc")
    command = [compiler or "gcc", "-O1", "-static", "-o", str(built), str(SOURCE)]
    if not compiler or subprocess.run(command, capture_output=True, check=False, timeout=120).returncode:
        pytest.skip("needs gcc and the static C library; install build-essential")
    return built.read_bytes()


Story = Callable[[Remote, Remote, Client, str], Awaitable[None]]


def while_talking(program: bytes, story: Story) -> None:
    """Let a story happen while a client and a VE on the first host talk; nothing of that may break."""

    async def tell(source: Remote, target: Remote) -> None:
        client = Client()
        await source.perform(*data(A), *LAID, *NETWORK, CGROUP, launch(A), *WIRED, *ATTACH, StartRuntime(uid=A))
        await target.perform(*LAID, *NETWORK)
        await source.do(partial(two_hosts.put_program, uid=A, program=program, name="talk"))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(listening(client, CLIENT))
            await source.shell(A, f"talk 8 {' '.join(CLIENT)} </dev/null >/dev/null 2>&1")
            await stack.enter_async_context(talking(client, VE))
            await client.until_all_go_on(at_least=6)
            place = stack.enter_context(tempfile.TemporaryDirectory())
            await story(source, target, client, place)
            await client.until_all_go_on()
            for host in (source, target):
                await host.perform(ClearMove(uid=A, move=MOVE))

    between_hosts(tell)


async def power_of(host: Remote) -> PowerObservation:
    seen = (await host.see(A)).power
    assert isinstance(seen, PowerObservation), seen
    return seen


async def arrive(source: Remote, target: Remote, place: str, then: tuple[Effect, ...] = (RESUME, *WIRED)) -> None:
    """Hold the VE, and have all of it on the other host, where it goes on as far as it is said."""
    await source.perform(CutParcel(uid=A, move=MOVE, number=0))
    await two_hosts.send_all(source, target, A, MOVE, place)
    await source.perform(HOLD)
    sent = await two_hosts.send_all(source, target, A, MOVE, place)
    assert sorted(sent) == ["data:1", "memory:memory"], sent
    record = await source.do(partial(two_hosts.record_of, uid=A))
    await target.perform(PlaceArrival(record=record, move=MOVE), CGROUP, *then)


def test_a_ve_moves_and_no_connection_notices(program: bytes) -> None:
    async def move(source: Remote, target: Remote, client: Client, place: str) -> None:
        await arrive(source, target, place)
        await target.perform(StartRuntime(uid=A, closed=True))
        assert ((await power_of(target)).state, (await power_of(target)).held) == (PowerState.CREATED, Held.ARRIVED)
        await target.perform(*ATTACH, OpenRuntime(uid=A), *ANNOUNCE)
        await client.until_all_go_on()
        await source.perform(EndHeld(uid=A, move=MOVE), *GIVE_UP)
        seen = await power_of(source)
        assert (seen.state, seen.stop_requested, seen.held) == (PowerState.STOPPED, True, None)
        here, there = await source.see(A), await target.see(A)
        assert there.volume == here.volume
        assert await target.shell(A, "hostname") == await target.shell(A, "cat /proc/sys/kernel/hostname")

    while_talking(program, move)


@pytest.mark.parametrize("stage", ["held", pytest.param("placed", marks=pytest.mark.long), "closed"])
def test_a_move_that_is_given_up_leaves_the_ve_talking_where_it_was(program: bytes, stage: str) -> None:
    async def give_up(source: Remote, target: Remote, client: Client, place: str) -> None:
        before = await source.see(A)
        if stage == "held":
            await source.perform(HOLD)
        else:
            await arrive(source, target, place)
        if stage == "closed":
            await target.perform(StartRuntime(uid=A, closed=True))
        if stage != "held":
            await target.perform(*GIVE_UP)
            assert (await power_of(target)).state is PowerState.SUSPENDED
        await source.perform(ResumeHeld(uid=A, move=MOVE))
        after = await source.see(A)
        assert (after.power, after.network) == (before.power, before.network)
        await client.until_all_go_on()

    while_talking(program, give_up)


async def break_images(host: RealHost, damage: str) -> None:
    images = Path(host.site.instance.suspended_dir(A), "memory")
    if damage == "files":
        (images / "files.img").unlink()
    else:
        for pages in images.glob("pages-*.img"):
            os.truncate(pages, pages.stat().st_size // 2)


@pytest.mark.parametrize("damage", ["files", pytest.param("pages", marks=pytest.mark.long)])
def test_a_restore_that_fails_leaves_the_ve_talking_where_it_was(program: bytes, damage: str) -> None:
    async def fail(source: Remote, target: Remote, client: Client, place: str) -> None:
        await arrive(source, target, place, then=())
        await target.do(partial(break_images, damage=damage))
        with pytest.raises(FailedThereError) as caught:
            await target.perform(RESUME, *WIRED, StartRuntime(uid=A, closed=True))
        assert caught.value.kind in {"CommandError", "TimeLimitError"}, caught.value
        await target.perform(*GIVE_UP)
        await source.perform(ResumeHeld(uid=A, move=MOVE))
        await client.until_all_go_on()

    while_talking(program, fail)
