"""Admission: what the VEs of a host decide together, and what is left to one that cannot have all it asks for."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping

from reconciler.model.action import Refusal
from reconciler.model.capacity import Resource, Supply, bounded, machine_of, supplies
from reconciler.model.facts import Json, Unknown
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import VeName
from reconciler.model.observation import VeObservation
from reconciler.model.volume import Record
from reconciler.plan import capacity, keeping_out, policy, prune, ve
from reconciler.plan.inputs import Inputs, context_of, pause_of, specs_here
from reconciler.plan.matching import Matches


def refuse(inputs: Inputs, matches: Matches, *, only: frozenset[VeName] | None) -> dict[VeName, Refusal]:
    """Refuse what the VEs of the host decide together: who is who, how many they are, and what they share."""
    return {**short(inputs, only=only), **_refuse_births(inputs, matches)}


def _refuse_births(inputs: Inputs, matches: Matches) -> dict[VeName, Refusal]:
    names = frozenset(inputs.fleet.ves)
    coming = (*(spec for spec, _ in matches.trashed), *matches.new)
    return {
        **keeping_out.refuse(inputs.fleet, inputs.host, coming),
        **policy.refuse_births(inputs.policy, coming, present=len(inputs.observed.ves)),
        **prune.refuse_renames(matches.unclaimed, matches.new, names, prune.rules_of(inputs)),
        **prune.refuse_taken_names(matches.unclaimed, coming),
    }


def short(inputs: Inputs, *, only: frozenset[VeName] | None) -> dict[VeName, Refusal]:
    """Refuse the VEs that the host has no room for. It takes a look at all of them, so only where some want more.

    ``only``: these VEs; None: all.
    """
    observed = {uid: seen.record for uid, seen in inputs.observed.ves.items() if isinstance(seen.record, Record)}
    supply, ves = _supply(inputs), inputs.fleet.ves
    asking = [ves[name] for name in (ves if only is None else only) if name in ves]
    asking = capacity.growing(asking, observed, bounded(supply))
    if not asking:
        return {}
    records = {**inputs.known.records, **observed}
    if not capacity.growing(asking, records, bounded(supply)):
        return {}
    request = capacity.Request(
        host=inputs.host,
        specs=(*specs_here(inputs), *inputs.beside),
        records=records,
        supply=supply,
        is_held_back=_is_held_back(inputs),
    )
    found = capacity.refused(request)
    return {name: refusal for name, refusal in found.items() if only is None or name in only}


def _supply(inputs: Inputs) -> dict[Resource, Supply]:
    machine = machine_of(inputs.observed)
    if Resource.DISK not in machine and inputs.known.pool is not None:
        machine[Resource.DISK] = inputs.known.pool
    return supplies(inputs.fleet.hosts.get(inputs.host), machine)


def _is_held_back(inputs: Inputs) -> Callable[[VeSpec, Mapping[str, Json]], bool]:
    context = context_of(inputs)

    def is_held_back(spec: VeSpec, applied: Mapping[str, Json]) -> bool:
        return pause_of(inputs, spec.name) is not None or bool(ve.refuse_at_all(spec, context, applied))

    return is_held_back


def held(spec: VeSpec, seen: VeObservation) -> VeSpec:
    """Give a spec without what its VE asks for beyond what it has by now."""
    record = seen.record
    return spec if isinstance(record, Unknown) or not record.applied else capacity.held_to(spec, record.applied)


def admitted(matches: Matches, refused: Container[VeName]) -> Iterator[VeSpec]:
    """Yield what is carried out of the specs of this host: nothing of VEs that are refused before they are made."""
    for spec, seen in matches.existing:
        yield held(spec, seen) if spec.name in refused else spec
    coming = (*(spec for spec, _ in matches.trashed), *matches.new)
    yield from (spec for spec in coming if spec.name not in refused)
