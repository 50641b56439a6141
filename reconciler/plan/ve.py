"""One VE: from its spec and what was seen of it to the actions that make them equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.model.action import (
    NO_DOWNTIME,
    Action,
    Basis,
    Downtime,
    Drift,
    Impact,
    Operation,
    Origin,
    Phase,
    Reason,
    Refusal,
    Reversible,
)
from reconciler.model.compute import ComputeObservation, RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.facts import Json, Unknown
from reconciler.model.fleet import DriftPolicy, VeSpec
from reconciler.model.identity import Allocation, TemplateName, VeName
from reconciler.model.network import VeNetworkObservation
from reconciler.model.observation import Capabilities, VeObservation
from reconciler.model.power import CreateRuntime, PowerObservation, PowerState, StartRuntime
from reconciler.model.volume import Record, RestoreVe, TemplateSpec, TrashEntry, VolumeObservation, WriteRecord
from reconciler.plan import compute, network, power, volume
from reconciler.plan.field import Difference, Value, changed_paths, find_field, nest, to_json
from reconciler.plan.spec import FIELDS, drift_policy, origin_of, spec_values, unknown_paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What planning a VE needs besides the VE. ``source``: name of the source that speaks; ``now``: epoch seconds.

    ``running``: names of the VEs that run now, for dependencies. ``measured``: seconds by (op, path), from history.
    """

    instance: str
    source: str
    now: float
    capabilities: Capabilities
    templates: Mapping[TemplateName, TemplateSpec]
    running: frozenset[VeName] = frozenset()
    measured: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VePlan:
    """The part of a plan that one VE has."""

    actions: tuple[Action, ...] = ()
    refused: tuple[Refusal, ...] = ()
    unknown: tuple[str, ...] = ()
    warned: tuple[Drift, ...] = ()
    waiting: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """A VE of which every facet could be read."""

    record: Record
    power: PowerObservation
    compute: ComputeObservation | None
    volume: VolumeObservation
    network: VeNetworkObservation | None


def plan_new(spec: VeSpec, allocation: Allocation, context: Context) -> VePlan:
    """Plan a VE that does not exist anywhere on this host."""
    if refused := _refuse(spec):
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
    effects = [*volume.create_effects(record, spec.volume, template)]
    waiting = _waits_for(spec, context)
    if _wants_to_run(spec) and not waiting:
        effects += _boot(spec, record, context)
    create = _action(spec, record, Operation.CREATE, "", None, nest(spec_values(spec)), effects)
    actions = (replace(create, reason=Reason.NEW_MANIFEST), *_bookkeeping(spec, record, context))
    return VePlan(actions=actions if not waiting else actions[:1], waiting=waiting)


def plan_restored(spec: VeSpec, entry: TrashEntry, context: Context) -> VePlan:
    """Plan a VE whose data is in the trash: it comes back, and the next pass boots and adjusts it."""
    if refused := _refuse(spec):
        return VePlan(refused=refused)
    effects = [RestoreVe(uid=entry.record.uid, trash_id=entry.id)]
    age = max(0.0, context.now - entry.trashed_at)
    action = _action(spec, entry.record, Operation.RESTORE, "", None, nest(spec_values(spec)), effects)
    return VePlan(actions=(replace(action, reason=Reason.IN_TRASH, before={"trashedSecondsAgo": round(age)}),))


def plan_existing(spec: VeSpec, observed: VeObservation, context: Context) -> VePlan:
    """Plan a VE that exists on this host."""
    if unknown := unknown_paths(observed):
        return VePlan(unknown=tuple(f"{spec.name}.{path}: {reason}" for path, reason in unknown.items()))
    if refused := _refuse(spec):
        return VePlan(refused=refused)
    known = _known(observed)
    differences = list(_differences(spec, known, context))
    kept, warned = _apply_drift_policy(spec, differences)
    refused = _refuse_template(spec, known.record)
    decision = power.decide(
        spec.power,
        known.power,
        spec_changed=_spec_changed(spec, known.record),
        leftovers=known.compute is not None and known.power.state is PowerState.STOPPED,
    )
    steps = _power_steps(spec, known, decision, kept, context)
    actions = (*_live_actions(spec, known, kept, context, steps), *steps.actions)
    books = () if steps.waiting or refused else _bookkeeping(spec, known.record, context)
    held = (Refusal(ve=spec.name, uid=known.record.uid, rule=decision.rule, message=decision.message),)
    return VePlan(
        actions=(*actions, *books),
        refused=(*refused, *(held if decision.step is power.Step.HOLD else ())),
        warned=tuple(warned),
        waiting=steps.waiting,
    )


def _known(observed: VeObservation) -> _Known:
    record, ve_power, ve_compute = observed.record, observed.power, observed.compute
    ve_volume, ve_network = observed.volume, observed.network
    assert isinstance(record, Record)
    assert isinstance(ve_power, PowerObservation)
    assert not isinstance(ve_compute, Unknown)
    assert isinstance(ve_volume, VolumeObservation)
    assert not isinstance(ve_network, Unknown)
    return _Known(record=record, power=ve_power, compute=ve_compute, volume=ve_volume, network=ve_network)


def _refuse(spec: VeSpec) -> tuple[Refusal, ...]:
    if not spec.unsupported:
        return ()
    fields = ", ".join(spec.unsupported)
    message = f"not supported yet by this version: {fields}"
    return (Refusal(ve=spec.name, uid=spec.uid, rule="Unsupported", message=message, remedy="remove the field"),)


def _refuse_template(spec: VeSpec, record: Record) -> tuple[Refusal, ...]:
    if spec.volume.template == record.template:
        return ()
    message = f"template is {record.template!r} since creation and {spec.volume.template!r} in the manifest"
    remedy = "recreation is not supported yet by this version: create a VE of another name, or put the template back"
    return (Refusal(ve=spec.name, uid=record.uid, rule="TemplateChanged", message=message, remedy=remedy),)


def _spec_changed(spec: VeSpec, record: Record) -> bool:
    return dict(record.applied) != spec_values(spec)


def _wants_to_run(spec: VeSpec) -> bool:
    return spec.power.state.value == "running"


def _waits_for(spec: VeSpec, context: Context) -> str:
    missing = sorted(set(spec.power.depends_on) - context.running)
    return f"waits for {', '.join(missing)} to run" if missing and _wants_to_run(spec) else ""


def _differences(spec: VeSpec, known: _Known, context: Context) -> Iterator[Difference]:
    applied, wanted = known.record.applied, spec_values(spec)

    def difference(path: str, desired: Value, observed: Value) -> Difference:
        origin = origin_of(path, applied, wanted)
        return Difference(path=path, field=find_field(FIELDS, path), desired=desired, observed=observed, origin=origin)

    pairs: list[tuple[dict[str, Value], dict[str, Value]]] = []
    if known.volume.present:
        pairs.append((volume.desired_values(spec.volume), volume.observed_values(known.volume)))
    if known.power.state is PowerState.RUNNING:
        if known.compute is not None:
            limits = compute.desired_values(spec.compute, context.capabilities)
            pairs.append((limits, compute.observed_values(known.compute)))
        if known.power.launch is not None:
            pairs.append((power.desired_values(spec), power.observed_values(known.power.launch)))
    for desired, observed in pairs:
        for path in changed_paths(desired, observed):
            yield difference(path, desired[path], observed.get(path))
    if known.power.state is PowerState.RUNNING and known.network is not None:
        uid = known.record.uid
        for path, _, desired_value, seen in network.differences(context.instance, uid, spec.network, known.network):
            yield difference(path, desired_value, seen)


def _apply_drift_policy(spec: VeSpec, differences: list[Difference]) -> tuple[list[Difference], list[Drift]]:
    kept, warned = [], []
    for difference in differences:
        policy = drift_policy(difference.path, spec.drift)
        if difference.origin is Origin.GIT or policy is DriftPolicy.CORRECT:
            kept.append(difference)
        else:
            warned.append(
                Drift(
                    ve=spec.name,
                    path=difference.path,
                    desired=to_json(network.explain(difference.path, difference.desired)),
                    observed=to_json(network.explain(difference.path, difference.observed)),
                    policy=policy.value,
                )
            )
    return kept, warned


@dataclass(frozen=True, slots=True, kw_only=True)
class _PowerSteps:
    """``replaces_live``: the VE goes down or comes up anew, so that live changes are part of that."""

    actions: tuple[Action, ...] = ()
    replaces_live: bool = False
    waiting: str = ""


def _power_steps(
    spec: VeSpec, known: _Known, decision: power.Decision, differences: list[Difference], context: Context
) -> _PowerSteps:
    record, uid = known.record, known.record.uid
    match decision.step:
        case power.Step.BOOT:
            if waiting := _waits_for(spec, context):
                return _PowerSteps(waiting=waiting, replaces_live=True)
            effects = (*power.clear_effects(uid, known.power), *_boot(spec, record, context))
            action = _action(spec, record, Operation.UPDATE, "power", known.power.state.value, "running", effects)
            action = replace(action, reason=decision.reason, origin=decision.origin, impact=Impact.LIVE)
            return _PowerSteps(actions=(_measured(action, context),), replaces_live=True)
        case power.Step.STOP:
            effects = (*power.stop_effects(uid, spec.power.stop_timeout_s, known.power), RemoveCgroup(uid=uid))
            action = _action(spec, record, Operation.UPDATE, "power", "running", "stopped", effects)
            stopping = replace(action, origin=decision.origin, impact=Impact.RESTART, phase=Phase.SHRINK)
            return _PowerSteps(actions=(replace(stopping, downtime=Downtime()),), replaces_live=True)
        case power.Step.CLEAN:
            effects = (*power.stop_effects(uid, spec.power.stop_timeout_s, known.power), RemoveCgroup(uid=uid))
            action = _action(spec, record, Operation.UPDATE, "runtime", "leftovers", None, effects)
            return _PowerSteps(actions=(replace(action, reason=decision.reason, origin=decision.origin),))
        case power.Step.HOLD:
            return _PowerSteps(replaces_live=True)
        case power.Step.KEEP:
            restarts = [d for d in differences if d.field.impact is Impact.RESTART]
            return _PowerSteps(actions=tuple(_restart(spec, known, restarts, context)), replaces_live=bool(restarts))


def _restart(spec: VeSpec, known: _Known, why: list[Difference], context: Context) -> Iterator[Action]:
    if not why:
        return
    uid = known.record.uid
    effects = (
        *power.stop_effects(uid, spec.power.stop_timeout_s, known.power),
        *_boot(spec, known.record, context),
    )
    before = {difference.path: to_json(difference.observed) for difference in why}
    after = {difference.path: to_json(difference.desired) for difference in why}
    paths = ",".join(difference.path for difference in why)
    action = _action(spec, known.record, Operation.RESTART, paths, before, after, effects)
    origin = Origin.GIT if any(d.origin is Origin.GIT for d in why) else Origin.DRIFT
    action = replace(action, origin=origin, impact=Impact.RESTART, phase=Phase.RESTART, downtime=Downtime())
    yield _measured(action, context)


def _boot(spec: VeSpec, record: Record, context: Context) -> tuple[Effect, ...]:
    uid = record.uid
    created = CreateRuntime(
        uid=uid,
        name=spec.name,
        hostname=spec.network.hostname,
        launch=power.launch(spec, id_base=record.id_base, init=record.init),
    )
    return (
        *compute.boot_effects(uid, spec.compute, context.capabilities),
        created,
        *network.boot_effects(context.instance, uid, spec.network),
        StartRuntime(uid=uid),
    )


def _live_actions(
    spec: VeSpec, known: _Known, differences: list[Difference], context: Context, steps: _PowerSteps
) -> Iterator[Action]:
    for difference in differences:
        if difference.field.impact is Impact.RESTART:
            continue
        if steps.replaces_live and not difference.path.startswith("disk."):
            continue
        yield _live_action(spec, known, difference, context)


def _live_action(spec: VeSpec, known: _Known, difference: Difference, context: Context) -> Action:
    uid = known.record.uid
    effects: tuple[Effect, ...]
    if difference.path == "disk.size":
        effects, impact = volume.set_effects(uid, difference), volume.impact(difference, known.volume)
        shrinks = compute.is_shrinking(difference)
    elif known.compute is not None and difference.path in compute.observed_values(known.compute):
        effects, impact = compute.set_effects(uid, difference), compute.impact(difference, known.compute)
        shrinks = compute.is_shrinking(difference)
    else:
        effects = network.set_effects(context.instance, uid, spec.network, difference)
        impact, shrinks = network.impact(difference), False
    before = to_json(network.explain(difference.path, difference.observed))
    after = to_json(network.explain(difference.path, difference.desired))
    action = _action(spec, known.record, Operation.UPDATE, difference.path, before, after, effects)
    return replace(
        action,
        origin=difference.origin,
        reason=Reason.SPEC_CHANGED if difference.origin is Origin.GIT else Reason.DRIFTED,
        impact=impact,
        phase=Phase.SHRINK if shrinks else Phase.GROW,
        danger=_danger(spec, difference, impact),
    )


def _danger(spec: VeSpec, difference: Difference, impact: Impact) -> str:
    if impact is Impact.LIVE_RISK:
        return f"{spec.name}: {difference.path} goes below what is in use now"
    return ""


def _action(
    spec: VeSpec,
    record: Record,
    op: Operation,
    path: str,
    before: Json,
    after: Json,
    effects: Sequence[Effect],
) -> Action:
    serves = f"{spec.name}:{path or op}"
    return Action(
        ve=spec.name,
        uid=record.uid,
        op=op,
        path=path,
        before=before,
        after=after,
        reason=Reason.SPEC_CHANGED,
        impact=Impact.NONE,
        origin=Origin.GIT,
        downtime=NO_DOWNTIME,
        reversible=Reversible.YES,
        effects=tuple(replace(effect, serves=serves) for effect in effects),
    )


def _measured(action: Action, context: Context) -> Action:
    seconds = context.measured.get((action.op.value, action.path))
    if seconds is None:
        return action
    return replace(action, downtime=Downtime(round(seconds, 3), Basis.MEASURED))


def _bookkeeping(spec: VeSpec, record: Record, context: Context) -> tuple[Action, ...]:
    """Bring the record up to the spec: name, protection, source, and what was applied."""
    applied = spec_values(spec)
    protect = record.protect if spec.protect is None else spec.protect
    wanted = replace(record, name=spec.name, protect=protect, applied=applied, source=context.source)
    if wanted == record:
        return ()
    template = context.templates.get(record.template)
    effects = (WriteRecord(record=wanted, template_key=template.key if template else None),)
    actions = list(_announced(spec, record, wanted))
    paths = [] if not record.applied else sorted(p for p in applied if record.applied.get(p) != applied[p])
    books = _action(spec, record, Operation.UPDATE, "record", None, [*paths], effects)
    return (*actions, replace(books, reason=Reason.BOOKKEEPING, origin=Origin.POLICY))


def _announced(spec: VeSpec, record: Record, wanted: Record) -> Iterator[Action]:
    """Show what only the record holds but a reviewer wants to see; the bookkeeping carries it out."""
    if record.applied and record.name != wanted.name:
        yield _action(spec, record, Operation.UPDATE, "name", record.name, wanted.name, ())
    if record.protect != wanted.protect and record.applied:
        action = _action(spec, record, Operation.UPDATE, "protect", record.protect, wanted.protect, ())
        danger = "" if wanted.protect else f"{spec.name}: its protection against deletion is lifted"
        yield replace(action, danger=danger)


def unfulfilled(action: Action, spec: VeSpec, observed: VeObservation | None, context: Context) -> str:
    """Say what an action failed to bring about, or "": planning anew from what is seen must not ask for it again."""
    if observed is None:
        return f"{spec.name} is not there"
    part = plan_existing(spec, observed, context)
    if part.unknown:
        return f"cannot tell: {part.unknown[0]}"
    whole = action.op is not Operation.UPDATE or action.path == "power"
    for again in part.actions:
        if again.effects and (again.path == action.path or (whole and again.origin is not Origin.POLICY)):
            return f"{again.path or again.op.value} is {again.before!r}, not {again.after!r}"
    return ""
