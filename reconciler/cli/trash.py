"""`trash`: what was removed and is still there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output, requests
from reconciler.errors import ExitCode, StateError, UsageError

if TYPE_CHECKING:
    from reconciler.model.facts import Json
    from reconciler.model.volume import TrashEntry
    from reconciler.state.config import Config

app = typer.Typer(no_args_is_help=True, help="What was removed and is still there.", rich_markup_mode=None)

_HEADER = ("NAME", "REMOVED", "KEPT FOR", "USED", "TEMPLATE", "PROTECT", "ID")
_Entry = Annotated[str, typer.Argument(metavar="NAME|ID", help="The VE's name, if one of it is there; else the id.")]


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"
    NAME = "name"


@app.command(name="list")
def list_(form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TABLE) -> int:
    """List what is in the trash, oldest first."""
    context.need_root()
    config = context.load_config()
    entries = context.run(_entries(config))
    now = time.time()
    match form:
        case Format.JSON:
            output.document({"format": 1, "items": [_to_json(config, entry) for entry in entries]})
        case Format.NAME:
            for entry in entries:
                output.data(entry.id)
        case Format.TABLE if not entries:
            output.words("the trash is empty")
        case Format.TABLE:
            output.table(_HEADER, (_line(config, entry, now) for entry in entries))
    return int(ExitCode.OK)


@app.command()
def restore(entry: _Entry) -> int:
    """Bring a VE back from the trash.

    One without a manifest is paused, so that it is not removed again at once.
    """
    from reconciler.state.pause import Pauses, pause_of

    context.need_root()
    found, by = _find(context.run(_entries(context.load_config())), entry), context.who()
    requests.carry_out("trash-restore", lambda operations: operations.restore(found.id, by=by), id=found.id)
    name, config = found.record.name, context.load_config()
    paused = pause_of(name, Pauses(config.instance.state_dir).in_force(time.time())) is not None
    output.words(f"{name} is back" + (f", and paused; `vectl unpause {name}` ends that" if paused else ""))
    return int(ExitCode.OK)


@app.command()
def purge(
    entry: Annotated[str | None, typer.Argument(metavar="NAME|ID", help="As for `restore`.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything in the trash.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Delete for good what is in the trash."""
    context.need_root()
    if (entry is None) != everything:
        raise UsageError("trash purge: expected either an entry or --all")
    entries, by = context.run(_entries(context.load_config())), context.who()
    chosen = entries if entry is None else [_find(entries, entry)]
    names = ", ".join(str(found.record.name) for found in chosen)
    if not chosen:
        output.words("the trash is empty")
        return int(ExitCode.OK)
    if not yes and not output.confirm(f"Delete the data of {names} for good?", asked="trash purge"):
        return int(ExitCode.REFUSED)
    for found in chosen:
        purge_one(found.id, by)
        output.words(f"{found.record.name} is deleted for good")
    return int(ExitCode.OK)


def purge_one(trash_id: str, by: str) -> None:
    """Delete one entry for good.

    Raises: VectlError.
    """
    requests.carry_out("trash-purge", lambda operations: operations.purge(trash_id, by=by), id=trash_id)


async def _entries(config: Config) -> tuple[TrashEntry, ...]:
    from reconciler.host import ground

    if not ground.has_pool(config.instance):
        return ()
    async with context.looking(config) as session:
        return await session.operations.trash()


def _find(entries: Sequence[TrashEntry], wanted: str) -> TrashEntry:
    found = [entry for entry in entries if wanted in (entry.id, entry.record.name)]
    if not found:
        raise StateError(f"find {wanted} in the trash: nothing of that name or id is there; see `vectl trash list`")
    if len(found) > 1:
        ids = ", ".join(entry.id for entry in found)
        raise UsageError(f"find {wanted} in the trash: {len(found)} of that name are there; name one by id: {ids}")
    return found[0]


def _left_s(config: Config, entry: TrashEntry, now: float) -> float:
    return max(0.0, entry.trashed_at + config.trash_days * 86400.0 - now)


def _line(config: Config, entry: TrashEntry, now: float) -> tuple[str, ...]:
    from reconciler.model.units import format_duration, format_size

    return (
        str(entry.record.name),
        f"{format_duration(max(0.0, now - entry.trashed_at))} ago",
        format_duration(_left_s(config, entry, now)),
        "-" if entry.used is None else format_size(entry.used),
        str(entry.record.template),
        str(entry.record.protect).lower(),
        entry.id,
    )


def _to_json(config: Config, entry: TrashEntry) -> Json:
    return {
        "id": entry.id,
        "name": entry.record.name,
        "uid": entry.record.uid,
        "trashedAt": entry.trashed_at,
        "purgedAt": entry.trashed_at + config.trash_days * 86400.0,
        "used": entry.used,
        "template": entry.record.template,
        "source": entry.record.source,
        "protect": entry.record.protect,
    }
