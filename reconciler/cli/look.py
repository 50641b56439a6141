"""`get`: what is there, what should be, and how they stand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import StateError

if TYPE_CHECKING:
    from reconciler.agent.session import Session
    from reconciler.model.condition import Condition
    from reconciler.model.facts import Json
    from reconciler.model.fleet import Fleet, VeSpec
    from reconciler.model.observation import VeObservation


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    NAME = "name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A VE, as far as it is there and as far as a manifest names it."""

    name: str
    spec: VeSpec | None
    seen: VeObservation | None
    conditions: tuple[Condition, ...]


def get(
    name: Annotated[str | None, typer.Argument(help="Name of a VE; all if left out.")] = None,
    form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TABLE,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="Only with this label.", metavar="KEY=VALUE")
    ] = None,
) -> int:
    """List VEs with what they use and whether they are as desired."""
    context.need_root()
    asyncio.run(_get(name, form, label or []))
    return 0


async def _get(name: str | None, form: Format, labels: list[str]) -> None:
    from reconciler.agent.session import look_session

    config = context.load_config()
    source, fleet = context.last_good(config)
    async with look_session(config, source=source) as session:
        rows = [row for row in await _rows(session, fleet) if name in (None, row.name) and _has(row, labels)]
        if name is not None and not rows:
            raise StateError(f"get {name}: neither a manifest nor this host has a VE of that name")
        revision = fleet.revision if fleet else ""
        if form is Format.JSON:
            items = [_item(session, row) for row in rows]
            output.document({"format": 1, "host": config.instance.host, "revision": revision, "items": [*items]})
        elif form is Format.NAME:
            for row in rows:
                output.data(row.name)
        else:
            _table(session, rows, revision)


async def _rows(session: Session, fleet: Fleet | None) -> list[Row]:
    from reconciler.model.volume import Record
    from reconciler.plan.planner import is_here

    observed = await session.reconciler.observe()
    stored = session.desk.conditions.read_all()
    seen = {str(ve.record.name): ve for ve in observed.ves.values() if isinstance(ve.record, Record)}
    host = session.config.instance.host
    specs = {str(n): spec for n, spec in (fleet.ves if fleet else {}).items() if is_here(spec, host)}
    return [
        Row(name=name, spec=specs.get(name), seen=seen.get(name), conditions=stored.get(name, ()))
        for name in sorted(seen.keys() | specs.keys())
    ]


def _has(row: Row, labels: list[str]) -> bool:
    own = dict(row.spec.labels) if row.spec else {}
    return all(own.get(key) == value for key, _, value in (label.partition("=") for label in labels))


def _item(session: Session, row: Row) -> Json:
    from reconciler.model.power import PowerObservation
    from reconciler.model.volume import Record
    from reconciler.plan.field import nest
    from reconciler.plan.spec import observed_values, spec_values, unknown_paths

    seen = row.seen
    record = seen.record if seen is not None and isinstance(seen.record, Record) else None
    power = seen.power if seen is not None and isinstance(seen.power, PowerObservation) else None
    uid = seen.uid if seen is not None else (row.spec.uid if row.spec else None)
    pid = power.pid if power else None
    runtime: dict[str, Json] = {
        "pid": pid,
        "cgroup": session.config.instance.ve_cgroup(uid) if uid else None,
        "netns": f"/proc/{pid}/ns/net" if pid else None,
        "rootfs": f"/proc/{pid}/root" if pid else None,
        "idBase": record.id_base if record else None,
    }
    return {
        "name": row.name,
        "uid": uid,
        "host": session.config.instance.host,
        "power": power.state.value if power else None,
        "conditions": [condition.to_json() for condition in row.conditions],
        "desired": nest(spec_values(row.spec)) if row.spec else None,
        "observed": nest(observed_values(seen)) if seen else None,
        "runtime": runtime,
        "unknown": [*(unknown_paths(seen) if seen else {})],
    }


def _table(session: Session, rows: list[Row], revision: str) -> None:
    header = ("NAME", "HOST", "POWER", "READY", "CPU", "MEM", "DISK", "ADDRESSES", "AGE", "REVISION")
    host, now = session.config.instance.host, session.desk.clock.now()
    output.table(header, ([row.name, host, *_cells(row, now), revision] for row in rows))


def _cells(row: Row, now: float) -> list[str]:
    from reconciler.model.compute import ComputeObservation, Limit
    from reconciler.model.condition import ConditionType
    from reconciler.model.network import VeNetworkObservation
    from reconciler.model.power import PowerObservation
    from reconciler.model.units import format_duration, format_size
    from reconciler.model.volume import Record, VolumeObservation

    seen = row.seen
    ready = next((c for c in row.conditions if c.type is ConditionType.READY), None)
    cells = {"power": "-", "cpu": "-", "mem": "-", "disk": "-", "addresses": "-", "age": "-"}
    if seen is not None and isinstance(seen.power, PowerObservation):
        cells["power"] = seen.power.state.value
    if seen is not None and isinstance(seen.compute, ComputeObservation):
        limit = seen.compute.limits.get(Limit.MEMORY_LIMIT)
        cells["mem"] = (
            f"{format_size(seen.compute.use.memory or 0)}/{format_size(limit if isinstance(limit, int) else None)}"
        )
        cpu = seen.compute.limits.get(Limit.CPU_LIMIT)
        cells["cpu"] = f"{cpu / 100_000:g}" if isinstance(cpu, int) else "unlimited"
    if seen is not None and isinstance(seen.volume, VolumeObservation) and seen.volume.present:
        cells["disk"] = f"{format_size(seen.volume.used or 0)}/{format_size(seen.volume.size)}"
    if seen is not None and isinstance(seen.network, VeNetworkObservation):
        found = [str(a.ip) for link in seen.network.interfaces.values() for a in link.addresses]
        cells["addresses"] = ",".join(sorted(found)) or "-"
    if seen is not None and isinstance(seen.record, Record):
        cells["age"] = format_duration(max(0.0, now - seen.record.created_at))
    state = "-" if ready is None else f"{ready.status.value}" + ("" if ready.status == "True" else f" ({ready.reason})")
    return [cells["power"], state, cells["cpu"], cells["mem"], cells["disk"], cells["addresses"], cells["age"]]
