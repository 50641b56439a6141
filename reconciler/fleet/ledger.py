"""The coordinator's store, read as records that were proved, and written by transactions of which it is known what
became of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from reconciler.errors import CoordinatorAwayError, OutcomeUnknownError, OwnershipError, UnprovenError
from reconciler.fleet.keys import Keys
from reconciler.fleet.records import Deed, How, Seal, open_deed, open_move, seal_deed
from reconciler.fleet.witness import Witness
from reconciler.model.identity import Uid, VeName
from reconciler.model.kv import Listing, Pair, Put, Store, Unchanged, Write
from reconciler.model.ownership import Move, Ownership

_TRIES = 4
"""How often a transaction is tried that got no answer, or that others came before."""

_FORMAT = b"1"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Generic[_T]):
    """A transaction. ``done``: gives what it comes to, from the revision that it was done at."""

    guards: Sequence[Unchanged]
    writes: Sequence[Write]
    done: Callable[[int], _T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Who owns what, and which moves there are. ``unread``: why a record is not to be believed, by VE. ``to_sign``: VEs
    of this host whose record another one signed, or a former key. ``names``: whose each name is."""

    owners: Mapping[Uid, Ownership]
    moves: Mapping[Uid, Move]
    unread: Mapping[Uid, str]
    names: Mapping[VeName, Uid] = field(default_factory=dict)
    to_sign: frozenset[Uid] = frozenset()


class Ledger:
    """Reads and writes for this host, as long as the store is the one that the witness knows."""

    __slots__ = ("_proved", "_witness", "keys", "seal", "store")

    def __init__(self, store: Store, keys: Keys, seal: Seal, witness: Witness) -> None:
        self.store, self.keys, self.seal = store, keys, seal
        self._witness = witness
        self._proved: dict[str, tuple[Pair, Deed]] = {}

    def believe(self) -> None:
        """Stop whoever would write to a store that is not the one that it was.

        Raises: CoordinatorAwayError.
        """
        self._witness.asked()

    async def deed(self, uid: Uid) -> Deed | None:
        """Read who owns a VE.

        Raises: CoordinatorAwayError, OwnershipError.
        """
        pair = await self._one(self.keys.ve(uid))
        return None if pair is None else self._proven(pair)

    async def move(self, uid: Uid) -> Move | None:
        """Read the move that a VE is on.

        Raises: as `deed`.
        """
        pair = await self._one(self.keys.move(uid))
        return None if pair is None else open_move(pair, self.seal)

    async def owners(self) -> Mapping[Uid, Ownership]:
        """Read who owns what.

        Raises: as `deed`.
        """
        listing = await self._list(self.keys.ves)
        self._keep_only(listing)
        deeds = map(self._proven, listing.pairs)
        return {deed.owned.uid: deed.owned for deed in deeds}

    async def moves(self) -> Mapping[Uid, Move]:
        """Read all moves.

        Raises: as `deed`.
        """
        moves = map(self._moving, (await self._list(self.keys.moves)).pairs)
        return {move.uid: move for move in moves}

    async def standing(self) -> Standing:
        """Read all, and what of it is not to be believed.

        Raises: CoordinatorAwayError.
        """
        listing = await self._list(self.keys.ves)
        moves, names = (await self._list(self.keys.moves)).pairs, (await self._list(self.keys.names)).pairs
        self._keep_only(listing)
        unread: dict[Uid, str] = {}
        deeds = dict(_each(listing.pairs, self._proven, unread))
        return Standing(
            owners={uid: deed.owned for uid, deed in deeds.items()},
            moves=dict(_each(moves, self._moving, unread)),
            unread=unread,
            names={VeName(_last(pair)): Uid(pair.value.decode(errors="replace")) for pair in names},
            to_sign=frozenset(uid for uid, deed in deeds.items() if not self.is_signed_now(deed)),
        )

    def is_signed_now(self, deed: Deed) -> bool:
        """Say whether a record is another host's, or has the signature of this one's present key."""
        host = self.seal.host
        return deed.owned.host != host or (deed.by == host and (deed.pin,) == self.seal.pins(host)[:1])

    async def introduce(self) -> None:
        """Say in a store that is new of which format the records are, and refuse one of another.

        Raises: CoordinatorAwayError.
        """
        pair = await self._one(self.keys.format)
        if pair is None:
            put = Put(key=self.keys.format, value=_FORMAT)
            await self.store.transact([Unchanged(key=self.keys.format, modified=0)], [put])
        elif pair.value != _FORMAT:
            found = pair.value[:8].decode(errors="replace")
            raise CoordinatorAwayError(
                f"read {self.keys.format}: expected {_FORMAT.decode()}, got {found!r}; update vectl"
            )

    async def taken(self) -> frozenset[int]:
        """Give the slots of ids that are taken.

        Raises: CoordinatorAwayError.
        """
        slots = (_last(pair) for pair in (await self._list(self.keys.ids)).pairs)
        return frozenset(int(slot) for slot in slots if slot.isdecimal())

    async def holder(self, key: str) -> tuple[Uid | None, Unchanged]:
        """Read whose a name or a range of ids is, and give the guard that it stays so.

        Raises: CoordinatorAwayError.
        """
        pair = await self.store.get(key)
        if pair is None:
            return None, Unchanged(key=key, modified=0)
        return Uid(pair.value.decode(errors="replace")), Unchanged(key=key, modified=pair.modified)

    def unchanged(self, uid: Uid, revision: int) -> Unchanged:
        """Give the guard that a record of ownership is as it was at a revision."""
        return Unchanged(key=self.keys.ve(uid), modified=revision)

    def writing(
        self, owned: Ownership, how: How, *, guards: Sequence[Unchanged], writes: Sequence[Write] = (), move: str = ""
    ) -> Attempt[Ownership]:
        """Give the transaction that puts a record in the place of the one at its revision; 0: of none."""
        deed = Deed(owned=owned, how=how, by=self.seal.host, after=owned.revision, move=move)
        key = self.keys.ve(owned.uid)
        put = Put(key=key, value=seal_deed(deed, key, self.seal))
        return Attempt(
            guards=(self.unchanged(owned.uid, owned.revision), *guards),
            writes=(put, *writes),
            done=lambda revision: replace(owned, revision=revision),
        )

    async def carry_out(
        self, decide: Callable[[], Awaitable[_T | Attempt[_T]]], *, first: Attempt[_T] | None = None
    ) -> _T:
        """Carry out transactions until it is known that one was done, or that none can be any more.

        ``decide`` reads, and gives what it comes to, or the transaction that brings it about: of all that it gives, at
        most one can ever be done, since all compare the same revision. It raises OwnershipError where none can be.
        ``first``: to be tried before anything is read.

        Raises: CoordinatorAwayError, if surely none was done; OutcomeUnknownError; OwnershipError.
        """
        doubt: OutcomeUnknownError | None = None
        step = first
        for _ in range(_TRIES):
            try:
                if step is None:
                    found = await decide()
                    if not isinstance(found, Attempt):
                        return found
                    step = found
                self._witness.asked()
                revision = await self.store.transact(step.guards, step.writes)
            except OutcomeUnknownError as err:
                doubt, step = err, None
                continue
            except (CoordinatorAwayError, UnprovenError) as err:
                if doubt is None:
                    raise
                raise OutcomeUnknownError(f"{doubt}; and then: {err}") from err
            if revision is not None:
                self._witness.wrote(revision)
                return step.done(revision)
            step = None
        raise doubt or OwnershipError("write to the coordinator: others were faster each time; try again")

    async def _one(self, key: str) -> Pair | None:
        """Read a key by listing it, since that tells of which store it is."""
        return next((pair for pair in (await self._list(key)).pairs if pair.key == key), None)

    async def _list(self, prefix: str) -> Listing:
        asked = self._witness.asked()
        listing = await self.store.list(prefix)
        self._witness.heed(listing, asked)
        return listing

    def _keep_only(self, listing: Listing) -> None:
        keys = (pair.key for pair in listing.pairs)
        self._proved = {key: self._proved[key] for key in keys if key in self._proved}

    def _proven(self, pair: Pair) -> Deed:
        """Prove a record; one that was proved is not proved again while its key is still to be believed."""
        known = self._proved.get(pair.key)
        if known is None or known[0] != pair or known[1].pin not in self.seal.pins(known[1].by):
            known = self._proved[pair.key] = pair, open_deed(pair, self.seal)
        return known[1]

    def _moving(self, pair: Pair) -> Move:
        return open_move(pair, self.seal)


def _last(pair: Pair) -> str:
    return pair.key.rpartition("/")[2]


def _each(pairs: Sequence[Pair], read: Callable[[Pair], _T], unread: dict[Uid, str]) -> Iterator[tuple[Uid, _T]]:
    for pair in pairs:
        uid = Uid(_last(pair))
        try:
            yield uid, read(pair)
        except OwnershipError as err:
            unread[uid] = str(err)
