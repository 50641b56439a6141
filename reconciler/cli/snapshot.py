"""`snapshot`: the states of VEs' data that are kept."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode, StateError

if TYPE_CHECKING:
    from reconciler.model.facts import Json
    from reconciler.model.observation import HostObservation, VeObservation
    from reconciler.model.snapshots import SnapshotObservation

app = typer.Typer(no_args_is_help=True, help="The states of VEs' data that are kept.", rich_markup_mode=None)

_HEADER = ("VE", "SNAPSHOT", "KIND", "AGE", "MEMORY", "USED", "TEMPLATE")


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What the snapshots of one VE hold beside its data, and how much they may.

    Units: bytes; ``held`` None where nobody knows, ``limit`` None for none.
    """

    ve: str
    uid: str
    held: int | None
    limit: int | None
    snapshots: tuple[tuple[str, SnapshotObservation], ...]


@app.callback()
def _snapshot() -> None:
    """Make it a group of commands, although it has only one."""


@app.command(name="list")
def list_(
    name: Annotated[str | None, typer.Argument(metavar="[VE]", help="The VE; all of them, if left out.")] = None,
    form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TABLE,
) -> int:
    """List snapshots, the oldest first, with what nothing but each of them holds on the disk.

    Snapshots are taken and deleted by the manifests: see `vectl explain snapshots`.
    """
    context.need_root()
    found = context.run(_look(name))
    now = time.time()
    match form:
        case Format.JSON:
            output.document(_document(found, now))
        case Format.YAML:
            output.yaml(_document(found, now))
        case Format.TABLE if not any(one.snapshots for one in found):
            output.words("there are no snapshots")
        case Format.TABLE:
            output.table(_HEADER, (line for one in found for line in lines(one, now)))
            for one in found:
                output.words(sentence(one))
    return int(ExitCode.OK)


async def _look(name: str | None) -> list[Holding]:
    async with context.looking(context.load_config(), with_fleet=False) as session:
        observed = await session.reconciler.observe()
    found = list(holdings(observed))
    if name is None:
        return [one for one in found if one.snapshots]
    chosen = [one for one in found if one.ve == name]
    if not chosen:
        raise StateError(f"list the snapshots of VE {name}: this host has none of that name; see `vectl get`")
    return chosen


def holdings(observed: HostObservation) -> Iterator[Holding]:
    """Give what the snapshots of each VE hold, in the order of the VEs' names."""
    from reconciler.model.facts import Unknown

    ves = [seen for seen in observed.ves.values() if not isinstance(seen.record, Unknown)]
    for seen in sorted(ves, key=_name):
        if not isinstance(seen.snapshots, Unknown):
            yield holding(seen)


def _name(seen: VeObservation) -> str:
    return getattr(seen.record, "name", "")


def holding(seen: VeObservation) -> Holding:
    """Give what the snapshots of a VE hold: of those that share, only the sum tells."""
    from reconciler.model.facts import Unknown

    held = limit = None
    if not isinstance(seen.volume, Unknown):
        volume = seen.volume
        if volume.held is not None and volume.used is not None:
            held = max(0, volume.held - volume.used)
        if volume.total is not None and volume.size is not None:
            limit = volume.total - volume.size
    kept = {} if isinstance(seen.snapshots, Unknown) else seen.snapshots.snapshots
    ordered = sorted(kept.items(), key=lambda one: (one[1].taken_at, one[0]))
    return Holding(ve=_name(seen), uid=seen.uid, held=held, limit=limit, snapshots=tuple(ordered))


def lines(one: Holding, now: float) -> Iterator[tuple[str, ...]]:
    """Give the lines of a table."""
    from reconciler.model.units import format_duration

    for name, kept in one.snapshots:
        age = format_duration(max(0.0, round(now - kept.taken_at)))
        memory = "yes" if kept.memory else "no"
        yield one.ve, name, kept.kind.value, age, memory, _size(kept.used), str(kept.template)


def sentence(one: Holding) -> str:
    """Say what the snapshots of a VE hold together."""
    limit = "no limit" if one.limit is None else f"of {_size(one.limit)}"
    many = f"{len(one.snapshots)} snapshot{'' if len(one.snapshots) == 1 else 's'}"
    return f"{one.ve}: {many}, {_size(one.held)} beside its data ({limit}, disk.snapshots)"


def _size(size: int | None) -> str:
    from reconciler.model.units import format_size

    return "-" if size is None else format_size(size)


def to_json(one: Holding, now: float) -> list[Json]:
    """Give the stable form of the snapshots of a VE."""
    return [
        {
            "ve": one.ve,
            "uid": one.uid,
            "name": str(name),
            "kind": kept.kind.value,
            "takenAt": kept.taken_at,
            "age": max(0.0, round(now - kept.taken_at, 3)),
            "memory": kept.memory,
            "used": kept.used,
            "template": str(kept.template),
            "templateDigest": str(kept.template_digest),
        }
        for name, kept in one.snapshots
    ]


def _document(found: Iterable[Holding], now: float) -> Json:
    every = list(found)
    sums: list[Json] = [{"ve": one.ve, "uid": one.uid, "held": one.held, "limit": one.limit} for one in every]
    return {"format": 1, "items": [item for one in every for item in to_json(one, now)], "ves": sums}
