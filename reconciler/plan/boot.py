"""Booting, stopping, suspending, resuming and restarting a VE: the actions that `power` decides on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from reconciler.model.action import Action, Downtime, Impact, Operation, Origin, Phase
from reconciler.model.compute import RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.facts import Json
from reconciler.model.fleet import VeSpec
from reconciler.model.power import (
    CreateRuntime,
    Launch,
    MemoryObservation,
    Power,
    PowerObservation,
    PowerState,
    StartRuntime,
    SuspendRuntime,
)
from reconciler.model.volume import Record
from reconciler.plan import actions, compute, devices, mounts, network, power, quota, settings
from reconciler.plan.actions import Context
from reconciler.plan.field import Difference, find_field, to_json
from reconciler.plan.spec import FIELDS

_LEFTOVERS = "leftovers"
_HALF_SUSPENDED = "half suspended"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSteps:
    """``replaces_live``: the VE goes down, comes up anew or stays down, so that live changes are part of that."""

    actions: tuple[Action, ...] = ()
    replaces_live: bool = False
    waiting: str = ""


def waits_for(spec: VeSpec, context: Context) -> str:
    """Name the VEs that have to run before this one is booted, in a sentence; empty if nothing is missing."""
    missing = sorted(set(spec.power.depends_on) - context.running)
    return f"waits for {', '.join(missing)} to run" if missing and wants_to_run(spec) else ""


def wants_to_run(spec: VeSpec) -> bool:
    """Say whether a VE is to be up."""
    return spec.power.state is Power.RUNNING


def boot_effects(spec: VeSpec, record: Record, context: Context) -> tuple[Effect, ...]:
    """Bring a VE from nothing but its data to a running init."""
    uid = record.uid
    created = CreateRuntime(
        uid=uid,
        name=spec.name,
        hostname=spec.network.hostname,
        launch=power.launch(spec, id_base=record.id_base, init=record.init),
    )
    return (
        *compute.boot_effects(uid, spec.compute, context.capabilities, context.cpu_weight(spec)),
        created,
        *settings.boot_effects(uid, spec.settings, context.capabilities),
        *quota.boot_effects(uid, spec.volume.quotas),
        *network.boot_effects(context.instance, uid, spec.network),
        *mounts.boot_effects(uid, spec.mounts),
        *devices.boot_effects(uid, spec.devices),
        StartRuntime(uid=uid),
    )


def resume_effects(
    spec: VeSpec, record: Record, launch: Launch, memory: MemoryObservation, context: Context
) -> tuple[Effect, ...]:
    """Let a suspended VE go on from its memory, under the limits and with the network of its spec.

    The addresses are there before its sockets are; what leads to them comes after, else the first packet of a peer
    would be answered with a reset. What the memory brings along of the rest is only then put right.
    """
    uid, had = record.uid, memory.addresses
    created = CreateRuntime(uid=uid, name=spec.name, hostname=spec.network.hostname, launch=launch, resume=True)
    return (
        *compute.boot_effects(uid, spec.compute, context.capabilities, context.cpu_weight(spec)),
        created,
        *network.effects_before_resume(context.instance, uid, spec.network, had),
        StartRuntime(uid=uid),
        *network.effects_after_resume(context.instance, uid, spec.network, had),
        *settings.boot_effects(uid, spec.settings, context.capabilities),
        *quota.boot_effects(uid, spec.volume.quotas),
        *mounts.boot_effects(uid, spec.mounts),
        *devices.boot_effects(uid, spec.devices),
    )


def power_steps(
    spec: VeSpec,
    record: Record,
    seen: PowerObservation,
    decision: power.Decision,
    restarts: Sequence[Difference],
    context: Context,
) -> PowerSteps:
    """Carry a decision out. ``restarts``: the differences that a running VE can only take in by a restart."""
    match decision.step:
        case power.Step.BOOT | power.Step.RESUME:
            if waiting := waits_for(spec, context):
                return PowerSteps(waiting=waiting, replaces_live=True)
            made = _boot(spec, record, seen, decision, context)
            return PowerSteps(
                actions=(made, *_restart_resumed(spec, record, seen, restarts, context)), replaces_live=True
            )
        case power.Step.STOP | power.Step.RESUME_AND_STOP:
            return PowerSteps(actions=(_stop(spec, record, seen, decision, context),), replaces_live=True)
        case power.Step.SUSPEND:  # it may not succeed: as long as it runs, it runs as its spec says
            return PowerSteps(actions=(_suspend(spec, record, seen, decision),))
        case power.Step.FINISH_SUSPENSION | power.Step.CLEAN:
            cleaned = _clean(spec, record, seen, decision)
            return PowerSteps(actions=(cleaned,), replaces_live=seen.state is PowerState.RUNNING)
        case power.Step.HOLD:
            return PowerSteps(replaces_live=seen.state is not PowerState.RUNNING)
        case power.Step.KEEP:
            runs = seen.state is PowerState.RUNNING
            found = tuple(_restart(spec, record, seen, restarts, context)) if runs else ()
            return PowerSteps(actions=found, replaces_live=bool(found))


def _boot(spec: VeSpec, record: Record, seen: PowerObservation, decision: power.Decision, context: Context) -> Action:
    up = _up(spec, record, seen, context)
    action = actions.make(spec, record, Operation.UPDATE, "power", seen.state.value, "running", up)
    action = replace(action, reason=decision.reason, origin=decision.origin, impact=Impact.LIVE)
    return actions.with_downtime(action, context) if power.resumes(action) else action


def _up(spec: VeSpec, record: Record, seen: PowerObservation, context: Context) -> tuple[Effect, ...]:
    """Let a VE run that does not: from its memory, if it has one."""
    if seen.memory is None:
        up = boot_effects(spec, record, context)
    else:  # without a launch it is damaged: let the host say how
        launch = seen.launch or power.launch(spec, id_base=record.id_base, init=record.init)
        up = resume_effects(spec, record, launch, seen.memory, context)
    return (*power.clear_effects(record.uid, seen), *up)


def _restart_resumed(
    spec: VeSpec, record: Record, seen: PowerObservation, why: Sequence[Difference], context: Context
) -> Iterator[Action]:
    """Restart what goes on from a memory that was made otherwise than the spec says now."""
    if seen.memory is not None:
        yield from _restart(spec, record, _running(seen), why, context)


def _running(seen: PowerObservation) -> PowerObservation:
    return replace(seen, state=PowerState.RUNNING, memory=None)


def _stop(spec: VeSpec, record: Record, seen: PowerObservation, decision: power.Decision, context: Context) -> Action:
    """Shut a VE down; one that is suspended is resumed for that, so that nothing of it is cut short."""
    resumed = _up(spec, record, seen, context) if decision.step is power.Step.RESUME_AND_STOP else ()
    down = (*resumed, *_down(spec, record, _running(seen)))
    action = actions.make(spec, record, Operation.UPDATE, "power", seen.state.value, "stopped", down)
    return replace(
        action,
        reason=decision.reason,
        origin=decision.origin,
        impact=Impact.RESTART,
        phase=Phase.SHRINK,
        downtime=Downtime(None),
    )


def _suspend(spec: VeSpec, record: Record, seen: PowerObservation, decision: power.Decision) -> Action:
    uid = record.uid
    effects = (SuspendRuntime(uid=uid), *_down(spec, record, replace(seen, state=PowerState.SUSPENDED)))
    action = actions.make(spec, record, Operation.UPDATE, "power", seen.state.value, "suspended", effects)
    return replace(
        action,
        reason=decision.reason,
        origin=decision.origin,
        impact=Impact.PAUSE,
        phase=Phase.SHRINK,
        downtime=Downtime(None),
    )


def _clean(spec: VeSpec, record: Record, seen: PowerObservation, decision: power.Decision) -> Action:
    effects, left = _down(spec, record, seen), _LEFTOVERS
    if decision.step is power.Step.FINISH_SUSPENSION:
        left = _HALF_SUSPENDED
    action = actions.make(spec, record, Operation.UPDATE, "runtime", left, None, effects)
    return replace(action, reason=decision.reason, origin=decision.origin)


def _down(spec: VeSpec, record: Record, seen: PowerObservation) -> tuple[Effect, ...]:
    uid = record.uid
    return (*power.stop_effects(uid, spec.power.stop_timeout_s, seen), RemoveCgroup(uid=uid))


def _restart(
    spec: VeSpec, record: Record, seen: PowerObservation, why: Sequence[Difference], context: Context
) -> Iterator[Action]:
    if not why:
        return
    effects = (
        *power.stop_effects(record.uid, spec.power.stop_timeout_s, seen),
        *boot_effects(spec, record, context),
    )
    before = {difference.path: to_json(difference.observed) for difference in why}
    after = {difference.path: to_json(difference.desired) for difference in why}
    action = actions.make(spec, record, Operation.RESTART, ",".join(after), before, after, effects)
    origin = Origin.GIT if any(d.origin is Origin.GIT for d in why) else Origin.DRIFT
    action = replace(
        action, reason=actions.reason_of(origin), origin=origin, impact=Impact.RESTART, phase=Phase.RESTART
    )
    yield actions.with_downtime(action, context)


def at_resume(action: Action) -> Action:
    """Say of a change that a suspended VE takes in when it is resumed what it costs it then."""
    if action.effects or action.path == "power":
        return action
    impact = _impact_of(action.path)
    if impact is Impact.RESTART:
        danger = f"{action.ve}: {action.path} changes while it is suspended: it is restarted once it was resumed"
        return replace(action, impact=Impact.RESTART, downtime=Downtime(None), danger=danger)
    is_lost = impact is Impact.NETWORK and _loses(action.path, action.before, action.after)
    return replace(action, impact=Impact.NETWORK) if is_lost else action


def _impact_of(path: str) -> Impact:
    with suppress(KeyError):  # some parts of a record are put together of several fields
        return find_field(FIELDS, path).impact
    return Impact.NONE


def _loses(path: str, before: Json, after: Json) -> bool:
    """Say whether connections have nothing to go on with: an interface that comes, or an address more, costs none."""
    if isinstance(before, list) and isinstance(after, list) and path.endswith(".addresses"):
        return any(address not in after for address in before)
    return before is not None
