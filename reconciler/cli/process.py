"""`agent` and `down`: the beginning and the end of an instance on this host."""

from __future__ import annotations

import json
import os
import signal
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode, NotConvergedError, RefusedError

if TYPE_CHECKING:
    from reconciler.agent.session import Session
    from reconciler.model.volume import Record
    from reconciler.state.config import Config

_AGENT_END_S = 30.0
_RELEASE_S = 10.0


class LogLevel(StrEnum):
    """How much the agent tells."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def agent(
    source: Annotated[
        str | None, typer.Option(metavar="PATH", help="Directory of manifests to hold the host to.")
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="How much to tell.")] = LogLevel.INFO,
    enable_failpoints: Annotated[bool, typer.Option(hidden=True)] = False,
) -> NoReturn:
    """Hold this host to the manifests until stopped."""
    context.need_root()
    context.load_config(source)  # what is wrong with it is told here
    given = context.given()
    wish = {
        "config": given.config_file,
        "instance": given.instance,
        "state_dir": given.state_dir,
        "run_dir": given.run_dir,
        "host": given.host,
        "source": source,
        "log_level": log_level.value,
        "terminal": sys.stderr.isatty(),
        "color": output.has_color(sys.stderr),
        "failpoints": os.environ.get("VECTL_FAILPOINTS", "") if enable_failpoints else "",
    }
    _become_agent(json.dumps(wish))


def _become_agent(wish: str) -> NoReturn:
    """Replace this process by the agent, which then carries nothing of the command line for as long as it runs.

    One arena is enough for a process of one busy thread; glibc would make one for each helper thread.
    Source: mallopt(3), MALLOC_ARENA_MAX.
    """
    isolated = ["-I"] if sys.flags.isolated else []
    argv = [sys.executable, *isolated, "-m", "reconciler.agent", wish]
    os.execve(sys.executable, argv, {"MALLOC_ARENA_MAX": "1", **os.environ})  # noqa: S606  # no shell is wanted


def down(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    destroy_data: Annotated[
        list[str] | None, typer.Option(help="Destroy this protected VE too.", metavar="NAME")
    ] = None,
) -> int:
    """Remove everything of this instance, with all data."""
    context.need_root()
    config = context.load_config()
    return context.run(_down(config, yes=yes, destroy=frozenset(destroy_data or ())))


async def _down(config: Config, *, yes: bool, destroy: frozenset[str]) -> int:
    from reconciler.agent.session import open_session
    from reconciler.host import ground
    from reconciler.state.lock import instance_lock

    if not os.path.exists(config.instance.state_dir):
        output.words(f"nothing of {config.instance.name} is here")
        return int(ExitCode.OK)
    if not yes and not output.confirm(f"Remove all VEs of {config.instance.name}, with data?", asked="down"):
        return int(ExitCode.REFUSED)
    await _end_agent(config)
    with instance_lock(config.instance):
        async with open_session(config, source="") as session:
            records = await _records(session)
            protected = sorted(r.name for r in records if r.protect and r.name not in destroy)
            if protected:
                names = " ".join(f"--destroy-data {name}" for name in protected)
                raise RefusedError(f"down: protected VEs are here: {', '.join(protected)}; destroy them with {names}")
            await _remove_all(session)
            keeper = await session.site.keeper()
            await keeper.shut_down()
        ground.remove(config.instance)
    held = ground.held_devices(config.instance, wait_s=_RELEASE_S)
    if held:
        output.words(f"{', '.join(held)}: held by the mounts of another process; freed with them")
    output.words(f"everything of {config.instance.name} is gone")
    return int(ExitCode.OK)


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


async def _records(session: Session) -> list[Record]:
    from reconciler.model.volume import Record

    observed = await session.reconciler.observe()
    return [seen.record for seen in observed.ves.values() if isinstance(seen.record, Record)]


async def _remove_all(session: Session) -> None:
    from reconciler.agent.teardown import tear_down

    await tear_down(session, told=output.words)
