"""Claims about what is printed: aligned, in order, and nothing raw that others wrote."""

from __future__ import annotations

import io

import pytest

from reconciler.cli import output

NASTY = "a\x1b]0;owned\x07b\r\nc\u202ed\u200be\x9b1m"


def test_nothing_that_moves_the_cursor_gets_through() -> None:
    shown = output.one_line(NASTY)
    assert shown.isprintable()
    assert shown.replace("\ufffd", "") == "a]0;ownedb cde1m"


def test_columns_are_aligned_and_have_no_borders(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME", "STATE"), [("a", "x"), ("longer-name", "y\nz")])
    assert capsys.readouterr().out == "NAME          STATE\na             x\nlonger-name   y z\n"


def test_a_table_of_nothing_is_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME",), [])
    assert capsys.readouterr().out == "NAME\n"
    output.columns([])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("environment", "is_terminal", "wanted", "colored"),
    [
        ({}, True, None, True),
        ({}, False, None, False),
        ({"NO_COLOR": "1"}, True, None, False),
        ({"NO_COLOR": "1"}, True, True, True),
        ({"FORCE_COLOR": "1"}, False, None, True),
        ({"TERM": "dumb"}, True, None, False),
        ({"FORCE_COLOR": "1"}, True, False, False),
    ],
)
def test_colours_are_where_they_belong(
    environment: dict[str, str], is_terminal: bool, wanted: bool | None, colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    output.choose_color(wanted)
    try:
        assert output.has_color(Stream()) is colored
    finally:
        output.choose_color(None)


def test_yaml_keeps_the_order_and_quotes_what_would_be_another_type() -> None:
    text = output.yaml_text({"b": "0-1", "a": ["on", "1e3", "null"], "c": {"x": "10.0.0.1/24"}})
    assert text == "b: 0-1\na:\n- on\n- '1e3'\n- 'null'\nc:\n  x: 10.0.0.1/24\n"


def test_rows_that_come_later_stand_below_those_before(capsys: pytest.CaptureFixture[str]) -> None:
    columns = output.table(("NAME", "READY"), [("a-long-name", "True")])
    columns.add([("b", "False"), ("the-longest-of-all", "-")])
    columns.add([("c", "True")])
    shown = capsys.readouterr().out.splitlines()
    assert [len(line) - len(line.split()[-1]) for line in shown] == [14, 14, 21, 21, 21]
