"""Claims about what people write on the command line: times, goals, labels and hashes."""

from __future__ import annotations

from datetime import datetime

import pytest

from reconciler.agent.view import Row
from reconciler.cli import approve, context, describe, get, output, waiting
from reconciler.cli.events import newer
from reconciler.cli.operate import parse_until
from reconciler.errors import StateError, UsageError
from reconciler.model.action import Plan
from reconciler.model.condition import Condition, ConditionType, Event, Status
from reconciler.model.identity import HostName

NOW = datetime.fromisoformat("2026-11-23T12:00:00+00:00").timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800.0), ("2d", 172_800.0), ("2026-11-23T13:00:00+00:00", 3600.0), ("2026-11-23T12:30Z", 1800.0)],
)
def test_an_end_is_a_duration_or_a_moment(text: str, seconds: float) -> None:
    assert parse_until(text, now=NOW) == NOW + seconds


@pytest.mark.parametrize("text", ["tomorrow", "2026-11-22", "0s", "-5m", ""])
def test_an_end_that_is_none_or_over_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="read --until"):
        parse_until(text, now=NOW)


def row(*conditions: Condition) -> Row:
    ready = Condition(type=ConditionType.READY, status=Status.FALSE, reason="Waiting")
    return Row(name="a", spec=None, seen=None, conditions=conditions or (ready,))


PAUSED = Condition(type=ConditionType.PAUSED, status=Status.TRUE, reason="Paused")


@pytest.mark.parametrize(
    ("goal", "found", "so"),
    [
        ("condition=Ready", row(), False),
        ("condition=Ready=False", row(), True),
        ("condition=Paused", row(PAUSED), True),
        ("condition=Paused=False", row(), True),
        ("condition=Ready", None, False),
        ("power=stopped", row(), True),
        ("power=running", row(), False),
        ("delete", None, True),
        ("delete", row(), True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_goal_is_reached_or_not(goal: str, found: Row | None, so: bool) -> None:
    assert waiting.parse_goal(goal)(found) is so


@pytest.mark.parametrize(
    "goal", ["Ready", "condition=Happy", "condition=Ready=Maybe", "power=on", "delete=now", "condition=Valid"]
)
def test_a_goal_that_cannot_be_reached_is_refused(goal: str) -> None:
    with pytest.raises(UsageError, match="read --for: expected"):
        waiting.parse_goal(goal)


@pytest.mark.parametrize(
    ("label", "matches"),
    [("tier=web", True), ("tier=db", False), ("tier", True), ("rack", False), ("tier!=db", True), ("rack!=r1", True)],
)
def test_labels_select(label: str, matches: bool) -> None:
    assert get._matches({"tier": "web"}, label) is matches


PLAN = Plan(host=HostName("here"), revision="r", ve_hashes={"a": "ab" * 32, "b": "ac" * 32}, action_hash="dd" * 32)


def test_the_beginning_of_a_hash_is_enough() -> None:
    assert approve.find_hash("ababab", PLAN) == ("ab" * 32, "the changes of a")
    assert approve.find_hash("dddddd", PLAN) == ("dd" * 32, "the whole plan")


def test_a_beginning_of_none_or_of_several_hashes_is_refused() -> None:
    with pytest.raises(StateError, match="has no such hash"):
        approve.find_hash("123456", PLAN)
    with pytest.raises(UsageError, match="2 hashes of the present plan begin so"):
        approve.find_hash("a", PLAN)


def test_events_are_followed_from_the_last_one_seen() -> None:
    first, second, third = (Event(at=float(n), ve="a", reason="R", message=str(n)) for n in range(3))
    assert newer([first, second, third], [second]) == [third]
    assert newer([second, third], [first]) == [second, third]
    assert newer([first], []) == [first]


DRIFTED = Condition(type=ConditionType.DRIFTED, status=Status.TRUE, reason="LeftAlone")
READY = Condition(type=ConditionType.READY, status=Status.TRUE, reason="Converged")


@pytest.mark.parametrize(
    ("conditions", "shown"),
    [
        ((), "False (Waiting)"),
        ((READY,), "True"),
        ((READY, PAUSED), "True (Paused)"),
        ((READY, DRIFTED, PAUSED), "True (Paused, Drifted)"),
    ],
)
def test_who_is_ready_and_yet_left_alone_shows_it(conditions: tuple[Condition, ...], shown: str) -> None:
    assert get._ready_text(row(*conditions)) == shown


def of_source(kind: ConditionType, status: Status, message: str = "", *, revision: str = "r1") -> Condition:
    return Condition(type=kind, status=status, reason="So", message=message, revision=revision)


READ = of_source(ConditionType.FETCHED, Status.TRUE, revision="r2")
GONE = of_source(ConditionType.FETCHED, Status.FALSE, "/srv: no such directory", revision="")
VALID = of_source(ConditionType.VALID, Status.TRUE)
INVALID = of_source(ConditionType.VALID, Status.FALSE, "1 mistake; r1 stays in force")
NOT_READ = of_source(ConditionType.VALID, Status.UNKNOWN, "r1 stays in force")


@pytest.mark.parametrize(
    ("conditions", "shown"),
    [
        ((), ""),
        ((READ, VALID), ""),
        ((READ, NOT_READ), ""),
        ((READ, INVALID), "the newest manifests are not valid: 1 mistake; r1 stays in force"),
        ((GONE, NOT_READ), "the manifests cannot be read: /srv: no such directory; r1 stays in force"),
    ],
)
def test_a_table_of_older_manifests_says_so(conditions: tuple[Condition, ...], shown: str) -> None:
    assert get.source_words(conditions, "r1") == shown
    assert get.source_words(conditions, "r0") == ""


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("2m", 120.0), ("0.5s", 0.5)])
def test_a_timeout_is_a_duration_or_a_number_of_seconds(text: str, seconds: float) -> None:
    assert context.parse_timeout(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1"])
def test_a_timeout_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="read --timeout"):
        context.parse_timeout(text)


def test_a_section_of_the_spec_stands_together() -> None:
    paths = ["power", "cpu.weight", "memory.limit", "cpu.guarantee", "memory.limit", "labels"]
    assert [*describe._by_section(paths)] == ["power", "cpu.weight", "cpu.guarantee", "memory.limit", "labels"]


def test_a_moment_is_what_every_program_reads() -> None:
    assert datetime.fromisoformat(output.moment(NOW)).timestamp() == NOW
    assert output.moment(NOW)[-3] == ":"
