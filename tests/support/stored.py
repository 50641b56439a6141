"""What the VEs of an in-memory host have stored, wherever it lies: nothing of it is ever lost."""

from __future__ import annotations

from reconciler.model.identity import Uid
from reconciler.model.snapshots import SnapshotKind
from reconciler.twin.machine import Machine

ASIDE_S = 7 * 86_400.0
"""How long what was put aside counts. Units: seconds."""


def stored(machine: Machine) -> dict[Uid, set[object]]:
    """Give what each VE has stored, in force, in a snapshot or in the trash: how much, and its files."""
    end = machine.clock.now() - ASIDE_S
    kept = {
        uid: [one.volume for one in those.values() if one.kind is not SnapshotKind.SAFETY or one.taken_at > end]
        for uid, those in machine.snapshots.items()
    }
    volumes = [*machine.volumes.items(), *((uid, volume) for uid, those in kept.items() for volume in those)]
    for entry in machine.trash.values():
        trashed = [entry.volume, *(one.volume for one in entry.snapshots.values())]
        volumes += [(entry.record.uid, volume) for volume in trashed if volume is not None]
    found: dict[Uid, set[object]] = {}
    for uid, volume in volumes:
        found.setdefault(uid, set()).update({volume.used, *volume.content} - {None})
    return found
