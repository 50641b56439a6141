"""Booting, stopping and restarting a VE: the actions that `power` decides on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from reconciler.model.action import Action, Downtime, Impact, Operation, Origin, Phase
from reconciler.model.compute import RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.fleet import VeSpec
from reconciler.model.power import CreateRuntime, Power, PowerObservation, StartRuntime
from reconciler.model.volume import Record
from reconciler.plan import actions, compute, devices, mounts, network, power, quota, settings
from reconciler.plan.actions import Context
from reconciler.plan.field import Difference, to_json

_LEFTOVERS = "leftovers"


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
        case power.Step.BOOT:
            if waiting := waits_for(spec, context):
                return PowerSteps(waiting=waiting, replaces_live=True)
            return PowerSteps(actions=(_boot(spec, record, seen, decision, context),), replaces_live=True)
        case power.Step.STOP:
            return PowerSteps(actions=(_stop(spec, record, seen, decision),), replaces_live=True)
        case power.Step.CLEAN:
            return PowerSteps(actions=(_clean(spec, record, seen, decision),))
        case power.Step.HOLD:
            return PowerSteps(replaces_live=True)
        case power.Step.KEEP:
            found = tuple(_restart(spec, record, seen, restarts, context))
            return PowerSteps(actions=found, replaces_live=bool(found))


def _boot(spec: VeSpec, record: Record, seen: PowerObservation, decision: power.Decision, context: Context) -> Action:
    effects = (*power.clear_effects(record.uid, seen), *boot_effects(spec, record, context))
    action = actions.make(spec, record, Operation.UPDATE, "power", seen.state.value, "running", effects)
    return replace(action, reason=decision.reason, origin=decision.origin, impact=Impact.LIVE)


def _stop(spec: VeSpec, record: Record, seen: PowerObservation, decision: power.Decision) -> Action:
    action = actions.make(spec, record, Operation.UPDATE, "power", "running", "stopped", _down(spec, record, seen))
    return replace(
        action,
        reason=decision.reason,
        origin=decision.origin,
        impact=Impact.RESTART,
        phase=Phase.SHRINK,
        downtime=Downtime(None),
    )


def _clean(spec: VeSpec, record: Record, seen: PowerObservation, decision: power.Decision) -> Action:
    effects = _down(spec, record, seen)
    action = actions.make(spec, record, Operation.UPDATE, "runtime", _LEFTOVERS, None, effects)
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
