"""`describe`: everything that is known of one VE."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output, snapshot
from reconciler.errors import ExitCode

if TYPE_CHECKING:
    from reconciler.agent.session import Session
    from reconciler.agent.view import Row
    from reconciler.model.condition import Condition, Event
    from reconciler.model.facts import Json
    from reconciler.model.migration import Obstacle
    from reconciler.model.power import MemoryObservation, PowerObservation
    from reconciler.plan.explain import Explanation

_EVENTS = 10


class Format(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Story:
    """What is told of a VE beside its stable form."""

    row: Row
    body: dict[str, Json]
    explanations: Sequence[Explanation]
    events: Sequence[Event]
    obstacles: Sequence[Obstacle]
    is_shut: bool


def describe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The VE.")],
    form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TEXT,
) -> int:
    """Tell all about a VE.

    Desired beside observed, conditions, events, how it last ended, where it lies.
    """
    context.need_root()
    context.run(_describe(name, form))
    return int(ExitCode.OK)


async def _describe(name: str, form: Format) -> None:
    async with context.looking(context.load_config()) as session:
        story = await _tell(session, name)
    match form:
        case Format.JSON:
            output.document(story.body)
        case Format.YAML:
            output.yaml(story.body)
        case Format.TEXT:
            _print(story)


async def _tell(session: Session, name: str) -> _Story:
    from reconciler.agent import view
    from reconciler.plan import explain, keeping_out
    from reconciler.state.coordinator import DryCoordinator

    observed = await session.reconciler.observe()
    row = view.select(view.rows(session, session.reconciler.fleet, observed), [name], asked="describe")[0]
    _, made = await session.reconciler.plan(observed, coordinator=DryCoordinator())
    explanations = explain.explain(made, row.name)
    events = session.desk.events.read(ve=row.name, limit=_EVENTS)
    obstacles = await _obstacles(session, row)
    item = view.item(session, row)
    extra: dict[str, Json] = {
        "format": 1,
        "record": _record(row),
        "lastEnd": _last_end(row),
        "memory": _memory(row),
        "use": _use(row),
        "differences": [{"path": found.path, "text": found.text} for found in explanations],
        "snapshots": snapshot.to_json(snapshot.holding(row.seen), time.time()) if row.seen else [],
        "rollback": _rollback(row),
        "obstacles": [obstacle.to_json() for obstacle in obstacles],
        "events": [event.to_json() for event in events],
    }
    return _Story(
        row=row,
        body={**item, **extra},
        explanations=explanations,
        events=events,
        obstacles=obstacles,
        is_shut=keeping_out.is_shut(session.reconciler.fleet, session.config.instance.host),
    )


async def _obstacles(session: Session, row: Row) -> Sequence[Obstacle]:
    """Look once more, now, at a VE that runs: what the agent told is as old as its last look."""
    from reconciler.errors import VectlError
    from reconciler.model.power import PowerState

    if row.seen is None or row.power is None or row.power.state is not PowerState.RUNNING:
        return ()
    try:
        return await session.host.find_obstacles(row.seen.uid)
    except VectlError:  # then the condition says why
        return ()


def _record(row: Row) -> Json:
    record = row.record
    if record is None:
        return None
    return {
        "template": record.template,
        "templateDigest": record.template_digest,
        "source": record.source,
        "createdAt": record.created_at,
        "protect": record.protect,
        "labels": {**row.labels},
    }


def _last_end(row: Row) -> Json:
    power = row.power
    if power is None or power.last_end is None:
        return None
    end = power.last_end
    return {"cause": end.cause.value, "value": end.value, "requested": power.stop_requested}


def _rollback(row: Row) -> Json:
    """Give the rollback that the manifest asks for, and whether it was done."""
    request = row.spec.snapshots.rollback if row.spec else None
    if request is None:
        return None
    return {
        "to": request.to,
        "request": request.request,
        "done": row.record is not None and request.id in row.record.requests_done,
    }


def _memory(row: Row) -> Json:
    memory = row.power.memory if row.power else None
    return None if memory is None else {"suspendedAt": memory.suspended_at, "size": memory.size}


def _use(row: Row) -> Json:
    from reconciler.model.compute import ComputeObservation
    from reconciler.model.volume import VolumeObservation

    compute, volume = (row.seen.compute, row.seen.volume) if row.seen else (None, None)
    use = compute.use if isinstance(compute, ComputeObservation) else None
    return {
        "memory": use.memory if use else None,
        "cpuSeconds": use.cpu_us / 1e6 if use and use.cpu_us is not None else None,
        "processes": use.processes if use else None,
        "disk": volume.used if isinstance(volume, VolumeObservation) else None,
    }


def _print(story: _Story) -> None:
    row = story.row
    output.columns(_head(story))
    _section("Conditions", ("TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"), map(_condition, row.conditions))
    fields = _fields(row, {found.path for found in story.explanations})
    _section("Fields", ("", "FIELD", "DESIRED", "OBSERVED"), fields)
    if row.seen is not None:
        _snapshots(snapshot.holding(row.seen))
    obstacles = ((output.one_line(str(found)), found.remedy) for found in story.obstacles)
    _section("Not to be suspended", ("BECAUSE", "REMEDY"), obstacles)
    differences = ((found.path, found.text) for found in story.explanations)
    _section("Differences", ("FIELD", "WHAT"), differences)
    events = ((output.moment(event.at), event.reason, event.message) for event in story.events)
    _section("Events", ("TIME", "REASON", "MESSAGE"), events)


def _snapshots(kept: snapshot.Holding) -> None:
    header = ("SNAPSHOT", "KIND", "AGE", "MEMORY", "USED", "TEMPLATE")
    _section("Snapshots", header, (line[1:] for line in snapshot.lines(kept, time.time())))
    if kept.snapshots:
        output.data(f"  {snapshot.sentence(kept)}")


def _section(title: str, header: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> None:
    found = list(lines)
    if found:
        output.data(f"\n{output.paint(f'{title}:', 'strong')}")
        output.columns([header, *found], indent="  ")


def _condition(condition: Condition) -> tuple[str, ...]:
    since = output.moment(condition.since) if condition.since else "-"
    return condition.type.value, condition.status.value, condition.reason, since, condition.message


def _head(story: _Story) -> Iterator[tuple[str, str]]:
    from reconciler.model.identity import IDS_PER_VE
    from reconciler.model.units import format_size

    row, record = story.row, story.row.record
    runtime, use = story.body["runtime"], story.body["use"]
    assert isinstance(runtime, dict)
    assert isinstance(use, dict)
    yield "Name:", row.name
    yield "UID:", str(story.body["uid"] or "none yet")
    yield "Host:", f"{story.body['host']}{', under maintenance' if story.is_shut else ''}"
    yield "Power:", _power_text(row.power, row.power_word)
    if record is not None:
        base = record.id_base
        yield "Created:", output.moment(record.created_at)
        yield "Source:", record.source or "none"
        yield "Template:", f"{record.template} ({(record.template_digest or 'not built yet')[:12]})"
        yield "Protected:", "yes" if record.protect else "no"
        yield "Ids on the host:", f"{base} to {base + IDS_PER_VE - 1}"
    yield "Labels:", ", ".join(f"{key}={value}" for key, value in sorted(row.labels.items())) or "none"
    yield "Init's pid:", str(runtime["pid"] or "none")
    yield "Cgroup:", str(runtime["cgroup"] or "none")
    if isinstance(asked := story.body["rollback"], dict):
        yield "Rollback:", f"to {asked['to']} ({asked['request']}): {'done' if asked['done'] else 'not done yet'}"
    for title, key in (("Memory in use:", "memory"), ("Disk in use:", "disk")):
        size = use[key]
        yield title, format_size(size) if isinstance(size, int) else "not known"


def _power_text(power: PowerObservation | None, word: str) -> str:
    from reconciler.plan.power import describe as describe_end

    if power is None:
        return word
    since = "" if power.started_at is None else f" since {output.moment(power.started_at)}"
    if power.memory is not None and power.pid is None:
        return f"{word}{_memory_text(power.memory)}"
    if power.last_end is None:
        return f"{word}{since}"
    asked = ", asked for" if power.stop_requested else ""
    return f"{word}{since}; last end: {describe_end(power.last_end)}{asked}"


def _memory_text(memory: MemoryObservation) -> str:
    from reconciler.model.units import format_size

    size = "" if memory.size is None else f", {format_size(memory.size)} of memory on disk"
    return f" since {output.moment(memory.suspended_at)}{size}"


def _by_section(paths: Iterable[str]) -> Iterator[str]:
    """Give paths once each, those of one section of the spec together, sections in the order of their first."""
    sections: dict[str, dict[str, None]] = {}
    for path in paths:
        sections.setdefault(path.split(".", 1)[0], {})[path] = None
    for section in sections.values():
        yield from section


def _fields(row: Row, different: set[str]) -> Iterator[tuple[str, ...]]:
    from reconciler.plan.spec import observed_values, spec_values, unknown_paths
    from reconciler.plan.words import value_text

    desired = spec_values(row.spec) if row.spec else {}
    observed = observed_values(row.seen) if row.seen else {}
    for path in _by_section((*desired, *observed)):
        yield (
            "!" if any(found == path or found.startswith(f"{path}.") for found in different) else " ",
            path,
            (value_text(path, desired[path]) if path in desired else "-") + _beside_others(row, path),
            value_text(path, observed[path]) if path in observed else "-",
        )
    for facet, reason in (unknown_paths(row.seen) if row.seen else {}).items():
        yield "?", facet, "", f"could not be read: {reason}"


def _beside_others(row: Row, path: str) -> str:
    """Give the weight that the guarantees on the host make of the declared one, where it is another."""
    from reconciler.model.volume import Record

    record = row.seen.record if row.seen and path == "cpu.weight" else None
    weight = record.cpu_weight if isinstance(record, Record) else None
    return "" if weight is None else f", {weight} beside the others"
