"""Who is who: which VE of the host a spec speaks of, by uid, then by name, then by the former name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.model.facts import Unknown
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import Uid, VeName
from reconciler.model.observation import VeObservation
from reconciler.model.volume import TrashEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """``existing``: spec and observation. ``trashed``: spec and entry. ``new``: specs of nothing that is here.

    ``unclaimed``: VEs of the host that no spec speaks of.
    """

    existing: tuple[tuple[VeSpec, VeObservation], ...] = ()
    trashed: tuple[tuple[VeSpec, TrashEntry], ...] = ()
    new: tuple[VeSpec, ...] = ()
    unclaimed: tuple[VeObservation, ...] = field(default=())


def match(specs: Iterable[VeSpec], ves: Mapping[Uid, VeObservation], trash: Iterable[TrashEntry]) -> Matches:
    """Match specs with what is on the host; a spec without a VE looks for its data in the trash, newest first."""
    by_name = {ve.record.name: ve for ve in ves.values() if not isinstance(ve.record, Unknown)}
    entries = sorted(trash, key=lambda entry: entry.trashed_at, reverse=True)
    existing, trashed, new = [], [], []
    claimed: set[Uid] = set()
    for spec in specs:
        found = _find(spec, ves, by_name, claimed)
        entry = None if found else _find_in_trash(spec, entries)
        if found is not None:
            claimed.add(found.uid)
            existing.append((spec, found))
        elif entry is not None:
            trashed.append((spec, entry))
        else:
            new.append(spec)
    unclaimed = tuple(ve for uid, ve in sorted(ves.items()) if uid not in claimed)
    return Matches(existing=tuple(existing), trashed=tuple(trashed), new=tuple(new), unclaimed=unclaimed)


def _find(
    spec: VeSpec, ves: Mapping[Uid, VeObservation], by_name: Mapping[VeName, VeObservation], claimed: set[Uid]
) -> VeObservation | None:
    if spec.uid is not None:
        return ves.get(spec.uid)
    for name in (spec.name, spec.renamed_from):
        found = by_name.get(name) if name is not None else None
        if found is not None and found.uid not in claimed:
            return found
    return None


def _find_in_trash(spec: VeSpec, entries: Iterable[TrashEntry]) -> TrashEntry | None:
    for entry in entries:
        if spec.uid is not None and entry.record.uid == spec.uid:
            return entry
        if spec.uid is None and entry.record.name == spec.name:
            return entry
    return None
