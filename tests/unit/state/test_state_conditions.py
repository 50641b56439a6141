"""What people are told: conditions and events, readable without the agent, written no more often than needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.errors import StateError, UsageError
from reconciler.model.condition import Condition, ConditionType, Event, Status
from reconciler.state import events
from reconciler.state.conditions import SOURCE, Conditions
from reconciler.state.events import EventLog


def _ready(status: Status, reason: str = "Converged", message: str = "") -> Condition:
    return Condition(type=ConditionType.READY, status=status, reason=reason, message=message, revision="dir:1")


STALLED = Condition(type=ConditionType.STALLED, status=Status.TRUE, reason="DriftLoop")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "conditions"


def test_conditions_are_read_by_another_process_as_they_were_put(directory: Path) -> None:
    put = Conditions(str(directory)).put("web1", (_ready(Status.TRUE), STALLED), now=10.0)
    read = Conditions(str(directory)).read("web1")
    assert read == put == (_ready(Status.TRUE), STALLED)
    assert [condition.since for condition in read] == [10.0, 10.0]


def test_a_condition_keeps_its_time_while_its_status_stays(directory: Path) -> None:
    Conditions(str(directory)).put("web1", (_ready(Status.FALSE, "Starting"),), now=10.0)
    (same,) = Conditions(str(directory)).put("web1", (_ready(Status.FALSE, "HaltedInside"),), now=20.0)
    (other,) = Conditions(str(directory)).put("web1", (_ready(Status.TRUE),), now=30.0)
    assert (same.since, other.since) == (10.0, 30.0)
    assert Conditions(str(directory)).read("web1")[0].since == 30.0


def test_the_file_is_written_only_when_something_changed(directory: Path) -> None:
    conditions = Conditions(str(directory))
    conditions.put("web1", (_ready(Status.TRUE),), now=1.0)
    before = (directory / "web1.json").stat().st_ino
    conditions.put("web1", (_ready(Status.TRUE),), now=2.0)
    assert (directory / "web1.json").stat().st_ino == before
    conditions.put("web1", (_ready(Status.TRUE, message="and so on"),), now=3.0)
    assert (directory / "web1.json").stat().st_ino != before


def test_all_subjects_are_read_and_the_source_is_one_of_them(directory: Path) -> None:
    conditions = Conditions(str(directory))
    assert conditions.read_all() == {}
    conditions.put("web1", (_ready(Status.TRUE),), now=1.0)
    conditions.put(SOURCE, (_ready(Status.FALSE),), now=1.0)
    for name in (".web2.json.0123abcd.tmp", "web2.json~", "a note.json"):
        (directory / name).touch()
    assert set(conditions.read_all()) == {"web1", SOURCE}
    conditions.remove("web1")
    conditions.remove("web1")
    assert set(conditions.read_all()) == {SOURCE}


def test_a_ve_that_comes_back_is_dated_anew(directory: Path) -> None:
    conditions = Conditions(str(directory))
    conditions.put("web1", (_ready(Status.TRUE),), now=1.0)
    conditions.remove("web1")
    assert conditions.put("web1", (_ready(Status.TRUE),), now=9.0)[0].since == 9.0


def test_damaged_conditions_are_told_to_readers_and_written_anew_by_the_agent(directory: Path) -> None:
    Conditions(str(directory)).put("web1", (_ready(Status.TRUE),), now=1.0)
    (directory / "web1.json").write_bytes(b"{")
    with pytest.raises(StateError, match="the agent writes it anew"):
        Conditions(str(directory)).read("web1")
    Conditions(str(directory)).put("web1", (_ready(Status.TRUE),), now=2.0)
    assert Conditions(str(directory)).read("web1") == (_ready(Status.TRUE),)


@pytest.mark.parametrize("name", ["../web1", "a/b", "", ".", "Web1", "web1\n", "_other"])
def test_what_is_no_name_leads_to_no_file(directory: Path, name: str) -> None:
    with pytest.raises(UsageError, match="expected the name of a VE"):
        Conditions(str(directory)).read(name)


def _event(number: int, ve: str = "web1") -> Event:
    return Event(at=float(number), ve=ve, reason="Created", message=f"made {number}", kind="Normal")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "events.jsonl"


def _lines(path: Path) -> list[bytes]:
    both = (Path(f"{path}.1"), path)
    return [line for file in both if file.exists() for line in file.read_bytes().splitlines()]


def test_events_are_read_in_the_order_of_their_writing(path: Path) -> None:
    log = EventLog(str(path))
    assert log.read() == ()
    for number in range(5):
        log.append(_event(number, ve=f"web{number % 2}"))
    assert EventLog(str(path)).read() == tuple(_event(number, ve=f"web{number % 2}") for number in range(5))
    assert [event.at for event in log.read(ve="web1")] == [1.0, 3.0]
    assert [event.at for event in log.read(limit=2)] == [3.0, 4.0]
    assert log.read(limit=0) == ()


def test_events_are_bounded_and_the_newest_stay(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LINES_MAX", 20)
    log = EventLog(str(path))
    for number in range(100):
        log.append(_event(number))
        assert len(_lines(path)) <= 20
    kept = [event.at for event in log.read()]
    assert kept == [float(number) for number in range(100 - len(kept), 100)]
    assert len(kept) >= 9


def test_two_logs_that_are_both_open_know_of_each_others_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LINES_MAX", 20)
    logs = EventLog(str(path)), EventLog(str(path))
    for number in range(100):
        logs[number % 2].append(_event(number))
        assert len(_lines(path)) <= 20
    kept = [event.at for event in logs[0].read()]
    assert kept == [float(number) for number in range(100 - len(kept), 100)]
    assert len(kept) >= 9


_WRITER = """
import sys
from reconciler.model.condition import Event
from reconciler.state import events
events.LINES_MAX = 40
for number in range(100):
    events.EventLog(sys.argv[1]).append(Event(at=number, ve=sys.argv[2], reason="R", message="m"))
"""


def test_several_writers_lose_and_tear_no_line_even_while_rotating(path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(path), f"web{number}"]) for number in range(3)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    lines = _lines(path)
    read = EventLog(str(path)).read()
    assert len(lines) == len(read) + 2
    assert 19 <= len(read) <= 38
    for ve in {event.ve for event in read}:
        times = [event.at for event in read if event.ve == ve]
        assert times == [float(number) for number in range(int(times[0]), int(times[0]) + len(times))]


def test_a_line_torn_by_a_crash_hides_no_other(path: Path) -> None:
    log = EventLog(str(path))
    log.append(_event(1))
    with path.open("ab") as file:
        file.write(b'{"at": 2, "ve": "we')
    EventLog(str(path)).append(_event(3))
    log.append(_event(4))
    assert [event.at for event in log.read()] == [1.0, 3.0, 4.0]


def test_a_file_torn_in_its_first_line_is_begun_anew(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"form')
    EventLog(str(path)).append(_event(1))
    assert EventLog(str(path)).read() == (_event(1),)


def test_events_of_another_format_are_told(path: Path) -> None:
    EventLog(str(path)).append(_event(1))
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(StateError, match="expected events of format 1"):
        EventLog(str(path)).read()


def test_a_long_message_is_cut(path: Path) -> None:
    EventLog(str(path)).append(Event(at=1.0, ve="web1", reason="R", message="x" * 100_000))
    assert os.stat(path).st_size < 2000
    assert EventLog(str(path)).read()[0].message == "x" * events.MESSAGE_MAX
