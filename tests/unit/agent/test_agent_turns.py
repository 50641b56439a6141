"""How the agent takes turns: after failures, around crashes, and when it is told to stop."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from random import Random

import pytest

from reconciler.apply.seam import FailpointEffects, parse_failpoints
from reconciler.errors import KernelError
from reconciler.model.compute import Limit, SetLimit
from reconciler.model.condition import ConditionType
from reconciler.model.effects import Effect
from reconciler.model.power import StopRuntime
from reconciler.model.seam import Effects
from reconciler.model.volume import WriteRecord
from reconciler.twin.host import crash
from tests.support import simloop
from tests.support.rig import LAN, on_lan, text_of, ve
from tests.support.scenarios import SCENARIOS
from tests.support.simulation import HOUR, agent_on, clocked_rig

TWO = (LAN, ve("web1", on_lan(11)), ve("web2", on_lan(12)))


def files(*documents: str) -> dict[str, bytes]:
    return {"fleet.yaml": text_of(*documents)}


def test_failures_back_off_and_a_success_forgets_them() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*TWO)) as agent:
                await agent.ready("web1", "web2")
                await asyncio.sleep(5)
                for name in ("full", "fuller"):
                    rig.world.fill_pool()
                    agent.kernel.log.clear()
                    agent.write(*TWO, ve(name))
                    await asyncio.sleep(HOUR)
                    tries = agent.kernel.times_of(WriteRecord)
                    gaps = [later - earlier for earlier, later in pairwise(tries)]
                    assert len(tries) < 25
                    assert 1.0 <= gaps[0] <= 1.5
                    assert 290 <= gaps[-1] <= 340
                    assert agent.condition(name, ConditionType.RECONCILING).reason == "NoSpaceError"
                    assert agent.is_ready("web1")
                    rig.world.free_pool()
                    await agent.ready(name, within_s=400)
                    agent.write(*TWO)
                    await agent.until(lambda: rig.names() == {"web1", "web2"}, "the removal")
                    await asyncio.sleep(25 * HOUR)

    simloop.run(0, main())


def test_a_new_revision_does_not_wait_for_the_back_off() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(ve("a"))) as agent:
                await agent.ready("a")
                rig.world.fill_pool()
                agent.write(ve("a"), ve("b"))
                await asyncio.sleep(HOUR)
                rig.world.free_pool()
                agent.write(ve("a"), ve("b", "processes: 9"))
                await agent.ready("b", within_s=5)

    simloop.run(0, main())


def test_a_bug_in_one_ves_pass_does_not_take_the_others_with_it() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*TWO)) as agent:
                await agent.ready("web1", "web2")

                async def explode(effect: Effect) -> None:
                    if getattr(effect, "uid", None) == rig.uid("web1"):
                        raise ZeroDivisionError

                agent.kernel.interfere = explode
                for name in ("web1", "web2"):
                    rig.world.set_limit(rig.uid(name), Limit.PROCESSES, 7)
                    agent.happened(name)
                await asyncio.sleep(30)
                assert agent.is_ready("web2")
                assert rig.machine.cgroups[rig.uid("web2")].limits[Limit.PROCESSES] == 4096
                agent.judge.crashes.clear()

    simloop.run(0, main())


def test_whoever_ends_the_agent_waits_for_the_effect_that_is_under_way() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(ve("a")), slow_s=5.0) as agent:
                await agent.until(lambda: len(agent.kernel.log) >= 2, "something to be under way")
            assert not agent.kernel.at_work
            assert rig.machine.runtimes == {} or agent.running() <= {"a"}

    simloop.run(3, main())


def test_a_flood_of_events_does_not_shorten_the_wait_after_a_failure() -> None:
    """The root of a VE may make as many events as he likes, also for a field that cannot be corrected."""

    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*TWO)) as agent:
                await agent.ready("web1", "web2")
                await asyncio.sleep(5)
                agent.kernel.log.clear()

                async def refuse(effect: Effect) -> None:
                    if isinstance(effect, SetLimit):
                        raise KernelError("device or resource busy")

                agent.kernel.interfere = refuse
                for _ in range(7200):
                    rig.world.set_limit(rig.uid("web1"), Limit.PROCESSES, 7)
                    agent.happened("web1")
                    await asyncio.sleep(0.5)
                assert 8 <= len(agent.kernel.times_of(SetLimit)) <= 25
                assert agent.is_ready("web2")

    simloop.run(0, main())


def test_a_network_that_a_ve_has_left_goes_without_a_resync() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*TWO)) as agent:
                await agent.ready("web1", "web2")
                agent.write(LAN, ve("web1"), ve("web2"))
                await agent.until(lambda: rig.machine.networks == {}, "the network to go")
                await agent.ready("web1", "web2")

    simloop.run(0, main())


def test_a_removal_is_not_carried_out_for_a_revision_that_was_replaced_meanwhile() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*TWO)) as agent:
                await agent.ready("web1", "web2")
                async with agent.reconciler.lock(rig.record("web1").name):
                    agent.write(LAN, ve("web2", on_lan(12)))
                    await asyncio.sleep(60)
                    agent.write(*TWO)
                    await asyncio.sleep(5)
                await asyncio.sleep(60)
                assert agent.kernel.times_of(StopRuntime) == []
                assert agent.is_ready("web1")

    simloop.run(0, main())


CRASHES = range(0, 45, 3)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", CRASHES)
def test_an_agent_that_dies_is_followed_by_one_that_ends_the_work(number: int, moment: str) -> None:
    """The crash matrix is exhaustive for passes over the whole host; the agent's own turns are sampled here."""
    everything = next(scenario for scenario in SCENARIOS if scenario.name == "everything-at-once")

    def wrap(inner: Effects) -> Effects:
        points = parse_failpoints(f"*:{moment}={number}*off->kill")
        return FailpointEffects(inner, points, random=Random(0), kill=crash)

    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*everything.before), seed=number) as agent:
                await agent.ready("a", "b", "c", "d")
            data = {uid: number for number, uid in enumerate(rig.machine.volumes)}
            for uid, used in data.items():
                rig.world.set_use(uid, disk=used)
            async with agent_on(rig, files(*everything.after), seed=number, wrap=wrap) as agent:
                await asyncio.sleep(120)
                assert agent.died
            async with agent_on(rig, files(*everything.after), seed=number) as agent:
                await agent.ready("a", "b", "d", "e")
                await agent.until(lambda: rig.names() == {"a", "b", "d", "e"}, "the removal")
                await asyncio.sleep(120)
                agent.kernel.log.clear()
                await asyncio.sleep(HOUR)
                assert agent.kernel.log == []
                assert agent.reconciler.desk.journal.unfinished() == ()
            kept = {entry.record.uid: entry.volume for entry in rig.machine.trash.values()} | rig.machine.volumes
            assert {uid: (volume := kept[uid]) and volume.used for uid in data} == data

    simloop.run(number, main())
