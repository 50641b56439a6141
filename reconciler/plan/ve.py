"""One VE: from its spec and what was seen of it to the actions that make them equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.model.action import Action, Drift, Impact, Operation, Origin, Reason, Refusal, UnknownFact
from reconciler.model.facts import Json
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import Allocation, SnapshotName
from reconciler.model.observation import Facet, VeObservation
from reconciler.model.power import Power, PowerObservation, PowerState, StartRuntime
from reconciler.model.snapshots import CloneSource
from reconciler.model.views import PATH as VIEWS
from reconciler.model.volume import Record, RestoreVe, TrashEntry, VolumeObservation, WriteRecord
from reconciler.plan import actions, boot, changes, clones, compute, keeping, policy, power, snapshots, switch, volume
from reconciler.plan.actions import Context
from reconciler.plan.books import bookkeeping, carried_out, completing
from reconciler.plan.changes import Known
from reconciler.plan.field import find_field, nest
from reconciler.plan.spec import FIELDS, origin_of, spec_values, unknown_paths

_INSIDE = frozenset({"network", "mounts", "devices"})
"""The facets whose look at a VE that runs is a look into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VePlan:
    """The part of a plan that one VE has. ``orphans``: its snapshots that are left alone, as in `Plan`."""

    actions: tuple[Action, ...] = ()
    refused: tuple[Refusal, ...] = ()
    unknown: tuple[UnknownFact, ...] = ()
    warned: tuple[Drift, ...] = ()
    waiting: str = ""
    orphans: tuple[SnapshotName, ...] = ()


def plan_new(spec: VeSpec, allocation: Allocation, context: Context) -> VePlan:
    """Plan a VE that does not exist anywhere on this host."""
    if refused := (*refuse_at_all(spec, context, {}), *_refuse_suspension(spec, context)):
        return VePlan(refused=refused)
    record = _born(spec, allocation, context)
    template = context.templates[spec.volume.template]
    data = volume.create_effects(record, spec.volume, template)
    if isinstance(spec.source, CloneSource):
        ancestor = clones.find(spec, spec.source, context)
        if not isinstance(ancestor, clones.Ancestor):
            return _not_yet(ancestor)
        record = clones.record_of(record, ancestor, context)
        data = clones.create_effects(record, spec, spec.source, ancestor)
    waiting = boot.waits_for(spec, context)
    starts = boot.wants_to_run(spec) and not waiting
    effects = (
        *data,
        *(boot.boot_effects(spec, record, context) if starts else ()),
        *(() if waiting else completing(spec, record, context)),
    )
    create = actions.make(spec, record, Operation.CREATE, "", None, _wanted(spec, context), effects)
    return VePlan(actions=(replace(create, reason=Reason.NEW_MANIFEST),), waiting=waiting)


def _wanted(spec: VeSpec, context: Context) -> dict[str, Json]:
    """Give what a VE that comes is to be. What its template's name stands for may change unseen by whoever reviews the
    VE, so the content of that is a part of it."""
    return {**nest(spec_values(spec)), "templateKey": context.templates[spec.volume.template].key}


def _born(spec: VeSpec, allocation: Allocation, context: Context) -> Record:
    return Record(
        uid=allocation.uid,
        name=spec.name,
        id_base=allocation.id_base,
        template=spec.volume.template,
        template_digest=None,
        init=context.templates[spec.volume.template].init,
        source=context.source,
        created_at=context.now,
        protect=bool(spec.protect),
        requests_done=snapshots.standing(spec),
    )


def _not_yet(why: Refusal | str) -> VePlan:
    return VePlan(refused=(why,)) if isinstance(why, Refusal) else VePlan(waiting=why)


def _plan_unfinished_clone(spec: VeSpec, source: CloneSource, record: Record, context: Context) -> VePlan:
    """Plan the rest of a clone of which a crash left no data: it must not begin as an empty one."""
    ancestor = clones.find(spec, source, context)
    if not isinstance(ancestor, clones.Ancestor):
        return _not_yet(ancestor)
    effects = clones.create_effects(clones.record_of(record, ancestor, context), spec, source, ancestor)
    action = actions.make(spec, record, Operation.UPDATE, "source", None, spec_values(spec)["source"], effects)
    return VePlan(actions=(replace(action, reason=Reason.UNFINISHED),))


def plan_restored(spec: VeSpec, entry: TrashEntry, context: Context) -> VePlan:
    """Plan a VE whose data is in the trash: it comes back, and the next pass boots and adjusts it."""
    if refused := (*_refuse_unsupported(spec), *policy.refuse(spec, context.policy, entry.record.applied)):
        return VePlan(refused=refused)
    effects = [RestoreVe(uid=entry.record.uid, trash_id=entry.id, requests_done=snapshots.standing(spec))]
    before: dict[str, Json] = {"trashedSecondsAgo": round(max(0.0, context.now - entry.trashed_at))}
    action = actions.make(spec, entry.record, Operation.RESTORE, "", before, _wanted(spec, context), effects)
    return VePlan(actions=(replace(action, reason=Reason.IN_TRASH),))


def plan_existing(spec: VeSpec, observed: VeObservation, context: Context) -> VePlan:
    """Plan a VE that exists on this host. One that runs is held to its limits even if what is inside cannot be read."""
    paths = unknown_paths(observed)
    unknown = tuple(UnknownFact(ve=spec.name, path=path, reason=reason) for path, reason in paths.items())
    if paths and not _is_known_but_for_its_inside(observed):
        return VePlan(unknown=unknown)
    found = changes.known(_without_its_inside(observed) if paths else observed)
    known = replace(found, record=snapshots.as_marked(found.record, found.snapshots.mark, context))
    by_volume = (*_refuse_lost_volume(spec, known), *_refuse_volume(spec, known))
    if refused := (*refuse_at_all(spec, context, known.record.applied), *by_volume):
        return VePlan(refused=refused)
    if isinstance(spec.source, CloneSource) and not known.volume.present:
        return _plan_unfinished_clone(spec, spec.source, known.record, context)
    kept, warned = changes.apply_drift_policy(spec, changes.differences(spec, known, context))
    kept, waiting = changes.part_waiting_for_memory(known, kept)
    decision = power.permitted(_decide(spec, known), context.capabilities)
    restarts = [difference for difference in kept if difference.field.impact is Impact.RESTART]
    time = _plan_time(spec, known, context)
    steps = time.steps or boot.power_steps(spec, known.record, known.power, decision, restarts, context)
    live = changes.live_actions(spec, known, kept, context, volume_only=steps.replaces_live)
    doing = (*time.before, *live, *steps.actions, *time.after)
    waiting = steps.waiting or time.waiting or waiting
    is_undone = bool(waiting or unknown) or decision.rule == power.NOT_ON_THIS_HOST
    books = () if is_undone else _bookkeeping(spec, found.record, known, context, doing, becomes=time.record)
    held = Refusal(
        ve=spec.name, uid=known.record.uid, rule=decision.rule, message=decision.message, remedy=decision.remedy
    )
    return VePlan(
        actions=(*doing, *books),
        refused=(*time.refused, *((held,) if decision.step is power.Step.HOLD else ())),
        unknown=unknown,
        warned=tuple(warned),
        waiting=waiting,
        orphans=time.orphans,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Time:
    """What a VE's snapshots and another volume come to. ``steps``: of its power, where a rollback decides them.

    ``record``: what it is when all of it is done.
    """

    before: tuple[Action, ...] = ()
    steps: boot.PowerSteps | None = None
    after: tuple[Action, ...] = ()
    refused: tuple[Refusal, ...] = ()
    waiting: str = ""
    orphans: tuple[SnapshotName, ...] = ()
    record: Record


def _plan_time(spec: VeSpec, known: Known, context: Context) -> _Time:
    if not known.volume.present:
        return _Time(record=known.record)
    present = snapshots.Present(spec=spec, record=known.record, power=known.power, observed=known.snapshots)
    kept = keeping.plan_snapshots(present, context)
    to = switch.plan_rollback(present, context)
    back = to if isinstance(to, switch.Switch) else None
    anew = switch.plan_recreation(present, context) if to is None else None
    done = back or anew
    return _Time(
        before=kept.takes,
        steps=boot.PowerSteps(actions=(back.action,), replaces_live=True) if back else None,
        after=(*((anew.action,) if anew else ()), *kept.deletes),
        refused=(*kept.refused, *((to,) if isinstance(to, Refusal) else ())),
        waiting=kept.waiting or (to if isinstance(to, str) else ""),
        orphans=kept.orphans,
        record=replace(done.record if done else known.record, snapshot_births=kept.births),
    )


def _bookkeeping(
    spec: VeSpec, before: Record, known: Known, context: Context, doing: Sequence[Action], *, becomes: Record
) -> tuple[Action, ...]:
    books = bookkeeping(spec, before, context, doing, becomes=becomes)
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
    impossible = (*_refuse_impossible(spec, context), *_refuse_out_of_reach(spec, context))
    return (*_refuse_unsupported(spec), *impossible, *by_policy)


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


def _refuse_out_of_reach(spec: VeSpec, context: Context) -> Iterator[Refusal]:
    """Refuse a VE on a network that spans hosts where the others do not know how to reach this one."""
    if not context.out_of_reach:
        return
    for name in sorted({link.network for link in spec.network.interfaces.values()} & context.out_of_reach):
        message = f"network {name} spans hosts (vxlan), and no Host document gives this host's address"
        remedy = "add 'address: ...' to the spec of its Host document, or take vxlan from the network"
        yield Refusal(ve=spec.name, uid=spec.uid, rule="NotOnThisHost", message=message, remedy=remedy)


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


def unfulfilled(action: Action, spec: VeSpec, observed: VeObservation | None, context: Context) -> str:
    """Say what an action failed to bring about, or "": planning anew from what is seen must not ask for it again."""
    if observed is None:
        return f"{spec.name} is not there"
    if isinstance(observed.volume, VolumeObservation) and not observed.volume.present:
        return "its volume is not there"
    part = plan_existing(spec, observed, context)
    if part.unknown and not (_is_known_but_for_its_inside(observed) and _is_of_outside(action)):
        return f"cannot tell: {part.unknown[0]}"
    for again in _due_at_once(part.actions):
        if again.effects and _answers_for(action, again):
            return f"{again.path or again.op.value} is {again.before!r}, not {again.after!r}"
    return ""


def _due_at_once(planned: tuple[Action, ...]) -> Iterator[Action]:
    """Leave out the record that a snapshot still to be taken or deleted asks for."""
    is_behind = any(snapshots.is_apart(action.path) for action in planned)
    yield from (action for action in planned if not (is_behind and action.reason is Reason.BOOKKEEPING))


def _is_of_outside(action: Action) -> bool:
    """Say whether what an action changes is seen without a look into the VE."""
    if snapshots.is_apart(action.path):
        return True
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
        return not snapshots.is_apart(action.path) and any(
            isinstance(effect, WriteRecord) and effect.record.applied for effect in action.effects
        )
    if other.origin is Origin.POLICY or snapshots.is_apart(other.path):
        return False
    comes_up = any(isinstance(effect, StartRuntime) for effect in action.effects)
    return action.op is Operation.CREATE or (comes_up and not volume.is_changed_apart(other.path))


def _comes_from_memory(action: Action) -> bool:
    """Say whether an action takes away what a VE had when it was suspended, and has again: that comes afterwards."""
    is_extra = action.op is Operation.UPDATE and action.after is None
    return is_extra or action.op is Operation.RESTART or action.path == VIEWS
