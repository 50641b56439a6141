"""What either side of a move works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from reconciler.model.fleet_seam import Carrier, Owners, Peers
from reconciler.model.identity import HostName, Uid
from reconciler.model.seam import Clock, Effects, Observer
from reconciler.plan.arriving import Stages
from reconciler.state.moves import Moves


class BringUp(Protocol):
    """Plans how a VE that arrived goes on, by the manifests in force on this host."""

    async def __call__(self, uid: Uid) -> Stages:
        """Give what lets a VE that is here go on from its memory.

        Raises: StateError, if no manifest wants it here, or it has no memory; VectlError.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """``host``: this one. ``released``: told of each VE that the planner may look after again."""

    host: HostName
    effects: Effects
    observer: Observer
    carrier: Carrier
    owners: Owners
    peers: Peers
    journal: Moves
    clock: Clock
    released: Callable[[Uid], None]
