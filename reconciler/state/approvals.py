"""Consents: the hashes of plans that a person has agreed to, each for exactly that plan and for a day."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from reconciler.errors import UsageError
from reconciler.model.facts import Json
from reconciler.state.document import Document

VALID_S = 24 * 3600.0
"""How long a consent holds. Units: seconds."""

_FORMAT = 1
_HASH = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """``hash`` is a ve_hash or an action_hash. Units: ``at`` and ``expires`` seconds since the epoch."""

    hash: str
    at: float
    expires: float
    by: str


class Approvals:
    """The consents of an instance, in one file."""

    __slots__ = ("_document",)

    def __init__(self, state_dir: str) -> None:
        remedy = "remove it: then consents have to be given anew"
        self._document = Document(path=f"{state_dir}/approvals.json", format=_FORMAT, remedy=remedy)

    def approve(self, hash_: str, *, by: str, now: float) -> Consent:
        """Remember a consent, durably; a second one for the same plan renews it.

        Units: ``now`` seconds since the epoch.
        Raises: UsageError, if it is no whole hash; StateError, KernelError, NoSpaceError, BusyError.
        """
        if not is_hash(hash_):
            raise UsageError(f"approve {hash_!r}: expected the 64 hex digits that `vectl plan` prints")
        consent = Consent(hash=hash_, at=now, expires=now + VALID_S, by=by)
        with self._document.locked():
            others = (other for other in self._read() if other.hash != hash_ and _holds(other, now))
            self._write((*others, consent))
        return consent

    def note(self, hashes: Iterable[str], like: Consent, *, now: float) -> bool:
        """Remember that a consent covers other hashes too, or came with a commit; tells whether anything was new.

        It ends when that ends, whoever looks at it how often, and renews none. Units: ``now`` seconds since the epoch.
        Raises: StateError, KernelError, NoSpaceError, BusyError.
        """
        if not _holds(like, now):
            return False
        with self._document.locked():
            kept = {other.hash: other for other in self._read() if _holds(other, now)}
            added = [replace(like, hash=hash_) for hash_ in hashes if _is_shorter(kept.get(hash_), like)]
            if added:
                self._write({**kept, **{consent.hash: consent for consent in added}}.values())
        return bool(added)

    def in_force(self, now: float) -> tuple[Consent, ...]:
        """Read the consents that hold now.

        Raises: StateError, KernelError.
        """
        return tuple(consent for consent in self._read() if _holds(consent, now))

    def _read(self) -> tuple[Consent, ...]:
        fields = self._document.read()
        if fields is None:
            return ()
        consents = []
        for item in fields.objects("consents"):
            consents.append(
                Consent(
                    hash=item.text("hash"), at=item.number("at"), expires=item.number("expires"), by=item.text("by")
                )
            )
            item.end()
        fields.end()
        return tuple(consents)

    def _write(self, consents: Iterable[Consent]) -> None:
        items: list[Json] = [
            {"hash": consent.hash, "at": consent.at, "expires": consent.expires, "by": consent.by}
            for consent in consents
        ]
        self._document.write({"consents": items})


def is_hash(text: str) -> bool:
    """Say whether a text is a whole hash of a plan."""
    return _HASH.match(text) is not None


def noted(hash_: str, *, by: str, at: float, now: float) -> Consent:
    """Give the consent that a commit or a note gives: a day from its time, or from when it was first seen if that is
    earlier.

    Units: ``at``, ``now`` seconds since the epoch.
    """
    since = min(at, now)
    return Consent(hash=hash_, at=since, expires=since + VALID_S, by=by)


def _is_shorter(known: Consent | None, like: Consent) -> bool:
    return known is None or known.expires < like.expires


def _holds(consent: Consent, now: float) -> bool:
    # One given in the future is of a clock that was wrong: it must not hold for longer than a day.
    return consent.at <= now < consent.expires
