"""Who owns which VE, in a store that all hosts share: each change is one transaction that compares what it is based on.

A transaction of which no answer came is tried again, with the same comparison: so at most one of all tries is ever
done, and reading tells which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from reconciler.errors import OwnershipError
from reconciler.fleet import claims
from reconciler.fleet.claims import changed, check_ours
from reconciler.fleet.ledger import Attempt, Ledger
from reconciler.fleet.records import Deed, How, seal_move
from reconciler.model.identity import Allocation, HostName, Uid, VeName
from reconciler.model.kv import Delete, Put, Unchanged
from reconciler.model.ownership import Move, Ownership, Strategy
from reconciler.model.seam import Clock


class EtcdOwners:
    """Implements `Owners` for one host."""

    __slots__ = ("_clock", "_host", "_new_id", "ledger")

    def __init__(self, ledger: Ledger, *, clock: Clock, new_id: Callable[[], str]) -> None:
        """``new_id``: makes what nobody else has, to name a move."""
        self.ledger, self._host = ledger, ledger.seal.host
        self._clock, self._new_id = clock, new_id

    async def owner(self, uid: Uid) -> Ownership | None:
        """Give who owns a VE."""
        deed = await self.ledger.deed(uid)
        return None if deed is None else deed.owned

    async def owners(self) -> Mapping[Uid, Ownership]:
        """Give who owns which VE, of the whole fleet."""
        return await self.ledger.owners()

    async def move_of(self, uid: Uid) -> Move | None:
        """Give the move that a VE is on."""
        return await self.ledger.move(uid)

    async def moves(self) -> Mapping[Uid, Move]:
        """Give all moves of the fleet."""
        return await self.ledger.moves()

    async def claim(self, allocation: Allocation, name: VeName) -> Ownership:
        """Own a VE that this host has and nobody owns."""
        return await claims.claim(self.ledger, allocation, name)

    async def rename(self, owned: Ownership, name: VeName) -> Ownership:
        """Give a VE of this host another name."""
        return await claims.rename(self.ledger, owned, name)

    async def disown(self, owned: Ownership) -> None:
        """Give up a VE that is gone for good."""
        await claims.disown(self.ledger, owned)

    async def begin(self, owned: Ownership, *, target: HostName, strategy: Strategy) -> Move:
        """Begin a move of a VE of this host."""
        if target == self._host:
            raise OwnershipError(f"move {owned.name}: it is on {target} already")
        move = Move(
            id=self._new_id(),
            uid=owned.uid,
            name=owned.name,
            source=self._host,
            target=target,
            strategy=strategy,
            begun_at=self._clock.now(),
            revision=0,
        )
        key = self.ledger.keys.move(owned.uid)
        attempt = Attempt(
            guards=(self.ledger.unchanged(owned.uid, owned.revision), Unchanged(key=key, modified=0)),
            writes=(Put(key=key, value=seal_move(move, key, self.ledger.seal)),),
            done=lambda revision: replace(move, revision=revision),
        )

        async def decide() -> Move | Attempt[Move]:
            found = await self.ledger.move(owned.uid)
            if found is not None and found.id == move.id:
                return found
            check_ours(await self.ledger.deed(owned.uid), owned, self._host)
            if found is not None:
                raise OwnershipError(f"move {owned.name}: it is on its way to {found.target} already")
            return attempt

        return await self.ledger.carry_out(decide)

    async def hand_over(self, owned: Ownership, move: Move) -> Ownership:
        """Make the target the owner: the one commit point of a move."""
        if self._host != move.source or owned.host != move.source:
            raise OwnershipError(f"hand over {owned.name}: only {move.source} does that, while it is the owner")
        given = replace(owned, host=move.target)
        attempt = self.ledger.writing(given, How.HANDED_OVER, guards=(_stands(self.ledger, move),), move=move.id)
        return await self._transfer(attempt, owned, move)

    async def hand_back(self, owned: Ownership, move: Move) -> Ownership:
        """Make the source the owner again, and end the move."""
        if self._host != move.target or owned.host != move.target:
            raise OwnershipError(f"hand back {owned.name}: only {move.target} does that, while it is the owner")
        given, ended = replace(owned, host=move.source), Delete(key=self.ledger.keys.move(move.uid))
        guards = (_stands(self.ledger, move),)
        attempt = self.ledger.writing(given, How.HANDED_BACK, guards=guards, writes=(ended,), move=move.id)
        return await self._transfer(attempt, owned, move)

    async def _transfer(self, attempt: Attempt[Ownership], owned: Ownership, move: Move) -> Ownership:
        """Give a VE to another host. It is tried before anything is read: a VE may be standing still for it."""

        async def decide() -> Ownership | Attempt[Ownership]:
            # In this order: where the move is gone and the record as it was after that, the move was abandoned.
            found = await self.ledger.move(owned.uid)
            deed = await self.ledger.deed(owned.uid)
            if deed is not None and _came_of(deed, owned, move):
                return deed.owned
            check_ours(deed, owned, self._host)
            if found is None or found.revision != move.revision:
                raise OwnershipError(f"move {owned.name} to {move.target}: the move was abandoned")
            return attempt

        return await self.ledger.carry_out(decide, first=attempt)

    async def abandon(self, owned: Ownership, move: Move) -> None:
        """End a move while its source is the owner."""

        async def decide() -> Attempt[None] | None:
            # In this order: once a move is gone it stays so, and whoever owns the VE then does so without it.
            found = await self.ledger.move(move.uid)
            deed = await self.ledger.deed(move.uid)
            if deed is None:
                raise changed(owned)
            if deed.owned.host != move.source:
                raise OwnershipError(f"abandon the move of {move.name}: {deed.owned.host} owns it by now")
            return None if found is None or found.id != move.id else self._ending(found, deed.owned.revision)

        await self.ledger.carry_out(decide)

    async def end(self, move: Move) -> None:
        """End a move that was handed over."""

        async def decide() -> Attempt[None] | None:
            found = await self.ledger.move(move.uid)
            if found is None or found.id != move.id:
                return None
            deed = await self.ledger.deed(move.uid)
            if deed is not None and deed.owned.host == move.source:
                raise OwnershipError(f"end the move of {move.name}: {move.source} owns it still")
            return self._ending(found, 0 if deed is None else deed.owned.revision)

        await self.ledger.carry_out(decide)

    async def seize(self, owned: Ownership) -> Ownership:
        """Own a VE of another host on an operator's word, and end its move."""
        uid, key = owned.uid, self.ledger.keys.move(owned.uid)

        async def decide() -> Ownership | Attempt[Ownership]:
            deed = await self.ledger.deed(uid)
            if deed is not None and deed.owned.host == self._host:
                return deed.owned
            if deed is None or deed.owned.revision != owned.revision:
                raise changed(owned)
            pair = await self.ledger.store.get(key)
            guard = Unchanged(key=key, modified=0 if pair is None else pair.modified)
            ended = () if pair is None else (Delete(key=key),)
            return self.ledger.writing(replace(owned, host=self._host), How.SEIZED, guards=(guard,), writes=ended)

        return await self.ledger.carry_out(decide)

    def _ending(self, move: Move, revision: int) -> Attempt[None]:
        """Give the transaction that ends a move, if its VE's record is as it was read."""
        return Attempt(
            guards=(_stands(self.ledger, move), self.ledger.unchanged(move.uid, revision)),
            writes=(Delete(key=self.ledger.keys.move(move.uid)),),
            done=lambda revision: None,
        )


def _stands(ledger: Ledger, move: Move) -> Unchanged:
    return Unchanged(key=ledger.keys.move(move.uid), modified=move.revision)


def _came_of(deed: Deed, owned: Ownership, move: Move) -> bool:
    """Say whether a record is the one that a transfer wrote, or one that its new owner wrote in its place."""
    if deed.after == owned.revision and deed.move == move.id:
        return True
    other = move.target if owned.host == move.source else move.source
    return deed.owned.host == other and deed.owned.revision > owned.revision
