"""The audit log's entries: who had what done, on whose word, and what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from reconciler.model.facts import Json

VALUE_MAX = 1024
"""A longer value is named by its hash. Units: bytes of canonical JSON."""

TEXT_MAX = 500
"""A longer text is cut: some of them a commit's author, or a VE, wrote. Units: characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """A group of actions that was carried out on one object, or a request of a person.

    ``who``: the person of the command line, the committer of the revision, or ``vectl``; ``signer``: who vouched for
    the revision. ``plan`` and ``ve_hash``: what a review or a consent names. ``request``: a person's word, "" for
    actions. ``lost``: entries before this one that could not be written.
    Shape: ``actions`` canonical JSON. Units: ``at`` seconds since the epoch.
    """

    at: float
    who: str
    ve: str
    outcome: str
    signer: str = ""
    revision: str = ""
    plan: str = ""
    ve_hash: str = ""
    request: str = ""
    detail: str = ""
    error: str = ""
    actions: tuple[Mapping[str, Json], ...] = ()
    lost: int = 0

    def to_json(self) -> dict[str, Json]:
        """Give the stable form, without the place in the chain."""
        texts = ("who", "signer", "revision", "plan", "ve", "ve_hash", "request", "detail", "error", "outcome")
        fields: dict[str, Json] = {name: getattr(self, name)[:TEXT_MAX] for name in texts}
        return {**fields, "at": self.at, "lost": self.lost, "actions": [dict(action) for action in self.actions]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An entry in its chain: ``seq`` counts from 1; ``hash`` covers the entry, ``seq`` and ``prev``, the one before."""

    seq: int
    prev: str
    hash: str
    entry: Mapping[str, Json]

    def to_json(self) -> dict[str, Json]:
        """Give one line of the log."""
        return {**self.entry, "seq": self.seq, "prev": self.prev, "hash": self.hash}

    @property
    def whole(self) -> bool:
        """Whether nothing of it was changed since it was written."""
        return self.hash == _hash(self.seq, self.prev, self.entry)


BEGINNING = Link(seq=0, prev="", hash="", entry={})
"""What stands before the first entry."""


def linked(before: Link, entry: AuditEntry) -> Link:
    """Put an entry behind another one."""
    made = Link(seq=before.seq + 1, prev=before.hash, hash="", entry=entry.to_json())
    return replace(made, hash=_hash(made.seq, made.prev, made.entry))


def shortened(value: Json) -> Json:
    """Give a value as the log has it: a long one by its hash and size."""
    text = json.dumps(value, sort_keys=True).encode()
    if len(text) <= VALUE_MAX:
        return value
    return {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}


def _hash(seq: int, prev: str, entry: Mapping[str, Json]) -> str:
    content = {**entry, "seq": seq, "prev": prev}
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
