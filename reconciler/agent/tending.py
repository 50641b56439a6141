"""Keeping what the coordinator says in line with what is here, beside the agent, for as long as it runs."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from reconciler.agent.loop import Agent
from reconciler.agent.membership import Membership
from reconciler.errors import CoordinatorAwayError, OutcomeUnknownError, VectlError
from reconciler.state.config import Config

RELIST_S = 10.0
"""Time between looks at everything: watching tells sooner, and now and then not at all. Units: seconds."""

_AGAIN_S = 2.0
_REST_S = 0.2
"""Least time between two looks that watching asks for. Units: seconds."""


async def tend(agent: Agent, config: Config) -> None:
    """Look at once, then whenever the coordinator tells of a change, and every few seconds.

    Raises: StateError, KernelError.
    """
    membership = agent.reconciler.membership
    assert membership is not None, f"{config.instance.name} is in no fleet"
    changed = membership.due
    watching = asyncio.create_task(_watch(membership))
    try:
        while True:
            wait_s = await _look(agent, membership)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await changed.wait()
            changed.clear()
            await asyncio.sleep(_REST_S)
    finally:
        watching.cancel()


async def _look(agent: Agent, membership: Membership) -> float:
    """Bring it in line once; give how long to wait until the next time."""
    if not agent.ready.is_set():
        return _AGAIN_S
    desk, away = agent.reconciler.desk, membership.away
    try:
        is_news = await membership.tend(agent.reconciler.records)
    except (CoordinatorAwayError, OutcomeUnknownError) as err:
        if not away:
            agent.log.warning("coordinator.away", error=str(err))
            desk.tell("host", "CoordinatorAway", f"{err}; what runs goes on", kind="Warning")
        membership.away = str(err)
        return _AGAIN_S
    if away:
        agent.log.info("coordinator.back")
        desk.tell("host", "CoordinatorBack", "the coordinator answers again")
    if away or is_news:
        agent.ask(None, reason="ownership_changed")
    return RELIST_S


async def _watch(membership: Membership) -> None:
    """Tell of changes as they come; what is missed is seen by the next look at everything."""
    ledger = membership.owners.ledger
    while True:
        with suppress(VectlError):
            since = (await ledger.store.list(ledger.keys.format)).revision
            async for change in ledger.store.watch(ledger.keys.prefix, since=since):
                if not change.key.startswith(ledger.keys.hosts):
                    membership.due.set()
        await asyncio.sleep(_AGAIN_S)
