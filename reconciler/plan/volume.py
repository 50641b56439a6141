"""Volume: the size of a VE's own data, which grows and shrinks live, and its template, which is read once."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.model.action import Impact
from reconciler.model.effects import Effect
from reconciler.model.identity import Uid
from reconciler.model.observation import Facet
from reconciler.model.volume import (
    BuildTemplate,
    CreateVolume,
    Record,
    SetVolumeSize,
    TemplateSpec,
    VolumeObservation,
    VolumeSpec,
    WriteRecord,
)
from reconciler.plan.field import Difference, Field, Value

FIELDS = (
    Field(path="template", facet=None, impact=Impact.RECREATE, default="busybox", effect="read at creation only"),
    Field(path="disk.size", facet=Facet.VOLUME, impact=Impact.LIVE, default=8 << 30, effect="quota of the volume"),
    Field(
        path="disk.snapshots",
        facet=Facet.VOLUME,
        impact=Impact.LIVE,
        default=None,
        effect="quota of the volume and its snapshots, less its size",
    ),
)


def desired_values(spec: VolumeSpec) -> dict[str, Value]:
    """Give what the volume should be, by path."""
    return {"disk.size": spec.size, "disk.snapshots": spec.snapshots}


def differences(spec: VolumeSpec, observed: VolumeObservation) -> Iterator[tuple[str, Value, Value]]:
    """Yield path, desired and observed value of what differs. Both limits are set at once: a size that differs is all.

    The kernel knows the sum of size and snapshots: what is seen of the latter is what the sum leaves them.
    """
    if not observed.present:
        yield "disk.size", spec.size, None
    elif observed.size != spec.size:
        yield "disk.size", spec.size, observed.size
    elif observed.total != spec.total:
        yield "disk.snapshots", spec.snapshots, _rest(observed.total, spec.size)


def _rest(total: int | None, size: int | None) -> int | None:
    return None if total is None or size is None else total - size


def recorded_as(path: str) -> tuple[str, ...]:
    """Name the paths of the record on which a limit rests: that of the snapshots is kept as a sum with the size."""
    return (path, "disk.size") if path == "disk.snapshots" else (path,)


def observed_values(observed: VolumeObservation) -> dict[str, Value]:
    """Give what the volume is, by path; a missing one has no values."""
    if not observed.present:
        return {}
    return {"disk.size": observed.size, "disk.snapshots": _rest(observed.total, observed.size)}


def is_changed_apart(path: str) -> bool:
    """Say whether a field is changed by an action of its own even while the VE comes up anew."""
    return any(declared.path == path and declared.facet is Facet.VOLUME for declared in FIELDS)


def impact(difference: Difference, spec: VolumeSpec, observed: VolumeObservation) -> Impact:
    """Judge a change: a limit under the present use makes every write fail."""
    limits = ((spec.size, observed.used), (spec.total, observed.held))
    if any(limit is not None and use is not None and limit < use for limit, use in limits):
        return Impact.LIVE_RISK
    return difference.field.impact


def set_effects(uid: Uid, spec: VolumeSpec, observed: VolumeObservation) -> tuple[Effect, ...]:
    """Carry out a difference; a volume that a crash kept from being made is made."""
    change = SetVolumeSize if observed.present else CreateVolume
    return (change(uid=uid, size=spec.size, total=spec.total),)


def create_effects(record: Record, spec: VolumeSpec, template: TemplateSpec) -> tuple[Effect, ...]:
    """Make the template's image if it is not there, the record, and the volume, in the order a crash can bear."""
    return (
        BuildTemplate(template=template),
        WriteRecord(record=record, template_key=template.key),
        CreateVolume(uid=record.uid, size=spec.size, total=spec.total),
    )
