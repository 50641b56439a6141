"""Clones: the VE whose data a new one begins with, and what it takes to begin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from reconciler.model.action import Refusal
from reconciler.model.effects import Effect
from reconciler.model.facts import Unknown
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import Digest, TemplateName
from reconciler.model.observation import VeObservation
from reconciler.model.snapshots import CloneSource, CloneVolume, SnapshotsObservation
from reconciler.model.volume import Record, VolumeObservation, WriteRecord
from reconciler.plan import volume
from reconciler.plan.actions import Context
from reconciler.plan.snapshots import init_on

RULE = "CloneSourceMissing"

Waiting: TypeAlias = str
"""What has to come about first, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """The VE that is cloned, and the template that the data lies on."""

    record: Record
    template: TemplateName
    template_digest: Digest | None
    is_image: bool


def find(spec: VeSpec, source: CloneSource, context: Context) -> Ancestor | Refusal | Waiting:
    """Find what a VE is to be cloned from."""
    seen = next((ve for ve in context.neighbours.values() if _is_named(ve, source)), None)
    if seen is None:
        return _absent(spec, source, context)
    record, lies, states = seen.record, seen.volume, seen.snapshots
    assert isinstance(record, Record)
    if isinstance(lies, Unknown) or isinstance(states, Unknown):
        return f"waits until VE {source.ve}, which it is a clone of, can be read"
    if not lies.present or not record.applied:
        return f"waits for VE {source.ve}, which it is a clone of, to be complete"
    found = _data(record, lies, states, source)
    if found is None:
        return _without_snapshot(spec, source, context, record, states)
    is_counted = lies.total is not None or lies.held is not None or spec.volume.total is not None
    if is_counted and not found.is_image:
        message = "disk.snapshots: data that a clone shares cannot be counted against a limit of its own"
        return _refuse(spec, "SharedData", message, "leave it out of both, or build a template of a snapshot instead")
    if spec.volume.is_image and not found.is_image:
        message = "disk.inodes, disk.users and disk.groups need a file system of its own, which its source has not"
        return _refuse(spec, "VolumeKind", message, "leave them out, or clone a VE that has some")
    return found


def _is_named(ve: VeObservation, source: CloneSource) -> bool:
    return isinstance(ve.record, Record) and ve.record.name == source.ve


def _data(
    record: Record, lies: VolumeObservation, states: SnapshotsObservation, source: CloneSource
) -> Ancestor | None:
    """Give what the present data or that of the snapshot lies on; None, if there is no such snapshot."""
    template, digest = record.template, record.template_digest
    if source.snapshot is not None:
        kept = states.snapshots.get(source.snapshot)
        if kept is None:
            return None
        template, digest = kept.template, kept.template_digest
    elif states.mark is not None:
        template, digest = states.mark.template, states.mark.template_digest
    return Ancestor(record=record, template=template, template_digest=digest, is_image=lies.is_image)


def _absent(spec: VeSpec, source: CloneSource, context: Context) -> Refusal | Waiting:
    declared = context.specs.get(source.ve)
    if declared is None:
        message = f"source.clone: no VE {source.ve!r} is on this host, and no manifest names one"
        return _refuse(spec, RULE, message, "name a VE that is there, or take source out to begin with the template")
    if declared.host not in (None, spec.host) and spec.host is not None:
        message = f"source.clone: VE {source.ve!r} is on host {declared.host!r}, and only one of the same can be cloned"
        return _refuse(spec, RULE, message, f"say host: {declared.host}, or clone another one")
    return f"waits for VE {source.ve}, which it is a clone of, to be there"


def _without_snapshot(
    spec: VeSpec, source: CloneSource, context: Context, record: Record, states: SnapshotsObservation
) -> Refusal | Waiting:
    declared = context.specs.get(source.ve)
    is_coming = declared is not None and source.snapshot in declared.snapshots.named
    if is_coming and source.snapshot not in record.snapshot_births:
        return f"waits for snapshot {source.snapshot} of VE {source.ve} to be taken"
    there = ", ".join(sorted(states.snapshots)) or "none"
    message = f"source.snapshot: VE {source.ve!r} has no snapshot {source.snapshot!r}"
    return _refuse(spec, RULE, message, f"name one that it has ({there})")


def _refuse(spec: VeSpec, rule: str, message: str, remedy: str) -> Refusal:
    return Refusal(ve=spec.name, uid=spec.uid, rule=rule, message=message, remedy=remedy)


def record_of(record: Record, ancestor: Ancestor, context: Context) -> Record:
    """Give the record of a VE whose data comes from another one."""
    return replace(
        record,
        template=ancestor.template,
        template_digest=ancestor.template_digest,
        init=init_on(ancestor.template, ancestor.record, context),
    )


def create_effects(record: Record, spec: VeSpec, source: CloneSource, ancestor: Ancestor) -> tuple[Effect, ...]:
    """Make the record and the volume, in the order a crash can bear. ``record``: as `record_of` gives it."""
    made = volume.made(record.uid, spec.volume)
    clone = CloneVolume(
        uid=record.uid, source=ancestor.record.uid, snapshot=source.snapshot, size=made.size, total=made.total
    )
    return WriteRecord(record=record), clone
