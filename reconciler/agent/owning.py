"""Effects on the trash as a fleet needs them: what comes back is this host's, what is deleted is nobody's."""

from __future__ import annotations

import asyncio

from reconciler.agent.membership import Membership
from reconciler.errors import StateError
from reconciler.model.effects import Effect
from reconciler.model.identity import Allocation, Uid
from reconciler.model.seam import Effects
from reconciler.model.volume import PurgeTrash, RestoreVe, TrashVe, WriteRecord

_UID_LENGTH = 36


class OwningEffects:
    """Implements `Effects` around others."""

    __slots__ = ("_inner", "_membership")

    def __init__(self, inner: Effects, membership: Membership) -> None:
        self._inner, self._membership = inner, membership

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect.

        Raises: OwnershipError, if a VE is to come back that another host has, or whose name has another VE;
        CoordinatorAwayError, OutcomeUnknownError; whatever the wrapped one raises.
        """
        if isinstance(effect, RestoreVe):
            await self._take_back(effect)
        elif isinstance(effect, PurgeTrash):
            # Before its data goes: a crash in between must not leave its name and its ids taken for ever.
            await asyncio.to_thread(self._membership.leaving.add, Uid(effect.trash_id[:_UID_LENGTH]))
        await self._inner.perform(effect)
        if isinstance(effect, WriteRecord | TrashVe | PurgeTrash):
            self._membership.due.set()

    async def _take_back(self, effect: RestoreVe) -> None:
        records = await asyncio.to_thread(self._membership.trashed)
        record = next((record for record in records if record.uid == effect.uid), None)
        if record is None:
            raise StateError(f"restore VE {effect.uid}: the trash has no readable record of it")
        await self._membership.owners.claim(Allocation(uid=record.uid, id_base=record.id_base), record.name)
