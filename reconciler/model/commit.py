"""Commits: what a revision of a repository says of itself, and who vouches for it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

_COMMIT = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_TRAILER = re.compile(r"([A-Za-z0-9-]+): +(\S.*)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit. ``id``, ``tree`` and ``parents`` are object names in hex; ``signature`` is armoured, "" for none.

    ``payload``: the bytes that were signed, the commit object without its signature. ``author`` and ``committer``
    read ``name <email>``. Nothing of it is to be trusted, before its signature was.
    Units: ``committed_at`` seconds since the epoch.
    Source: gitformat-signature(5).
    """

    id: str
    tree: str
    parents: tuple[str, ...]
    author: str
    committer: str
    committed_at: float
    message: str
    signature: str = field(default="", repr=False)
    payload: bytes = field(default=b"", repr=False, compare=False)

    @property
    def subject(self) -> str:
        """The first line of the message."""
        return self.message.partition("\n")[0]


def trailers(message: str) -> tuple[tuple[str, str], ...]:
    """Give the trailers of a message: the lines ``Key: value`` of a last paragraph that has nothing else.

    Source: git-interpret-trailers(1), its plain form.
    """
    last = message.rstrip("\n").rpartition("\n\n")[2].splitlines() if "\n\n" in message.rstrip("\n") else []
    found = [_TRAILER.match(line) for line in last]
    return tuple((match[1], match[2].strip()) for match in found if match) if found and all(found) else ()


def short(revision: str) -> str:
    """Give a revision as people read it: a commit by its first 12 digits, others as they are."""
    return revision[:12] if _COMMIT.match(revision) else revision


class TrustState(StrEnum):
    """Whether a snapshot may be acted upon."""

    TRUSTED = "trusted"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What came of looking at who vouches for a snapshot: ``reason`` and ``message`` of the condition `Verified`."""

    state: TrustState
    reason: str
    message: str = ""


LOCAL_FILES = Trust(state=TrustState.TRUSTED, reason="LocalFiles", message="whoever may write the files is trusted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What somebody noted on a commit and signed: keys and values. Units: ``at`` seconds since the epoch."""

    by: str
    at: float
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One commit of the way from the revision in force to the newest, along first parents.

    ``signer``: who vouches for it, "" where nobody does. ``may_review``: whether what the signer says of plans counts.
    ``notes``: what was noted on it, each verified.
    """

    commit: Commit
    signer: str = ""
    may_review: bool = True
    notes: tuple[Note, ...] = ()
