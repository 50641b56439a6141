"""Claims about the agent's side of its socket."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

from reconciler.agent.server import Server


def test_a_conversation_that_is_cut_off_ends_quietly() -> None:
    async def cut_off() -> asyncio.Task[None]:
        task = asyncio.create_task(Server._converse(Mock(spec=Server), asyncio.StreamReader(), Mock()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task

    task = asyncio.run(cut_off())
    assert not task.cancelled()
    assert task.exception() is None
