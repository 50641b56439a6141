"""`beancounters`: what VEs hold of each resource, what bounds it, and how often that was met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode, StateError

if TYPE_CHECKING:
    from reconciler.agent.session import Session
    from reconciler.model.counters import Counted, Row
    from reconciler.model.facts import Json
    from reconciler.model.volume import Record
    from reconciler.state.config import Config

_HEADER = ("VE", "RESOURCE", "HELD", "MAXHELD", "BARRIER", "LIMIT", "FAILCNT", "HOLDS")


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"
    UBC = "ubc"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """The counters of one VE."""

    record: Record
    counted: Counted


def beancounters(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="VEs; all if none is named.")] = None,
    form: Annotated[Format, typer.Option("--output", "-o", help="ubc: as /proc/user_beancounters.")] = Format.TABLE,
    tight: Annotated[
        bool, typer.Option("--tight", help="Only what is half full, was nearly full once, or was refused.")
    ] = False,
) -> int:
    """Tell what VEs hold of each resource, and how often a limit was met."""
    context.need_root()
    context.run(_beancounters(names or [], form, tight=tight))
    return int(ExitCode.OK)


async def _beancounters(names: Sequence[str], form: Format, *, tight: bool) -> None:
    config = context.load_config()
    async with context.looking(config, with_fleet=False) as session:
        await _let_agent_write(config, names)
        sheets = [await _sheet(session, record) for record in _records(session, names)]
    match form:
        case Format.TABLE:
            output.table(_HEADER, [cells for sheet in sheets for cells in _cells(sheet, tight=tight)])
        case Format.JSON:
            items = [_item(sheet, tight=tight) for sheet in sheets]
            output.document({"format": 1, "host": config.instance.host, "items": [*items]})
        case Format.UBC:
            from reconciler.plan import ubc

            tables = [(ubc.number(sheet.record.id_base), sheet.counted.rows) for sheet in sheets]
            output.data(ubc.render(tables).removesuffix("\n"))


async def _let_agent_write(config: Config, names: Sequence[str]) -> None:
    """Let an agent that runs write down the peaks that it has in memory."""
    from reconciler.agent.server import ask

    for arguments in [{"ve": name} for name in names] or [{}]:
        await ask(config.instance, "count", **arguments)


def _records(session: Session, names: Sequence[str]) -> list[Record]:
    found = {record.name: record for uid in session.site.uids() if (record := session.site.read_record(uid))}
    for name in names:
        if name not in found:
            raise StateError(f"count VE {name}: this host has none of that name; see `vectl get`")
    return [record for name, record in sorted(found.items()) if not names or name in names]


async def _sheet(session: Session, record: Record) -> _Sheet:
    return _Sheet(record=record, counted=await session.host.count(record.uid, deep=True, keep=False))


def _shown(sheet: _Sheet, *, tight: bool) -> list[Row]:
    return [row for row in sheet.counted.rows if row.is_tight or not tight]


def _cells(sheet: _Sheet, *, tight: bool) -> Iterable[Sequence[str]]:
    for row in _shown(sheet, tight=tight):
        yield (
            sheet.record.name,
            row.resource.value,
            _amount(row, row.held, missing="-"),
            _amount(row, row.maxheld),
            _amount(row, row.barrier),
            _amount(row, row.limit),
            str(row.failcnt),
            f"{row.enforcement.value} ({row.by})" if row.by else row.enforcement.value,
        )


def _amount(row: Row, value: int | None, *, missing: str = "unlimited") -> str:
    from reconciler.model.units import format_size

    if value is None:
        return missing
    return format_size(value) if row.resource.is_bytes else str(value)


def _item(sheet: _Sheet, *, tight: bool) -> Json:
    counters: list[Json] = [
        {
            "resource": row.resource.value,
            "unit": "bytes" if row.resource.is_bytes else "items",
            "held": row.held,
            "maxheld": row.maxheld,
            "barrier": row.barrier,
            "limit": row.limit,
            "failcnt": row.failcnt,
            "enforcement": row.enforcement.value,
            "by": row.by,
        }
        for row in _shown(sheet, tight=tight)
    ]
    return {"name": sheet.record.name, "uid": sheet.record.uid, "counters": counters}
