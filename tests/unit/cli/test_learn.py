"""Claims about what the commands teach: fields with their price, schemas that are the published ones, scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.cli import complete, entry, logs

SCHEMAS = Path(__file__).parents[3] / "schemas"


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert entry.run([*arguments]) == code
    told = capsys.readouterr()
    return told.out if code == 0 else told.err


@pytest.mark.parametrize(
    ("path", "lines"),
    [
        ("memory.limit", ["DEFAULT:       512Mi", "A CHANGE IS:   live (hard limit)"]),
        ("ve.spec.rlimits", ["A CHANGE IS:   restart (fixed at start)"]),
        ("spec.interfaces.eth0.addresses", ["FIELD:         spec.interfaces[].addresses", "A CHANGE IS:   network"]),
        ("boot.restart", ["VALUES:        always, on-failure, never"]),
        ("Network.spec.mtu", ["KIND:      Network", "DEFAULT:   1500"]),
        ("Network.mtu", ["KIND:      Network", "FIELD:     spec.mtu"]),
        ("ve.memory.limit", ["DEFAULT:       512Mi"]),
        ("security.profile", ["A CHANGE IS:   refused: this version does not carry the field out yet"]),
    ],
)
def test_a_field_is_explained_with_its_default_and_its_price(
    path: str, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [line for line in lines if line not in said(capsys, "explain", path).splitlines()] == []


def test_without_a_field_all_are_listed_with_what_a_change_is(capsys: pytest.CaptureFixture[str]) -> None:
    shown = [line.split() for line in said(capsys, "explain").splitlines()]
    assert ["NAME", "TYPE", "A", "CHANGE", "IS", "MEANING"] in shown
    assert ["template", "<text>", "recreate"] in [words[:3] for words in shown]
    assert ["migration", "<map>", "not", "yet"] in [words[:4] for words in shown]


def test_a_misspelt_field_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert "memory" in said(capsys, "explain", "memmory", code=64)


def test_schemas_are_listed_and_printed_as_published(capsys: pytest.CaptureFixture[str]) -> None:
    names = said(capsys, "schema").split()
    assert {"VirtualEnvironment", "output/plan"} <= set(names)
    for name in ("ve", "network", "output/get"):
        path = {"ve": "VirtualEnvironment", "network": "Network"}.get(name, name)
        assert json.loads(said(capsys, "schema", name)) == json.loads((SCHEMAS / f"{path}.json").read_text())
    assert "expected one of" in said(capsys, "schema", "pod", code=64)


def test_each_shell_gets_its_script(capsys: pytest.CaptureFixture[str]) -> None:
    scripts = [said(capsys, "completion", shell) for shell in ("bash", "zsh", "fish")]
    assert scripts == [complete.BASH, complete.ZSH, complete.FISH]


@pytest.mark.parametrize(
    ("line", "words"),
    [('{"level": "error", "msg": "boom"}', "error: boom"), ("no JSON", "no JSON"), ("[1]", "[1]")],
)
def test_the_runtimes_words_are_taken_out_of_its_log(line: str, words: str) -> None:
    assert logs._message(line) == words


def test_a_line_that_never_ends_is_printed_in_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    assert logs._print_lines(b"one\ntwo") == b"two"
    assert logs._print_lines(b"x" * (logs._LINE_MAX + 1)) == b""
    assert capsys.readouterr().out.split() == ["one", "x" * (logs._LINE_MAX + 1)]
