"""What a host knows of a VE that is between two hosts, in the words of the tables that decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from reconciler.errors import BusyError, CoordinatorAwayError, OutcomeUnknownError, OwnershipError
from reconciler.model.facts import Unknown
from reconciler.model.fleet_seam import Owners
from reconciler.model.identity import Uid
from reconciler.model.observation import Facet, Scope, VeObservation
from reconciler.model.ownership import Move, Ownership
from reconciler.model.placement import Held
from reconciler.model.power import PowerObservation, PowerState
from reconciler.model.seam import Observer
from reconciler.plan.handover import Arriving, Leaving, Owner, Standing

Seen: TypeAlias = tuple[VeObservation, PowerObservation]
"""A VE that is here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the coordinator says. ``owned`` None: nobody owns the VE, or it is not known who does."""

    owner: Owner = Owner.UNKNOWN
    move: Standing = Standing.UNKNOWN
    owned: Ownership | None = None


NOTHING_READ = Reading()


async def read(owners: Owners, move: Move) -> Reading:
    """Read whether a move stands, and only then who owns its VE: where it is gone, no hand-over comes after that."""
    try:
        found = await owners.move_of(move.uid)
        owned = await owners.owner(move.uid)
    except (CoordinatorAwayError, OutcomeUnknownError, OwnershipError):
        return NOTHING_READ
    stands = found is not None and found.id == move.id
    return Reading(owner=_owner(owned, move), move=Standing.STANDS if stands else Standing.GONE, owned=owned)


def _owner(owned: Ownership | None, move: Move) -> Owner:
    if owned is None:
        return Owner.NOBODY
    return {move.source: Owner.SOURCE, move.target: Owner.TARGET}.get(owned.host, Owner.OTHER)


async def look(observer: Observer, uid: Uid) -> Seen | None:
    """Look at a VE; None, if it is surely not here.

    Raises: BusyError, if it cannot be seen at the moment.
    """
    scope = Scope(uids=frozenset({uid}), host=False, use=False)
    observed = await observer.observe(scope, frozenset({Facet.POWER, Facet.VOLUME}))
    seen = observed.ves.get(uid)
    if seen is None:
        return None
    for part in (seen.record, seen.power):
        if isinstance(part, Unknown):
            raise BusyError(f"look at VE {uid}: {part.reason}")
    assert isinstance(seen.power, PowerObservation)
    return seen, seen.power


def leaving(seen: Seen | None) -> Leaving:
    """Say how a VE is at its source."""
    if seen is None:
        return Leaving.GONE
    power = seen[1]
    if power.held is Held.LEAVING:
        return Leaving.HELD
    return Leaving.RUNNING if power.state is PowerState.RUNNING else Leaving.DOWN


def arriving(seen: Seen | None) -> Arriving:
    """Say how a VE is at its target."""
    if seen is None:
        return Arriving.NOTHING
    power = seen[1]
    if power.held is Held.ARRIVED:
        return Arriving.CLOSED
    if power.state is PowerState.RUNNING:
        return Arriving.RUNNING
    return Arriving.PLACED if power.memory is None else Arriving.REMEMBERED
