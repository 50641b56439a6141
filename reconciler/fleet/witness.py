"""Whether the coordinator's store is the one that it was: one that was put back from a backup says who owned what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from reconciler.errors import CoordinatorAwayError
from reconciler.model.kv import Listing

_REMEDY = "if that is meant, look at what `vectl host accept-coordinator` would change, and use it"

_OFTEN = 100
"""How many revisions may pass until the newest one is written down. Units: revisions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a host knows of the store. ``distrust``: why it is no longer believed, or ""."""

    cluster: str
    revision: int
    distrust: str = ""


class Memory(Protocol):
    """Keeps what a host knows over its end."""

    def read(self) -> Known | None:
        """Read it; None, if nothing is known yet.

        Raises: StateError, KernelError.
        """
        ...

    def write(self, known: Known) -> None:
        """Write it.

        Raises: KernelError, NoSpaceError.
        """
        ...


class Witness:
    """Remembers the store, and stops everybody who would believe another one, until a person accepts that."""

    __slots__ = ("_known", "_memory", "_written")

    def __init__(self, memory: Memory) -> None:
        """Read what is known.

        Raises: StateError, KernelError.
        """
        self._memory = memory
        self._known = memory.read()
        self._written = 0 if self._known is None else self._known.revision

    def asked(self) -> int:
        """Give the revision that an answer to what is asked now may not be older than.

        Raises: CoordinatorAwayError, if the store is not to be believed.
        """
        if self._known is None:
            return 0
        if self._known.distrust:
            self._known = self._memory.read() or self._known  # a person may have accepted it since
        if self._known.distrust:
            raise CoordinatorAwayError(f"{self._known.distrust}; {_REMEDY}")
        return self._known.revision

    def heed(self, listing: Listing, asked: int) -> None:
        """Take note of an answer. ``asked``: what `asked` gave before.

        Raises: CoordinatorAwayError, if it is not of the store that is known, or of an earlier state of it.
        """
        if self._known is None:
            self._note(Known(cluster=listing.cluster, revision=listing.revision))
        elif listing.cluster != self._known.cluster:
            self._refuse(f"the coordinator is another cluster, {listing.cluster}, not {self._known.cluster}")
        elif listing.revision < asked:
            self._refuse(f"the coordinator has gone back from revision {asked} to {listing.revision}")
        elif listing.revision > self._known.revision:
            self._known = replace(self._known, revision=listing.revision)
            if listing.revision - self._written >= _OFTEN:
                self._note(self._known)

    def wrote(self, revision: int) -> None:
        """Take note of a revision that this host wrote: that ownership moved is not to be forgotten."""
        if self._known is not None and revision > self._known.revision:
            self._note(replace(self._known, revision=revision))

    def _refuse(self, why: str) -> None:
        assert self._known is not None
        self._note(replace(self._known, distrust=why))
        raise CoordinatorAwayError(f"{why}; {_REMEDY}")

    def _note(self, known: Known) -> None:
        self._known, self._written = known, known.revision
        self._memory.write(known)
