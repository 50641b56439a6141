"""This host as one of a fleet: which VEs are its own, and what it must not touch because it does not know or is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from reconciler.agent.ownership_words import OWNED_ELSEWHERE, OWNERSHIP_UNKNOWN
from reconciler.agent.patience import Hold
from reconciler.errors import CoordinatorAwayError, OwnedElsewhereError, OwnershipError, VectlError
from reconciler.fleet.claims import let_go_name, owned_elsewhere
from reconciler.fleet.coordinator import EtcdCoordinator
from reconciler.fleet.ledger import Standing
from reconciler.fleet.owners import EtcdOwners
from reconciler.model.action import Action, Operation
from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.identity import Allocation, HostName, Uid, VeName
from reconciler.model.observation import VeObservation
from reconciler.model.ownership import Ownership
from reconciler.model.power import CreateRuntime, PowerObservation, PowerState
from reconciler.model.volume import Record
from reconciler.state.leaving import Leaving

ASK_AGAIN_S = 5.0
"""How long what waits for the coordinator waits until it asks again. Units: seconds."""


class FollowsFleet(Protocol):
    """What depends on the revision in force, which ``fleet`` gives."""

    fleet: Callable[[], Fleet]


@dataclass(slots=True, kw_only=True)
class Membership:
    """``standing``: who owned what when it was last read; None: not yet. ``away``: why it cannot be read, or "".

    ``trashed``: the records in this host's trash. ``is_moving``: whether this host knows of a move of a VE, whatever
    the coordinator says or does not. ``due``: set when something changed of which the coordinator is to be told.
    """

    host: HostName
    owners: EtcdOwners
    coordinator: EtcdCoordinator
    leaving: Leaving
    trashed: Callable[[], Collection[Record]]
    key: FollowsFleet
    is_moving: Callable[[Uid], bool] = lambda uid: False
    standing: Standing | None = None
    away: str = ""
    due: asyncio.Event = field(default_factory=asyncio.Event)

    async def holds(self, actions: Sequence[Action], ves: Mapping[Uid, VeObservation]) -> list[Hold]:
        """Say which actions on VEs have to wait: those on what is another host's, and starts of what may be.

        One whose init ended in this boot, or was ended, is this host's still while nobody can be asked: only this host
        itself gives it away.
        """
        found = (await self._hold(action, ves.get(action.uid)) for action in actions if action.uid is not None)
        return [hold async for hold in found if hold is not None]

    async def _hold(self, action: Action, seen: VeObservation | None) -> Hold | None:
        if seen is None or not isinstance(seen.record, Record) or action.op in (Operation.CREATE, Operation.RESTORE):
            return None
        other = self.elsewhere(seen.uid)
        if other is None and not _starts(action):
            return None
        try:
            await self.own(seen.record)
        except OwnedElsewhereError as err:
            return _wait(action, OWNED_ELSEWHERE, f"it is {err.host}'s; nothing of it is changed here", stalled=True)
        except CoordinatorAwayError as err:
            if other is None and _ran_since_boot(seen) and not self._may_leave(seen.uid):
                return None
            return _wait(action, OWNERSHIP_UNKNOWN, f"not known whether it is this host's: {err}")
        except VectlError as err:
            return _wait(action, OWNERSHIP_UNKNOWN, f"not known whether it is this host's: {err}")
        return None

    async def own(self, record: Record) -> Ownership:
        """Make sure that a VE which is here is this host's; one that nobody owns becomes so.

        Raises: OwnedElsewhereError; as `Owners.claim`.
        """
        owned = await self.owners.owner(record.uid)
        if owned is None:
            return await self.owners.claim(_given(record), record.name)
        if owned.host != self.host:
            raise OwnedElsewhereError(f"{record.name} is {owned.host}'s", host=owned.host)
        return owned

    async def came_from(self, specs: Iterable[VeSpec]) -> Mapping[VeName, VectlError]:
        """Say which VEs that are to be made are another host's by the name that they had, or may be."""
        found: dict[VeName, VectlError] = {}
        ledger = self.owners.ledger
        for spec in specs:
            if spec.renamed_from is None or spec.uid is not None:
                continue
            try:
                uid, _ = await ledger.holder(ledger.keys.name(spec.renamed_from))
                owned = None if uid is None else await self.owners.owner(uid)
            except VectlError as err:
                found[spec.name] = err
                continue
            if owned is not None and owned.host != self.host:
                found[spec.name] = owned_elsewhere(owned)
        return found

    def elsewhere(self, uid: Uid) -> HostName | None:
        """Say which other host owned a VE when that was last read."""
        owned = None if self.standing is None else self.standing.owners.get(uid)
        return None if owned is None or owned.host == self.host else owned.host

    def _may_leave(self, uid: Uid) -> bool:
        return self.is_moving(uid) or (self.standing is not None and uid in self.standing.moves)

    async def tend(self, records: Mapping[Uid, Record]) -> bool:
        """Read who owns what, and bring it in line with what is here; say whether anything is otherwise than before.

        Raises: CoordinatorAwayError, OutcomeUnknownError; StateError, KernelError.
        """
        before = self.standing
        standing = await self.owners.ledger.standing()
        if not standing.owners:
            await self.owners.ledger.introduce()
        self.standing, self.away = standing, ""
        for record in records.values():
            await self._settle(record, standing)
        await self._tell_of_trash(standing, records)
        return before is None or (before.owners, before.names) != (standing.owners, standing.names)

    async def _settle(self, record: Record, standing: Standing) -> None:
        """Claim a VE that is here and nobody's, and let the coordinator know it by its present name."""
        owned = standing.owners.get(record.uid)
        if record.uid in standing.unread or record.uid in standing.moves:
            return
        try:
            if owned is None or record.uid in standing.to_sign or standing.names.get(owned.name) != record.uid:
                owned = await self.owners.claim(_given(record), record.name if owned is None else owned.name)
            if owned.host == self.host and owned.name != record.name:
                await self.owners.rename(owned, record.name)
        except OwnershipError:
            return  # the next look tells what stands in the way, and the VE's condition too

    async def _tell_of_trash(self, standing: Standing, records: Mapping[Uid, Record]) -> None:
        """Free the names of VEs that are in the trash, and all of those whose data was deleted."""
        kept = {record.uid for record in await asyncio.to_thread(self.trashed)}
        for uid in self.leaving.read():
            if uid in records or uid in kept:
                continue
            owned = standing.owners.get(uid)
            if owned is not None and owned.host == self.host:
                await self.owners.disown(owned)
            self.leaving.drop(uid)
        for uid in sorted(kept - records.keys()):
            owned = standing.owners.get(uid)
            if owned is not None and owned.host == self.host and standing.names.get(owned.name) == uid:
                await let_go_name(self.owners.ledger, owned)


def _given(record: Record) -> Allocation:
    return Allocation(uid=record.uid, id_base=record.id_base)


def _wait(action: Action, reason: str, message: str, *, stalled: bool = False) -> Hold:
    return Hold(action=action, reason=reason, message=message, wait_s=ASK_AGAIN_S, stalled=stalled)


def _starts(action: Action) -> bool:
    return any(isinstance(effect, CreateRuntime) for effect in action.effects)


def _ran_since_boot(seen: VeObservation) -> bool:
    power = seen.power
    return isinstance(power, PowerObservation) and (power.state is PowerState.RUNNING or power.last_end is not None)
