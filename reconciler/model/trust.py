"""Trust: whose signatures count, for which paths and when, as the root of a host says it outside of any repository."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

_PATH_MAX = 4096
"""What a host can open; longer ones only take time to compare. Units: characters. Source: linux/limits.h."""


class SignatureState(StrEnum):
    """What came of checking a signature. ``EXPIRED``: by the key's own time, not by ours."""

    GOOD = "good"
    MISSING = "missing"
    BAD = "bad"
    UNKNOWN_KEY = "unknown-key"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """``key``: the fingerprint of the key that made it, "" where that cannot be told. ``problem``: what is wrong."""

    state: SignatureState
    key: str = ""
    problem: str = ""


UNSIGNED = Signature(state=SignatureState.MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Somebody who may sign commits by one of ``keys``, named by their fingerprints.

    ``paths``: patterns of the files that he may touch; None: all. ``may_review``: whether he may vouch for plans.
    ``merges_only``: a forge, which vouches for merges alone.
    Units: seconds since the epoch; a commit of ``valid_before`` is too late, one of ``valid_after`` is not too early.
    """

    name: str
    keys: frozenset[str]
    paths: tuple[str, ...] | None = None
    valid_after: float | None = None
    valid_before: float | None = None
    may_review: bool = True
    merges_only: bool = False

    def may_touch(self, path: str) -> bool:
        """Say whether he may change a file, by its path from the top of the repository."""
        if self.paths is None:
            return True
        return len(path) <= _PATH_MAX and any(path_matches(pattern, path) for pattern in self.paths)

    def is_valid_at(self, moment: float) -> bool:
        """Say whether his word counts at a time."""
        return (self.valid_after or 0.0) <= moment and (self.valid_before is None or moment < self.valid_before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The public keys that signatures are checked against: lines of ssh, and what gpg exported."""

    ssh: tuple[str, ...] = ()
    gpg: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """Whom a source is believed. ``anchor``: a commit that needs no signature, nor do those before it.

    ``file``: where it was read, for remedies.
    """

    signers: tuple[Signer, ...]
    keyring: Keyring = field(default=Keyring(), repr=False)
    anchor: str | None = None
    file: str = ""

    def named(self, key: str) -> tuple[Signer, ...]:
        """Give the signers that a key stands for."""
        return tuple(signer for signer in self.signers if key in signer.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """A person's word that commit ``new`` takes the place of ``old``. Units: ``at`` seconds since the epoch."""

    old: str
    new: str
    by: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What is known of a source from earlier looks: only what is built on ``trusted`` is taken.

    ``signed``: signatures led to it; else whoever could write to the branch. ``latest``: the latest time that a commit
    up to it carries, below which time does not go back.
    ``accepted``: rewrites that a person accepted, oldest first.
    Units: seconds since the epoch.
    """

    trusted: str | None = None
    signed: bool = False
    latest: float = 0.0
    accepted: tuple[Rewrite, ...] = ()

    def accepted_from(self, old: str | None) -> Rewrite | None:
        """Give the newest rewrite that begins at a commit."""
        return next((rewrite for rewrite in reversed(self.accepted) if rewrite.old == old), None)


def path_matches(pattern: str, path: str) -> bool:
    """Say whether a pattern names a file: ``*`` and ``?`` within a folder, ``**`` for folders however deep.

    Source: gitignore(5), for the meaning of two asterisks.
    """
    return re.fullmatch(_expression(pattern.split("/")), path, re.DOTALL) is not None


def _expression(parts: Sequence[str]) -> str:
    folders = ["(?:[^/]+/)*" if part == "**" else f"{_component(part)}/" for part in parts[:-1]]
    return "".join((*folders, ".+" if parts[-1] == "**" else _component(parts[-1])))


def _component(part: str) -> str:
    return "".join({"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char) for char in part)
