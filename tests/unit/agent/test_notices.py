"""Each failure is told once, its end once, and what comes and goes no more often than that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.agent.books import Books
from reconciler.agent.notices import (
    CALM_S,
    WINDOW_S,
    Book,
    Notice,
    after,
    after_status,
    due,
    due_statuses,
    forget_unwanted,
    look_again_in,
)
from reconciler.agent.standing import PATIENCE_S, Phase, Problem, Progress, Standing
from reconciler.errors import StateError
from reconciler.state.notify import DEFAULT_TOPICS, Topic

ALL = frozenset(Topic)
COMMIT, NEXT = "a" * 40, "b" * 40


def problem(
    subject: str, reason: str = "Stalled", message: str = "m", since: float = 0.0, *, urgent: bool = True
) -> Problem:
    return Problem(subject=subject, reason=reason, message=message, since=since, urgent=urgent)


def stands(*problems: Problem, well: dict[str, float] | None = None, known: tuple[str, ...] = ("a", "b")) -> Standing:
    return Standing(
        host="node-a",
        revision=COMMIT,
        problems={one.subject: one for one in problems},
        well=well or {},
        known=frozenset(known),
    )


WELL = stands(well={"a": 0.0, "b": 0.0})


class Ear:
    """Hears what is due, and is told it."""

    def __init__(self, topics: frozenset[Topic] = ALL) -> None:
        self.book, self.topics = Book(), topics

    def hear(self, standing: Standing, now: float) -> list[tuple[Topic, str, str]]:
        self.book = forget_unwanted(self.book, standing, self.topics)
        notices = due(self.book, standing, self.topics, now)
        self.book = after(self.book, notices, now)
        return [(one.topic, one.subject, one.reason) for one in notices]


FAILED, RECOVERED = (Topic.FAILURE, "a", "Stalled"), (Topic.RECOVERY, "a", "Recovered")


def test_a_failure_and_its_end_are_told_once() -> None:
    ear = Ear()
    assert ear.hear(stands(problem("a")), 100.0) == [FAILED]
    assert ear.hear(stands(problem("a")), 200.0) == []
    assert ear.hear(stands(problem("a")), 100.0 + 10 * WINDOW_S) == []
    assert ear.hear(WELL, 40_000.0) == [RECOVERED]
    assert ear.hear(WELL, 40_001.0) == []


def test_what_may_pass_by_itself_is_a_failure_only_if_it_lasts() -> None:
    ear, slow = Ear(), problem("a", "ObservationUnknown", urgent=False)
    assert ear.hear(stands(slow), PATIENCE_S - 1) == []
    assert ear.hear(stands(slow), PATIENCE_S) == [(Topic.FAILURE, "a", "ObservationUnknown")]


def test_an_end_is_told_when_it_lasts() -> None:
    ear = Ear()
    ear.hear(stands(problem("a")), 100.0)
    assert ear.hear(stands(well={"a": 200.0}), 200.0 + CALM_S - 1) == []
    assert ear.hear(stands(well={"a": 200.0}), 200.0 + CALM_S) == [RECOVERED]


def test_what_comes_and_goes_is_told_once_an_hour_and_the_last_word_is_true() -> None:
    ear, told, now = Ear(), [], 0.0
    for now in range(100, 3500, 100):
        told += ear.hear(stands(problem("a", since=float(now))), float(now))
        told += ear.hear(stands(well={"a": now + 20.0}), now + 50.0)
    assert told == [FAILED, RECOVERED]
    assert ear.hear(stands(problem("a", since=3500.0)), 3500.0) == []
    assert ear.hear(stands(problem("a", since=3500.0)), 100.0 + WINDOW_S) == [FAILED]


def test_another_reason_is_another_failure_and_has_one_end() -> None:
    ear = Ear()
    assert ear.hear(stands(problem("a")), 1.0) == [FAILED]
    assert ear.hear(stands(problem("a", "PlanChanged")), 2.0) == [(Topic.FAILURE, "a", "PlanChanged")]
    assert ear.hear(stands(problem("a")), 3.0) == []
    assert ear.hear(WELL, 100.0) == [(Topic.RECOVERY, "a", "Recovered")]


def test_another_message_of_the_same_reason_waits_for_its_hour() -> None:
    ear = Ear()
    ear.hear(stands(problem("a", message="1 of 9")), 1.0)
    assert ear.hear(stands(problem("a", message="2 of 9")), 2.0) == []
    assert ear.hear(stands(problem("a", message="3 of 9")), 2 + WINDOW_S) == [FAILED]


def test_that_nothing_is_known_of_it_is_not_its_end() -> None:
    ear = Ear()
    ear.hear(stands(problem("a")), 1.0)
    assert ear.hear(stands(), 1000.0) == []


def test_the_next_look_is_when_something_is_due() -> None:
    ear = Ear()
    assert look_again_in(ear.book, WELL, 100.0) is None
    slow = stands(problem("a", since=50.0, urgent=False))
    assert look_again_in(ear.book, slow, 100.0) == PATIENCE_S - 50
    ear.hear(stands(problem("a")), 100.0)
    assert look_again_in(ear.book, stands(well={"a": 195.0, "b": 0.0}), 200.0) == CALM_S - 5
    assert look_again_in(ear.book, stands(problem("a")), 300.0) is None


def test_what_is_gone_has_ended() -> None:
    ear = Ear()
    ear.hear(stands(problem("a")), 1.0)
    assert ear.hear(stands(known=("b",)), 2.0) == [(Topic.RECOVERY, "a", "Gone")]


def test_who_wants_no_recoveries_hears_of_the_next_failure_all_the_same() -> None:
    ear = Ear(frozenset({Topic.FAILURE}))
    assert ear.hear(stands(problem("a")), 1.0) == [FAILED]
    assert ear.hear(WELL, 100.0) == []
    assert ear.hear(stands(problem("a")), 200.0 + WINDOW_S) == [FAILED]


def test_a_revision_that_is_carried_out_is_told_once_to_who_wants_it() -> None:
    done = replace(WELL, progress=(Progress(revision=COMMIT, phase=Phase.SUCCESS, summary="2 of 2"),))
    pending = replace(WELL, progress=(Progress(revision=NEXT, phase=Phase.PENDING, summary=""),))
    ear = Ear()
    assert ear.hear(done, 1.0) == [(Topic.APPLIED, "node-a", "Applied")]
    assert ear.hear(done, 2.0) + ear.hear(pending, 3.0) + ear.hear(done, 4.0) == []
    assert Ear(DEFAULT_TOPICS).hear(done, 1.0) == []


def standings() -> st.SearchStrategy[Standing]:
    one = st.sampled_from(["well", "unknown", "gone", "X", "Y"])

    def build(a: str, b: str) -> Standing:
        states = {"a": a, "b": b}
        return stands(
            *(problem(name, state) for name, state in states.items() if state in "XY"),
            well={name: 0.0 for name, state in states.items() if state == "well"},
            known=tuple(name for name, state in states.items() if state != "gone"),
        )

    return st.builds(build, one, one)


@given(st.lists(st.tuples(standings(), st.floats(1.0, 2 * WINDOW_S)), max_size=30))
def test_failures_and_ends_alternate_and_no_failure_is_told_twice_an_hour(steps: list[tuple[Standing, float]]) -> None:
    ear, now, failing, last = Ear(), CALM_S, set[str](), dict[tuple[str, str], float]()
    for standing, wait_s in steps:
        now += wait_s
        for topic, subject, reason in ear.hear(standing, now):
            if topic is Topic.FAILURE:
                assert now - last.get((subject, reason), -WINDOW_S) >= WINDOW_S
                last[subject, reason] = now
                failing.add(subject)
            else:
                assert subject in failing
                failing.discard(subject)
        if all(name in standing.well for name in ("a", "b")):
            assert not failing


@pytest.fixture
def book() -> Book:
    notices = [Notice(topic=topic, subject="a", reason="r", message="m", at=1.0, revision=COMMIT) for topic in Topic]
    made = after(Book(), notices[:1], 5.0)
    made = replace(after(made, notices[2:], 6.0), applied=COMMIT)
    return after_status(made, Progress(revision=COMMIT, phase=Phase.FAILURE, summary="s"), 7.0)


def test_what_was_told_outlives_the_agent(tmp_path: Path, book: Book) -> None:
    Books(str(tmp_path)).write("k", book)
    assert Books(str(tmp_path)).read("k") == book
    assert Books(str(tmp_path)).read("other") == Book()
    (tmp_path / "notices" / "k.json").write_text("{")
    with pytest.raises(StateError, match="remove it: then what stands is told once more"):
        Books(str(tmp_path)).read("k")


def progress(revision: str, phase: Phase, summary: str = "s") -> Standing:
    return Standing(host="h", revision=revision, progress=(Progress(revision=revision, phase=phase, summary=summary),))


def test_a_commit_goes_from_pending_to_its_end_once() -> None:
    book, sent = Book(), []
    for phase in (Phase.PENDING, Phase.PENDING, Phase.SUCCESS, Phase.SUCCESS, Phase.FAILURE, Phase.SUCCESS):
        for one in due_statuses(book, progress(COMMIT, phase), 1.0):
            book = after_status(book, one, 1.0)
            sent.append(one.phase)
    assert sent == [Phase.PENDING, Phase.SUCCESS, Phase.FAILURE, Phase.SUCCESS]


def test_a_commit_that_was_overtaken_is_not_left_pending() -> None:
    book = after_status(Book(), Progress(revision=COMMIT, phase=Phase.PENDING, summary=""), 1.0)
    found = due_statuses(book, progress(NEXT, Phase.PENDING), 2.0)
    assert [(one.revision, one.phase) for one in found] == [(NEXT, Phase.PENDING), (COMMIT, Phase.SUPERSEDED)]
    for one in found:
        book = after_status(book, one, 2.0)
    assert due_statuses(book, progress(NEXT, Phase.PENDING), 3.0) == ()


def test_a_status_that_changes_for_ever_is_sent_now_and_then() -> None:
    book, sent = Book(), 0
    for now in range(1000):
        phase = Phase.SUCCESS if now % 2 else Phase.FAILURE
        for one in due_statuses(book, progress(COMMIT, phase), float(now)):
            book, sent = after_status(book, one, float(now)), sent + 1
    assert 10 < sent < 15


@pytest.mark.parametrize("revision", ["", "dir:0123456789ab", "g" * 40, "a" * 41])
def test_what_is_no_commit_has_no_status(revision: str) -> None:
    assert due_statuses(Book(), progress(revision, Phase.SUCCESS), 1.0) == ()
