"""`events`: what happened, to whom, and why."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode

if TYPE_CHECKING:
    from reconciler.model.condition import Event
    from reconciler.state.events import EventLog

_LOOK_EVERY_S = 0.5
_HEADER = ("TIME", "VE", "KIND", "REASON", "MESSAGE")


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


def events(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The VE; all if none is named.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and print what comes.")] = False,
    number: Annotated[int, typer.Option("--tail", "-n", min=0, help="How many of the newest.")] = 100,
    form: Annotated[Format, typer.Option("--output", "-o", help="The format; JSON is a line each.")] = Format.TABLE,
) -> int:
    """Tell what happened, oldest first."""
    from reconciler.state import layout
    from reconciler.state.events import EventLog

    context.need_root()
    log = EventLog(layout.events_file(context.load_config().instance))
    found = log.read(ve=name)
    shown = found[len(found) - min(number, len(found)) :]
    columns = output.Columns()
    if form is Format.JSON:
        _lines(shown)
    elif shown:
        columns = output.table(_HEADER, map(cells, shown))
    else:
        output.words("no events")
    if watch:
        context.run(_follow(log, name, None if form is Format.JSON else columns, last=found[-1:]))
    return int(ExitCode.OK)


def cells(event: Event) -> tuple[str, ...]:
    """Give an event's cells of a table."""
    return output.moment(event.at), event.ve, event.kind, event.reason, event.message


def _lines(found: Sequence[Event]) -> None:
    for event in found:
        output.line({"format": 1, **event.to_json()})


async def _follow(log: EventLog, name: str | None, columns: output.Columns | None, *, last: Sequence[Event]) -> None:
    """Print the events that come, as JSON lines where there are no columns."""
    import asyncio

    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        found = log.read(ve=name)
        fresh = newer(found, last)
        if columns is None:
            _lines(fresh)
        else:
            columns.add(map(cells, fresh))
        last = found[-1:] or last


def newer(found: Sequence[Event], last: Sequence[Event]) -> Sequence[Event]:
    """Give the events after the last one that was seen; all, if that one has been dropped since."""
    for index in range(len(found) - 1, -1, -1):
        if [found[index]] == [*last]:
            return found[index + 1 :]
    return found
