"""Whoever is killed while a VE is held to leave: it stands still until somebody says what becomes of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable

import pytest

from reconciler.errors import BusyError
from reconciler.host import compute, debris
from reconciler.host.host import RealHost
from reconciler.host.site import Site
from reconciler.model.identity import Uid
from reconciler.model.placement import ClearMove, EndHeld, Held, HoldRuntime, OpenRuntime, ResumeHeld
from reconciler.model.power import DeleteRuntime, PowerState, StartRuntime, StopRuntime
from tests.support.inside import Ve
from tests.support.real_host import on_real_host, perform
from tests.support.suspended import ASLEEP, ATTACH, RESUMED, power_of, shell, until
from tests.support.twins import A, running

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

HOLD = HoldRuntime(uid=A, move="m1", number=1)
RESUME, END = ResumeHeld(uid=A, move="m1"), EndHeld(uid=A, move="m1")
_COUNT = "i=0; while :; do i=$((i+1)); echo $i >/tmp/next; mv /tmp/next /tmp/count; sleep 0.02; done"
COUNTER = f"setsid sh -c '{_COUNT}' >/dev/null 2>&1 </dev/null &"
CLOSED = tuple(
    StartRuntime(uid=A, closed=True) if isinstance(it, StartRuntime) else it for it in RESUMED if it not in ATTACH
)


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def leader_of(keeper: int) -> int:
    """Give the child of a keeper that leads criu."""
    leaders = [child for child in children_of(keeper) if any(map(is_criu, children_of(child)))]
    assert len(leaders) == 1, leaders
    return leaders[0]


def is_criu(pid: int) -> bool:
    """Say whether a process is criu, which may be run by a linker of its own."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"--action-script" in file.read()


def kill(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    os.close(descriptor)


async def keeper_of(host: RealHost) -> int:
    return (await (await host.site.keeper()).ping()).pid


async def kill_leader(host: RealHost) -> None:
    kill(leader_of(await keeper_of(host)))


async def kill_keeper(host: RealHost) -> None:
    kill(await keeper_of(host))


async def kill_criu(host: RealHost) -> None:
    leader = leader_of(await keeper_of(host))
    kill(next(filter(is_criu, children_of(leader))))


async def kill_nobody(host: RealHost) -> None:
    assert leader_of(await keeper_of(host))


def count(host: RealHost) -> str:
    pid = Ve(host.site.instance, A).pid
    with open(f"/proc/{pid}/root/tmp/count") as file:
        return file.read()


def tables(host: RealHost) -> str:
    """List the tables of the filter inside the VE."""
    pid = Ve(host.site.instance, A).pid
    command = ["nsenter", "-n", "-t", str(pid), "nft", "list", "tables"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


Fault = Callable[[RealHost], Awaitable[None]]
LONG = pytest.mark.long
FAULTS = [
    pytest.param(kill_criu, False, id="criu-goes-on"),
    pytest.param(kill_keeper, False, id="keeper-goes-on"),
    pytest.param(kill_keeper, True, id="keeper-ends"),
    pytest.param(kill_nobody, False, id="nobody-goes-on", marks=LONG),
    pytest.param(kill_nobody, True, id="nobody-ends", marks=LONG),
    pytest.param(kill_criu, True, id="criu-ends", marks=LONG),
    pytest.param(kill_leader, False, id="leader-goes-on", marks=LONG),
    pytest.param(kill_leader, True, id="leader-ends", marks=LONG),
]


@pytest.mark.parametrize(("fault", "ends"), FAULTS)
def test_a_held_ve_outlives_whoever_holds_it_and_waits_for_a_word(fault: Fault, ends: bool) -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *running(A))
        await shell(host, COUNTER)
        await until(host, "test -s /tmp/count")
        await host.perform(HOLD)
        before = count(host)
        await fault(host)
        fresh = RealHost(Site(host.site.instance))
        await asyncio.to_thread(debris.sweep, fresh.site)
        await asyncio.sleep(0.3)  # in which whoever let it go would
        assert (await power_of(fresh)).held is Held.LEAVING
        with pytest.raises(BusyError):
            await fresh.perform(StopRuntime(uid=A, timeout_s=1.0))
        with pytest.raises(BusyError):
            await fresh.find_obstacles(A)
        assert count(fresh) == before
        if ends:
            await perform(fresh, END, END, DeleteRuntime(uid=A))
            assert (await power_of(fresh)).state is PowerState.STOPPED
            assert not compute.tree(fresh.site, A).processes()
        else:
            await perform(fresh, RESUME, RESUME)
            assert (await power_of(fresh)).held is None
            assert "CRIU" not in tables(fresh)
            await until(fresh, f"test $(cat /tmp/count) -gt {int(before) + 2}")
        await fresh.perform(ClearMove(uid=A, move="m1"))
        fresh.site.close()

    on_real_host(story)


@pytest.mark.parametrize(
    "fault", [kill_leader, pytest.param(kill_criu, marks=LONG), pytest.param(kill_keeper, marks=LONG)]
)
def test_a_ve_that_has_arrived_runs_not_one_step_without_a_word(fault: Fault) -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *running(A))
        await shell(host, COUNTER)
        await until(host, "test -s /tmp/count")
        await perform(host, *ASLEEP, *CLOSED)
        assert (await power_of(host)).held is Held.ARRIVED
        before = count(host)
        await fault(host)
        fresh = RealHost(Site(host.site.instance))
        await _until_gone(fresh, A)
        assert (await power_of(fresh)).state is PowerState.SUSPENDED
        await perform(fresh, *CLOSED)
        assert count(fresh) == before, "it took a step"
        await perform(fresh, OpenRuntime(uid=A))
        await until(fresh, f"test $(cat /tmp/count) -gt {int(before) + 2}")
        assert "CRIU" not in tables(fresh)
        fresh.site.close()

    on_real_host(story)


async def _until_gone(host: RealHost, uid: Uid) -> None:
    for _ in range(500):
        if (await power_of(host)).pid is None and not compute.tree(host.site, uid).processes():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("what nobody leads is still there")
