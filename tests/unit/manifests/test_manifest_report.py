"""Findings as people read them."""

from __future__ import annotations

import pytest

from reconciler.manifests.problem import did_you_mean, format_path, listed, quoted
from reconciler.manifests.report import render_findings
from reconciler.model.fleet import Finding, Place


def _finding(source: str, column: int, *, file: str = "a.yaml", message: str = "expected x", hint: str = "") -> Finding:
    place = Place(file=file, line=3, column=column)
    return Finding(place=place, path="spec.cpu", message=message, hint=hint, source=source)


def test_a_finding_is_place_path_message_hint_source_and_caret() -> None:
    text = render_findings([_finding("  cpu: {limt: 1}", 9, hint="did you mean 'limit'?")], color=False)
    assert text == ("a.yaml:3:9: spec.cpu: expected x (did you mean 'limit'?)\n      cpu: {limt: 1}\n            ^\n")


def test_a_finding_without_path_hint_and_source_is_one_line() -> None:
    finding = Finding(place=Place(file="-", line=1, column=1), path="", message="expected YAML")
    assert render_findings([finding], color=False) == "-:1:1: expected YAML\n"


def test_color_changes_nothing_but_the_color() -> None:
    finding = _finding("  cpu: x", 8, hint="h")
    painted = render_findings([finding], color=True)
    assert "\x1b[" in painted
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[36m"):
        painted = painted.replace(code, "")
    assert painted == render_findings([finding], color=False)


def test_nothing_of_a_file_reaches_the_terminal_as_a_command() -> None:
    finding = _finding("a: \x1b[2J\tx", 4, file="\x1b]0;x\x07.yaml", message="got \x9b", hint="\u202e")
    text = render_findings([finding], color=False)
    assert all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.parametrize(
    ("source", "column", "cells"), [("a: \u4f60\u597d x", 7, 8), ("a: e\u0301 x", 7, 5), ("\ta: x", 5, 4)]
)
def test_the_caret_stands_below_its_column_whatever_the_width_of_the_text(source: str, column: int, cells: int) -> None:
    last = render_findings([_finding(source, column)], color=False).split("\n")[2]
    assert last == f"    {' ' * cells}^"


@pytest.mark.parametrize("column", [1, 100, 5000, 10_000])
def test_a_long_line_is_cut_around_the_place(column: int) -> None:
    source = "".join(str(number % 10) for number in range(1, 10_001))
    _, line, caret, _ = render_findings([_finding(source, column)], color=False).split("\n")
    assert len(line) < 200
    assert line[len(caret) - 1] == str(column % 10)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("spec", "interfaces", 0, "addresses", 1), "spec.interfaces[0].addresses[1]"),
        (("metadata", "labels", "a.b/c"), "metadata.labels['a.b/c']"),
        ((0, "a"), "[0].a"),
    ],
)
def test_paths_read_as_people_write_them(path: tuple[str | int, ...], text: str) -> None:
    assert format_path(path) == text


def test_words_for_messages() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b or c"
    assert quoted("x" * 100) == f"'{'x' * 60}...'"
    assert quoted("a\x1b\u202e") == "'a\\x1b\\u202e'"
    assert did_you_mean("Memroy", ["memory", "cpu"]) == "did you mean 'memory'?"
    assert did_you_mean("xyzzy", ["memory"]) == ""
