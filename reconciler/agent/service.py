"""The agent as a process: put together, started, stopped; the VEs live on."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, assert_never

import structlog

from reconciler.agent.company import Companion, accompany
from reconciler.agent.loop import Agent, Timing
from reconciler.agent.notify import notify, watchdog_s
from reconciler.agent.readiness import Readiness
from reconciler.agent.server import Server
from reconciler.agent.session import Session, open_session
from reconciler.agent.shortages import Shortages
from reconciler.agent.signals import end_on_signals
from reconciler.agent.source import WatchedDirectory
from reconciler.errors import ConfigError
from reconciler.host.events import HostEvents
from reconciler.model.condition import Condition
from reconciler.state.config import Config
from reconciler.state.location import DirectoryLocation, GitLocation, Location
from reconciler.state.lock import instance_lock

if TYPE_CHECKING:
    from reconciler.agent.repository import GitSource


async def run_agent(config: Config, *, failpoints: str = "", companions: Sequence[Companion] = ()) -> None:
    """Run the agent until SIGTERM or SIGINT. ``companions``: what runs beside it.

    Raises: ConfigError, without a source; BusyError, if another agent runs; VectlError.
    """
    if config.source is None:
        raise ConfigError(
            "start the agent: expected a source; use --source PATH, `source: {path: ...}` or `{git: ...}`"
        )
    log = structlog.get_logger()
    with instance_lock(config.instance):
        async with open_session(
            config,
            source=config.source.name,
            failpoints=failpoints,
            log=log,
            told=lambda text: log.info("ground.prepared", what=text),
        ) as session:
            _tell_of_templates(session)
            await _serve(config, session, config.source, companions)


def _tell_of_templates(session: Session) -> None:
    """Log how templates are built, which takes minutes, and write an event of each step. Both are told by threads."""
    log, loop = structlog.get_logger(), asyncio.get_running_loop()

    def tell(text: str) -> None:
        name, _, what = text.partition(": ")
        log.info("template.step", template=name, what=what)
        loop.call_soon_threadsafe(session.desk.tell, f"template/{name}", "Building", what)

    def show(text: str) -> None:
        log.info("template.progress", what=text)

    session.site.told, session.site.progress = tell, show


def _open_source(location: Location, config: Config, session: Session) -> WatchedDirectory | GitSource:
    desk = session.desk
    match location:
        case DirectoryLocation():
            return WatchedDirectory(location.path, desk, settle_s=config.settle_s, prune_delay_s=config.prune_delay_s)
        case GitLocation():
            from reconciler.agent.repository import GitSource  # brings all that is needed for git

            return GitSource(location, desk, jitter=random.random)
        case _:
            assert_never(location)


async def _serve(config: Config, session: Session, location: Location, companions: Sequence[Companion]) -> None:
    log = structlog.get_logger()
    for action in session.desk.recover():
        log.info("journal.unfinished", action=action)
    session.desk.conditions.on_change = _log_condition
    source = _open_source(location, config, session)
    events = HostEvents(session.site)
    timing = Timing(resync_s=config.resync_s, relist_s=config.relist_s, jitter=random.random)
    shortages = Shortages(session.desk, session.host, session.reconciler.names)
    agent = Agent(session.reconciler, source, events, timing=timing, clock=session.desk.clock, shortages=shortages)
    readiness = Readiness(session.desk, session.host, session.reconciler.names, session.reconciler.running)
    server = Server(agent, session.operations, config.instance, refresh=source.refresh)
    await server.open()
    beside = [accompany(companion, agent, config) for companion in (*companions, *_of_a_fleet(config))]
    guarding = session.guard.run(lambda: agent.ask(None, reason="risk_settled"))
    working = asyncio.create_task(_work(agent.run(), source.run(), readiness.run(), guarding, *beside))
    beating = asyncio.create_task(_beat(agent))
    undo = end_on_signals(working)
    try:
        with suppress(asyncio.CancelledError):
            await working
    finally:
        notify("STOPPING=1")
        beating.cancel()
        undo()
        await server.close()
        events.close()
        source.close()


def _of_a_fleet(config: Config) -> Sequence[Companion]:
    """Give what runs beside the agent of a host that is not alone."""
    if config.etcd is None:
        return ()
    from reconciler.agent.peering import serve_peers  # brings TLS and keys
    from reconciler.agent.publishing import publish
    from reconciler.agent.tending import tend

    return (serve_peers, tend, publish)


async def _work(*parts: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for part in parts:
            tasks.create_task(part)


def _log_condition(subject: str, condition: Condition) -> None:
    """Tell whoever watches the agent how a VE, or the source, stands now."""
    structlog.get_logger().info(
        "condition.changed",
        ve=subject,
        type=condition.type.value,
        status=condition.status.value,
        reason=condition.reason,
        message=condition.message,
    )


async def _beat(agent: Agent) -> None:
    await agent.ready.wait()
    gc.freeze()  # what a start brings stays: each full collection would look through all of it, in the middle of a pass
    notify("READY=1")
    every_s = watchdog_s()
    while every_s is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(every_s)
