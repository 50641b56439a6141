"""A whole spec as canonical values by path: for the record, for the hashes, and for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.model.action import Impact, Origin
from reconciler.model.facts import Json, Unknown
from reconciler.model.fleet import DriftPolicy, DriftSpec, VeSpec
from reconciler.model.observation import Capabilities, VeObservation
from reconciler.model.power import Power, PowerState
from reconciler.plan import compute, devices, mounts, network, power, settings, snapshots, views, volume
from reconciler.plan.field import Field, Value, to_json

_OWN_FIELDS = (
    Field(path="labels", facet=None, impact=Impact.NONE, default={}),
    Field(path="description", facet=None, impact=Impact.NONE, default=""),
    Field(
        path="protect", facet=None, impact=Impact.NONE, default=False, effect="refuses deletion; outlives the manifest"
    ),
    Field(
        path="spread", facet=None, impact=Impact.NONE, default=[], effect="for `vectl place`; moves nothing by itself"
    ),
    Field(path="drift", facet=None, impact=Impact.NONE, default={"default": "correct", "fields": {}}),
    Field(path="name", facet=None, impact=Impact.NONE, default="<required>", effect="needs uid or renamedFrom"),
)

FIELDS: tuple[Field, ...] = (
    power.FIELDS
    + compute.FIELDS
    + volume.FIELDS
    + network.FIELDS
    + mounts.FIELDS
    + devices.FIELDS
    + views.FIELDS
    + settings.FIELDS
    + snapshots.FIELDS
    + _OWN_FIELDS
)
"""Every field that this version carries out, with its default and its impact."""


def spec_values(spec: VeSpec) -> Mapping[str, Json]:
    """Give all fields of a spec by path, as canonical JSON."""
    if not spec.canonical:
        spec.canonical.update(_work_out(spec))
    return spec.canonical


def _work_out(spec: VeSpec) -> dict[str, Json]:
    values: dict[str, Value] = {
        **power.record_values(spec.power),
        "rlimits": dict(spec.rlimits),
        "features.nesting": spec.nesting,
        **{limit.value: value for limit, value in compute.limits(spec.compute).items()},
        **compute.record_values(spec.compute),
        **spec.settings.declared,
        "template": spec.volume.template,
        **volume.desired_values(spec.volume),
        **network.record_values(spec.network),
        **mounts.record_values(spec.mounts),
        **devices.record_values(spec.devices),
        **snapshots.record_values(spec),
        "labels": dict(spec.labels),
        "description": spec.description,
        **({"spread": list(spec.spread)} if spec.spread else {}),
        "drift": spec.drift,
    }
    return {path: to_json(value) for path, value in values.items()}


def unenforceable(spec: VeSpec, capabilities: Capabilities) -> dict[str, str]:
    """Name the fields that were asked for and that this host can only observe, with the reason by path."""
    seen = views.unenforceable(capabilities) if spec.power.state is Power.RUNNING else {}
    held = settings.unenforceable(spec.settings, capabilities)
    return {**compute.unenforceable(spec.compute, capabilities), **held, **seen}


def observed_values(observed: VeObservation) -> dict[str, Json]:
    """Give what was seen of a VE by path, in the same form; what cannot be there is left out."""
    values: dict[str, Value] = {}
    if not isinstance(observed.power, Unknown):
        values["power"] = _power_word(observed.power.state)
        if observed.power.launch is not None:
            values.update(power.observed_values(observed.power.launch))
    if observed.compute is not None and not isinstance(observed.compute, Unknown):
        values.update(compute.observed_values(observed.compute))
    if not isinstance(observed.volume, Unknown):
        values.update(volume.observed_values(observed.volume))
    if observed.network is not None and not isinstance(observed.network, Unknown):
        values.update(network.observed_values(observed.network))
    if observed.mounts is not None and not isinstance(observed.mounts, Unknown):
        values.update(mounts.record_values(observed.mounts.mounts))
    values.update(_observed_inside(observed))
    if not isinstance(observed.snapshots, Unknown):
        values.update(snapshots.observed_values(observed.snapshots))
    if not isinstance(observed.record, Unknown):
        values["template"] = observed.record.template
    return {path: to_json(value) for path, value in values.items()}


def _power_word(state: PowerState) -> str:
    """Give a state of a VE in the words of a manifest: an init that waits does not run yet."""
    return Power.STOPPED if state is PowerState.CREATED else state.value


def _observed_inside(observed: VeObservation) -> dict[str, Value]:
    """Give what was seen that a VE has only while it runs."""
    values: dict[str, Value] = {}
    if observed.views is not None and not isinstance(observed.views, Unknown):
        values.update(views.observed_values(observed.views))
    if observed.devices is not None and not isinstance(observed.devices, Unknown):
        values.update(devices.record_values(observed.devices))
    if observed.settings is not None and not isinstance(observed.settings, Unknown):
        values.update(settings.observed_values(observed.settings))
    return values


def unknown_paths(observed: VeObservation) -> dict[str, str]:
    """Name the facets that could not be read, with the reason."""
    facets: dict[str, object] = {
        "record": observed.record,
        "power": observed.power,
        "compute": observed.compute,
        "volume": observed.volume,
        "network": observed.network,
        "mounts": observed.mounts,
        "views": observed.views,
        "devices": observed.devices,
        "settings": observed.settings,
        "snapshots": observed.snapshots,
    }
    return {name: fact.reason for name, fact in facets.items() if isinstance(fact, Unknown)}


def origin_of(paths: Iterable[str], applied: Mapping[str, Json], desired: Mapping[str, Json]) -> Origin:
    """Say who wants a difference: the manifests, if they say now what was not applied yet; else it drifted.

    ``paths``: those of the record on which the value rests. One that no manifest can name (a link's state) has none,
    and is always drift.
    """
    changed = any(_below(path, applied) != _below(path, desired) for path in paths)
    return Origin.GIT if changed else Origin.DRIFT


def _below(path: str, values: Mapping[str, Json]) -> dict[str, Json]:
    prefix = f"{path}."
    return {key: value for key, value in values.items() if key == path or key.startswith(prefix)}


def drift_policy(path: str, spec: DriftSpec) -> DriftPolicy:
    """Give the policy of the longest prefix that names the path."""
    prefixes = [prefix for prefix in spec.fields if path == prefix or path.startswith(f"{prefix}.")]
    return spec.fields[max(prefixes, key=len)] if prefixes else spec.default
