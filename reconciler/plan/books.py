"""The record of a VE: what was carried out on it, and what a reviewer sees of a change that only the record holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from reconciler.model.action import Action, Operation, Origin, Phase, Reason
from reconciler.model.facts import Json
from reconciler.model.fleet import VeSpec
from reconciler.model.volume import Record, WriteRecord
from reconciler.plan import actions, compute, settings, snapshots
from reconciler.plan.actions import Context
from reconciler.plan.spec import spec_values


def carried_out(spec: VeSpec, record: Record) -> dict[str, Json]:
    """Give the fields of a spec as they can be on a VE that exists: its template stays what it was made from."""
    return {**snapshots.carried_out(spec, record, spec_values(spec)), "template": record.template}


def completing(
    spec: VeSpec, record: Record, context: Context, *, becomes: Record | None = None
) -> tuple[WriteRecord, ...]:
    """Give what writes the record of a VE that is as its spec says; nothing, if that is what it says already.

    ``becomes``: the record with what no spec says, such as the snapshots that were taken; None: as it is.
    """
    becomes = becomes or record
    protect = record.protect if spec.protect is None else spec.protect
    applied = carried_out(spec, becomes)
    weight = compute.recorded_weight(spec.compute, context.cpu_weight(spec))
    wanted = replace(
        becomes, name=spec.name, protect=protect, applied=applied, cpu_weight=weight, source=context.source
    )
    template = context.templates.get(wanted.template)
    return () if wanted == record else (WriteRecord(record=wanted, template_key=template.key if template else None),)


def bookkeeping(
    spec: VeSpec, record: Record, context: Context, others: Sequence[Action], *, becomes: Record | None = None
) -> tuple[Action, ...]:
    """Bring the record up to the spec: name, protection, source, and what was applied. ``becomes``: as in `completing`.

    It comes after ``others``, the actions that make the spec so: a record ahead of the host would make an unfinished
    change look like one by hand.
    """
    effects = completing(spec, record, context, becomes=becomes)
    if not effects:
        return ()
    shown = list(_announced(spec, record, effects[0].record, others)) if record.applied else []
    written = actions.make(spec, record, Operation.UPDATE, "record", None, [action.path for action in shown], effects)
    written = replace(written, reason=Reason.BOOKKEEPING, origin=Origin.POLICY)
    return tuple(replace(action, phase=Phase.SHRINK) for action in (*shown, written))


def _announced(spec: VeSpec, record: Record, wanted: Record, others: Sequence[Action]) -> Iterator[Action]:
    """Show what no other action shows: what nobody but us reads, and what a VE that is down takes in at its start."""
    if record.name != wanted.name:
        yield actions.make(spec, record, Operation.UPDATE, "name", record.name, wanted.name)
    if record.protect != wanted.protect:
        action = actions.make(spec, record, Operation.UPDATE, "protect", record.protect, wanted.protect)
        danger = "" if wanted.protect else f"{spec.name}: its protection against deletion is lifted"
        yield replace(action, danger=danger)
    paths = [path for action in others for path in action.path.split(",")]
    told = [recorded for path in paths for recorded in settings.recorded_as(path)]
    for path, before, after in _changed(record.applied, wanted.applied):
        if not snapshots.tells_itself(path) and not any(
            path == other or path.startswith(f"{other}.") for other in told
        ):
            yield actions.make(spec, record, Operation.UPDATE, path, before, after)


def _changed(before: Mapping[str, Json], after: Mapping[str, Json]) -> Iterator[tuple[str, Json, Json]]:
    """Yield what differs; an interface that comes or goes as a whole is one difference."""
    links = {_link(path) for path in before.keys() ^ after.keys()}
    whole = {link for link in links if link and _has(before, link) != _has(after, link)}
    for link in sorted(whole):
        yield link, before.get(f"{link}.addresses"), after.get(f"{link}.addresses")
    for path in sorted(before.keys() | after.keys()):
        is_networks_own = _link(path) and path.endswith(".mode")
        if _link(path) not in whole and not is_networks_own and before.get(path) != after.get(path):
            yield path, before.get(path), after.get(path)


def _has(values: Iterable[str], link: str) -> bool:
    return any(_link(path) == link for path in values)


def _link(path: str) -> str:
    """Give the path of the interface that a field belongs to, or ""."""
    return ".".join(path.split(".")[:2]) if path.startswith("interfaces.") else ""
