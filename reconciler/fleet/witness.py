"""Whether the coordinator's store is the one that it was: one that was put back from a backup says who owned what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from reconciler.errors import CoordinatorAwayError
from reconciler.model.kv import Listing

_REMEDY = "if that is meant, look at what `vectl host accept-coordinator` would change, and use it"

_TOO_EARLY = "the coordinator was asked before a person accepted it; it is asked again"

_OFTEN = 100
"""How many revisions may pass until the newest one is written down. Units: revisions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a host knows of the store. ``distrust``: why it is no longer believed, or ""."""

    cluster: str
    revision: int
    distrust: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is known at the moment of a question. An answer may not be older than ``revision``; ``accepted`` counts the
    stores that a person accepted since this process began."""

    revision: int
    accepted: int


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

    __slots__ = ("_accepted", "_kept", "_known", "_memory")

    def __init__(self, memory: Memory) -> None:
        """Read what is known.

        Raises: StateError, KernelError.
        """
        self._memory = memory
        self._known = self._kept = memory.read()
        self._accepted = 0

    def asked(self) -> Asked:
        """Give what is known at the moment of a question.

        Raises: CoordinatorAwayError, if the store is not to be believed.
        """
        if self._known is not None and self._known.distrust and not self._was_accepted_since():
            raise CoordinatorAwayError(f"{self._known.distrust}; {_REMEDY}")
        return Asked(revision=0 if self._known is None else self._known.revision, accepted=self._accepted)

    def heed(self, listing: Listing, asked: Asked) -> None:
        """Take note of an answer. ``asked``: what `asked` gave before.

        Raises: CoordinatorAwayError, if it is not of the store that is known, or of an earlier state of it.
        """
        if self._known is None:
            self._note(Known(cluster=listing.cluster, revision=listing.revision))
        elif asked.accepted != self._accepted:
            raise CoordinatorAwayError(_TOO_EARLY)
        elif listing.cluster != self._known.cluster:
            self._refuse(f"the coordinator is another cluster, {listing.cluster}, not {self._known.cluster}")
        elif listing.revision < asked.revision:
            self._refuse(f"the coordinator has gone back from revision {asked.revision} to {listing.revision}")
        elif listing.revision > self._known.revision:
            self._known = replace(self._known, revision=listing.revision)
            if self._kept is None or listing.revision - self._kept.revision >= _OFTEN:
                self._note(self._known)

    def wrote(self, revision: int) -> None:
        """Take note of a revision that this host wrote: that ownership moved is not to be forgotten."""
        if self._known is not None and revision > self._known.revision:
            self._note(replace(self._known, revision=revision))

    def _was_accepted_since(self) -> bool:
        """Look whether a person accepted a store while this process believed another one, and believe that one then."""
        found = self._memory.read()
        if found is None or found == self._kept:
            return False
        self._known = self._kept = found
        self._accepted += not found.distrust
        return not found.distrust

    def _refuse(self, why: str) -> None:
        if self._was_accepted_since():
            raise CoordinatorAwayError(_TOO_EARLY)
        assert self._known is not None
        self._note(replace(self._known, distrust=why))
        raise CoordinatorAwayError(f"{why}; {_REMEDY}")

    def _note(self, known: Known) -> None:
        self._known = self._kept = known
        self._memory.write(known)
