"""Placement: what the in-memory host keeps to be sent to another one, and what it makes of what has arrived."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias, assert_never

from reconciler.errors import BusyError, StateError
from reconciler.model.identity import Digest, SnapshotName, Uid
from reconciler.model.placement import ClearMove, CutParcel, Parcel, ParcelKind, PlaceArrival
from reconciler.twin import volume
from reconciler.twin.machine import Arrived, Kept, Machine, Memory, Volume

PlacementEffect: TypeAlias = CutParcel | PlaceArrival | ClearMove

MEMORY = "memory"
"""The name of the one parcel of its kind."""

_MOVE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")


def perform(machine: Machine, effect: PlacementEffect) -> None:
    """Carry out one effect.

    Raises: BusyError, NoSpaceError, StateError, TemplateError.
    """
    need_move(effect.move)
    match effect:
        case CutParcel():
            _cut(machine, effect)
        case PlaceArrival():
            _place(machine, effect)
        case ClearMove():
            machine.cut.pop((effect.uid, effect.move), None)
            machine.arrived.pop((effect.uid, effect.move), None)
        case _:
            assert_never(effect)


def data_parcel(number: int) -> str:
    """Name the parcel of a VE's data of that number."""
    return str(Parcel(kind=ParcelKind.DATA, name=str(number)))


def keep(machine: Machine, uid: Uid, move: str, parcels: Mapping[str, Volume | Memory]) -> None:
    """Keep what is to be sent. Shape: by the parcel's words."""
    machine.cut[uid, move] = {**machine.cut.get((uid, move), {}), **parcels}


def _cut(machine: Machine, effect: CutParcel) -> None:
    uid, doing = effect.uid, f"cut parcel {effect.number} of VE {effect.uid}"
    if effect.number < 0:
        raise StateError(f"{doing}: expected a number from 0 on")
    volume.require_record(machine, uid, doing)
    if data_parcel(effect.number) in machine.cut.get((uid, effect.move), {}):
        return
    present = volume.require_volume(machine, uid, doing)
    if uid in machine.runtimes and not machine.runtimes[uid].is_running:
        raise BusyError(f"{doing}: its init was not let go yet")
    volume.require_space(machine, doing)
    machine.volumes[uid] = replace(present, shares=True)
    keep(machine, uid, effect.move, {data_parcel(effect.number): data_of(machine, uid, present)})


def data_of(machine: Machine, uid: Uid, present: Volume) -> Volume:
    """Give the data that a VE goes on from: of a suspended one those of its memory, with what was done to it since."""
    memory = machine.memories.get(uid)
    if memory is None or uid in machine.runtimes:
        return present
    return replace(present, content=memory.volume.content, resolver=memory.volume.resolver)


def _place(machine: Machine, effect: PlaceArrival) -> None:
    uid, record, doing = effect.uid, effect.record, f"place VE {effect.uid}"
    if uid in machine.records:
        return
    arrived = machine.arrived.get((uid, effect.move), {})
    newest = _newest(arrived)
    if newest is None or newest.volume is None:
        raise StateError(f"{doing}: its data have not arrived")
    kept = {SnapshotName(_name(words)): it.kept for words, it in arrived.items() if it.kept is not None}
    mark = newest.volume.mark
    for digest in (mark.template_digest if mark else record.template_digest, *_images(kept)):
        volume.require_image(machine, digest, doing)
    volume.require_space(machine, doing)
    machine.volumes[uid] = replace(newest.volume, shares=bool(kept))
    machine.snapshots[uid] = kept
    for it in arrived.values():
        if it.memory is not None:
            machine.memories[uid] = it.memory
    if newest.ledger is not None:
        machine.ledgers[uid] = newest.ledger
    machine.records[uid] = record


def _newest(arrived: Mapping[str, Arrived]) -> Arrived | None:
    numbers = [int(_name(words)) for words, it in arrived.items() if it.volume is not None]
    return arrived[data_parcel(max(numbers))] if numbers else None


def _images(kept: Mapping[SnapshotName, Kept]) -> list[Digest]:
    return [it.template_digest for it in kept.values()]


def _name(words: str) -> str:
    return words.partition(":")[2]


def need_move(move: str) -> None:
    """Refuse whatever could lead out of the directory of moves as a name."""
    if _MOVE.fullmatch(move) is None:
        raise StateError(f"find move {move!r}: expected letters, digits and dashes")
