"""Volume: the size of a VE's own data, which grows and shrinks live, and its template, which is read once."""

from __future__ import annotations

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
)


def desired_values(spec: VolumeSpec) -> dict[str, Value]:
    """Give what the volume should be, by path."""
    return {"disk.size": spec.size}


def observed_values(observed: VolumeObservation) -> dict[str, Value]:
    """Give what the volume is, by path; a missing one has no values."""
    return {"disk.size": observed.size} if observed.present else {}


def is_changed_apart(path: str) -> bool:
    """Say whether a field is changed by an action of its own even while the VE comes up anew."""
    return any(declared.path == path and declared.facet is Facet.VOLUME for declared in FIELDS)


def impact(difference: Difference, observed: VolumeObservation) -> Impact:
    """Judge a change: a size under the present use makes every write fail."""
    size = difference.desired
    if isinstance(size, int) and observed.used is not None and size < observed.used:
        return Impact.LIVE_RISK
    return difference.field.impact


def set_effects(uid: Uid, difference: Difference, observed: VolumeObservation) -> tuple[Effect, ...]:
    """Carry out one difference; a volume that a crash kept from being made is made."""
    size = difference.desired
    assert size is None or isinstance(size, int)
    return (SetVolumeSize(uid=uid, size=size) if observed.present else CreateVolume(uid=uid, size=size),)


def create_effects(record: Record, spec: VolumeSpec, template: TemplateSpec) -> tuple[Effect, ...]:
    """Make the template's image if it is not there, the record, and the volume, in the order a crash can bear."""
    return (
        BuildTemplate(template=template),
        WriteRecord(record=record, template_key=template.key),
        CreateVolume(uid=record.uid, size=spec.size),
    )
