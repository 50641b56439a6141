"""Snapshots with the processes of a VE: a rollback to one lets them go on from there, as often as one returns to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import StateError
from reconciler.host.host import RealHost
from reconciler.model.identity import SnapshotName
from reconciler.model.power import DeleteRuntime, PowerState, StopRuntime, SuspendRuntime
from reconciler.model.snapshots import RollBack, SnapshotsObservation, TakeSnapshot
from tests.support.real_host import on_real_host, perform
from tests.support.suspended import RESUMED, power_of, shell, until
from tests.support.twins import A, created, running

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

GOLDEN = SnapshotName("golden")
STOPPED = StopRuntime(uid=A, timeout_s=2.0), DeleteRuntime(uid=A)
COUNT = "setsid sh -c 'i=0; while :; do i=$((i+1)); echo $i >/srv/count; sleep 0.02; done' >/dev/null 2>&1 </dev/null &"


def counted(host: RealHost) -> int:
    return int(Path(host.site.instance.volume(A), "upper/srv/count").read_text() or 0)


def back(request: str, safety: str, to: str = "golden") -> RollBack:
    return RollBack(uid=A, to=SnapshotName(to), request=request, safety=SnapshotName(safety), size=1 << 26)


async def kept(host: RealHost) -> dict[str, bool]:
    """Name the snapshots, and say of each whether it has a memory."""
    seen = (await host.observe()).ves[A].snapshots
    assert isinstance(seen, SnapshotsObservation)
    return {str(name): it.memory for name, it in seen.snapshots.items()}


def test_a_ve_goes_on_from_a_snapshot_with_its_processes_each_time_it_returns_to_it() -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *running(A))
        await shell(host, COUNT)
        await until(host, "test $(cat /srv/count) -gt 5")
        await perform(host, TakeSnapshot(uid=A, name=GOLDEN, memory=True))
        assert (await power_of(host)).state is PowerState.RUNNING
        then = counted(host)
        await until(host, f"test $(cat /srv/count) -gt {then + 100}")
        for number in range(2):
            await perform(host, *STOPPED, back(f"r{number}", f"before-{number}"))
            assert (await power_of(host)).state is PowerState.SUSPENDED
            assert counted(host) <= then
            await perform(host, *RESUMED)
            assert counted(host) <= then + 50, "it did not go on from where it was"
            await until(host, f"test $(cat /srv/count) -gt {then + 2}")
        assert await kept(host) == {"golden": True, "before-0": False, "before-1": False}

    on_real_host(story)


def test_the_memory_of_a_suspended_ve_goes_with_the_data_that_it_belongs_to() -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *running(A))
        await shell(host, COUNT)
        await perform(host, TakeSnapshot(uid=A, name=GOLDEN))
        await until(host, "test $(cat /srv/count) -gt 20")
        await perform(host, SuspendRuntime(uid=A), DeleteRuntime(uid=A))
        asleep = counted(host)
        await perform(host, TakeSnapshot(uid=A, name=SnapshotName("asleep"), memory=True), back("r", "before-r"))
        assert (await power_of(host)).state is PowerState.STOPPED
        assert await kept(host) == {"golden": False, "before-r": True, "asleep": True}
        await perform(host, back("undo", "before-undo", to="before-r"))
        assert (await power_of(host)).state is PowerState.SUSPENDED
        assert counted(host) == asleep
        await perform(host, *RESUMED)
        await until(host, f"test $(cat /srv/count) -gt {asleep}")

    on_real_host(story)


def test_what_does_not_run_has_no_memory_to_keep() -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *created(A)[:3])
        with pytest.raises(StateError, match="no memory to keep"):
            await host.perform(TakeSnapshot(uid=A, name=GOLDEN, memory=True))
        assert await kept(host) == {}

    on_real_host(story)
