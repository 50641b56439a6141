"""`audit`: who had what done, on whose word, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode

if TYPE_CHECKING:
    from reconciler.model.audit import Link
    from reconciler.model.facts import Json
    from reconciler.state.audit import Audit

_HEADER = ("TIME", "WHO", "REVISION", "VE", "WHAT", "OUTCOME")
_SHOWN_REVISION = 12


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


def audit(
    ve: Annotated[str | None, typer.Option("--ve", metavar="NAME", help="Only of this VE.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check that no entry was changed or removed.")] = False,
    number: Annotated[int, typer.Option("--tail", "-n", min=0, help="How many of the newest.")] = 100,
    form: Annotated[Format, typer.Option("--output", "-o", help="The format; JSON is a line each.")] = Format.TABLE,
) -> int:
    """Tell who had what done, oldest first: the revisions that were carried out, and what persons asked for."""
    from reconciler.state.audit import Audit

    context.need_root()
    log = Audit(context.load_config().instance.state_dir)
    if verify:
        return _verify(log)
    shown = newest(log.read(), ve, number)
    if form is Format.JSON:
        for link in shown:
            output.line({"format": 1, **link.to_json()})
    elif shown:
        output.table(_HEADER, map(cells, shown))
    else:
        output.words("the audit log has no entries")
    return int(ExitCode.OK)


def _verify(log: Audit) -> int:
    from reconciler.state.audit import expect_whole

    count, notes = expect_whole(log)
    for note in notes:
        output.words(f"{note.place}: {note.message}")
    output.words(f"{count} {'entry' if count == 1 else 'entries'}, as they were written")
    return int(ExitCode.OK)


def newest(links: Iterable[Link], ve: str | None, number: int) -> list[Link]:
    """Give the last links, of one VE if it is named; only so many are held in memory."""
    from collections import deque

    return list(deque((link for link in links if ve is None or link.entry.get("ve") == ve), maxlen=number))


def cells(link: Link) -> tuple[str, ...]:
    """Give an entry's cells of a table."""
    entry = link.entry
    at, revision = entry.get("at"), str(entry.get("revision") or "-")
    moment = output.moment(at) if isinstance(at, int | float) else "-"
    ended = ": ".join(str(text) for text in (entry.get("outcome"), entry.get("error")) if text)
    return moment, _who(entry), revision[:_SHOWN_REVISION], str(entry.get("ve") or "-"), "; ".join(_what(entry)), ended


def _who(entry: Mapping[str, Json]) -> str:
    signer = entry.get("signer")
    return f"{entry.get('who') or '-'}" + (f" (signed by {signer})" if signer else "")


def _what(entry: Mapping[str, Json]) -> Iterator[str]:
    request = " ".join(str(entry[key]) for key in ("request", "detail") if entry.get(key))
    if request:
        yield request
    actions = entry.get("actions")
    for action in actions if isinstance(actions, list) else ():
        if isinstance(action, dict):
            yield " ".join(str(action[key]) for key in ("op", "path") if action.get(key))
