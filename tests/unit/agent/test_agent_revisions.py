"""What the manifests say is carried out in order; what they fail to say is never taken for a wish."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.model.compute import Limit
from reconciler.model.condition import ConditionType, Status
from reconciler.model.effects import Effect
from reconciler.model.identity import VeName, host_link_name
from reconciler.model.power import StartRuntime, StopRuntime
from reconciler.model.volume import TrashVe
from reconciler.state.conditions import SOURCE
from tests.support import simloop
from tests.support.rig import LAN, Rig, on_lan, text_of, ve
from tests.support.simulation import HOUR, Simulation, agent_on, clocked_rig

TWO = (LAN, ve("web1", on_lan(11)), ve("web2", on_lan(12)))
SEEDS = range(4)


def files(*documents: str) -> dict[str, bytes]:
    return {"fleet.yaml": text_of(*documents)}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_revision_is_carried_out_and_then_nothing_is_left_to_do(seed: int) -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*TWO), seed=seed) as agent:
                await agent.ready("web1", "web2")
                agent.write(LAN, ve("web1", f"{on_lan(21)}, memory: {{limit: 64Mi}}"), ve("web2"), ve("web3"))
                await agent.ready("web1", "web2", "web3")
                await asyncio.sleep(5)
                agent.kernel.log.clear()
                await asyncio.sleep(HOUR)
                assert agent.kernel.log == []
                assert agent.running() == {"web1", "web2", "web3"}

    simloop.run(seed, main())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_revision_that_comes_in_the_middle_of_another_one_wins(seed: int) -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*TWO), seed=seed, slow_s=0.3) as agent:
                for limit in range(64, 72):
                    await asyncio.sleep(0.7)
                    agent.write(LAN, *(ve(f"web{n}", f"memory: {{limit: {limit}Mi}}") for n in (1, 2)))
                await agent.ready("web1", "web2", within_s=120)
                for name in ("web1", "web2"):
                    assert rig.machine.cgroups[rig.uid(name)].limits[Limit.MEMORY_LIMIT] == 71 << 20

    simloop.run(seed, main())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_ve_is_booted_after_those_that_it_needs(seed: int) -> None:
    chain = [ve(f"v{n}", f"boot: {{dependsOn: [v{n - 1}]}}" if n else "") for n in range(5)]

    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*reversed(chain)), seed=seed) as agent:
                names = [f"v{n}" for n in range(5)]
                await agent.ready(*names)
                assert started(agent, rig) == names
                await asyncio.sleep(5)
                agent.kernel.log.clear()
                rig.world.reboot_host()
                agent.happened()
                await agent.until(lambda: agent.running() == set(names), "all to be back")
                assert started(agent, rig) == names

    simloop.run(seed, main())


def started(agent: Simulation, rig: Rig) -> list[str]:
    """Name the VEs in the order in which they were let go."""
    names = {rig.uid(name): name for name in rig.names()}
    return [names[effect.uid] for _, effect in agent.kernel.log if isinstance(effect, StartRuntime)]


def test_who_waits_is_told_for_whom_and_costs_nothing() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            documents = ve("db", "power: stopped"), ve("app", "boot: {dependsOn: [db]}")
            async with agent_on(rig, files(*documents)) as agent:
                await agent.until(lambda: agent.condition("app").reason == "Waiting", "app to wait")
                assert "db" in agent.condition("app").message
                await asyncio.sleep(5)
                agent.observer.looks = 0
                await asyncio.sleep(HOUR)
                assert agent.observer.looks == 0
                agent.write(ve("db"), documents[1])
                await agent.ready("db", "app")

    simloop.run(0, main())


@pytest.mark.parametrize("seed", SEEDS)
def test_restarts_come_in_waves(seed: int) -> None:
    names = [f"web{n}" for n in range(5)]

    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*map(ve, names)), seed=seed, slow_s=0.2) as agent:
                await agent.ready(*names)
                down: list[int] = []

                async def count(effect: Effect) -> None:
                    down.append(len(names) - len(agent.running()))

                agent.kernel.interfere = count
                agent.write(*(ve(name, "rlimits: {nofile: 99}") for name in names))
                await agent.ready(*names, within_s=120)
                assert len(agent.kernel.times_of(StopRuntime)) == len(names)
                assert max(down) == 1

    simloop.run(seed, main())


def test_who_waits_for_a_restart_is_not_recorded_as_restarted() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(ve("a"), ve("b")), slow_s=0.5) as agent:
                await agent.ready("a", "b")
                agent.write(*(ve(name, "rlimits: {nofile: 99}") for name in ("a", "b")))
                await agent.until(lambda: bool(waiting_for_a_restart(agent)), "one to wait for the other")
                [waiting] = waiting_for_a_restart(agent)
                assert rig.record(waiting).applied["rlimits"] == {}
                await agent.ready("a", "b")

    simloop.run(0, main())


def waiting_for_a_restart(agent: Simulation) -> list[str]:
    return [name for name in ("a", "b") if agent.condition(name).reason == "RestartWave"]


BROKEN = {
    "syntax": b"kind: [",
    "schema": b"apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata: {name: web1}\nspec: {memroy: 1}\n",
    "identity": text_of(ve("web1"), ve("web1")),
    "empty-document": b"apiVersion: ve/v1\n",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_manifests_leave_the_last_good_ones_in_force(kind: str) -> None:
    """I12: a broken file never reads as "delete"; drift is corrected meanwhile, and a restart changes nothing."""

    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*TWO)) as agent:
                await agent.ready("web1", "web2")
                agent.manifests.files = {"fleet.yaml": BROKEN[kind]}
                agent.manifests.hint()
                await agent.until(lambda: valid(agent) is Status.FALSE, "the mistake to be told")
                await correct_drift(agent, rig)
                await asyncio.sleep(2 * HOUR)
                assert agent.running() == {"web1", "web2"}
            async with agent_on(rig, {"fleet.yaml": BROKEN[kind]}) as agent:
                await agent.until(lambda: valid(agent) is Status.FALSE, "the mistake to be told again")
                await correct_drift(agent, rig)
                await asyncio.sleep(2 * HOUR)
                assert agent.running() == {"web1", "web2"}
                agent.write(*TWO)
                await agent.until(lambda: valid(agent) is Status.TRUE, "the mistake to be mended")
                assert not agent.kernel.times_of(TrashVe)

    simloop.run(0, main())


def valid(agent: Simulation) -> Status:
    conditions = agent.reconciler.desk.conditions.read(SOURCE)
    return next((c.status for c in conditions if c.type is ConditionType.VALID), Status.UNKNOWN)


async def correct_drift(agent: Simulation, rig: Rig) -> None:
    uid = rig.uid("web1")
    await agent.until(lambda: bool(agent.reconciler.names), "the first look")
    rig.world.set_limit(uid, Limit.PROCESSES, 7)
    agent.happened("web1")
    await agent.until(lambda: rig.machine.cgroups[uid].limits[Limit.PROCESSES] == 4096, "the drift to be corrected")


@pytest.mark.parametrize("gone", [{}, None], ids=["empty", "vanished"])
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_a_directory_that_is_empty_or_gone_removes_nothing(gone: dict[str, bytes] | None, restarted: bool) -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*TWO)) as agent:
                await agent.ready("web1", "web2")
                if not restarted:
                    agent.manifests.files = gone
                    agent.manifests.hint()
                    await asyncio.sleep(24 * HOUR)
                    assert agent.running() == {"web1", "web2"}
                    await correct_drift(agent, rig)
            if restarted:
                async with agent_on(rig, gone) as agent:
                    await asyncio.sleep(24 * HOUR)
                    assert agent.running() == {"web1", "web2"}
                    await correct_drift(agent, rig)

    simloop.run(0, main())


def test_an_agent_that_never_read_anything_valid_touches_nothing() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, {"fleet.yaml": BROKEN["syntax"]}) as agent:
                agent.happened()
                agent.agent.ask(None)
                await asyncio.sleep(HOUR)
                assert (agent.kernel.log, agent.observer.looks) == ([], 0)

    simloop.run(0, main())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_removal_counts_when_it_has_lasted(seed: int) -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*TWO), seed=seed) as agent:
                await agent.ready("web1", "web2")
                agent.write(LAN, ve("web2", on_lan(12)))
                await asyncio.sleep(28)
                assert agent.running() == {"web1", "web2"}
                assert agent.condition("web1").reason == "Waiting"
                await agent.until(lambda: rig.names() == {"web2"}, "the removal", within_s=10)
                await asyncio.sleep(2)
                assert agent.reconciler.desk.conditions.read("web1") == ()
                assert len(rig.machine.trash) == 1
                assert {port.link for port in rig.machine.filter.ports} == links_of(rig)

    simloop.run(seed, main())


def links_of(rig: Rig) -> set[str]:
    return {host_link_name("tw", uid, link) for uid, r in rig.machine.runtimes.items() for link in r.network.interfaces}


def test_a_removal_that_was_taken_back_in_time_never_happened() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*TWO)) as agent:
                await agent.ready("web1", "web2")
                for _ in range(3):
                    agent.write(LAN, ve("web2", on_lan(12)))
                    await asyncio.sleep(25)
                    agent.write(*TWO)
                    await asyncio.sleep(25)
                await agent.ready("web1", "web2")
                assert agent.kernel.times_of(StopRuntime) == []

    simloop.run(0, main())


@pytest.mark.parametrize("seed", SEEDS)
def test_an_agent_that_starts_waits_before_it_removes(seed: int) -> None:
    """Whoever restarts the agent in the middle of an edit must not lose a VE by it."""

    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*TWO), seed=seed) as agent:
                await agent.ready("web1", "web2")
            async with agent_on(rig, files(LAN, ve("web2", on_lan(12))), seed=seed) as agent:
                await asyncio.sleep(29)
                assert agent.running() == {"web1", "web2"}
                await agent.until(lambda: rig.names() == {"web2"}, "the removal", within_s=20)

    simloop.run(seed, main())


def test_a_revert_brings_the_data_back_and_boots_it() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*TWO)) as agent:
                await agent.ready("web1", "web2")
                uid = rig.uid("web1")
                rig.world.set_use(uid, disk=777)
                agent.write(LAN, ve("web2", on_lan(12)))
                await agent.until(lambda: rig.names() == {"web2"}, "the removal")
                agent.write(*TWO)
                await agent.ready("web1")
                assert (rig.uid("web1"), rig.machine.volumes[uid].used) == (uid, 777)
                assert agent.running() == {"web1", "web2"}

    simloop.run(0, main())


def test_a_mass_removal_waits_for_consent_however_long_and_says_so() -> None:
    everyone = [ve(name) for name in "abcd"]

    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*everyone), resync_s=300) as agent:
                await agent.ready(*"abcd")
                agent.write(everyone[0])
                await agent.until(lambda: agent.condition("b").reason == "MassRemoval", "it to be told")
                await asyncio.sleep(2 * HOUR)
                assert agent.running() == set("abcd")
                _, plan = await agent.reconciler.plan(await agent.reconciler.look())
                approvals = agent.reconciler.desk.approvals
                approvals.approve(plan.action_hash, by="me", now=rig.clock.now())
                agent.agent.ask(None)
                await agent.until(lambda: rig.names() == {"a"}, "the removals")
                assert len(rig.machine.trash) == 3

    simloop.run(0, main())


def test_a_protected_ve_outlives_its_manifest_and_says_so() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(ve("a", "protect: true"), ve("b"))) as agent:
                await agent.ready("a", "b")
                agent.write(ve("b"))
                await agent.until(lambda: agent.condition("a").reason == "Protected", "it to be told")
                await asyncio.sleep(HOUR)
                assert agent.running() == {"a", "b"}
                await agent.operations.set_protection(VeName("a"), protect=False, by="me")
                agent.agent.ask(None)
                await agent.until(lambda: rig.names() == {"b"}, "the removal")

    simloop.run(0, main())


def test_a_suspected_rename_is_not_made_by_any_way() -> None:
    """A pass of its own, which a person or a dependency may ask for, refuses it as the whole host's does."""

    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(LAN, ve("old", on_lan(11)), ve("b"))) as agent:
                await agent.ready("old", "b")
                agent.write(LAN, ve("new", f"{on_lan(11)}, boot: {{dependsOn: [b]}}"), ve("b"))
                await agent.until(lambda: agent.condition("new").reason == "LooksLikeRename", "it to be told")
                agent.agent.ask(VeName("new"))
                rig.world.set_limit(rig.uid("b"), Limit.PROCESSES, 7)
                agent.happened("b")
                await asyncio.sleep(HOUR)
                assert rig.names() == {"old", "b"}
                assert agent.condition("old").reason == "LooksLikeRename"

    simloop.run(0, main())


def test_a_pause_is_seen_holds_and_ends_by_itself() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(*TWO)) as agent:
                await agent.ready("web1", "web2")
                await asyncio.sleep(5)
                until = rig.clock.now() + 1800
                await agent.operations.pause(VeName("web1"), by="me", reason="under repair", until=until)
                rig.world.set_limit(rig.uid("web1"), Limit.PROCESSES, 7)
                agent.agent.ask(None)
                await agent.until(lambda: agent.condition("web1").reason == "Paused", "the pause to be told")
                assert agent.condition("web1", ConditionType.PAUSED).status is Status.TRUE
                assert agent.condition("web1").status is Status.UNKNOWN
                agent.kernel.log.clear()
                agent.observer.looks = 0
                await asyncio.sleep(1700)
                assert (agent.kernel.log, agent.observer.looks) == ([], 0)
                await agent.until(lambda: agent.is_ready("web1"), "the end of the pause", within_s=120)
                assert rig.machine.cgroups[rig.uid("web1")].limits[Limit.PROCESSES] == 4096
                assert agent.condition("web1", ConditionType.PAUSED).reason == "Absent"

    simloop.run(0, main())
