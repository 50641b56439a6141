"""Removal, and everything that stands in its way: a removal is carried out only on positive evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconciler.model.action import (
    Action,
    Downtime,
    Impact,
    Operation,
    Origin,
    Phase,
    Reason,
    Refusal,
    Reversible,
    UnknownFact,
)
from reconciler.model.compute import RemoveCgroup
from reconciler.model.facts import Json, Unknown
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import Uid, VeName
from reconciler.model.observation import VeObservation
from reconciler.model.power import PowerObservation
from reconciler.model.volume import PurgeTrash, Record, TrashEntry, TrashVe
from reconciler.plan import power
from reconciler.plan.inputs import Inputs
from reconciler.plan.spec import unknown_paths

MASS_REMOVAL_SHARE = 0.1
"""More than this share of a source's or a host's VEs within a day stops until consent. Units: fraction.

One VE may always go.
"""

PROTECTED = "Protected"
"""The rule that keeps a protected VE."""

_GOES_ALONG = "network"
"""The facet that a removal need not know: it ends with the VE, whose root could keep it from being read for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """How many VEs are there, and how many more were until they were removed within the last day."""

    present: int
    removed: int = 0

    def loses_too_many(self, count: int) -> bool:
        """Say whether removing ``count`` of them, with those of the last day, is more than goes without asking."""
        return count + self.removed > max(1, MASS_REMOVAL_SHARE * (self.present + self.removed))


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRules:
    """``source``: only VEs that came from it. ``inventory``: only VEs that this host made. ``pending``: names whose
    absence is too young to count. ``on``: whether to prune at all. ``of_host``, ``of_source``: what there is to lose.
    """

    source: str
    inventory: frozenset[Uid]
    on: bool = True
    pending: frozenset[VeName] = frozenset()
    of_host: Stock
    of_source: Stock


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """``mass``: the number of removals if it is one that needs consent, else 0."""

    actions: tuple[Action, ...] = ()
    refused: tuple[Refusal, ...] = ()
    unknown: tuple[UnknownFact, ...] = ()
    waiting: tuple[tuple[str, str], ...] = ()
    orphans: tuple[str, ...] = ()
    mass: int = 0


def rules_of(inputs: Inputs) -> PruneRules:
    """Give what the removals of a host are bound by."""
    records = [seen.record for seen in inputs.observed.ves.values()]
    ours = sum(isinstance(record, Record) and record.source == inputs.source for record in records)
    return PruneRules(
        source=inputs.source,
        inventory=inputs.inventory,
        on=inputs.prune,
        pending=inputs.prune_pending,
        of_host=Stock(present=len(records) + len(inputs.beside), removed=inputs.removed_recently),
        of_source=Stock(present=ours + len(inputs.beside), removed=inputs.removed_from_source),
    )


def plan_prune(
    unclaimed: Sequence[VeObservation], new: Sequence[VeSpec], fleet_names: frozenset[VeName], rules: PruneRules
) -> PrunePlan:
    """Plan the removal of VEs that no manifest of the whole fleet names any more."""
    actions, refused, unknown, waiting, orphans = [], [], [], [], []
    for ve in unclaimed:
        if paths := {path: reason for path, reason in unknown_paths(ve).items() if path != _GOES_ALONG}:
            unknown += [UnknownFact(ve=_name(ve), path=path, reason=reason) for path, reason in paths.items()]
            continue
        assert isinstance(ve.record, Record)
        record = ve.record
        if record.name in fleet_names:
            refused.append(_placed_elsewhere(record))
        elif not _is_ours(record, rules):
            continue
        elif not rules.on:
            orphans.append(str(record.name))
        elif refusal := _refusal(record, new):
            refused.append(refusal)
        elif record.name in rules.pending:
            waiting.append((str(record.name), "removed from the directory; waits for the prune delay"))
        else:
            actions.append(_remove(ve, record))
    if unknown:  # nothing is pruned while anything is not known
        return PrunePlan(refused=tuple(refused), unknown=tuple(unknown), orphans=tuple(orphans))
    return PrunePlan(
        actions=tuple(actions),
        refused=tuple(refused),
        waiting=tuple(waiting),
        orphans=tuple(orphans),
        mass=_mass(len(actions), rules),
    )


def _name(ve: VeObservation) -> str:
    return str(ve.uid if isinstance(ve.record, Unknown) else ve.record.name)


def _placed_elsewhere(record: Record) -> Refusal:
    return Refusal(
        ve=record.name,
        uid=record.uid,
        rule="NoCoordinator",
        message="its manifest names another host or another uid now, but its data is here and nobody can move it",
        remedy="put `host` back, or set up a coordinator",
    )


def _refusal(record: Record, new: Sequence[VeSpec]) -> Refusal | None:
    if record.protect:
        return Refusal(
            ve=record.name,
            uid=record.uid,
            rule=PROTECTED,
            message="its manifest is gone, but it is protected",
            remedy=f"`vectl unprotect {record.name}` lets it go, putting the manifest back keeps it",
        )
    for spec in new:
        if why := _alike(record, spec):
            return Refusal(
                ve=record.name,
                uid=record.uid,
                rule="LooksLikeRename",
                message=f"it disappears while {spec.name!r} appears with the same {why}",
                remedy=f"add `renamedFrom: {record.name}` (or `uid: {record.uid}`) to the metadata of {spec.name!r}",
            )
    return None


def _is_ours(record: Record, rules: PruneRules) -> bool:
    return record.source == rules.source and record.uid in rules.inventory


def _alike(record: Record, spec: VeSpec) -> str:
    """Say what a VE that appears has in common with one that disappears; nothing, if its manifest says who it is."""
    if spec.uid is not None or spec.renamed_from is not None:
        return ""
    mine = _recorded_addresses(record.applied)
    theirs = {str(a) for interface in spec.network.interfaces.values() for a in interface.addresses}
    if shared := sorted(mine & theirs):
        return f"address {shared[0]}"
    hostname = record.applied.get("hostname")
    if hostname == spec.network.hostname and hostname != record.name:
        return f"hostname {hostname}"
    return ""


def _recorded_addresses(applied: Mapping[str, Json]) -> set[str]:
    found: set[str] = set()
    for path, value in applied.items():
        if path.startswith("interfaces.") and path.endswith(".addresses") and isinstance(value, list):
            found |= {str(address) for address in value}
    return found


def refuse_taken_names(unclaimed: Sequence[VeObservation], coming: Sequence[VeSpec]) -> dict[VeName, Refusal]:
    """Refuse VEs that would come beside one of the same name: a manifest pins another uid than the VE has."""
    taken = {ve.record.name: ve.record.uid for ve in unclaimed if isinstance(ve.record, Record)}
    return {
        spec.name: Refusal(
            ve=spec.name,
            rule="NameTaken",
            message=f"a VE of this name is here with the uid {taken[spec.name]}, another than the manifest's",
            remedy=f"write `uid: {taken[spec.name]}`, or give the new VE another name",
        )
        for spec in coming
        if spec.name in taken
    }


def refuse_renames(
    unclaimed: Sequence[VeObservation], new: Sequence[VeSpec], fleet_names: frozenset[VeName], rules: PruneRules
) -> dict[VeName, Refusal]:
    """Refuse new VEs that may be one that disappears, under another name."""
    gone = [ve.record for ve in unclaimed if isinstance(ve.record, Record) and ve.record.name not in fleet_names]
    return {
        spec.name: _looks_renamed(record, spec, why)
        for spec in new
        for record in gone
        if _is_ours(record, rules) and (why := _alike(record, spec))
    }


def _looks_renamed(record: Record, spec: VeSpec, why: str) -> Refusal:
    return Refusal(
        ve=spec.name,
        rule="LooksLikeRename",
        message=f"it appears while {record.name!r} disappears, with the same {why}",
        remedy=f"add `renamedFrom: {record.name}` (or `uid: {record.uid}`) to the metadata of {spec.name!r}",
    )


def _remove(ve: VeObservation, record: Record) -> Action:
    assert isinstance(ve.power, PowerObservation)
    uid = record.uid
    effects = (
        *power.stop_effects(uid, power.stop_timeout_s(record.applied), ve.power),
        RemoveCgroup(uid=uid),
        TrashVe(uid=uid),
    )
    return Action(
        ve=record.name,
        uid=uid,
        op=Operation.DESTROY,
        path="",
        before=record.name,
        after=None,
        reason=Reason.MANIFEST_REMOVED,
        impact=Impact.RESTART,
        origin=Origin.GIT,
        phase=Phase.DESTROY,
        downtime=Downtime(None),
        reversible=Reversible.YES,
        danger=f"{record.name}: stopped and moved to the trash, where its data is kept for a while",
        effects=effects,
    )


def _mass(count: int, rules: PruneRules) -> int:
    too_many = rules.of_host.loses_too_many(count) or rules.of_source.loses_too_many(count)
    return count if count and too_many else 0


def plan_purge(trash: Sequence[TrashEntry], now: float, keep_s: float) -> tuple[Action, ...]:
    """Plan the end of what has been in the trash long enough. Units: seconds; ``now`` since the epoch."""
    old = sorted((entry for entry in trash if now - entry.trashed_at >= keep_s), key=lambda entry: entry.id)
    return tuple(
        Action(
            ve=entry.record.name,
            uid=entry.record.uid,
            op=Operation.DESTROY,
            path="trash",
            before=entry.id,
            after=None,
            reason=Reason.TRASH_EXPIRED,
            impact=Impact.DATA_LOSS,
            origin=Origin.POLICY,
            phase=Phase.PURGE,
            reversible=Reversible.NO,
            effects=(PurgeTrash(trash_id=entry.id),),
        )
        for entry in old
    )
