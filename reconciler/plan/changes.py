"""What of an existing VE is not as desired, who wants it otherwise, and the live changes that put it right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from reconciler.model.action import Action, Drift, Impact, Operation, Origin, Phase, Reason
from reconciler.model.compute import ComputeObservation
from reconciler.model.devices import DevicesObservation
from reconciler.model.effects import Effect
from reconciler.model.facts import Json, Unknown
from reconciler.model.fleet import DriftPolicy, VeSpec
from reconciler.model.mounts import MountsObservation
from reconciler.model.network import VeNetworkObservation
from reconciler.model.observation import Facet, VeObservation
from reconciler.model.power import PowerObservation, PowerState
from reconciler.model.settings import SettingsObservation
from reconciler.model.snapshots import SnapshotsObservation
from reconciler.model.views import Views
from reconciler.model.volume import Record, VolumeObservation
from reconciler.plan import actions, compute, devices, mounts, network, power, settings, views, volume
from reconciler.plan.actions import Context
from reconciler.plan.books import carried_out
from reconciler.plan.field import Difference, Field, Value, Values, changed_paths, find_field, to_json
from reconciler.plan.spec import FIELDS, drift_policy, origin_of, spec_values


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A VE of which every facet could be read."""

    record: Record
    power: PowerObservation
    compute: ComputeObservation | None
    volume: VolumeObservation
    network: VeNetworkObservation | None
    mounts: MountsObservation | None
    views: Views | None
    devices: DevicesObservation | None
    settings: SettingsObservation | None
    snapshots: SnapshotsObservation


def known(observed: VeObservation) -> Known:
    """Narrow a VE of which nothing is unknown."""
    record, ve_power, ve_compute = observed.record, observed.power, observed.compute
    ve_volume, ve_network, ve_mounts = observed.volume, observed.network, observed.mounts
    ve_views = observed.views
    assert isinstance(record, Record)
    assert isinstance(ve_power, PowerObservation)
    assert not isinstance(ve_compute, Unknown)
    assert isinstance(ve_volume, VolumeObservation)
    assert not isinstance(ve_network, Unknown)
    assert not isinstance(ve_mounts, Unknown)
    assert not isinstance(ve_views, Unknown)
    assert not isinstance(observed.devices, Unknown)
    assert not isinstance(observed.settings, Unknown)
    assert isinstance(observed.snapshots, SnapshotsObservation)
    return Known(
        record=record,
        power=ve_power,
        compute=ve_compute,
        volume=ve_volume,
        network=ve_network,
        mounts=ve_mounts,
        views=ve_views,
        devices=observed.devices,
        settings=observed.settings,
        snapshots=observed.snapshots,
    )


def differences(spec: VeSpec, seen: Known, context: Context) -> Iterator[Difference]:
    """Yield every field that is not as desired; of a VE that does not run, only what outlives that."""
    wanted = carried_out(spec, seen.record)
    for path, desired, observed in _unequal(spec, seen, context):
        declared = find_field(FIELDS, path)
        origin = origin_of(_recorded_as(declared, path), seen.record.applied, wanted)
        if declared.facet is Facet.POWER:  # nobody can change what a VE was launched with
            origin = Origin.GIT
        found = Difference(path=path, field=declared, desired=desired, observed=observed, origin=origin)
        if origin is Origin.DRIFT and compute.follows_from_others(found, seen.record):
            found = replace(found, origin=Origin.POLICY)
        yield found


def _recorded_as(declared: Field, path: str) -> tuple[str, ...]:
    match declared.facet:
        case Facet.COMPUTE:
            return compute.recorded_as(path)
        case Facet.NETWORK:
            return network.recorded_as(path)
        case Facet.SETTINGS:
            return settings.recorded_as(path)
        case Facet.VOLUME:
            return volume.recorded_as(path)
    return (path,)


def _unequal(spec: VeSpec, seen: Known, context: Context) -> Iterator[tuple[str, Value, Value]]:
    runs = seen.power.state is not PowerState.STOPPED
    yield from volume.differences(spec.volume, seen.volume, runs=runs)
    if seen.power.launch is not None and (seen.power.state is PowerState.RUNNING or seen.power.memory is not None):
        yield from _changed(power.desired_values(spec), power.observed_values(seen.power.launch))
    if seen.power.state is not PowerState.RUNNING:
        return
    if seen.compute is not None:
        limits = compute.desired_values(spec.compute, context.capabilities, context.cpu_weight(spec))
        yield from _changed(limits, compute.compared_values(seen.compute, context.capabilities))
    if seen.network is not None:
        yield from network.differences(context.instance, seen.record.uid, spec.network, seen.network)
    if seen.mounts is not None:
        yield from mounts.differences(spec.mounts, seen.mounts)
    if seen.views is not None:
        yield from _changed(views.desired_values(context.capabilities), views.observed_values(seen.views))
    if seen.devices is not None:
        yield from devices.differences(spec.devices, seen.devices)
    if seen.settings is not None:
        yield from settings.differences(spec.settings, seen.settings, context.capabilities)


def _changed(desired: Values, observed: Values) -> Iterator[tuple[str, Value, Value]]:
    for path in changed_paths(desired, observed):
        yield path, desired[path], observed.get(path)


def apply_drift_policy(spec: VeSpec, found: Iterable[Difference]) -> tuple[list[Difference], list[Drift]]:
    """Part what is to be changed from what was changed by hand and is left alone."""
    kept, warned = [], []
    for difference in found:
        policy = drift_policy(difference.path, spec.drift)
        if difference.origin is not Origin.DRIFT or policy is DriftPolicy.CORRECT:
            kept.append(difference)
        else:
            before, after = _explained(difference)
            warned.append(
                Drift(ve=spec.name, path=difference.path, desired=after, observed=before, policy=policy.value)
            )
    return kept, warned


def part_waiting_for_memory(seen: Known, found: Iterable[Difference]) -> tuple[list[Difference], str]:
    """Part from the rest what has to wait as long as a memory does, and say so: the file system that it goes on with
    has to be as it left it.
    """
    kept = list(found)
    if seen.power.memory is None or not (seen.volume.present and seen.volume.is_image):
        return kept, ""
    held = [difference.path for difference in kept if difference.field.facet is Facet.VOLUME]
    waiting = f"{', '.join(held)}: waits until it is resumed or stopped, as its memory needs its disk as it is"
    return [difference for difference in kept if difference.path not in held], waiting if held else ""


def _explained(difference: Difference) -> tuple[Json, Json]:
    explain = settings.explain if difference.field.facet is Facet.SETTINGS else network.explain
    return to_json(explain(difference.path, difference.observed)), to_json(explain(difference.path, difference.desired))


def _told(spec: VeSpec, seen: Known, difference: Difference) -> tuple[Json, Json]:
    """Give both values for a plan: what the manifests want reads the same on every host, and before there is a uid."""
    wanted = network.as_written(spec_values(spec), difference.path)
    had = network.as_written(seen.record.applied, difference.path)
    if difference.origin is Origin.GIT and wanted is not None and had is not None:
        return had, wanted
    return _explained(difference)


def live_actions(
    spec: VeSpec, seen: Known, found: Iterable[Difference], context: Context, *, volume_only: bool
) -> Iterator[Action]:
    """Yield the changes that need no restart. ``volume_only``: the VE comes up anew, with everything else right."""
    for difference in found:
        is_volume = difference.field.facet is Facet.VOLUME
        if difference.field.impact is not Impact.RESTART and (is_volume or not volume_only):
            yield _live_action(spec, seen, difference, context)


def _live_action(spec: VeSpec, seen: Known, difference: Difference, context: Context) -> Action:
    before, after = _told(spec, seen, difference)
    effects, impact = _carry_out(spec, seen, difference, context)
    action = actions.make(spec, seen.record, Operation.UPDATE, difference.path, before, after, effects)
    risk = impact is Impact.LIVE_RISK
    return replace(
        action,
        origin=difference.origin,
        reason=_reason(seen, difference),
        impact=impact,
        phase=Phase.SHRINK if _shrinks(seen, difference) else Phase.GROW,
        danger=f"{spec.name}: {difference.path} goes below what is in use now" if risk else "",
    )


def _carry_out(
    spec: VeSpec, seen: Known, difference: Difference, context: Context
) -> tuple[tuple[Effect, ...], Impact]:
    uid = seen.record.uid
    match difference.field.facet:
        case Facet.VOLUME:
            effects = volume.set_effects(uid, difference, spec.volume, seen.volume)
            return effects, volume.impact(difference, spec.volume, seen.volume)
        case Facet.COMPUTE:
            assert seen.compute is not None
            return compute.set_effects(uid, difference), compute.impact(difference, seen.compute)
        case Facet.NETWORK:
            changes = network.set_effects(context.instance, uid, spec.network, difference)
            return changes, network.impact(difference)
        case Facet.MOUNTS:
            return mounts.set_effects(uid, spec.mounts, difference), difference.field.impact
        case Facet.VIEWS:
            return views.set_effects(uid, difference), Impact.LIVE
        case Facet.DEVICES:
            return devices.set_effects(uid, spec.devices, difference), devices.impact(difference)
        case Facet.SETTINGS:
            return settings.set_effects(uid, difference), difference.field.impact
    raise AssertionError(f"{difference.path} is no live change")


def _is_birth(seen: Known, difference: Difference) -> bool:
    return difference.field.facet is Facet.VOLUME and not seen.volume.present


def _reason(seen: Known, difference: Difference) -> Reason:
    return Reason.UNFINISHED if _is_birth(seen, difference) else actions.reason_of(difference.origin)


def _shrinks(seen: Known, difference: Difference) -> bool:
    limits = difference.field.facet in (Facet.VOLUME, Facet.COMPUTE)
    return limits and not _is_birth(seen, difference) and compute.is_shrinking(difference)
