"""What is kept: the snapshots to be taken, those that nobody wants any more, and those that are lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from reconciler.model.action import Action, Impact, Operation, Origin, Phase, Reason, Refusal, Reversible
from reconciler.model.facts import Json
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import SnapshotName
from reconciler.model.power import Power, PowerState
from reconciler.model.snapshots import (
    DeleteSnapshot,
    SnapshotKind,
    SnapshotObservation,
    SnapshotSchedule,
    TakeSnapshot,
)
from reconciler.model.volume import Record
from reconciler.plan import actions
from reconciler.plan.actions import Context
from reconciler.plan.snapshots import SCHEDULE, Present, awaits_rollback, day, path_of, stamp, unused_name

LOST = "SnapshotLost"
"""The rule that keeps a snapshot of now from passing for one of then."""

_TAKEN, _EXPIRED = f"{SCHEDULE}.taken", "snapshots"
"""Paths of what no manifest names: no name of a snapshot makes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotsPlan:
    """``takes`` come before anything else, ``deletes`` after it. ``births``: as the record has them afterwards.

    ``orphans``: those that nobody wants any more and that are left alone because nobody asked to prune.
    """

    takes: tuple[Action, ...] = ()
    deletes: tuple[Action, ...] = ()
    refused: tuple[Refusal, ...] = ()
    waiting: str = ""
    orphans: tuple[SnapshotName, ...] = ()
    births: Mapping[str, float]


def plan_snapshots(present: Present, context: Context) -> SnapshotsPlan:
    """Plan what is taken and what is deleted."""
    taken, refused, waiting = _named(present, context)
    found = (*_removed(present), *_schedule_removed(present))
    protected = _protected(present, found) if context.prunes else ()
    unwanted = found if context.prunes and not protected else ()
    scheduled = () if awaits_rollback(present.spec, present.record) else _scheduled(present, context)
    return SnapshotsPlan(
        takes=(*taken.values(), *scheduled),
        deletes=(*unwanted, *_expired(present, context)),
        refused=(*refused, *protected),
        waiting=waiting,
        orphans=() if context.prunes else tuple(_lost_by(found)),
        births=_births(present, taken.keys(), _lost_by(unwanted), context.now),
    )


def _births(
    present: Present, taken: Iterable[SnapshotName], gone: Iterable[SnapshotName], now: float
) -> dict[str, float]:
    """Give the births of all that were taken, lost ones included, but for those that nobody wants any more."""
    seen, named, before = present.observed.snapshots, present.spec.snapshots.named, present.record.snapshot_births
    births = {name: born for name, born in before.items() if name in named or name in seen}
    births |= {name: seen[name].taken_at for name in named if name in seen and name not in births}
    births |= dict.fromkeys(taken, now)
    return {name: births[name] for name in sorted(births.keys() - set(gone))}


def _named(present: Present, context: Context) -> tuple[dict[SnapshotName, Action], list[Refusal], str]:
    """Give what is to be taken, what cannot be, and what the rest waits for."""
    taken: dict[SnapshotName, Action] = {}
    refused, waiting = [], ""
    for name, memory in sorted(present.spec.snapshots.named.items()):
        kept = present.observed.snapshots.get(name)
        if refusal := _refusal(present, name, memory, kept):
            refused.append(refusal)
        elif kept is None and memory and present.power.state not in (PowerState.RUNNING, PowerState.SUSPENDED):
            waiting = f"snapshot {name} is to keep the memory, and waits for it to run"
        elif kept is None and present.power.state is not PowerState.CREATED:
            taken[name] = _take(present, name, memory, context)
    return taken, refused, waiting


def _refusal(present: Present, name: SnapshotName, memory: bool, kept: SnapshotObservation | None) -> Refusal | None:
    if kept is None and name in present.record.snapshot_births:
        born = day(present.record.snapshot_births[name])
        message = f"snapshot {name}, taken {born}, is not there any more"
        remedy = f"take {name!r} out of the manifest; a snapshot of now needs another name, to be none of then"
        return present.refuse(LOST, message, remedy)
    if kept is not None and kept.memory is not memory:
        message = f"snapshot {name} was taken {'with' if kept.memory else 'without'} memory, which stays so"
        return present.refuse("SnapshotFixed", message, f"say memory: {str(kept.memory).lower()}, or name another one")
    if kept is None and memory and present.power.state is PowerState.STOPPED and _stays_down(present.spec):
        message = f"snapshot {name} is to keep the memory of a VE that is not to run"
        return present.refuse("NotRunning", message, "set power: running, or say memory: false")
    return None


def _stays_down(spec: VeSpec) -> bool:
    return spec.power.state is not Power.RUNNING


def _take(present: Present, name: SnapshotName, memory: bool, context: Context) -> Action:
    effect = TakeSnapshot(uid=present.record.uid, name=name, memory=memory)
    after: Json = {"memory": memory}
    action = actions.make(present.spec, present.record, Operation.UPDATE, path_of(name), None, after, (effect,))
    if not memory:
        return replace(action, impact=Impact.LIVE)
    return actions.with_downtime(replace(action, impact=Impact.PAUSE), context)


def _scheduled(present: Present, context: Context) -> tuple[Action, ...]:
    """Take the snapshot that is due; of a VE that does not run nothing changes that it could keep."""
    schedule = present.spec.snapshots.schedule
    if schedule is None or present.power.state is not PowerState.RUNNING or not _is_due(present, schedule, context.now):
        return ()
    name = unused_name(f"auto-{stamp(context.now)}", present.observed)
    effect = TakeSnapshot(uid=present.record.uid, name=name, kind=SnapshotKind.SCHEDULED)
    action = actions.make(present.spec, present.record, Operation.UPDATE, _TAKEN, None, name, (effect,))
    return (replace(action, impact=Impact.LIVE, origin=Origin.POLICY, reason=Reason.SNAPSHOT_DUE),)


def _is_due(present: Present, schedule: SnapshotSchedule, now: float) -> bool:
    """Say whether none is young enough; one from the future is as far away as one from the past: clocks are set."""
    taken = (kept.taken_at for _, kept in present.of_kind(SnapshotKind.SCHEDULED))
    return not any(abs(now - at) < schedule.every_s for at in taken)


def _protected(present: Present, deletions: Iterable[Action]) -> tuple[Refusal, ...]:
    """Refuse the deletion of what left the manifest of a VE that is protected."""
    names = _lost_by(deletions)
    if not names or not is_protected(present.spec, present.record):
        return ()
    message = f"the manifest names {', '.join(names)} no more, but the VE is protected, and its snapshots with it"
    remedy = "put it back, or let it go with protect: false"
    return (present.refuse("Protected", message, remedy),)


def _lost_by(deletions: Iterable[Action]) -> list[SnapshotName]:
    return [effect.name for action in deletions for effect in action.effects if isinstance(effect, DeleteSnapshot)]


def is_protected(spec: VeSpec, record: Record) -> bool:
    """Say whether a VE refuses the loss of its data."""
    return record.protect if spec.protect is None else spec.protect


def _removed(present: Present) -> Iterator[Action]:
    for name, kept in present.of_kind(SnapshotKind.NAMED):
        if name not in present.spec.snapshots.named and name not in present.needed:
            danger = f"snapshot {name} of {day(kept.taken_at)} is deleted for good"
            yield _lose(present, path_of(name), {"memory": kept.memory}, (name,), danger)


def _schedule_removed(present: Present) -> Iterator[Action]:
    names = [name for name, _ in present.of_kind(SnapshotKind.SCHEDULED) if name not in present.needed]
    if present.spec.snapshots.schedule is None and names:
        before = present.record.applied.get(SCHEDULE, len(names))
        danger = f"{len(names)} snapshots that its schedule took are deleted for good"
        yield _lose(present, SCHEDULE, before, tuple(names), danger)


def _lose(present: Present, path: str, before: Json, names: tuple[SnapshotName, ...], danger: str) -> Action:
    effects = tuple(DeleteSnapshot(uid=present.record.uid, name=name) for name in names)
    action = actions.make(present.spec, present.record, Operation.UPDATE, path, before, None, effects)
    return replace(
        action,
        impact=Impact.DATA_LOSS,
        reversible=Reversible.NO,
        phase=Phase.SHRINK,
        danger=f"{present.spec.name}: {danger}",
    )


def _expired(present: Present, context: Context) -> tuple[Action, ...]:
    """Delete what a schedule keeps no longer, and what was put aside long enough ago."""
    names = [
        name for name in (*_beyond_keep(present), *_aside_for_long(present, context)) if name not in present.needed
    ]
    if not names:
        return ()
    effects = tuple(DeleteSnapshot(uid=present.record.uid, name=name) for name in names)
    action = actions.make(present.spec, present.record, Operation.UPDATE, _EXPIRED, [*names], [], effects)
    return (
        replace(
            action,
            impact=Impact.DATA_LOSS,
            reversible=Reversible.NO,
            origin=Origin.POLICY,
            reason=Reason.SNAPSHOT_EXPIRED,
            phase=Phase.SHRINK,
        ),
    )


def _beyond_keep(present: Present) -> list[SnapshotName]:
    schedule = present.spec.snapshots.schedule
    if schedule is None:
        return []
    return [name for name, _ in present.of_kind(SnapshotKind.SCHEDULED)][: -schedule.keep]


def _aside_for_long(present: Present, context: Context) -> Iterator[SnapshotName]:
    for name, kept in present.of_kind(SnapshotKind.SAFETY):
        if context.now - kept.taken_at >= context.keep_s:
            yield name
