"""Placement: on which host a VE is, and what carries it to another one.

A move is known by an id. Below it lie *parcels*: the pieces that a VE is sent in, each of which arrives whole or not at
all. What a host holds on behalf of a move stands still until it is told what has become of it, also over the end of the
agent; no time-out decides that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.model.identity import Digest, Uid
from reconciler.model.volume import Record


class Held(StrEnum):
    """What stands still on behalf of a move.

    `LEAVING`: at the source, its processes frozen and its network cut. `ARRIVED`: at the target, its processes restored
    and its network closed, none of them having taken a step.
    """

    LEAVING = "leaving"
    ARRIVED = "arrived"


class ParcelKind(StrEnum):
    """`TEMPLATE`: an image by its digest. `SNAPSHOT`: a snapshot of the VE by its name, data and memory. `DATA`: the
    volume as it was at one instant, by number. `MEMORY`: the processes of a VE that is held or suspended."""

    TEMPLATE = "template"
    SNAPSHOT = "snapshot"
    DATA = "data"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A piece that is sent at once. ``parent``: the one of which it is a difference, to be there before it.

    Units: ``size`` bytes, an estimate; None where nothing is known.
    """

    kind: ParcelKind
    name: str
    parent: str | None = None
    size: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cargo:
    """What the target needs to know of a VE before anything is sent.

    Shape: ``facts`` says what the source has that the target must have as well (kernel, criu, CPU features, kinds of
    networks), by name. Units: bytes; ``memory`` None where it does not run.
    """

    record: Record
    template: Digest
    data: int
    snapshots: int
    memory: int | None
    is_image: bool
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutParcel:
    """Keep the data of a VE as they are now, as parcel `ParcelKind.DATA` of that number; there already is success."""

    uid: Uid
    move: str
    number: int
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRuntime:
    """Freeze a running VE, cut its network, and write its memory and its last data, as parcel ``number``, which must be
    a new one; then hold it there. Fails with it going on as if nothing had been; held for that move is success."""

    uid: Uid
    move: str
    number: int
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeHeld:
    """Let a VE go on that was held to leave, with its network; nothing of the dump is left but the data of that
    instant. Not held is success."""

    uid: Uid
    move: str
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndHeld:
    """End the processes of a VE that was held to leave, unseen by whoever it talks to; ended is success."""

    uid: Uid
    move: str
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRuntime:
    """Let the processes run of a VE that was started closed, once its network is open; running is success."""

    uid: Uid
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceArrival:
    """Make the parcels that have arrived a VE of this host, stopped or suspended, its record as given; there already
    is success."""

    record: Record
    move: str
    serves: str = field(default="", compare=False)

    @property
    def uid(self) -> Uid:
        """The VE's identity."""
        return self.record.uid


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearMove:
    """Delete all parcels of a move on this host, sent or received; what was placed stays. Absent is success."""

    uid: Uid
    move: str
    serves: str = field(default="", compare=False)
