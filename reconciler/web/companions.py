"""What runs beside the agent where the configuration asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from reconciler.agent.books import Books
from reconciler.agent.company import Companion
from reconciler.agent.loop import Agent
from reconciler.agent.source import ManifestSource
from reconciler.agent.standing import Standing, standing
from reconciler.model.condition import Condition
from reconciler.state.config import Config
from reconciler.state.location import GitLocation
from reconciler.web.server import Limits, Server, listen_at
from reconciler.web.webhook import Webhook, secrets_of

HOOK_PATH = "/hooks/source"


def companions(config: Config) -> Sequence[Companion]:
    """Give what a configuration asks for."""
    listening = (_listen,) if config.listen is not None else ()
    return (*listening, _notify) if config.notify else listening


async def _listen(agent: Agent, config: Config) -> None:
    """Answer requests at the configured address.

    Raises: KernelError, if it is not to be had; ConfigError, RefusedError, if the webhook's secret cannot be used.
    """
    assert config.listen is not None
    handlers = {}
    location, source = config.source, agent.source
    if isinstance(location, GitLocation) and location.webhook_secret and isinstance(source, ManifestSource):
        secrets_of(location.webhook_secret)  # what is wrong with it is told at the start
        handlers[HOOK_PATH] = Webhook(secret_file=location.webhook_secret, accepted=source.hint)
    else:
        structlog.get_logger().warning("web.no_webhook", remedy="set source.git.webhookSecret")
    with await listen_at(config.listen) as listener:
        structlog.get_logger().info("web.listening", address=config.listen)
        await Server(handlers, limits=Limits()).run(listener)


async def _notify(agent: Agent, config: Config) -> None:
    """Tell each target what stands, as soon as a pass has shown it."""
    from reconciler.web.notifier import Notifier  # brings TLS, which a webhook alone needs not

    desk = agent.reconciler.desk
    books = Books(config.instance.state_dir)

    def look() -> Standing | None:
        return standing(agent, desk.clock.now()) if agent.ready.is_set() else None

    def told(problem: str) -> None:
        desk.tell("host", "NotDelivered", problem, kind="Warning")

    notifiers = [Notifier(target=t, look=look, books=books, clock=desk.clock, told=told) for t in config.notify]
    hear = desk.conditions.on_change

    def changed(subject: str, condition: Condition) -> None:
        if hear is not None:
            hear(subject, condition)
        for notifier in notifiers:
            notifier.changed.set()

    desk.conditions.on_change = changed
    try:
        async with asyncio.TaskGroup() as tasks:
            for notifier in notifiers:
                tasks.create_task(notifier.run())
    finally:
        desk.conditions.on_change = hear
