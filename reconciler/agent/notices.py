"""What to tell somebody now: each failure once, its end once, nothing that comes and goes more often than that.

Pure: from what stands, what was told before, and the time. Nothing is queued: while somebody cannot be reached, what
he is told at last is what stands by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from reconciler.agent.standing import PATIENCE_S, Phase, Progress, Standing
from reconciler.model.facts import Json
from reconciler.state.notify import Topic

WINDOW_S = 3600.0
"""How long the same failure of the same object is not told again. Units: seconds."""

CALM_S = 10.0
"""How long something is well before that is told. Units: seconds."""

_STATUSES_MAX = 16
_OFTEN = 10
_SPACING_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing to tell. Units: ``at`` seconds since the epoch."""

    topic: Topic
    subject: str
    reason: str
    message: str
    at: float
    revision: str = ""

    def to_json(self) -> dict[str, Json]:
        """Give the stable form of the webhook."""
        return {
            "topic": self.topic.value,
            "subject": self.subject,
            "reason": self.reason,
            "message": self.message,
            "at": self.at,
            "revision": self.revision,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """When a failure was told, in which words."""

    at: float
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusTold:
    """The last status of a commit that was sent, and how many were."""

    phase: Phase
    summary: str
    at: float
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """What one target was told. ``open``: by subject the reason of the failure whose end it has not heard of.

    ``told``: by subject and reason. ``applied``: the last revision that was told to be carried out.
    """

    told: Mapping[tuple[str, str], Told] = field(default_factory=dict)
    open: Mapping[str, str] = field(default_factory=dict)
    applied: str = ""
    statuses: Mapping[str, StatusTold] = field(default_factory=dict)


def due(book: Book, standing: Standing, topics: frozenset[Topic], now: float) -> tuple[Notice, ...]:
    """Give what is to be told now. Units: ``now`` seconds since the epoch."""
    found = (*_failures(book, standing, now), *_recoveries(book, standing, now), *_applied(book, standing, now))
    return tuple(notice for notice in found if notice.topic in topics)


def look_again_in(book: Book, standing: Standing, now: float) -> float | None:
    """Give the time after which something is due though nothing changes; None, if nothing is. Units: seconds."""
    waits = [
        *(standing.well[subject] + CALM_S - now for subject in book.open if subject in standing.well),
        *(one.since + PATIENCE_S - now for one in standing.problems.values() if not one.is_failure(now)),
    ]
    return min((wait_s for wait_s in waits if wait_s > 0), default=None)


def after(book: Book, notices: Iterable[Notice], now: float) -> Book:
    """Give the book once notices were told."""
    told = {key: one for key, one in book.told.items() if now - one.at < WINDOW_S or book.open.get(key[0]) == key[1]}
    open_, applied = dict(book.open), book.applied
    for notice in notices:
        match notice.topic:
            case Topic.FAILURE:
                told[notice.subject, notice.reason] = Told(at=now, message=notice.message)
                open_[notice.subject] = notice.reason
            case Topic.RECOVERY:
                open_.pop(notice.subject, None)
            case Topic.APPLIED:
                applied = notice.revision
    return replace(book, told=told, open=open_, applied=applied)


def forget_unwanted(book: Book, standing: Standing, topics: frozenset[Topic]) -> Book:
    """Close what is over and whose end nobody wants to hear."""
    if Topic.RECOVERY in topics:
        return book
    return replace(book, open={name: reason for name, reason in book.open.items() if not _is_over(standing, name)})


def due_statuses(book: Book, standing: Standing, now: float) -> tuple[Progress, ...]:
    """Give the statuses of commits that are to be sent now."""
    wanted = {one.revision: one for one in standing.progress if is_commit(one.revision)}
    for revision, told in book.statuses.items():
        if revision not in wanted and told.phase is Phase.PENDING:
            summary = f"superseded by {standing.revision[:12]}"
            wanted[revision] = Progress(revision=revision, phase=Phase.SUPERSEDED, summary=summary)
    return tuple(one for one in wanted.values() if _is_due(book.statuses.get(one.revision), one, now))


def after_status(book: Book, sent: Progress, now: float) -> Book:
    """Give the book once a status was sent."""
    before = book.statuses.get(sent.revision)
    made = StatusTold(phase=sent.phase, summary=sent.summary, at=now, count=before.count + 1 if before else 1)
    kept = {revision: one for revision, one in book.statuses.items() if revision != sent.revision}
    return replace(book, statuses=dict(list({**kept, sent.revision: made}.items())[-_STATUSES_MAX:]))


def is_commit(revision: str) -> bool:
    """Say whether a revision is a commit's whole name."""
    return len(revision) in (40, 64) and not set(revision) - set("0123456789abcdef")


def _failures(book: Book, standing: Standing, now: float) -> Iterator[Notice]:
    for subject, problem in sorted(standing.problems.items()):
        told = book.told.get((subject, problem.reason))
        is_known = told is not None and (book.open.get(subject) == problem.reason and told.message == problem.message)
        is_recent = told is not None and now - told.at < WINDOW_S
        if problem.is_failure(now) and not (is_known or is_recent):
            yield Notice(
                topic=Topic.FAILURE,
                subject=subject,
                reason=problem.reason,
                message=problem.message,
                at=problem.since,
                revision=standing.revision,
            )


def _recoveries(book: Book, standing: Standing, now: float) -> Iterator[Notice]:
    for subject, reason in sorted(book.open.items()):
        is_calm = now - standing.well.get(subject, now) >= CALM_S or subject not in standing.well
        if _is_over(standing, subject) and is_calm:
            is_gone = subject not in standing.known and "." not in subject
            message = "it is no longer here" if is_gone else f"well again after {reason}"
            yield Notice(
                topic=Topic.RECOVERY,
                subject=subject,
                reason="Gone" if is_gone else "Recovered",
                message=message,
                at=now,
                revision=standing.revision,
            )


def _is_over(standing: Standing, subject: str) -> bool:
    """Say whether a failure is known to be over: that nothing is heard of it is not enough, as after a start."""
    return subject in standing.well or subject not in standing.known


def _applied(book: Book, standing: Standing, now: float) -> Iterator[Notice]:
    for progress in standing.progress:
        if progress.phase is Phase.SUCCESS and progress.revision not in ("", book.applied):
            yield Notice(
                topic=Topic.APPLIED,
                subject=standing.host,
                reason="Applied",
                message=progress.summary,
                at=now,
                revision=progress.revision,
            )


def _is_due(told: StatusTold | None, wanted: Progress, now: float) -> bool:
    """Say whether a status is new; of one that changes for ever, now and then."""
    if told is None:
        return True
    is_news = wanted.phase is not told.phase or (wanted.phase is Phase.FAILURE and wanted.summary != told.summary)
    return is_news and (told.count < _OFTEN or now - told.at >= _SPACING_S)
