"""The seam between this host and the others: who owns what, what carries a VE, and who is talked to.

As with the host's own, two implementations stand behind each: the real one, and one in memory with the weaknesses of
the real one, on which every interleaving is tried.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from reconciler.model.facts import Json
from reconciler.model.identity import Allocation, HostName, Uid, VeName
from reconciler.model.ownership import Move, Ownership, Strategy
from reconciler.model.placement import Cargo, Parcel


class Owners(Protocol):
    """Knows who owns which VE, and lets ownership move. Every answer is as of a moment after the question."""

    async def owner(self, uid: Uid) -> Ownership | None:
        """Give who owns a VE; None, if nobody ever did, or it is gone for good.

        Raises: CoordinatorAwayError; OwnershipError, if the record is not one that its owner made.
        """
        ...

    async def owners(self) -> Mapping[Uid, Ownership]:
        """Give who owns which VE, of the whole fleet.

        Raises: as `owner`.
        """
        ...

    async def move_of(self, uid: Uid) -> Move | None:
        """Give the move that a VE is on.

        Raises: as `owner`.
        """
        ...

    async def moves(self) -> Mapping[Uid, Move]:
        """Give all moves of the fleet.

        Raises: as `owner`.
        """
        ...

    async def claim(self, allocation: Allocation, name: VeName) -> Ownership:
        """Own a VE that this host has and nobody owns; owned by this host already is success.

        Raises: OwnershipError, if another host owns it, or its name or its ids are taken; as `Store.transact`.
        """
        ...

    async def rename(self, owned: Ownership, name: VeName) -> Ownership:
        """Give a VE that this host owns another name.

        Raises: as `claim`.
        """
        ...

    async def disown(self, owned: Ownership) -> None:
        """Give up a VE that is gone for good, its name and its ids; absent is success.

        Raises: as `claim`.
        """
        ...

    async def begin(self, owned: Ownership, *, target: HostName, strategy: Strategy) -> Move:
        """Begin a move of a VE that this host owns.

        Raises: OwnershipError, if it is on one already, or is another's; as `Store.transact`.
        """
        ...

    async def hand_over(self, owned: Ownership, move: Move) -> Ownership:
        """Make the target the owner: the one commit point of a move. Only the source asks for it.

        Raises: OwnershipError, if the move was abandoned or the owner is another one; CoordinatorAwayError, if it
        surely was not done; OutcomeUnknownError.
        """
        ...

    async def hand_back(self, owned: Ownership, move: Move) -> Ownership:
        """Make the source the owner again, and end the move; by the target, while nothing of it has run there.

        Raises: as `hand_over`.
        """
        ...

    async def abandon(self, owned: Ownership, move: Move) -> None:
        """End a move while its source is the owner; by either side. Once this is done, nobody can hand over.

        Raises: as `hand_over`; abandoned already is success.
        """
        ...

    async def end(self, move: Move) -> None:
        """End a move that was handed over, by its source, which has let go of its copy; ended is success.

        Raises: as `hand_over`.
        """
        ...

    async def seize(self, owned: Ownership) -> Ownership:
        """Own a VE of another host on an operator's word that this host will not run it again; ends its move.

        Raises: as `hand_over`.
        """
        ...


class Carrier(Protocol):
    """Turns a VE into parcels, and parcels into what `PlaceArrival` makes a VE of."""

    async def cargo(self, uid: Uid) -> Cargo:
        """Say what a VE is that is to leave.

        Raises: StateError, if it is not here; KernelError.
        """
        ...

    async def parcels(self, uid: Uid, move: str) -> tuple[Parcel, ...]:
        """Give what there is to be sent at present, each after its parent.

        Raises: StateError; KernelError.
        """
        ...

    async def received(self, uid: Uid, move: str) -> frozenset[str]:
        """Name the parcels that are here whole, as `Parcel.__str__` does.

        Raises: KernelError.
        """
        ...

    def send(self, uid: Uid, move: str, parcel: Parcel) -> AsyncIterator[bytes]:
        """Give a parcel's bytes. Closing the iterator early ends whatever makes them.

        Raises: StateError, if it is not there; CommandError; KernelError.
        """
        ...

    async def receive(self, uid: Uid, move: str, parcel: Parcel, chunks: AsyncIterator[bytes]) -> None:
        """Take a parcel: afterwards it is here whole and on disk, or not at all. What comes is not to be trusted.

        Raises: StateError, if its parent is not here, or it is not what it says; NoSpaceError; CommandError;
        KernelError; and whatever ``chunks`` raises.
        """
        ...


class Peers(Protocol):
    """Talks to the agents of other hosts; each is who it says, or is not talked to."""

    async def ask(self, host: HostName, question: Mapping[str, Json]) -> Mapping[str, Json]:
        """Ask one question. Asking it again must do no harm: an answer that was lost leaves no trace.

        Raises: PeerError; RefusedError, with the other host's words.
        """
        ...

    async def ship(
        self, host: HostName, header: Mapping[str, Json], chunks: AsyncIterator[bytes]
    ) -> Mapping[str, Json]:
        """Send bytes with a header, and wait until the other host has them whole.

        Raises: as `ask`; whatever ``chunks`` raises, and then the other host has nothing.
        """
        ...


class PeerService(Protocol):
    """What an agent answers to other hosts, whose names are proven."""

    async def answer(self, source: HostName, question: Mapping[str, Json]) -> Mapping[str, Json]:
        """Answer one question. It is worked on to its end, also if whoever asked is gone, and may ask again meanwhile.

        Raises: VectlError, of which the other host gets the words.
        """
        ...

    async def take(
        self, source: HostName, header: Mapping[str, Json], chunks: AsyncIterator[bytes]
    ) -> Mapping[str, Json]:
        """Take bytes; ``chunks`` raises `PeerError` where they end too soon or are not what was sent.

        An answer before they have ended tells the sender that none of them are needed.

        Raises: as `answer`.
        """
        ...
