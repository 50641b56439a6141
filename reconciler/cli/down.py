"""`down`: the end of an instance on this host, said and asked before anything is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode, NotConvergedError, RefusedError

if TYPE_CHECKING:
    from reconciler.agent.teardown import Stock
    from reconciler.model.instance import Instance
    from reconciler.state.config import Config

_AGENT_END_S = 30.0
_RELEASE_S = 10.0
_NAMES_SHOWN = 20


def down(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    destroy_data: Annotated[
        list[str] | None, typer.Option(help="Destroy this protected VE too.", metavar="NAME")
    ] = None,
) -> int:
    """Remove everything of this instance, with all data."""
    context.need_root()
    config = context.load_config()
    return context.run(take_down(config, yes=yes, destroy=frozenset(destroy_data or ())))


async def take_down(config: Config, *, yes: bool, destroy: frozenset[str]) -> int:
    """Say what goes, ask unless ``yes``, and remove it. ``destroy``: the guarded VEs that go too, by name or uid.

    Raises: RefusedError, if others are guarded; UsageError, if there is nobody to ask; VectlError.
    """
    from reconciler.agent.teardown import take_stock
    from reconciler.host import ground

    instance = config.instance
    if not os.path.exists(instance.state_dir):
        output.words(f"nothing of {instance.name} is here")
        return int(ExitCode.OK)
    stock = take_stock(instance) if ground.is_mounted(instance) else None
    if stock is not None:
        _refuse_guarded(stock, destroy)
    for line in _what_goes(instance, stock):
        output.words(line)
    if not yes and not output.confirm("Remove all of it?", asked="down"):
        return int(ExitCode.REFUSED)
    await _end_agent(config)
    await _remove_all(config, destroy)
    held = ground.held_devices(instance, wait_s=_RELEASE_S)
    if held:
        output.words(f"{', '.join(held)}: held by the mounts of another process; freed with them")
    output.words(f"everything of {instance.name} is gone")
    return int(ExitCode.OK)


async def _remove_all(config: Config, destroy: frozenset[str]) -> None:
    from reconciler.agent.session import open_session
    from reconciler.agent.teardown import take_stock, tear_down
    from reconciler.host import ground
    from reconciler.state.lock import instance_lock

    with instance_lock(config.instance, wait_s=_AGENT_END_S):
        async with open_session(config, source="") as session:
            _refuse_guarded(take_stock(config.instance), destroy)
            await tear_down(session, told=output.words)
            keeper = await session.site.keeper()
            await keeper.shut_down()
        ground.remove(config.instance)


def _what_goes(instance: Instance, stock: Stock | None) -> Iterator[str]:
    """Say what will be removed; what is in a pool that is not mounted, nobody can count."""
    from reconciler.host import ground

    yield f"down removes all of {instance.name} from this host:"
    if stock is not None:
        yield f"  VEs with their data: {_counted(sorted((*(record.name for record in stock.records), *stock.unread)))}"
        yield f"  removed VEs whose data is in the trash: {stock.trashed}"
    elif ground.has_pool(instance):
        yield f"  the VEs in the pool {instance.pool}: it is not mounted, so they cannot be counted"
    yield "  its networks, its filter, its templates, and what it knows of the past"
    with_pool = "" if instance.pool_path is not None else f", with the pool in {ground.pool_image(instance)}"
    yield f"  {instance.state_dir}{with_pool}"


def _counted(names: Sequence[str]) -> str:
    """Give how many there are, and the first of them by name, e.g. ``2: app, web``."""
    shown = [*names[:_NAMES_SHOWN], *(["..."] if len(names) > _NAMES_SHOWN else [])]
    return f"{len(names)}: {', '.join(shown)}" if names else "0"


def _refuse_guarded(stock: Stock, destroy: frozenset[str]) -> None:
    """Refuse where a VE is protected, or may be, and is not named.

    Raises: RefusedError.
    """
    unread = sorted(stock.unread - destroy)
    if unread:
        names = " ".join(f"--destroy-data {uid}" for uid in unread)
        raise RefusedError(
            f"down: {', '.join(unread)} may be protected, as their records cannot be read; destroy them with {names}"
        )
    protected = sorted(record.name for record in stock.records if record.protect and record.name not in destroy)
    if protected:
        names = " ".join(f"--destroy-data {name}" for name in protected)
        raise RefusedError(f"down: protected VEs are here: {', '.join(protected)}; destroy them with {names}")


async def _end_agent(config: Config) -> None:
    """End a running agent, and wait until it is gone."""
    import asyncio

    from reconciler.agent.server import ask

    answer = await ask(config.instance, "ping")
    result = answer.get("result") if answer else None
    if not isinstance(result, dict):
        return
    os.kill(int(str(result["pid"])), signal.SIGTERM)
    for _ in range(int(_AGENT_END_S / 0.1)):
        if await ask(config.instance, "ping") is None:
            return
        await asyncio.sleep(0.1)
    raise NotConvergedError("down: the agent does not end")
