"""Volume: the size of a VE's own data, which grows and shrinks live, and its template, which is read once."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.model.action import Impact
from reconciler.model.effects import Effect
from reconciler.model.identity import Uid
from reconciler.model.observation import Capabilities, Facet
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
from reconciler.plan import quota
from reconciler.plan.field import Difference, Field, Value

BLOCK = 4096
"""Of an image's file system. Units: bytes."""

FIELDS = (
    Field(path="template", facet=None, impact=Impact.RECREATE, default="busybox", effect="made anew; `keep` stays"),
    Field(path="disk.size", facet=Facet.VOLUME, impact=Impact.LIVE, default=8 << 30, effect="quota of the volume"),
    Field(
        path="disk.snapshots",
        facet=Facet.VOLUME,
        impact=Impact.LIVE,
        default=None,
        effect="quota of the volume and its snapshots, less its size",
    ),
    *quota.FIELDS,
)


def desired_values(spec: VolumeSpec) -> dict[str, Value]:
    """Give what the volume should be, by path."""
    return {"disk.size": spec.size, "disk.snapshots": spec.snapshots, **quota.desired_values(spec.quotas)}


def differences(spec: VolumeSpec, observed: VolumeObservation, *, runs: bool) -> Iterator[tuple[str, Value, Value]]:
    """Yield path, desired and observed value of what differs. Both limits are set at once: a size that differs is all.

    The kernel knows the sum of size and snapshots: what is seen of the latter is what the sum leaves them. An image in
    use is not shrunk: a VE that is on its way down is, when it is down.
    """
    if not observed.present:
        yield "disk.size", spec.size, None
    elif observed.size != _size(spec, observed) and not (runs and _shrinks_image(spec, observed)):
        yield "disk.size", _size(spec, observed), observed.size
    elif observed.total != _total(spec, observed):
        yield "disk.snapshots", spec.snapshots, _rest(observed.total, spec.size)
    if observed.present:
        yield from quota.differences(spec.quotas, observed.quotas)


def _shrinks_image(spec: VolumeSpec, observed: VolumeObservation) -> bool:
    wanted = _size(spec, observed)
    return observed.is_image and wanted is not None and observed.size is not None and wanted < observed.size


def _size(spec: VolumeSpec, observed: VolumeObservation) -> int | None:
    """Give the size that a volume is to have: an image has whole blocks, and stays as it is without one."""
    if not observed.is_image:
        return spec.size
    return observed.size if spec.size is None else spec.size // BLOCK * BLOCK


def _total(spec: VolumeSpec, observed: VolumeObservation) -> int | None:
    """Give the limit of a volume and its snapshots: none for an image, which must never be refused a write."""
    return None if observed.is_image else spec.total


def _rest(total: int | None, size: int | None) -> int | None:
    return None if total is None or size is None else total - size


def recorded_as(path: str) -> tuple[str, ...]:
    """Name the paths of the record on which a limit rests: that of the snapshots is kept as a sum with the size."""
    return (path, "disk.size") if path == "disk.snapshots" else (path,)


def observed_values(observed: VolumeObservation) -> dict[str, Value]:
    """Give what the volume is, by path; a missing one has no values."""
    if not observed.present:
        return {}
    rest = _rest(observed.total, observed.size)
    return {"disk.size": observed.size, "disk.snapshots": rest, **quota.observed_values(observed.quotas)}


def is_changed_apart(path: str) -> bool:
    """Say whether a field is changed by an action of its own even while the VE comes up anew."""
    return any(declared.path == path and declared.facet is Facet.VOLUME for declared in FIELDS)


def impact(difference: Difference, spec: VolumeSpec, observed: VolumeObservation) -> Impact:
    """Judge a change: a limit under the present use makes every write fail."""
    if quota.is_of_quota(difference.path):
        below = quota.is_below_use(difference.path, spec.quotas, observed.quota_use)
        return Impact.LIVE_RISK if below else difference.field.impact
    limits = ((spec.size, observed.used), (spec.total, observed.held))
    if any(limit is not None and use is not None and limit < use for limit, use in limits):
        return Impact.LIVE_RISK
    return difference.field.impact


def set_effects(uid: Uid, difference: Difference, spec: VolumeSpec, observed: VolumeObservation) -> tuple[Effect, ...]:
    """Carry out a difference; a volume that a crash kept from being made is made."""
    if not observed.present:
        return (made(uid, spec),)
    if quota.is_of_quota(difference.path):
        return quota.set_effects(uid, difference.path, spec.quotas)
    return (SetVolumeSize(uid=uid, size=_size(spec, observed), total=_total(spec, observed)),)


def made(uid: Uid, spec: VolumeSpec) -> CreateVolume:
    """Give the effect that makes the volume that a spec asks for."""
    if not spec.is_image or spec.size is None:
        return CreateVolume(uid=uid, size=spec.size, total=spec.total)
    return CreateVolume(uid=uid, size=spec.size // BLOCK * BLOCK, is_image=True, room=spec.quotas.inodes)


def impossible(spec: VolumeSpec, capabilities: Capabilities) -> Iterator[str]:
    """Say what is asked for that this host cannot give."""
    if spec.total is not None and not spec.is_image and (reason := capabilities.why_not.get("disk.snapshots")):
        yield f"disk.snapshots: {reason}"
    reason = capabilities.why_not.get("disk.users")
    if spec.is_image and reason is not None:
        yield f"disk.inodes, disk.users and disk.groups: {reason}"


def refusals(spec: VolumeSpec, observed: VolumeObservation, *, runs: bool) -> Iterator[tuple[str, str, str]]:
    """Give rule, message and remedy of what cannot be done to a volume that is there."""
    if spec.is_image and not observed.is_image:
        message = "disk.inodes, disk.users and disk.groups need a volume that was made with a file system of its own"
        yield "VolumeKind", message, "create a VE of another name with them, and move the data"
    if not observed.is_image:
        if spec.total is not None and observed.shares:
            message = "disk.snapshots: snapshots or clones have data of the volume that no limit counts any more"
            yield "SharedData", message, "delete its snapshots and clones first, or leave disk.snapshots out"
        return
    if runs and _shrinks_image(spec, observed):
        message = "disk.size: a file system cannot shrink while it is in use"
        yield "ShrinkNeedsStop", message, "set power: stopped until it is done, or put the size back"
    inodes = spec.quotas.inodes
    if inodes is not None and observed.room is not None and inodes > observed.room:
        message = f"disk.inodes: the file system has room for {observed.room} files, which grows with disk.size only"
        yield "NoRoomForFiles", message, "raise disk.size, or set disk.inodes lower"


def create_effects(record: Record, spec: VolumeSpec, template: TemplateSpec) -> tuple[Effect, ...]:
    """Make the template's image if it is not there, the record, and the volume, in the order a crash can bear."""
    return (
        BuildTemplate(template=template),
        WriteRecord(record=record, template_key=template.key),
        made(record.uid, spec),
    )
