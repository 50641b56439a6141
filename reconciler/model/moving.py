"""Moving: how far the move of a VE is, as each of its two hosts writes it down before it goes further."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from reconciler.model.identity import Uid
from reconciler.model.ownership import Move


class SourcePhase(StrEnum):
    """How far the host is that a VE leaves; each is on disk before the first thing that it allows is done.

    `PREPARING`: what it has is copied while it goes on as it did. `HOLDING`: it stands still, or is made to.
    `COMMITTING`: ownership was handed over, or may have been. `COMMITTED`: it was, surely. `ENDING`: the target runs
    it, and the copy here may go. `RETURNING`: it stays here, and ownership surely never leaves by this move.
    """

    PREPARING = "preparing"
    HOLDING = "holding"
    COMMITTING = "committing"
    COMMITTED = "committed"
    ENDING = "ending"
    RETURNING = "returning"


class TargetPhase(StrEnum):
    """How far the host is that a VE comes to.

    `RECEIVING`: nothing of it runs here, nor may. `REFUSING`: ownership was handed back, or may have been, and nothing
    has run. `OPENING`: this host owns it, and it may have run here. `DONE`: it was brought up, and the rest is the
    planner's. `DISCARDING`: it surely does not come, and what is here goes.
    """

    RECEIVING = "receiving"
    REFUSING = "refusing"
    OPENING = "opening"
    DONE = "done"
    DISCARDING = "discarding"


Phase: TypeAlias = SourcePhase | TargetPhase


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A move as one of its hosts remembers it. ``phase`` says which of them that is.

    ``since``: when this host took part, seconds of its own clock since the epoch. ``cut``: how many parcels of the VE's
    data were cut. ``was_running``: whether it ran when the move began. ``why``:
    for what reason it stays where it is, where that is so.
    """

    move: Move
    phase: Phase
    since: float
    cut: int = 0
    was_running: bool = False
    why: str = ""

    @property
    def uid(self) -> Uid:
        """The VE's identity."""
        return self.move.uid


def is_between(phase: Phase) -> bool:
    """Say whether a VE is to be left alone by whoever brings VEs to what manifests say.

    While it is being copied it is as any other; on its return too, once it is not held any more.
    """
    return phase not in (SourcePhase.PREPARING, SourcePhase.RETURNING, TargetPhase.DONE)
