"""`get`: what is there, what should be, and how they stand."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import UsageError

if TYPE_CHECKING:
    from reconciler.agent.session import Session
    from reconciler.agent.view import Row
    from reconciler.model.compute import ComputeObservation
    from reconciler.model.condition import Condition
    from reconciler.model.facts import Json, Unknown

_HEADER = ("NAME", "HOST", "POWER", "READY", "CPU", "MEM", "DISK", "ADDRESSES", "AGE", "REVISION")
_WIDE = ("PROCS", "UPTIME", "TEMPLATE", "PROTECT", "LABELS", "UID")
_LOOK_EVERY_S = 1.0


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def get(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="VEs; all if none is named.")] = None,
    form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TABLE,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", help="Only with this label: KEY=VALUE, KEY!=VALUE or KEY.", metavar="LABEL"),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and print what changes.")] = False,
    fleet: Annotated[bool, typer.Option("--fleet", help="The VEs of all hosts, as these told of them.")] = False,
) -> int:
    """List VEs, what they use, and whether they are as desired."""
    context.need_root()
    if fleet:
        if watch or label:
            raise UsageError("get --fleet: expected neither -w nor -l")
        context.run(_get_fleet(names or [], form))
        return 0
    if watch and form is Format.YAML:
        raise UsageError("get -w: expected -o table, wide, json or name: YAML has no end of a document to wait for")
    context.run(_get(_Question(names=names or [], form=form, labels=label or [], watch=watch)))
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What was asked for."""

    names: Sequence[str]
    form: Format
    labels: Sequence[str]
    watch: bool

    @property
    def needs_fleet(self) -> bool:
        """Whether it takes the manifests to answer, and not only what was said of them."""
        return bool(self.labels) or self.form in (Format.JSON, Format.YAML)


async def _get(question: _Question) -> None:
    from reconciler.agent import view
    from reconciler.host import ground

    config = context.load_config()
    if not ground.has_pool(config.instance):
        view.select([], question.names, asked="get")
        _print_empty(question.form, config.instance.host)
        return
    async with context.looking(config, with_fleet=question.needs_fleet) as session:
        revision = context.revision_in_force(config)
        found = await _select(session, question, revision)
        columns = _print(session, found, revision, question.form)
        if question.form in (Format.TABLE, Format.WIDE):
            _tell_of_source(session, revision)
            _tell_of_networks(session)
            if context.is_shut(config):
                output.words(f"vectl: {config.instance.host} is under maintenance: it takes no new VE")
        if question.watch:
            await _watch(session, question, found, columns)


async def _get_fleet(names: Sequence[str], form: Format) -> None:
    """Print what all hosts told of their VEs."""
    from reconciler.cli import fleet

    config = context.load_config()
    found = fleet.items(await fleet.read(config), names, now=time.time())
    whole: Json = {"format": 1, "fleet": config.etcd.fleet if config.etcd else None, "items": [*found]}
    match form:
        case Format.JSON:
            output.document(whole)
        case Format.YAML:
            output.yaml(whole)
        case Format.NAME:
            for item in found:
                output.data(str(item.get("name")))
        case _:
            fleet.table(found, wide=form is Format.WIDE)


def _tell_of_source(session: Session, revision: str) -> None:
    from reconciler.state.conditions import SOURCE

    if words := source_words(session.desk.conditions.read(SOURCE), revision):
        output.words(f"vectl: {output.one_line(words)}")


def _tell_of_networks(session: Session) -> None:
    """Tell of the host's networks what a person should look at: they are in no table."""
    from reconciler.model.condition import ConditionType

    for subject, conditions in sorted(session.desk.conditions.read_all().items()):
        wrong = [c for c in conditions if c.type in (ConditionType.STALLED, ConditionType.RECONCILING)]
        if wrong and subject.startswith("network."):
            output.words(
                f"vectl: {subject.replace('.', ' ', 1)}: {wrong[0].reason}: {output.one_line(wrong[0].message)}"
            )


def source_words(conditions: Iterable[Condition], revision: str) -> str:
    """Say why the manifests in force, of which alone the table speaks, are not the newest; empty, if they may be.

    ``revision``: the one in force; what was said beside another one is no longer so.
    """
    from reconciler.model.condition import ConditionType, source_problem

    found = tuple(conditions)
    valid = next((condition for condition in found if condition.type is ConditionType.VALID), None)
    problem = source_problem(found)
    if valid is None or valid.revision != revision or problem is None:
        return ""
    if problem.type is ConditionType.FETCHED:
        return f"the manifests cannot be read: {problem.message}; {valid.message}"
    if problem.type is ConditionType.VERIFIED:
        return f"the newest manifests are not to be trusted: {problem.message}; {valid.message}"
    return f"the newest manifests are not valid: {problem.message}"


def _print_empty(form: Format, host: str) -> None:
    empty: Json = {"format": 1, "host": host, "maintenance": False, "revision": "", "items": []}
    match form:
        case Format.JSON:
            output.document(empty)
        case Format.YAML:
            output.yaml(empty)
        case _:
            output.words("no VEs: nothing was ever made here")


async def _select(session: Session, question: _Question, revision: str, *, again: bool = False) -> list[Row]:
    """Give the VEs that were asked for. ``again``: one that was named may be gone since."""
    from reconciler.agent import view

    fleet = session.reconciler.fleet if question.needs_fleet else None
    found = view.rows(session, fleet, await session.reconciler.observe(), revision=revision)
    names = [row.name for row in found if row.name in question.names] if again else question.names
    chosen = view.select(found, names, asked="get") if names or not question.names else []
    return [row for row in chosen if all(_matches(row.labels, label) for label in question.labels)]


def _matches(labels: dict[str, str], wanted: str) -> bool:
    key, sign, value = wanted.partition("=")
    if key.endswith("!") and sign:
        return labels.get(key[:-1]) != value
    return labels.get(key) == value if sign else key in labels


def _print(session: Session, found: list[Row], revision: str, form: Format) -> output.Columns:
    """Print rows in a format; give the columns of a table, for what comes later."""
    from reconciler.agent import view

    host = session.config.instance.host
    match form:
        case Format.JSON | Format.YAML:
            items = [view.item(session, row) for row in found]
            shut = context.is_shut(session.config)
            whole: Json = {"format": 1, "host": host, "maintenance": shut, "revision": revision, "items": [*items]}
            (output.document if form is Format.JSON else output.yaml)(whole)
        case Format.NAME:
            for row in found:
                output.data(row.name)
        case _:
            header = _HEADER + (_WIDE if form is Format.WIDE else ())
            return output.table(header, _lines(session, found, revision, wide=form is Format.WIDE))
    return output.Columns()


async def _watch(session: Session, question: _Question, shown: list[Row], columns: output.Columns) -> None:
    """Look again and again; of VEs whose state changed print the lines, of those that are gone a word."""
    import asyncio

    before = {row.name: _state(row) for row in shown}
    known = context.revision_in_force(session.config)
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        revision = context.revision_in_force(session.config)
        if question.needs_fleet and revision != known:
            session.reconciler.fleet = context.last_good(session.config)[1] or session.reconciler.fleet
        known = revision
        found = await _select(session, question, revision, again=True)
        now = {row.name: _state(row) for row in found}
        changed = [row for row in found if before.get(row.name) != now[row.name]]
        for gone in sorted(before.keys() - now.keys()):
            output.words(f"{gone} is gone")
        if changed:
            _print_changed(session, changed, revision, question.form, columns)
        before = now


def _print_changed(session: Session, changed: list[Row], revision: str, form: Format, columns: output.Columns) -> None:
    from reconciler.agent import view

    if form is Format.JSON:
        for row in changed:
            output.line(view.item(session, row))
    elif form is Format.NAME:
        _print(session, changed, revision, form)
    else:
        columns.add(_lines(session, changed, revision, wide=form is Format.WIDE))


def _state(row: Row) -> object:
    """Give what counts as a change: not what a VE uses, which changes all the time."""
    from reconciler.plan.spec import observed_values

    values = observed_values(row.seen) if row.seen else None
    return row.spec, values, row.power, [condition.to_json() for condition in row.conditions]


def _lines(session: Session, found: list[Row], revision: str, *, wide: bool) -> list[list[str]]:
    from reconciler.model.commit import short

    host, now = session.config.instance.host, session.desk.clock.now()
    shown = short(revision)
    return [[row.name, host, *_cells(row, now), shown, *(_wide_cells(row, now) if wide else ())] for row in found]


def _cells(row: Row, now: float) -> list[str]:
    from reconciler.model.units import format_duration

    seen = row.seen
    status = _ready_text(row)
    age = format_duration(max(0.0, now - row.record.created_at)) if row.record else "-"
    if seen is None:
        return ["-", status, "-", "-", "-", "-", age]
    return [row.power_word, status, *_use(seen.compute), _disk(row), _addresses(row), age]


def _ready_text(row: Row) -> str:
    """Give Ready with why it is not so, or with what a person should know although it is."""
    from reconciler.model.condition import ConditionType, Status

    ready = row.ready
    if ready.status is not Status.TRUE:
        return f"{ready.status.value} ({ready.reason})"
    there = {condition.type for condition in row.conditions}
    notes = [kind.value for kind in (ConditionType.PAUSED, ConditionType.DRIFTED) if kind in there]
    return f"True ({', '.join(notes)})" if notes else "True"


def _use(compute: ComputeObservation | Unknown | None) -> tuple[str, str]:
    from reconciler.model.compute import CPU_PERIOD_US, ComputeObservation, Limit
    from reconciler.model.units import format_size

    if not isinstance(compute, ComputeObservation):
        return "-", "-"
    cpu, memory = compute.limits.get(Limit.CPU_LIMIT), compute.limits.get(Limit.MEMORY_LIMIT)
    used = "?" if compute.use.memory is None else format_size(compute.use.memory)
    most = format_size(memory if isinstance(memory, int) else None)
    return (f"{cpu / CPU_PERIOD_US:g}" if isinstance(cpu, int) else "unlimited"), f"{used}/{most}"


def _disk(row: Row) -> str:
    from reconciler.model.units import format_size
    from reconciler.model.volume import VolumeObservation

    volume = row.seen.volume if row.seen else None
    if not isinstance(volume, VolumeObservation) or not volume.present:
        return "-"
    return f"{format_size(volume.used or 0)}/{format_size(volume.size)}"


def _addresses(row: Row) -> str:
    from reconciler.model.network import VeNetworkObservation

    network = row.seen.network if row.seen else None
    if not isinstance(network, VeNetworkObservation):
        return "-"
    found = {address.ip for link in network.interfaces.values() for address in link.addresses}
    return ",".join(str(ip) for ip in sorted(found, key=lambda ip: (ip.version, int(ip)))) or "-"


def _wide_cells(row: Row, now: float) -> list[str]:
    from reconciler.model.compute import ComputeObservation
    from reconciler.model.units import format_duration

    compute = row.seen.compute if row.seen else None
    tasks = compute.use.processes if isinstance(compute, ComputeObservation) else None
    started = row.power.started_at if row.power else None
    record = row.record
    return [
        "-" if tasks is None else str(tasks),
        "-" if started is None else format_duration(max(0.0, now - started)),
        str(record.template) if record else "-",
        str(record.protect).lower() if record else "-",
        ",".join(f"{key}={value}" for key, value in sorted(row.labels.items())) or "-",
        str(row.seen.uid) if row.seen else "-",
    ]
