"""What the agent does by the clock: snapshots when they are due, their end, and nothing in between."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from reconciler.model.condition import ConditionType
from reconciler.model.snapshots import DeleteSnapshot, SnapshotKind, TakeSnapshot
from reconciler.state.pause import Pause
from tests.support import simloop
from tests.support.rig import Rig, text_of, ve
from tests.support.simulation import HOUR, Simulation, agent_on, clocked_rig

HOURLY = "snapshotSchedule: {every: 1h, keep: 3}"
GOLDEN = "snapshots: [{name: golden}]"


def kept(rig: Rig, name: str, kind: SnapshotKind) -> list[float]:
    """Give when the snapshots of a kind were taken."""
    found = rig.machine.snapshots.get(rig.uid(name), {}).values()
    return sorted(one.taken_at for one in found if one.kind is kind)


def taken(agent: Simulation) -> list[float]:
    return agent.kernel.times_of(TakeSnapshot)


def test_a_schedule_takes_one_in_each_interval_and_keeps_as_many_as_it_says() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, {"fleet.yaml": text_of(ve("a", HOURLY), ve("b"))}) as agent:
                await agent.ready("a", "b")
                await asyncio.sleep(10.5 * HOUR)
                times = taken(agent)
                assert len(times) == 11
                gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
                assert all(HOUR <= gap < HOUR + 5 for gap in gaps)
                assert len(kept(rig, "a", SnapshotKind.SCHEDULED)) == 3
                assert not kept(rig, "b", SnapshotKind.SCHEDULED)

    simloop.run(0, main())


def test_between_two_snapshots_the_agent_looks_at_nothing() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, {"fleet.yaml": text_of(ve("a", HOURLY))}) as agent:
                await agent.ready("a")
                await asyncio.sleep(60)
                looks = agent.observer.looks
                await asyncio.sleep(0.9 * HOUR)
                assert agent.observer.looks == looks

    simloop.run(0, main())


@pytest.mark.parametrize("why", ["stopped", "paused", "full"])
def test_a_snapshot_that_is_due_and_cannot_be_taken_is_not_asked_for_without_rest(why: str) -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            spec = HOURLY + (", power: stopped" if why == "stopped" else "")
            async with agent_on(rig, {"fleet.yaml": text_of(ve("a", spec))}) as agent:
                await agent.ready("a")
                if why == "paused":
                    rig.desk().pauses.put(Pause(ve=None, reason="night", since=0.0))
                if why == "full":
                    rig.world.fill_pool()
                looks = agent.observer.looks
                await asyncio.sleep(1.5 * HOUR)
                assert agent.observer.looks - looks < 60
                rig.world.free_pool()

    simloop.run(0, main())


def test_what_was_put_aside_goes_when_its_time_is_over_and_not_before() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, {"fleet.yaml": text_of(ve("a", GOLDEN))}) as agent:
                agent.reconciler.trash_keep_s = HOUR
                await agent.ready("a")
                agent.write(ve("a", f"{GOLDEN}, rollback: {{to: golden, request: one}}"))
                await agent.ready("a")
                assert len(kept(rig, "a", SnapshotKind.SAFETY)) == 1
                await asyncio.sleep(0.9 * HOUR)
                assert len(kept(rig, "a", SnapshotKind.SAFETY)) == 1
                await asyncio.sleep(0.2 * HOUR)
                assert kept(rig, "a", SnapshotKind.SAFETY) == []
                assert len(agent.kernel.times_of(DeleteSnapshot)) == 1
                assert len(kept(rig, "a", SnapshotKind.NAMED)) == 1

    simloop.run(0, main())


def test_a_clone_is_made_as_soon_as_the_snapshot_that_it_waits_for_is_taken() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, {"fleet.yaml": text_of(ve("a", "power: stopped"))}) as agent:
                await agent.ready("a")
                clone = ve("c", "source: {clone: a, snapshot: warm}")
                agent.write(ve("a", "power: stopped, snapshots: [{name: warm, memory: true}]"), clone)
                await agent.until(lambda: agent.condition("c").reason == "Waiting", "the clone to wait")
                assert agent.condition("a", ConditionType.STALLED).reason == "NotRunning"
                agent.write(ve("a", "snapshots: [{name: warm, memory: true}]"), clone)
                await agent.ready("a", "c")

    simloop.run(0, main())
