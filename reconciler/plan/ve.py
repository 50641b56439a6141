"""One VE: from its spec and what was seen of it to the actions that make them equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.model.action import Action, Drift, Impact, Operation, Origin, Reason, Refusal, UnknownFact
from reconciler.model.facts import Json
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import Allocation
from reconciler.model.observation import Facet, VeObservation
from reconciler.model.power import Power, PowerObservation, PowerState
from reconciler.model.views import PATH as VIEWS
from reconciler.model.volume import Record, RestoreVe, TrashEntry, WriteRecord
from reconciler.plan import actions, boot, changes, compute, policy, power, volume
from reconciler.plan.actions import Context
from reconciler.plan.books import bookkeeping, carried_out, completing
from reconciler.plan.changes import Known
from reconciler.plan.field import find_field, nest
from reconciler.plan.spec import FIELDS, origin_of, spec_values, unknown_paths

_INSIDE = frozenset({"network", "mounts", "devices"})
"""The facets whose look at a VE that runs is a look into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VePlan:
    """The part of a plan that one VE has."""

    actions: tuple[Action, ...] = ()
    refused: tuple[Refusal, ...] = ()
    unknown: tuple[UnknownFact, ...] = ()
    warned: tuple[Drift, ...] = ()
    waiting: str = ""


def plan_new(spec: VeSpec, allocation: Allocation, context: Context) -> VePlan:
    """Plan a VE that does not exist anywhere on this host."""
    if refused := (*refuse_at_all(spec, context, {}), *_refuse_suspension(spec, context)):
        return VePlan(refused=refused)
    template = context.templates[spec.volume.template]
    record = Record(
        uid=allocation.uid,
        name=spec.name,
        id_base=allocation.id_base,
        template=spec.volume.template,
        template_digest=None,
        init=template.init,
        source=context.source,
        created_at=context.now,
        protect=bool(spec.protect),
    )
    waiting = boot.waits_for(spec, context)
    starts = boot.wants_to_run(spec) and not waiting
    effects = (
        *volume.create_effects(record, spec.volume, template),
        *(boot.boot_effects(spec, record, context) if starts else ()),
        *(() if waiting else completing(spec, record, context)),
    )
    create = actions.make(spec, record, Operation.CREATE, "", None, nest(spec_values(spec)), effects)
    return VePlan(actions=(replace(create, reason=Reason.NEW_MANIFEST),), waiting=waiting)


def plan_restored(spec: VeSpec, entry: TrashEntry, context: Context) -> VePlan:
    """Plan a VE whose data is in the trash: it comes back, and the next pass boots and adjusts it."""
    if refused := (*_refuse_unsupported(spec), *policy.refuse(spec, context.policy, entry.record.applied)):
        return VePlan(refused=refused)
    effects = [RestoreVe(uid=entry.record.uid, trash_id=entry.id)]
    before: dict[str, Json] = {"trashedSecondsAgo": round(max(0.0, context.now - entry.trashed_at))}
    restored = nest(spec_values(spec))
    action = actions.make(spec, entry.record, Operation.RESTORE, "", before, restored, effects)
    return VePlan(actions=(replace(action, reason=Reason.IN_TRASH),))


def plan_existing(spec: VeSpec, observed: VeObservation, context: Context) -> VePlan:
    """Plan a VE that exists on this host. One that runs is held to its limits even if what is inside cannot be read."""
    paths = unknown_paths(observed)
    unknown = tuple(UnknownFact(ve=spec.name, path=path, reason=reason) for path, reason in paths.items())
    if paths and not _is_known_but_for_its_inside(observed):
        return VePlan(unknown=unknown)
    known = changes.known(_without_its_inside(observed) if paths else observed)
    by_volume = (*_refuse_lost_volume(spec, known), *_refuse_volume(spec, known))
    if refused := (*refuse_at_all(spec, context, known.record.applied), *by_volume):
        return VePlan(refused=refused)
    kept, warned = changes.apply_drift_policy(spec, changes.differences(spec, known, context))
    kept, waiting = changes.part_waiting_for_memory(known, kept)
    decision = power.permitted(_decide(spec, known), context.capabilities)
    restarts = [difference for difference in kept if difference.field.impact is Impact.RESTART]
    steps = boot.power_steps(spec, known.record, known.power, decision, restarts, context)
    live = changes.live_actions(spec, known, kept, context, volume_only=steps.replaces_live)
    doing = (*live, *steps.actions)
    waiting = steps.waiting or waiting
    is_undone = bool(waiting or unknown) or decision.rule == power.NOT_ON_THIS_HOST
    books = () if is_undone else _bookkeeping(spec, known, context, doing)
    held = Refusal(
        ve=spec.name, uid=known.record.uid, rule=decision.rule, message=decision.message, remedy=decision.remedy
    )
    return VePlan(
        actions=(*doing, *books),
        refused=(*_refuse_template(spec, known.record), *((held,) if decision.step is power.Step.HOLD else ())),
        unknown=unknown,
        warned=tuple(warned),
        waiting=waiting,
    )


def _bookkeeping(spec: VeSpec, known: Known, context: Context, doing: Sequence[Action]) -> tuple[Action, ...]:
    books = bookkeeping(spec, known.record, context, doing)
    return books if known.power.memory is None else tuple(map(boot.at_resume, books))


def _is_known_but_for_its_inside(observed: VeObservation) -> bool:
    """Say whether a VE runs and only what is inside it is unknown: its root can bring that about at will."""
    runs = isinstance(observed.power, PowerObservation) and observed.power.state is PowerState.RUNNING
    return runs and unknown_paths(observed).keys() <= _INSIDE


def _without_its_inside(observed: VeObservation) -> VeObservation:
    """Take what could not be read inside a VE for what is not to be compared."""
    unknown: dict[str, None] = dict.fromkeys(unknown_paths(observed))
    return replace(observed, **unknown)  # type: ignore[arg-type]  # each of them may be None


def _decide(spec: VeSpec, known: Known) -> power.Decision:
    applied, wanted = known.record.applied, carried_out(spec, known.record)
    return power.decide(
        spec.power,
        known.power,
        spec_changed=dict(applied) != wanted,
        origin=origin_of(("power",), applied, wanted),
        leftovers=known.compute is not None and known.power.state in (PowerState.STOPPED, PowerState.SUSPENDED),
    )


def refuse_at_all(spec: VeSpec, context: Context, applied: Mapping[str, Json]) -> tuple[Refusal, ...]:
    """Refuse what this version, this host or its root do not allow."""
    by_policy = policy.refuse(spec, context.policy, applied)
    return (*_refuse_unsupported(spec), *_refuse_impossible(spec, context), *by_policy)


def _refuse_unsupported(spec: VeSpec) -> tuple[Refusal, ...]:
    if not spec.unsupported:
        return ()
    fields = ", ".join(spec.unsupported)
    message = f"not supported yet by this version: {fields}"
    return (Refusal(ve=spec.name, uid=spec.uid, rule="Unsupported", message=message, remedy="remove the field"),)


def _refuse_impossible(spec: VeSpec, context: Context) -> tuple[Refusal, ...]:
    """Refuse CPUs and memory nodes that this host does not have, and quotas that its kernel cannot keep."""
    wanting = {
        "name some that it has": compute.missing(spec.compute, context.capabilities),
        "remove them, or move the VE to a host that has it": volume.impossible(spec.volume, context.capabilities),
    }
    found = ((remedy, "; ".join(said)) for remedy, said in wanting.items())
    return tuple(
        Refusal(ve=spec.name, uid=spec.uid, rule="NotOnThisHost", message=message, remedy=remedy)
        for remedy, message in found
        if message
    )


def _refuse_suspension(spec: VeSpec, context: Context) -> Iterator[Refusal]:
    """Refuse a new VE that is to be what this host cannot make of it."""
    if message := power.impossible(spec.power, context.capabilities):
        rule, remedy = power.NOT_ON_THIS_HOST, power.SUSPEND_REMEDY
        yield Refusal(ve=spec.name, uid=spec.uid, rule=rule, message=message, remedy=remedy)


def _refuse_lost_volume(spec: VeSpec, known: Known) -> tuple[Refusal, ...]:
    """Refuse to give an empty volume to a VE that once was complete: that would hide the loss of its data."""
    if known.volume.present or not known.record.applied:
        return ()
    message = "its volume is gone, though it was there when the VE was last complete"
    remedy = "put the volume back from a copy, or give the VE another name to begin anew"
    return (Refusal(ve=spec.name, uid=known.record.uid, rule="VolumeLost", message=message, remedy=remedy),)


def _refuse_volume(spec: VeSpec, known: Known) -> Iterator[Refusal]:
    """Refuse what cannot be done to a volume of the kind that it was made as."""
    if not known.volume.present:
        return
    runs = known.power.state is not PowerState.STOPPED and spec.power.state is not Power.STOPPED
    for rule, message, remedy in volume.refusals(spec.volume, known.volume, runs=runs):
        yield Refusal(ve=spec.name, uid=known.record.uid, rule=rule, message=message, remedy=remedy)


def _refuse_template(spec: VeSpec, record: Record) -> tuple[Refusal, ...]:
    if spec.volume.template == record.template:
        return ()
    message = f"template is {record.template!r} since creation and {spec.volume.template!r} in the manifest"
    remedy = "recreation is not supported yet by this version: create a VE of another name, or put the template back"
    return (Refusal(ve=spec.name, uid=record.uid, rule="TemplateChanged", message=message, remedy=remedy),)


def unfulfilled(action: Action, spec: VeSpec, observed: VeObservation | None, context: Context) -> str:
    """Say what an action failed to bring about, or "": planning anew from what is seen must not ask for it again."""
    if observed is None:
        return f"{spec.name} is not there"
    part = plan_existing(spec, observed, context)
    if part.unknown and not (_is_known_but_for_its_inside(observed) and _is_of_outside(action)):
        return f"cannot tell: {part.unknown[0]}"
    for again in part.actions:
        if again.effects and _answers_for(action, again):
            return f"{again.path or again.op.value} is {again.before!r}, not {again.after!r}"
    return ""


def _is_of_outside(action: Action) -> bool:
    """Say whether what an action changes is seen without a look into the VE."""
    if action.op is not Operation.UPDATE or action.path in ("", "power"):
        return False
    return find_field(FIELDS, action.path).facet in (Facet.COMPUTE, Facet.VOLUME)


def _answers_for(action: Action, other: Action) -> bool:
    """Say whether an action should have made another one needless: whoever brings a VE up brings all that runs."""
    if other.path == action.path:
        return True
    if power.resumes(action) and _comes_from_memory(other):
        return False
    if other.reason is Reason.BOOKKEEPING:
        return any(isinstance(effect, WriteRecord) and effect.record.applied for effect in action.effects)
    if other.origin is Origin.POLICY:
        return False
    comes_up = action.op is Operation.RESTART or action.path == "power"
    return action.op is Operation.CREATE or (comes_up and not volume.is_changed_apart(other.path))


def _comes_from_memory(action: Action) -> bool:
    """Say whether an action takes away what a VE had when it was suspended, and has again: that comes afterwards."""
    is_extra = action.op is Operation.UPDATE and action.after is None
    return is_extra or action.op is Operation.RESTART or action.path == VIEWS
