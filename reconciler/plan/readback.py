"""Reading back: what an action failed to bring about, judged from what is there afterwards."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.model.action import Action, Operation
from reconciler.model.compute import Limit
from reconciler.model.facts import JsonMap, Unknown
from reconciler.model.identity import NetworkName, VeName
from reconciler.model.network import LoadFilter
from reconciler.model.observation import HostObservation
from reconciler.plan import host_compute, host_network, templates, ve
from reconciler.plan.admission import held, short
from reconciler.plan.inputs import Inputs, context_of

_NO_NETWORKS: Mapping[NetworkName, JsonMap] = {}


def unfulfilled(inputs: Inputs, action: Action) -> str:
    """Say what an action failed to bring about, judged from ``inputs.observed`` of afterwards, or "" if all is so."""
    if action.uid is None:
        return _host_unfulfilled(inputs, action)
    seen = inputs.observed.ves.get(action.uid)
    if action.op is Operation.DESTROY and action.path == "trash":
        trash = inputs.observed.trash
        left = isinstance(trash, Unknown) or any(entry.id == action.before for entry in trash)
        return "its data is still in the trash" if left else ""
    if action.op in (Operation.DESTROY, Operation.RESTORE):
        there = seen is not None
        is_right = there is (action.op is Operation.RESTORE)
        return "" if is_right else f"{action.ve} is {'still' if there else 'not'} there"
    spec = inputs.fleet.ves.get(VeName(action.ve))
    assert spec is not None, f"{action.id}: an action without a spec"
    if seen is not None and short(inputs, only=frozenset({spec.name})):
        spec = held(spec, seen)
    return ve.unfulfilled(action, spec, seen, context_of(inputs))


def _host_unfulfilled(inputs: Inputs, action: Action) -> str:
    if action.ve.startswith(templates.TARGET):
        return templates.unfulfilled(inputs.observed, action)
    if action.ve == host_compute.TARGET:
        return _instance_unfulfilled(inputs.observed, action)
    networks, loaded = inputs.observed.networks, inputs.observed.filter
    if isinstance(networks, Unknown) or isinstance(loaded, Unknown):
        return "the host's networks could not be read"
    if action.ve == host_network.FILTER_TARGET:
        wanted = [effect.rules for effect in action.effects if isinstance(effect, LoadFilter)]
        return "" if [loaded.rules] == wanted else "the kernel does not hold the rules that were loaded"
    name = host_network.network_of(action.ve)
    if action.op is Operation.DESTROY:
        return "it is still there" if name in networks else ""
    seen = {n: s for n, s in networks.items() if n == name}
    again = host_network.plan_networks({name: inputs.fleet.networks[name]}, seen, _NO_NETWORKS, inputs.host)
    left = [a for a in again if action.op is Operation.CREATE or a.path == action.path]
    return f"{left[0].path or name} is still {left[0].before!r}, not {left[0].after!r}" if left else ""


def _instance_unfulfilled(observed: HostObservation, action: Action) -> str:
    if isinstance(observed.compute, Unknown):
        return f"the instance's cgroup could not be read: {observed.compute.reason}"
    value = observed.compute.limits.get(Limit(action.path))
    return "" if value == action.after else f"{action.path} is still {value!r}, not {action.after!r}"
