"""The two ways in which a VE's volume is put aside for another one: a rollback, and another template."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from reconciler.model.action import Action, Impact, Operation, Phase, Reason, Refusal, Reversible
from reconciler.model.compute import RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.identity import SnapshotName
from reconciler.model.snapshots import CloneSource, ReplaceVolume, RollBack, RollbackRequest, SnapshotObservation
from reconciler.model.units import format_duration
from reconciler.model.volume import BuildTemplate, Record, TemplateSpec, WriteRecord
from reconciler.plan import actions, boot, power, volume
from reconciler.plan.actions import Context
from reconciler.plan.snapshots import Present, awaits_rollback, day, init_on, stamp, unused_name

_WHY_MAX = 63 - len("before--20260101T000000Z-999")
"""Most characters of the name of what is put aside that tell why it was."""

Waiting: TypeAlias = str
"""What has to come about first, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """``record``: what it is when the action is done."""

    action: Action
    record: Record


def plan_rollback(present: Present, context: Context) -> Switch | Refusal | Waiting | None:
    """Plan the rollback that stands and was not done yet; None, if there is none."""
    spec, request = present.spec, present.spec.snapshots.rollback
    if request is None or not awaits_rollback(spec, present.record):
        return None
    kept = present.observed.snapshots.get(request.to)
    if kept is None and request.to in spec.snapshots.named and request.to not in present.record.snapshot_births:
        return f"the rollback waits for snapshot {request.to} to be taken"
    if kept is None:
        return _missing(present, request)
    if kept.template != spec.volume.template and not isinstance(spec.source, CloneSource):
        return _of_another_template(present, request, kept)
    return _roll_back(present, request, kept, context)


def _missing(present: Present, request: RollbackRequest) -> Refusal:
    there = ", ".join(sorted(present.observed.snapshots)) or "none"
    remedy = f"name one that is there ({there}), or remove the rollback"
    return present.refuse("SnapshotMissing", f"rollback.to: there is no snapshot {request.to!r}", remedy)


def _of_another_template(present: Present, request: RollbackRequest, kept: SnapshotObservation) -> Refusal:
    said = present.spec.volume.template
    message = f"snapshot {request.to} lies on template {kept.template!r}, the manifest says {said!r}"
    remedy = f"write template: {kept.template} beside the rollback"
    return present.refuse("SnapshotOfAnotherTemplate", message, remedy)


def _roll_back(present: Present, request: RollbackRequest, kept: SnapshotObservation, context: Context) -> Switch:
    spec, before, aside = present.spec, present.record, _aside(present, request.to, context)
    record = replace(
        before,
        template=kept.template,
        template_digest=kept.template_digest,
        init=init_on(kept.template, before, context),
        requests_done=(*before.requests_done, request.id),
    )
    made = volume.made(record.uid, spec.volume)
    switched = RollBack(
        uid=record.uid, to=request.to, request=request.id, safety=aside, size=made.size, total=made.total
    )
    action = _switch(present, record, (switched, WriteRecord(record=record)), context, resumes=kept.memory)
    danger = f"goes back to {request.to} of {day(kept.taken_at)}; what was written since is put aside"
    action = replace(
        action,
        op=Operation.RESTART,
        path="rollback",
        before={"rollback": None},
        after={"rollback": {"to": request.to, "request": request.request}},
        impact=Impact.RESTART,
        reason=Reason.REQUESTED,
        danger=_told(present, danger, aside, context),
    )
    return Switch(action=action, record=record)


def plan_recreation(present: Present, context: Context) -> Switch | None:
    """Plan a new root file system, where the manifest names another template than the VE is on.

    One that was cloned is on that of its source, whatever its manifest says.
    """
    spec, before = present.spec, present.record
    if spec.volume.template == before.template or isinstance(spec.source, CloneSource):
        return None
    template, aside = context.templates[spec.volume.template], _aside(present, SnapshotName("recreate"), context)
    record = replace(before, template=template.name, template_digest=None, init=template.init)
    effects = (_replacement(present, template, aside), WriteRecord(record=record, template_key=template.key))
    action = _switch(present, record, effects, context, resumes=False)
    built = actions.make(spec, before, Operation.RECREATE, "template", None, None, (BuildTemplate(template=template),))
    action = replace(
        action,
        op=Operation.RECREATE,
        path="template",
        before=before.template,
        after=f"{template.name}@{template.key[:12]}",
    )
    action = replace(
        action,
        impact=Impact.RECREATE,
        effects=(*built.effects, *action.effects),
        danger=f"{spec.name}: {_loss(present, context)}",
    )
    return Switch(action=action, record=record)


def _loss(present: Present, context: Context) -> str:
    """Say what becomes of the data, in words that are the same as long as nobody has consented."""
    spec = present.spec
    over = f"{', '.join(spec.keep)} and nothing else" if spec.keep else "nothing (it declares no keep)"
    kept = f"kept for {format_duration(context.keep_s)} as snapshot before-recreate-..."
    return f"made anew from {spec.volume.template}; of its data {over} is carried over, and all of it is {kept}"


def _replacement(present: Present, template: TemplateSpec, aside: SnapshotName) -> ReplaceVolume:
    made = volume.made(present.record.uid, present.spec.volume)
    return ReplaceVolume(
        uid=made.uid,
        template=template.name,
        template_key=template.key,
        safety=aside,
        size=made.size,
        total=made.total,
        is_image=made.is_image,
        room=made.room,
        keep=present.spec.keep,
    )


def _switch(present: Present, record: Record, switch: tuple[Effect, ...], context: Context, *, resumes: bool) -> Action:
    """Give what stops a VE, puts another volume in place, and boots it, if it is to run and need not resume."""
    spec, uid = present.spec, record.uid
    starts = boot.wants_to_run(spec) and not boot.waits_for(spec, context) and not resumes
    effects = (
        *power.stop_effects(uid, spec.power.stop_timeout_s, present.power),
        *switch,
        *(boot.boot_effects(spec, record, context) if starts else (RemoveCgroup(uid=uid),)),
    )
    action = actions.make(spec, present.record, Operation.UPDATE, "", None, None, effects)
    return actions.with_downtime(replace(action, phase=Phase.RESTART, reversible=Reversible.WITH_SNAPSHOT), context)


def _aside(present: Present, why: SnapshotName, context: Context) -> SnapshotName:
    return unused_name(f"before-{why[:_WHY_MAX]}-{stamp(context.now)}", present.observed)


def _told(present: Present, danger: str, aside: SnapshotName, context: Context) -> str:
    until = day(context.now + context.keep_s)
    return f"{present.spec.name}: {danger} as snapshot {aside}, kept until {until}"
