"""A small, strictly consistent store of keys: what a coordinator is built on.

Source: etcd, api/etcdserverpb/rpc.proto, service KV, Lease and Watch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A key and its value. ``created`` and ``modified``: the store's revision when it was."""

    key: str
    value: bytes
    created: int
    modified: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All keys below a prefix as of one ``revision`` of the store; ``cluster`` names the store that said so."""

    revision: int
    cluster: str
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchanged:
    """Holds while a key was last modified at that revision; 0: while it is absent."""

    key: str
    modified: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Write a key; with a ``lease`` it goes when that ends."""

    key: str
    value: bytes
    lease: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Delete a key; absent is success."""

    key: str


Write: TypeAlias = Put | Delete


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A key that was written, or deleted where ``pair`` is None. A hint: some are told twice, some never."""

    key: str
    pair: Pair | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """How one member of the store is. ``version`` as it prints it; ``healthy``: it answers for a quorum.

    Units: ``answered_in_s`` seconds that a read took; ``clock_ahead_s`` seconds of its clock before ours, about.
    """

    endpoint: str
    version: str
    cluster: str
    revision: int
    healthy: bool
    problem: str = ""
    answered_in_s: float = 0.0
    clock_ahead_s: float = 0.0


class Store(Protocol):
    """The store. Every read is linearizable: it tells of every write that was answered before it was asked."""

    async def get(self, key: str) -> Pair | None:
        """Read one key.

        Raises: CoordinatorAwayError, and then nothing is known.
        """
        ...

    async def list(self, prefix: str) -> Listing:
        """Read all keys below a prefix, as of one revision.

        Raises: CoordinatorAwayError.
        """
        ...

    async def transact(self, guards: Sequence[Unchanged], writes: Sequence[Write]) -> int | None:
        """Make all writes if all guards hold; give the store's revision, or None if one did not hold.

        Raises: CoordinatorAwayError, if it surely was not done; OutcomeUnknownError, if it may have been, or may be
        yet.
        """
        ...

    async def grant(self, ttl_s: float) -> int:
        """Make a lease that ends unless it is kept alive.

        Raises: CoordinatorAwayError.
        """
        ...

    async def keep_alive(self, lease: int) -> bool:
        """Begin a lease's time anew; False, if it has ended.

        Raises: CoordinatorAwayError.
        """
        ...

    def watch(self, prefix: str, *, since: int) -> AsyncIterator[Change]:
        """Tell what changes below a prefix after a revision; ends when the store says that it missed something.

        Raises: CoordinatorAwayError.
        """
        ...

    async def status(self) -> tuple[StoreStatus, ...]:
        """Ask each member how it is."""
        ...
