"""Names and ids of a whole fleet: what this host would give a VE is made its own in the store that all hosts share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from reconciler.errors import OwnedElsewhereError, OwnershipError, VectlError
from reconciler.fleet.claims import claim
from reconciler.fleet.ledger import Ledger
from reconciler.model.identity import Allocation, Uid, VeName
from reconciler.model.seam import Coordinator

_TRIES = 3
"""How often ids are chosen anew that another host took meanwhile."""


class EtcdCoordinator:
    """Implements `Coordinator`. A VE is owned before anything of it is made.

    What was begun here and not finished is known to ``local``, so the same VE is owned again after a crash.
    """

    __slots__ = ("_ledger", "_local", "_lock", "_taken")

    def __init__(self, ledger: Ledger, local: Coordinator, taken: set[int]) -> None:
        """``local``: gives identities and ids, those of the slots in ``taken`` excepted."""
        self._ledger, self._local, self._taken = ledger, local, taken
        self._lock = asyncio.Lock()

    async def allocate(self, wanted: Mapping[VeName, Uid | None]) -> Mapping[VeName, Allocation | VectlError]:
        """Give VEs that are about to be created identities and ids that no other VE of the fleet has.

        Raises: CoordinatorAwayError; StateError, KernelError, NoSpaceError.
        """
        given: dict[VeName, Allocation | VectlError] = {}
        async with self._lock:
            for _ in range(_TRIES):
                left = {name: uid for name, uid in wanted.items() if _is_open(given.get(name))}
                if not left:
                    break
                self._taken.clear()
                self._taken.update(await self._ledger.taken())
                chosen = await self._local.allocate(left)
                owned = await asyncio.gather(*(self._own(name, one) for name, one in chosen.items()))
                given.update(zip(chosen, owned, strict=True))
        return given

    async def release(self, name: VeName) -> None:
        """Take back an allocation of which nothing was made."""
        await self._local.release(name)

    async def _own(self, name: VeName, chosen: Allocation | VectlError) -> Allocation | VectlError:
        if not isinstance(chosen, Allocation):
            return chosen
        try:
            owned = await claim(self._ledger, chosen, name)
        except OwnershipError as err:
            await self._local.release(name)
            return err
        except VectlError as err:  # it is kept: what was asked for may have been done
            return err
        return Allocation(uid=owned.uid, id_base=owned.id_base)


def _is_open(given: Allocation | VectlError | None) -> bool:
    """Say whether choosing other ids may help."""
    return given is None or (isinstance(given, OwnershipError) and not isinstance(given, OwnedElsewhereError))
