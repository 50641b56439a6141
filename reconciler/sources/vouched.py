"""What people vouched for on the way to a revision: in trailers of signed commits, and in signed notes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from reconciler.model.commit import Step, trailers

Kind: TypeAlias = Literal["reviewed", "approved"]

KEYS: dict[str, Kind] = {"vectl-reviewed": "reviewed", "vectl-approved": "approved"}
"""The keys of trailers and notes, in small letters; git compares them so."""

_HASH = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """Somebody's word for the plan with a hash, said on the commit ``revision``.

    Units: ``at`` seconds since the epoch.
    """

    kind: Kind
    hash: str
    by: str
    at: float
    revision: str


def vouched(way: Sequence[Step]) -> tuple[Vouched, ...]:
    """Give what counts of what was said on the commits of a way.

    The words of a forge, which merges what anybody wrote, count only where the trust file says so; those of a commit
    that nobody vouches for never do.
    """
    return tuple(one for step in way for one in _of_step(step))


def _of_step(step: Step) -> Iterator[Vouched]:
    commit = step.commit
    if step.signer and step.may_review:
        yield from _of_lines(trailers(commit.message), by=step.signer, at=commit.committed_at, revision=commit.id)
    for note in step.notes:
        yield from _of_lines(note.lines, by=note.by, at=note.at, revision=commit.id)


def _of_lines(lines: Iterable[tuple[str, str]], *, by: str, at: float, revision: str) -> Iterator[Vouched]:
    for key, value in lines:
        kind = KEYS.get(key.lower())
        if kind is not None and _HASH.match(value):
            yield Vouched(kind=kind, hash=value, by=by, at=at, revision=revision)
