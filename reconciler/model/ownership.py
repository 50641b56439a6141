"""Ownership: which host has a VE's data, and who is moving it where.

One record per VE, held by the coordinator. It moves by one transaction, which the host that has it issues; a time or a
lease never moves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.model.identity import HostName, Uid, VeName


class Strategy(StrEnum):
    """How a VE gets to another host, best first.

    `LIVE` keeps its processes and connections. `NEAR_LIVE` copies its data while it runs and stops it for what has
    changed since. `RESTART` stops it for the whole copy.
    """

    LIVE = "live"
    NEAR_LIVE = "near-live"
    RESTART = "restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Who has a VE's data. Units: ``id_base`` first id of its range, the same on every host.

    ``revision``: of the coordinator's record, which every transaction about it compares.
    """

    uid: Uid
    name: VeName
    host: HostName
    id_base: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A VE on its way. One at a time per VE: while it stands, no other one can begin.

    While the owner is ``source`` either side may abandon it, and the source hands over; once the owner is ``target`` it
    stands until the source has let go of its copy. Units: ``begun_at`` seconds since the epoch.
    """

    id: str
    uid: Uid
    name: VeName
    source: HostName
    target: HostName
    strategy: Strategy
    begun_at: float
    revision: int
