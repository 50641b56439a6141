"""Who is who: which VE of the host a spec speaks of, by uid, then by name, then by the former name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.model.facts import Unknown
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import Uid, VeName
from reconciler.model.observation import VeObservation
from reconciler.model.snapshots import FreshSource
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
    wanted = tuple(specs)
    found = _claims(wanted, ves)
    entries = sorted(trash, key=lambda entry: (entry.trashed_at, entry.id), reverse=True)
    absent = {spec.name: _find_in_trash(spec, entries) for spec in wanted if spec.name not in found}
    claimed = {ve.uid for ve in found.values()}
    return Matches(
        existing=tuple((spec, found[spec.name]) for spec in wanted if spec.name in found),
        trashed=tuple((spec, entry) for spec in wanted if (entry := absent.get(spec.name)) is not None),
        new=tuple(spec for spec in wanted if spec.name in absent and absent[spec.name] is None),
        unclaimed=tuple(sorted((ve for uid, ve in ves.items() if uid not in claimed), key=_name_and_uid)),
    )


def _name_and_uid(ve: VeObservation) -> tuple[str, Uid]:
    return ("" if isinstance(ve.record, Unknown) else ve.record.name), ve.uid


def _claims(specs: Iterable[VeSpec], ves: Mapping[Uid, VeObservation]) -> dict[VeName, VeObservation]:
    """Give each spec its VE: all those that name a uid first, so that nobody else takes theirs by its old name."""
    wanted = tuple(specs)
    found = {spec.name: ves[spec.uid] for spec in wanted if spec.uid is not None and spec.uid in ves}
    taken = {ve.uid for ve in found.values()}
    by_name: dict[VeName, VeObservation] = {}
    for uid, ve in sorted(ves.items()):
        if uid not in taken and not isinstance(ve.record, Unknown):
            by_name.setdefault(ve.record.name, ve)
    unpinned = [spec for spec in wanted if spec.uid is None]
    for spec, name in (*((s, s.name) for s in unpinned), *((s, s.renamed_from) for s in unpinned)):
        if name is not None and spec.name not in found and name in by_name:
            found[spec.name] = by_name.pop(name)
    return found


def _find_in_trash(spec: VeSpec, entries: Iterable[TrashEntry]) -> TrashEntry | None:
    if isinstance(spec.source, FreshSource):
        return None
    for entry in entries:
        key = entry.record.name if spec.uid is None else entry.record.uid
        if key == (spec.name if spec.uid is None else spec.uid):
            return entry
    return None
