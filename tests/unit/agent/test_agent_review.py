"""Where the root of a host asks for reviews, what was reviewed is what is done, and drift is corrected all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconciler.agent.between import plan_between
from reconciler.agent.review import Stride, Word
from reconciler.model.compute import Limit
from reconciler.model.condition import Status
from reconciler.model.fleet import Fleet
from reconciler.model.identity import VeName
from reconciler.model.power import EndCause, StartRuntime
from tests.support import simloop
from tests.support.rig import LAN, NODE, Rig, fleet_of, on_lan, text_of, ve
from tests.support.simulation import HOUR, Simulation, agent_on, clocked_rig

MIB = 1 << 20
WEB1, WEB2 = ve("web1", on_lan(11)), ve("web2", on_lan(12))
GROWN = ve("web1", f"{on_lan(11)}, memory: {{limit: 1Gi}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    kind: str
    hash: str
    by: str = "alice"
    at: float = 0.0


@contextmanager
def reviewing_rig(policy: str = "requireReviewed: true\n") -> Iterator[Rig]:
    with clocked_rig() as rig:
        (rig.state / "policy.yaml").write_text(policy)
        yield rig


def files(*documents: str) -> dict[str, bytes]:
    return {"fleet.yaml": text_of(*documents)}


def say(agent: Simulation, *said: Said) -> None:
    """Let people vouch for something about the revision in force, or the one to come."""
    known: Mapping[str, Sequence[Word]] = {agent.manifests.snapshot().revision: said}
    agent.manifests.words = lambda: known  # type: ignore[method-assign]  # what a repository's notes are
    agent.manifests.hint()


def reviewed(before: Sequence[str], after: Sequence[str]) -> str:
    return plan_between(fleet_of(*before, revision="a"), fleet_of(*after, revision="b"), NODE).action_hash


def memory(rig: Rig, name: str) -> object:
    return rig.machine.cgroups[rig.uid(name)].limits[Limit.MEMORY_LIMIT]


async def approve_everything(agent: Simulation) -> None:
    _, plan = await agent.reconciler.plan(await agent.reconciler.look())
    agent.reconciler.desk.approvals.approve(plan.action_hash, by="root", now=agent.rig.clock.now())
    agent.agent.ask(None)


async def begun(agent: Simulation, *names: str) -> None:
    """Bring a host that asks for reviews to what its manifests say, by a person's word."""
    await agent.until(lambda: all(agent.condition(name).reason == "PlanChanged" for name in names), "that to be told")
    await approve_everything(agent)
    await agent.ready(*names)
    await agent.until(lambda: agent.reconciler.desk.reviews.read().base != "", "it to count as reviewed")


def test_nothing_is_made_before_somebody_agreed() -> None:
    async def main() -> None:
        with reviewing_rig() as rig:
            async with agent_on(rig, files(LAN, WEB1)) as agent:
                await agent.until(lambda: agent.condition("web1").reason == "PlanChanged", "that to be told")
                assert "vectl approve" in agent.condition("web1").message
                await asyncio.sleep(HOUR)
                assert agent.kernel.times_of(StartRuntime) == []
                await approve_everything(agent)
                await agent.ready("web1")

    simloop.run(0, main())


def test_a_hash_for_all_covers_ves_that_are_made_one_after_the_other() -> None:
    names = [f"n{number}" for number in range(5)]

    async def main() -> None:
        with reviewing_rig() as rig:
            async with agent_on(rig, files(LAN, *map(ve, names))) as agent:
                await begun(agent, *names)

    simloop.run(0, main())


def test_what_was_reviewed_is_done_and_what_was_not_waits_while_drift_is_corrected() -> None:
    async def main() -> None:
        with reviewing_rig() as rig:
            async with agent_on(rig, files(LAN, WEB1, WEB2)) as agent:
                await begun(agent, "web1", "web2")
                agent.write(LAN, GROWN, WEB2)
                await agent.until(lambda: agent.condition("web1").reason == "PlanChanged", "that to be told")
                assert "memory.limit -> 1Gi was not reviewed" in agent.condition("web1").message
                rig.world.set_limit(rig.uid("web1"), Limit.MEMORY_LIMIT, 7 * MIB)
                rig.world.set_limit(rig.uid("web1"), Limit.PROCESSES, 7)
                agent.happened("web1")
                await agent.until(lambda: memory(rig, "web1") == 512 * MIB, "the limit to be what it was")
                assert rig.machine.cgroups[rig.uid("web1")].limits[Limit.PROCESSES] == 4096
                assert agent.condition("web1").reason == "PlanChanged"
                assert agent.is_ready("web2")
                say(agent, Said(kind="reviewed", hash=reviewed((LAN, WEB1, WEB2), (LAN, GROWN, WEB2))))
                await agent.ready("web1")
                assert memory(rig, "web1") == 1 << 30

    simloop.run(0, main())


def test_a_ve_that_dies_comes_up_as_it_was_reviewed() -> None:
    async def main() -> None:
        with reviewing_rig() as rig:
            async with agent_on(rig, files(LAN, WEB1)) as agent:
                await begun(agent, "web1")
                agent.write(LAN, ve("web1", f"{on_lan(13)}, memory: {{limit: 1Gi}}, features: {{nesting: true}}"))
                await agent.until(lambda: agent.condition("web1").reason == "PlanChanged", "that to be told")
                rig.world.end_init(rig.uid("web1"), EndCause.KILLED)
                agent.happened("web1")
                await agent.until(lambda: agent.running() == {"web1"}, "it to be up")
                assert memory(rig, "web1") == 512 * MIB
                assert rig.record("web1").applied["features.nesting"] is False

    simloop.run(0, main())


def test_a_removal_that_nobody_reviewed_is_none() -> None:
    async def main() -> None:
        with reviewing_rig() as rig:
            async with agent_on(rig, files(LAN, WEB1, WEB2)) as agent:
                await begun(agent, "web1", "web2")
                agent.write(LAN, WEB2)
                await agent.until(lambda: agent.condition("web1").reason == "PlanChanged", "that to be told")
                rig.world.set_limit(rig.uid("web1"), Limit.PROCESSES, 7)
                agent.agent.ask(None)
                await agent.until(
                    lambda: rig.machine.cgroups[rig.uid("web1")].limits[Limit.PROCESSES] == 4096, "its drift to go"
                )
                await asyncio.sleep(HOUR)
                assert agent.running() == {"web1", "web2"}
                say(agent, Said(kind="reviewed", hash=reviewed((LAN, WEB1, WEB2), (LAN, WEB2))))
                await agent.until(lambda: rig.names() == {"web2"}, "the removal")

    simloop.run(0, main())


def test_a_restart_of_the_agent_forgets_no_review() -> None:
    async def main() -> None:
        with reviewing_rig() as rig:
            async with agent_on(rig, files(LAN, WEB1, WEB2)) as agent:
                await begun(agent, "web1", "web2")
                agent.write(LAN, GROWN, ve("web2", f"{on_lan(12)}, memory: {{limit: 2Gi}}"))
                await agent.until(lambda: agent.condition("web2").reason == "PlanChanged", "that to be told")
                _, plan = await agent.reconciler.plan(await agent.reconciler.look())
            rig.desk().approvals.approve(plan.ve_hashes["web1"], by="root", now=rig.clock.now())
            async with agent_on(rig, dict(agent.manifests.files or {})) as again:
                await again.ready("web1")
                assert (memory(rig, "web1"), memory(rig, "web2")) == (1 << 30, 512 * MIB)
                assert again.condition("web2").reason == "PlanChanged"
                rig.world.set_limit(rig.uid("web2"), Limit.MEMORY_LIMIT, 7 * MIB)
                again.happened("web2")
                await again.until(lambda: memory(rig, "web2") == 512 * MIB, "the limit to be what it was")

    simloop.run(0, main())


def test_a_policy_that_comes_to_ask_for_reviews_finds_what_is_done_reviewed() -> None:
    async def main() -> None:
        with reviewing_rig(policy="maxVEs: 10\n") as rig:
            async with agent_on(rig, files(LAN, WEB1)) as agent:
                await agent.ready("web1")
                (rig.state / "policy.yaml").write_text("requireReviewed: true\n")
                agent.manifests.hint()
                await agent.until(lambda: agent.reconciler.desk.reviews.read().base != "", "it to count")
                assert agent.is_ready("web1")
                agent.write(LAN, GROWN)
                await agent.until(lambda: agent.condition("web1").reason == "PlanChanged", "that to be told")
                (rig.state / "policy.yaml").write_text("requireReviewed: false\n")
                agent.manifests.hint()
                await agent.ready("web1")

    simloop.run(0, main())


def test_a_consent_of_a_commit_ends_a_day_after_it() -> None:
    other = "kind: Template\nmetadata: {name: other}\nspec: {source: {builtin: busybox}}\n"
    before, after = (LAN, other, WEB1), (LAN, other, ve("web1", f"{on_lan(11)}, template: other"))

    async def main() -> None:
        with reviewing_rig() as rig:
            async with agent_on(rig, files(*before)) as agent:
                await begun(agent, "web1")
                hash_ = reviewed(before, after)
                agent.write(*after)
                old = Said(kind="approved", hash=hash_, at=rig.clock.now() - 25 * HOUR)
                say(agent, Said(kind="reviewed", hash=hash_), old)
                await agent.until(lambda: agent.condition("web1").reason == "NeedsConsent", "that to be told")
                await asyncio.sleep(HOUR)
                assert rig.record("web1").template == "busybox"
                say(agent, Said(kind="approved", hash=hash_, at=rig.clock.now() - HOUR))
                await agent.ready("web1")
                assert rig.record("web1").template == "other"

    simloop.run(0, main())


def test_each_step_of_a_way_is_judged_by_what_was_said_of_it() -> None:
    first, second = (LAN, GROWN, WEB2), (LAN, GROWN, ve("web2", f"{on_lan(12)}, memory: {{limit: 2Gi}}"))

    def stop(documents: Sequence[str], revision: str) -> Fleet:
        return fleet_of(*documents, revision=revision)

    async def main() -> None:
        with reviewing_rig() as rig:
            async with agent_on(rig, files(LAN, WEB1, WEB2)) as agent:
                await begun(agent, "web1", "web2")
                way = (Stride(revision="c1", fleet=stop(first, "c1")), Stride(revision="c1b", fleet=None))
                agent.manifests.way = lambda since: way  # type: ignore[method-assign]  # what a repository knows
                said = {"c1": [Said(kind="reviewed", hash=reviewed((LAN, WEB1, WEB2), first))]}
                agent.manifests.words = lambda: said  # type: ignore[method-assign]  # what its notes are
                agent.write(*second)
                await agent.ready("web1")
                assert agent.condition("web2").reason == "PlanChanged"
                assert (memory(rig, "web1"), memory(rig, "web2")) == (1 << 30, 512 * MIB)
                assert agent.condition("web1").status is Status.TRUE
                assert VeName("web2") in rig.names()

    simloop.run(0, main())


def test_an_address_goes_on_only_once_who_has_it_may_leave_it() -> None:
    """No two VEs have one address because the change of one of them was reviewed and that of the other was not."""
    first = (LAN, ve("web1", on_lan(13)), WEB2)
    second = (*first, ve("web3", on_lan(11)))

    async def main() -> None:
        with reviewing_rig() as rig:
            async with agent_on(rig, files(LAN, WEB1, WEB2)) as agent:
                await begun(agent, "web1", "web2")
                way = (Stride(revision="c1", fleet=fleet_of(*first, revision="c1")),)
                agent.manifests.way = lambda since: way  # type: ignore[method-assign]  # what a repository knows
                agent.write(*second)
                say(agent, Said(kind="reviewed", hash=reviewed(first, second)))
                await agent.until(lambda: agent.condition("web3").reason == "Waiting", "that to be told")
                assert "waits for web1" in agent.condition("web3").message
                agent.agent.ask(VeName("web3"))
                await asyncio.sleep(HOUR)
                assert rig.names() == {"web1", "web2"}
                known = {
                    **agent.manifests.words(),
                    "c1": [Said(kind="reviewed", hash=reviewed((LAN, WEB1, WEB2), first))],
                }
                agent.manifests.words = lambda: known  # type: ignore[method-assign]  # what its notes are
                agent.manifests.hint()
                await agent.ready("web1", "web3")

    simloop.run(0, main())


def test_a_host_that_asks_for_no_review_keeps_no_books_of_them() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, files(LAN, WEB1)) as agent:
                await agent.ready("web1")
                agent.write(LAN, GROWN)
                await agent.ready("web1")
                assert not Path(rig.state, "reviews.json").exists()

    simloop.run(0, main())
