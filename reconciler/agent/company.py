"""What runs beside the agent in its process, and must neither hold it up nor take it along when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import structlog

from reconciler.agent.loop import Agent
from reconciler.errors import VectlError
from reconciler.state.config import Config

AGAIN_S = 30.0
"""How long until what failed is begun anew. Units: seconds."""

Companion: TypeAlias = Callable[[Agent, Config], Coroutine[Any, Any, None]]
"""Runs until it is cancelled."""


async def accompany(companion: Companion, agent: Agent, config: Config) -> None:
    """Run a companion for as long as the agent runs; tell, where it fails, and begin anew."""
    log, told = structlog.get_logger(), ""
    while True:
        try:
            await companion(agent, config)
        except VectlError as error:
            if str(error) != told:
                told = str(error)
                log.warning("companion.failed", error=told)
                agent.reconciler.desk.tell("host", type(error).__name__, told, kind="Warning")
        except Exception:  # a bug in what only tells of the host must not end what keeps it
            log.exception("companion.crashed")
        await asyncio.sleep(AGAIN_S)
