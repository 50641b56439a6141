"""Snapshots: which are to be taken, which have had their time, and which are lost and never taken again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from reconciler.model.action import Impact, Refusal
from reconciler.model.facts import Json
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import SnapshotName, TemplateName
from reconciler.model.observation import Facet
from reconciler.model.paths import key_in_path
from reconciler.model.power import PowerObservation
from reconciler.model.snapshots import (
    CloneSource,
    SnapshotKind,
    SnapshotObservation,
    SnapshotsObservation,
    SnapshotsSpec,
    Source,
    VolumeMark,
    kept_at_most,
)
from reconciler.model.volume import Record
from reconciler.plan.actions import Context
from reconciler.plan.field import Field, Value

SCHEDULE = "snapshotSchedule"

FIELDS = (
    Field(
        path="snapshots.*",
        facet=Facet.SNAPSHOTS,
        impact=Impact.LIVE,
        default=None,
        effect="taken once, at the cost of milliseconds; with memory of a pause; removing it deletes its data",
    ),
    Field(
        path=SCHEDULE,
        facet=Facet.SNAPSHOTS,
        impact=Impact.NONE,
        default=None,
        effect="removing it deletes what it took",
    ),
    Field(
        path="rollback",
        facet=Facet.SNAPSHOTS,
        impact=Impact.RESTART,
        default=None,
        effect="replaces the data, which is set aside",
    ),
    Field(path="source", facet=None, impact=Impact.NONE, default=None, effect="read at creation only"),
    Field(path="keep", facet=None, impact=Impact.NONE, default=[], effect="what another template leaves"),
)


def record_values(spec: VeSpec) -> dict[str, Value]:
    """Give what is declared, by path; what is not, has none."""
    states, values = spec.snapshots, dict[str, Value]()
    for name, memory in states.named.items():
        values[path_of(name)] = {"memory": memory}
    if states.schedule is not None:
        values[SCHEDULE] = {"every": states.schedule.every_s, "keep": states.schedule.keep}
    if states.rollback is not None:
        values["rollback"] = {"to": states.rollback.to, "request": states.rollback.request}
    if spec.source is not None:
        values["source"] = _source_value(spec.source)
    if spec.keep:
        values["keep"] = [*spec.keep]
    return values


def _source_value(source: Source) -> Value:
    return {"clone": source.ve, "snapshot": source.snapshot} if isinstance(source, CloneSource) else {"fresh": True}


def observed_values(observed: SnapshotsObservation) -> dict[str, Value]:
    """Give the snapshots that are there and that manifests name, by path."""
    named = {name: kept for name, kept in observed.snapshots.items() if kept.kind is SnapshotKind.NAMED}
    return {path_of(name): {"memory": kept.memory} for name, kept in named.items()}


def path_of(name: SnapshotName) -> str:
    """Give the path of a named snapshot."""
    return f"snapshots.{key_in_path(name)}"


def carried_out(spec: VeSpec, record: Record, values: Mapping[str, Json]) -> dict[str, Json]:
    """Give of a spec's values those that can be on a VE that exists: what is read at creation says no more, a snapshot
    is there from its birth until it is deleted, and a rollback says nothing before it is done."""
    if not spec.snapshots.named and not record.snapshot_births and spec.source is None and not spec.snapshots.rollback:
        return dict(values)
    born = {path_of(SnapshotName(name)) for name in record.snapshot_births}
    left = {path: record.applied[path] for path in born if path in record.applied}
    held = {path: value for path, value in values.items() if not path.startswith("snapshots.") or path in born}
    held.pop("source", None)
    if awaits_rollback(spec, record):
        held.pop("rollback")
        left |= {path: value for path, value in record.applied.items() if path == "rollback"}
    return left | held


def most(applied: Mapping[str, Json]) -> int:
    """Give how many snapshots a VE may come to have, by its record."""
    named = sum(path.startswith("snapshots.") for path in applied)
    return kept_at_most(named, _scheduled(applied))


def _scheduled(applied: Mapping[str, Json]) -> int:
    schedule = applied.get(SCHEDULE)
    keep = schedule.get("keep") if isinstance(schedule, dict) else 0
    return keep if isinstance(keep, int) else 0


def held_to(spec: SnapshotsSpec, applied: Mapping[str, Json]) -> SnapshotsSpec:
    """Give a spec without the snapshots that a VE has not yet: there is no room for more."""
    named = {name: memory for name, memory in spec.named.items() if path_of(name) in applied}
    schedule, keep = spec.schedule, _scheduled(applied)
    if schedule is not None:
        schedule = replace(schedule, keep=min(schedule.keep, keep)) if keep else None
    return replace(spec, named=named, schedule=schedule)


def is_apart(path: str) -> bool:
    """Say whether a field is of what is kept, which no start of a VE brings about."""
    return path in ("rollback", "template", "snapshots") or path.startswith(("snapshots.", SCHEDULE))


def tells_itself(path: str) -> bool:
    """Say whether a field that changes has an action of its own, whatever the record says."""
    return path in ("rollback", "template") or path.startswith("snapshots.")


def stamp(seconds: float) -> str:
    """Give a time as names have it, e.g. ``20261123T152602Z``. Units: seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


def day(seconds: float) -> str:
    """Give a time as people read it, e.g. ``2026-11-23 15:26 UTC``. Units: seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def unused_name(wanted: str, observed: SnapshotsObservation) -> SnapshotName:
    """Give a name that no snapshot has: two of one second must not meet."""
    names = (SnapshotName(wanted), *(SnapshotName(f"{wanted}-{number}") for number in range(2, 1000)))
    return next(name for name in names if name not in observed.snapshots)


def as_marked(record: Record, mark: VolumeMark | None, context: Context) -> Record:
    """Give the record as the present volume makes it: a crash may have come before it was written."""
    if mark is None:
        return record
    done = record.requests_done
    if mark.request is not None and mark.request not in done:
        done = (*done, mark.request)
    return replace(
        record,
        template=mark.template,
        template_digest=mark.template_digest,
        init=init_on(mark.template, record, context),
        requests_done=done,
    )


def init_on(name: TemplateName, record: Record, context: Context) -> tuple[str, ...]:
    """Give the init of a VE whose data lies on a template: its own, unless it is another one and that is declared."""
    template = context.templates.get(name)
    return record.init if template is None or name == record.template else template.init


def standing(spec: VeSpec) -> tuple[str, ...]:
    """Name the rollback that stands when a VE comes to be: it counts as done, for its data was never otherwise."""
    request = spec.snapshots.rollback
    return () if request is None else (request.id,)


def awaits_rollback(spec: VeSpec, record: Record) -> bool:
    """Say whether a rollback stands that was not done yet."""
    request = spec.snapshots.rollback
    return request is not None and request.id not in record.requests_done


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """A VE as far as its snapshots go. ``record``: as `as_marked` gives it."""

    spec: VeSpec
    record: Record
    power: PowerObservation
    observed: SnapshotsObservation

    @property
    def needed(self) -> frozenset[SnapshotName]:
        """What must not go although nobody wants it any more: a rollback to it stands."""
        request = self.spec.snapshots.rollback
        return frozenset({request.to}) if request and awaits_rollback(self.spec, self.record) else frozenset()

    def of_kind(self, kind: SnapshotKind) -> list[tuple[SnapshotName, SnapshotObservation]]:
        """List the snapshots of a kind, the oldest first."""
        found = [(name, kept) for name, kept in self.observed.snapshots.items() if kept.kind is kind]
        return sorted(found, key=lambda one: (one[1].taken_at, one[0]))

    def refuse(self, rule: str, message: str, remedy: str) -> Refusal:
        """Say what is not done."""
        return Refusal(ve=self.spec.name, uid=self.record.uid, rule=rule, message=message, remedy=remedy)


def wakes_in_s(spec: VeSpec, observed: SnapshotsObservation, *, now: float, keep_s: float, runs: bool) -> float | None:
    """Give the time until a VE's snapshots need a look, because one will be due or will have had its time; None: never.

    What is due by now is not waited for. Units: seconds; ``now`` since the epoch.
    """
    kept = observed.snapshots.values()
    times = [one.taken_at + keep_s for one in kept if one.kind is SnapshotKind.SAFETY]
    schedule = spec.snapshots.schedule
    if schedule is not None and runs:
        taken = [one.taken_at for one in kept if one.kind is SnapshotKind.SCHEDULED]
        young = [at for at in taken if abs(now - at) < schedule.every_s]
        times += [max(young) + schedule.every_s] if young else []
    return min((at - now for at in times if at > now), default=None)
