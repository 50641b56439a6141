"""Snapshots: the states of a VE's data that are kept, and the returns to one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from reconciler.model.identity import Digest, SnapshotName, TemplateName, Uid, VeName

OWN_SNAPSHOT = re.compile(r"(?:auto|before-.+)-[0-9]{8}T[0-9]{6}Z(?:-[0-9]+)?", re.ASCII)
"""The names of snapshots that no manifest declares: of schedules, and of what was put aside."""


class SnapshotKind(StrEnum):
    """Who wants a snapshot: a manifest by name, a schedule, or nobody but prudence before data is replaced."""

    NAMED = "named"
    SCHEDULED = "scheduled"
    SAFETY = "safety"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSchedule:
    """Snapshots by the clock. Units: ``every_s`` seconds between two; ``keep`` how many of them are kept."""

    every_s: float
    keep: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRequest:
    """A return to a snapshot, done once for each pair of ``to`` and ``request``."""

    to: SnapshotName
    request: str

    @property
    def id(self) -> str:
        """The request as records and volumes know it, e.g. ``golden: 2026-11-23 bad upgrade``."""
        return f"{self.to}: {self.request}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotsSpec:
    """``named``: the snapshots that are to exist, and whether each keeps the memory too."""

    named: Mapping[SnapshotName, bool] = field(default_factory=dict)
    schedule: SnapshotSchedule | None = None
    rollback: RollbackRequest | None = None

    @property
    def most(self) -> int:
        """How many there may come to be: the named, those that the schedule keeps, and what a rollback puts aside."""
        return kept_at_most(len(self.named), self.schedule.keep if self.schedule else 0)


def kept_at_most(named: int, scheduled: int) -> int:
    """Give how many snapshots there may come to be: with any, one more is put aside by the return to it."""
    return named + scheduled + 1 if named + scheduled else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneSource:
    """A VE whose data a new VE begins with: that of a snapshot, or its present data if ``snapshot`` is None."""

    ve: VeName
    snapshot: SnapshotName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshSource:
    """A new VE begins with nothing but its template, even if data of its name or uid is in the trash."""


Source: TypeAlias = CloneSource | FreshSource


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeMark:
    """What lies in a volume that was put in the place of another one, so that both change places in one step.

    ``request``: the rollback that put it there, None for a new root file system. ``template`` and ``template_digest``:
    what it is mounted on, whatever the record says until that is written.
    """

    request: str | None
    template: TemplateName
    template_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotObservation:
    """A snapshot that is there, whole. ``template_digest``: of the image that its data was mounted on.

    Units: ``taken_at`` seconds since the epoch; ``used`` bytes that nothing else holds, None where nobody knows.
    """

    kind: SnapshotKind
    taken_at: float
    template: TemplateName
    template_digest: Digest
    memory: bool = False
    used: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotsObservation:
    """``mark``: what the present volume was put there by, None for the one that the VE was born with."""

    snapshots: Mapping[SnapshotName, SnapshotObservation] = field(default_factory=dict)
    mark: VolumeMark | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeSnapshot:
    """Keep the present data of a VE, as it was at one instant: a running VE stands still for it, and goes on.

    ``memory``: its processes too, so that they can go on from there.
    """

    uid: Uid
    name: SnapshotName
    kind: SnapshotKind = SnapshotKind.NAMED
    memory: bool = False
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteSnapshot:
    """Delete a snapshot with its data, for good."""

    uid: Uid
    name: SnapshotName
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollBack:
    """Put the data of a snapshot in the place of that of a stopped VE, which is kept as the snapshot ``safety``.

    A snapshot with memory leaves the VE suspended, to go on from there; a memory that was on disk goes to ``safety``
    with the data that it belongs to. ``request``: what the mark in the new volume says.
    Units: ``size`` and ``total`` bytes, the limits of the new volume as of one that is made.
    """

    uid: Uid
    to: SnapshotName
    request: str
    safety: SnapshotName
    size: int | None
    total: int | None = None
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceVolume:
    """Put an empty volume on another template in the place of that of a stopped VE, kept as the snapshot ``safety``.

    ``keep``: directories inside that are carried over with all that they hold, absolute paths. The rest as in
    `CreateVolume`.
    """

    uid: Uid
    template: TemplateName
    template_key: Digest
    safety: SnapshotName
    size: int | None
    keep: tuple[str, ...] = ()
    total: int | None = None
    is_image: bool = False
    room: int | None = None
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneVolume:
    """Make the volume of a new VE from the data of another one, with an identity of its own: no machine id, new keys
    of its ssh server.

    ``snapshot``: of the source; None for its present data. Units: bytes, as in `CreateVolume`.
    """

    uid: Uid
    source: Uid
    snapshot: SnapshotName | None
    size: int | None
    total: int | None = None
    serves: str = field(default="", compare=False)
