"""What runs beside the agent may fail as it likes: it is told once and begun anew, and the agent goes on."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.agent.company import AGAIN_S, accompany
from reconciler.agent.loop import Agent
from reconciler.errors import KernelError
from reconciler.state.config import Config
from tests.support import simloop
from tests.support.rig import Rig, text_of, ve
from tests.support.simulation import agent_on, clocked_rig

FILES = {"fleet.yaml": text_of(ve("a"))}


@pytest.mark.parametrize("error", [KernelError("listen 127.0.0.1:9118: Address already in use"), ValueError("a bug")])
def test_a_companion_that_fails_is_begun_anew_and_the_agent_goes_on(error: Exception) -> None:
    starts: list[float] = []

    async def failing(agent: Agent, config: Config) -> None:
        starts.append(asyncio.get_running_loop().time())
        raise error

    async def work(rig: Rig) -> None:
        async with agent_on(rig, FILES) as simulation:
            beside = asyncio.create_task(accompany(failing, simulation.agent, Config(instance=rig.instance)))
            await simulation.ready("a")
            await asyncio.sleep(3 * AGAIN_S)
            assert not beside.done()
            beside.cancel()
        told = [event.message for event in rig.desk().events.read(ve="host") if event.reason == "KernelError"]
        assert told == ([str(error)] if isinstance(error, KernelError) else [])

    with clocked_rig() as rig:
        simloop.run(1, work(rig))
    assert len(starts) >= 3
    assert starts[1] - starts[0] == pytest.approx(AGAIN_S)
