"""`logs`: what a VE says, what its runtime says of it, and what we say of both; the VE's words are hostile."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode, StateError

if TYPE_CHECKING:
    from reconciler.host.logs import Tail
    from reconciler.host.site import Site
    from reconciler.model.condition import Event
    from reconciler.model.identity import Uid
    from reconciler.state.config import Config
    from reconciler.state.events import EventLog

_LOOK_EVERY_S = 0.5
_EVENTS = 10
_LINE_MAX = 65536
"""A longer line is printed in pieces. Units: bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    """The options of the command."""

    name: str
    follow: bool
    lines: int


def logs(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The VE.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, and print what comes.")] = False,
    lines: Annotated[int, typer.Option("--tail", "-n", min=0, help="How many of the newest lines.")] = 100,
) -> int:
    """Print the log of a VE, after the newest events about it.

    Of one that does not run, also what its runtime said when it was made.
    """
    context.need_root()
    return context.run(_logs(context.load_config(), _Wishes(name=name, follow=follow, lines=lines)))


async def _logs(config: Config, wishes: _Wishes) -> int:
    from reconciler.agent import view
    from reconciler.host import execute, ground, power
    from reconciler.host.site import Site
    from reconciler.model.power import PowerState

    site, events = Site(config.instance), _events(config)
    try:
        known = events.read(ve=wishes.name)
        _print_events(known[-_EVENTS:])
        uid = view.find(site, wishes.name) if ground.has_pool(config.instance) else None
        if uid is None:
            raise StateError(f"read the log of {wishes.name}: this host has no VE of that name")
        running = power.observe(site, uid).state is PowerState.RUNNING
        if not running:
            _print_runtime_log(site, uid)
        if running and execute.runs_systemd(site, uid):
            return await _journal(site, uid, wishes)
        return await _syslog(site, uid, wishes, events, known[-1:])
    finally:
        site.close()


def _events(config: Config) -> EventLog:
    from reconciler.state import layout
    from reconciler.state.events import EventLog

    return EventLog(layout.events_file(config.instance))


def _print_events(found: Iterable[Event]) -> None:
    for event in found:
        output.data(f"{output.moment(event.at)} vectl: {event.reason}: {output.one_line(event.message)}")


def _print_runtime_log(site: Site, uid: Uid) -> None:
    from reconciler.host import logs as host_logs

    for line in host_logs.read_runtime_log(site, uid).decode(errors="replace").splitlines():
        output.data(f"runtime: {output.one_line(_message(line))}")


def _message(line: str) -> str:
    """Give the words of a line of the runtime's log, which is a JSON object."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    return f"{entry.get('level')}: {entry.get('msg')}" if isinstance(entry, dict) else line


async def _syslog(site: Site, uid: Uid, wishes: _Wishes, events: EventLog, last: tuple[Event, ...]) -> int:
    import asyncio

    from reconciler.cli.events import newer
    from reconciler.host.logs import Tail

    tail = Tail(site, uid)
    rest = _print_lines(_newest(tail, wishes.lines))
    while wishes.follow:
        await asyncio.sleep(_LOOK_EVERY_S)
        found = events.read(ve=wishes.name)
        _print_events(newer(found, last))
        last = found[-1:] or last
        rest = _print_lines(rest + tail.read())
    _print_rest(rest)
    return int(ExitCode.OK)


def _newest(tail: Tail, count: int) -> bytes:
    """Give so many of the last lines, with what follows the last line's end."""
    lines = tail.read().splitlines(keepends=True)
    return b"".join(lines[len(lines) - min(count, len(lines)) :])


def _print_lines(data: bytes) -> bytes:
    """Print the whole lines, safe for a terminal; give back the piece of a line after them, unless it never ends."""
    whole, newline, rest = data.rpartition(b"\n")
    if newline:
        for line in whole.decode(errors="replace").split("\n"):
            output.data(output.one_line(line))
    if len(rest) > _LINE_MAX:
        _print_rest(rest)
        return b""
    return rest


def _print_rest(rest: bytes) -> None:
    if rest:
        output.data(output.one_line(rest.decode(errors="replace")))


async def _journal(site: Site, uid: Uid, wishes: _Wishes) -> int:
    """Have the VE's own journalctl print its journal; what it prints is made safe as any other words of the VE."""
    import os

    from reconciler.host import execute
    from reconciler.host.execute import Program

    follow = ("-f",) if wishes.follow else ()
    args = ("journalctl", "--no-pager", "-o", "short-iso", "-n", str(wishes.lines), *follow)
    source, target = os.pipe()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        execution = await execute.start(site, uid, Program(args=args), stdio=(null, target, null))
    except BaseException:
        os.close(source)
        raise
    finally:
        os.close(null)
        os.close(target)
    await _print_stream(source)
    return await execution.wait()


async def _print_stream(source: int) -> None:
    import asyncio
    from io import FileIO

    reader = asyncio.StreamReader()
    pipe = FileIO(source, "rb")
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    rest = b""
    while data := await reader.read(_LINE_MAX):
        rest = _print_lines(rest + data)
    _print_rest(rest)
    transport.close()
