"""Suspending and resuming in the agent: what fails is told and tried again, and nobody else waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reconciler.model.compute import CreateCgroup, Limit
from reconciler.model.condition import ConditionType
from reconciler.model.effects import Effect
from reconciler.model.identity import VeName
from reconciler.model.power import CreateRuntime, StartRuntime, SuspendRuntime
from reconciler.model.seam import Effects
from reconciler.twin import host
from tests.support import simloop
from tests.support.rig import LAN, on_lan, text_of, ve
from tests.support.simulation import HOUR, Simulation, agent_on, clocked_rig

NAMES = ("web1", "web2", "web3", "web4", "web5")
UP = (LAN, *(ve(name, on_lan(11 + number)) for number, name in enumerate(NAMES)))
ASLEEP = (UP[0], ve("web1", f"{on_lan(11)}, power: suspended"), *UP[2:])
LONG_S = 40.0


def files(*documents: str) -> dict[str, bytes]:
    return {"fleet.yaml": text_of(*documents)}


def stalled(agent: Simulation, name: str) -> str:
    return agent.condition(name, ConditionType.STALLED).reason


class Slow:
    """Takes long for some effects."""

    def __init__(self, inner: Effects, *kinds: type) -> None:
        self._inner, self._kinds = inner, kinds

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect, in its time."""
        if isinstance(effect, self._kinds):
            await asyncio.sleep(LONG_S)
        await self._inner.perform(effect)


def slow(*kinds: type) -> Callable[[Effects], Effects]:
    return lambda inner: Slow(inner, *kinds)


def test_a_ve_is_suspended_and_goes_on_from_there() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*UP)) as agent:
                await agent.ready(*NAMES)
                agent.write(*ASLEEP)
                await agent.until(lambda: rig.uid("web1") in rig.machine.memories, "the memory")
                await agent.ready("web1")
                assert rig.uid("web1") not in rig.machine.cgroups
                assert rig.uid("web1") not in rig.machine.runtimes
                agent.write(*UP)
                await agent.until(lambda: "web1" in agent.running(), "the resume")
                await agent.ready(*NAMES)
                assert rig.machine.runtimes[rig.uid("web1")].resumed
                measured = agent.reconciler.desk.history.medians()
                assert {path for _, path in measured} >= {"power=suspended", "power=running"}

    simloop.run(0, main())


def test_a_ve_that_cannot_be_suspended_runs_on_as_its_manifest_says_and_is_asked_again_at_intervals() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*UP)) as agent:
                await agent.ready(*NAMES)
                uid = rig.uid("web1")
                rig.world.forbid_suspension(uid, "process 7 (sh) has a terminal of the host open")
                agent.kernel.log.clear()
                agent.write(*ASLEEP)
                await agent.until(lambda: stalled(agent, "web1") == "SuspendFailed", "the condition")
                assert "process 7 (sh)" in agent.condition("web1", ConditionType.STALLED).message
                await asyncio.sleep(HOUR)
                assert "web1" in agent.running()
                assert 5 < len(agent.kernel.times_of(SuspendRuntime)) < 25
                rig.world.set_limit(uid, Limit.MEMORY_LIMIT, 1 << 20)
                await asyncio.sleep(600)
                assert rig.machine.cgroups[uid].limits[Limit.MEMORY_LIMIT] == 512 << 20
                rig.world.forbid_suspension(uid)
                await agent.ready("web1", within_s=400)
                assert uid in rig.machine.memories

    simloop.run(0, main())


def test_a_memory_from_which_nothing_goes_on_is_kept_until_a_person_gives_it_up() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*ASLEEP)) as agent:
                agent.write(*UP)
                await agent.ready(*NAMES)
                agent.write(*ASLEEP)
                await agent.until(lambda: rig.uid("web1") in rig.machine.memories, "the memory")
                await agent.ready("web1")
                uid = rig.uid("web1")
                rig.world.corrupt_memory(uid)
                agent.kernel.log.clear()
                agent.write(*UP)
                await agent.until(lambda: stalled(agent, "web1") == "ResumeFailed", "the condition")
                message = agent.condition("web1", ConditionType.STALLED).message
                assert "its memory cannot be read" in message
                assert "`vectl start web1 --cold`" in message
                await asyncio.sleep(HOUR)
                assert uid in rig.machine.memories
                assert 5 < len(agent.kernel.times_of(StartRuntime, uid)) < 25
                assert all(agent.is_ready(name) for name in NAMES[1:])
                await agent.operations.start(VeName("web1"), by="me", cold=True)
                await agent.ready("web1")
                assert uid not in rig.machine.memories
                assert not rig.machine.runtimes[uid].resumed
                events = agent.reconciler.desk.events.read(ve="web1")
                assert "MemoryDiscarded" in [event.reason for event in events]

    simloop.run(0, main())


def test_nobody_waits_for_those_that_are_suspended_or_resumed() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*UP), wrap=slow(SuspendRuntime, StartRuntime)) as agent:
                await agent.ready(*NAMES, within_s=900)
                asleep = [ve(name, f"{on_lan(11 + number)}, power: suspended") for number, name in enumerate(NAMES[:4])]
                agent.write(LAN, *asleep, UP[5])
                await asyncio.sleep(LONG_S / 2)
                rig.world.set_limit(rig.uid("web5"), Limit.MEMORY_LIMIT, 1 << 20)
                agent.happened("web5")
                await asyncio.sleep(LONG_S / 4)
                assert rig.machine.cgroups[rig.uid("web5")].limits[Limit.MEMORY_LIMIT] == 512 << 20
                assert len(agent.running()) == 5
                await agent.ready(*NAMES, within_s=10 * LONG_S)
                assert len(rig.machine.memories) == 4

    simloop.run(0, main())


def test_an_agent_that_is_told_to_stop_finishes_the_suspension_that_it_began() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*UP), wrap=slow(SuspendRuntime)) as agent:
                await agent.ready(*NAMES)
                agent.write(*ASLEEP)
                await asyncio.sleep(LONG_S / 2)
            assert rig.uid("web1") in rig.machine.memories
            async with agent_on(rig, files(*ASLEEP)) as agent:
                await agent.ready(*NAMES)
                assert rig.uid("web1") not in rig.machine.runtimes

    simloop.run(0, main())


def test_a_ve_that_somebody_resumed_is_suspended_again() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*UP)) as agent:
                await agent.ready(*NAMES)
                agent.write(*ASLEEP)
                await agent.until(lambda: rig.uid("web1") in rig.machine.memories, "the memory")
                await agent.ready("web1")
                uid = rig.uid("web1")
                launch = rig.machine.memories[uid].launch
                for effect in (
                    CreateCgroup(uid=uid, limits={}),
                    CreateRuntime(uid=uid, name=VeName("web1"), hostname="web1", launch=launch, resume=True),
                    StartRuntime(uid=uid),
                ):
                    host.perform(rig.machine, effect)
                agent.happened("web1")
                await agent.until(lambda: uid in rig.machine.memories and uid not in rig.machine.runtimes, "it again")
                await agent.ready("web1")

    simloop.run(0, main())
