"""How a host stands is told from what its agent knows: what is wrong, since when, and how far a revision is."""

from __future__ import annotations

import asyncio

from reconciler.agent.standing import PATIENCE_S, Phase, Standing, standing
from reconciler.model.power import EndCause
from tests.support import simloop
from tests.support.rig import LAN, Rig, on_lan, text_of, ve
from tests.support.simulation import Simulation, agent_on, clocked_rig

FILES = {"fleet.yaml": text_of(LAN, ve("web1", on_lan(11)), ve("web2", on_lan(12)))}


def look(simulation: Simulation) -> Standing:
    return standing(simulation.agent, simulation.rig.clock.now())


def phases(simulation: Simulation) -> list[Phase]:
    return [one.phase for one in look(simulation).progress]


def test_a_revision_is_pending_and_then_carried_out() -> None:
    async def work(rig: Rig) -> None:
        async with agent_on(rig, FILES) as simulation:
            assert look(simulation).progress == ()
            await simulation.ready("web1", "web2")
            await simulation.until(lambda: phases(simulation) == [Phase.SUCCESS], "success")
            found = look(simulation)
            assert (found.problems, found.host) == ({}, "node-a")
            assert {"web1", "web2", "host", "source"} <= found.well.keys()
            assert found.progress[0].summary == "2 of 2 VEs as they should be"

    with clocked_rig() as rig:
        simloop.run(1, work(rig))


def test_a_ve_that_needs_a_person_is_a_failure_at_once() -> None:
    async def work(rig: Rig) -> None:
        async with agent_on(rig, FILES) as simulation:
            await simulation.ready("web1", "web2")
            rig.world.end_init(rig.uid("web2"), EndCause.HALT)
            simulation.agent.ask(None)
            await simulation.until(lambda: "web2" in look(simulation).problems, "a problem")
            found = look(simulation)
            assert found.problems["web2"].reason == "HaltedInside"
            assert found.problems["web2"].is_failure(rig.clock.now())
            assert phases(simulation) == [Phase.FAILURE]
            assert found.progress[0].summary.startswith("web2: HaltedInside: ")
            assert "web2" not in found.well

    with clocked_rig() as rig:
        simloop.run(1, work(rig))


def test_manifests_with_mistakes_are_a_failure_of_the_source_and_of_their_revision() -> None:
    async def work(rig: Rig) -> None:
        async with agent_on(rig, FILES) as simulation:
            await simulation.ready("web1", "web2")
            simulation.manifests.files = {"fleet.yaml": b"kind: Nonsense"}
            simulation.manifests.hint()
            await simulation.until(lambda: "source" in look(simulation).problems, "a problem")
            found = look(simulation)
            assert found.problems["source"].urgent
            assert found.problems["source"].reason == "Invalid"
            force, refused = found.progress
            assert (force.phase, refused.phase) == (Phase.SUCCESS, Phase.FAILURE)
            assert refused.summary.startswith("not taken: Invalid: fleet.yaml:1:")
            assert refused.revision not in ("", force.revision)

    with clocked_rig() as rig:
        simloop.run(1, work(rig))


def test_a_look_that_fails_is_a_failure_when_it_lasts() -> None:
    async def work(rig: Rig) -> None:
        async with agent_on(rig, FILES) as simulation:
            await simulation.ready("web1", "web2")
            await asyncio.sleep(60.0)  # the turns that follow from what was done
            simulation.agent.troubles.failed("*", "KernelError", "read x", now=rig.clock.now())
            assert not look(simulation).problems["host"].is_failure(rig.clock.now())
            assert phases(simulation) == [Phase.PENDING]
            await asyncio.sleep(PATIENCE_S)
            assert look(simulation).problems["host"].is_failure(rig.clock.now())
            assert phases(simulation) == [Phase.FAILURE]
            simulation.agent.ask(None)
            await simulation.until(lambda: "host" not in look(simulation).problems, "the end")

    with clocked_rig() as rig:
        simloop.run(1, work(rig))
