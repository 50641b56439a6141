"""Ownership: which host has a VE's data, and who is moving it where.

One record per VE, held by the coordinator. It moves by one transaction, which the host that has it issues; a time or a
lease never moves it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from reconciler.model.decode import Fields
from reconciler.model.facts import Json
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


def move_to_json(move: Move) -> dict[str, Json]:
    """Give the JSON form of a move."""
    return {**asdict(move), "strategy": move.strategy.value}


def move_from_fields(fields: Fields, *, revision: int | None = None) -> Move:
    """Take apart a move. ``revision``: of the record that holds it, where the form does not say it.

    Raises: StateError.
    """
    move = Move(
        id=fields.text("id"),
        uid=Uid(fields.text("uid")),
        name=VeName(fields.text("name")),
        source=HostName(fields.text("source")),
        target=HostName(fields.text("target")),
        strategy=fields.word("strategy", Strategy),
        begun_at=fields.number("begun_at"),
        revision=fields.integer("revision") if revision is None else revision,
    )
    fields.end()
    return move
