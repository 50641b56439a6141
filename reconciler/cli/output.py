"""What is printed: data on standard output, words on standard error, nothing that a VE wrote reaches a terminal raw."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, TextIO

from reconciler.errors import ConfigError, UsageError, VectlError
from reconciler.model.facts import Json

if TYPE_CHECKING:
    from reconciler.model.fleet import Finding

_STYLES = {"good": "32", "warn": "33", "bad": "31", "dim": "2", "strong": "1"}
_COLUMN_GAP = "   "

_COLOR: ContextVar[bool | None] = ContextVar("what --color says", default=None)


def choose_color(wanted: bool | None) -> None:
    """Take the command line's word on colour; None leaves it to the environment and the terminal."""
    _COLOR.set(wanted)


def has_color(stream: TextIO) -> bool:
    """Say whether colours belong on a stream.

    Source: no-color.org; bixense.com/clicolors for FORCE_COLOR.
    """
    wanted = _COLOR.get()
    if wanted is not None:
        return wanted
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str) -> str:
    """Give a text in a style, where standard output shows styles."""
    clean = safe(text)
    return f"\x1b[{_STYLES[style]}m{clean}\x1b[0m" if has_color(sys.stdout) else clean


def safe(text: str) -> str:
    """Replace what would move the cursor, colour the terminal or hide other text."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def one_line(text: str) -> str:
    """Make a text safe, and one line, so that it cannot pass for a line of ours."""
    return safe(text).replace("\n", " ").replace("\t", " ")


def data(text: str) -> None:
    """Print data."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    sys.stdout.flush()


def document(value: Json) -> None:
    """Print a JSON document."""
    data(json.dumps(value, indent=2, sort_keys=True))


def line(value: Json) -> None:
    """Print one JSON line."""
    data(json.dumps(value, sort_keys=True))


def yaml(value: Json) -> None:
    """Print a YAML document."""
    data(yaml_text(value))


def yaml_text(value: Json) -> str:
    """Give a value as a YAML document, in the order of its keys, as people write one."""
    import io

    from ruamel.yaml import YAML

    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # annotated by its default, None
    writer.width = 4096
    text = io.StringIO()
    writer.dump(value, text)
    return text.getvalue()


def words(text: str) -> None:
    """Print words for a person."""
    sys.stderr.write(f"{safe(text)}\n")
    sys.stderr.flush()


def report(error: VectlError, *, as_json: bool) -> None:
    """Print an error: one line, or one JSON object where JSON was asked for; mistakes in manifests come before it."""
    kind = getattr(error, "kind", type(error).__name__)  # that of an error which the agent met
    findings: Sequence[Finding] = getattr(error, "findings", ())
    if findings and not as_json:
        from reconciler.manifests.report import render_findings

        sys.stderr.write(render_findings(findings, color=has_color(sys.stderr)))
    more: dict[str, Json] = {"errors": [finding.to_json() for finding in findings]} if findings else {}
    report_words(str(error), kind=kind, code=int(error.exit_code), as_json=as_json, more=more)


def report_words(
    message: str, *, kind: str, code: int, as_json: bool, more: Mapping[str, Json] = MappingProxyType({})
) -> None:
    """Print what is wrong: one line, or one JSON object where JSON was asked for."""
    if as_json:
        sys.stderr.write(json.dumps({"error": message, "kind": kind, "exit_code": code, **more}) + "\n")
    elif kind == ConfigError.__name__:  # a mistake on each line, and no word in them is a VE's
        sys.stderr.write("".join(f"vectl: {one_line(line)}\n" for line in message.splitlines()))
    else:
        sys.stderr.write(f"vectl: {one_line(message)}\n")
    sys.stderr.flush()


class Columns:
    """Aligned columns without borders, as kubectl prints them, so that awk can read them.

    What is printed later stands below what came before, unless a cell is wider than all of its column were.
    """

    def __init__(self, *, indent: str = "") -> None:
        self._indent = indent
        self._widths: list[int] = []

    def add(self, rows: Iterable[Sequence[str]]) -> None:
        """Print rows."""
        lines = [[one_line(cell) for cell in row] for row in rows]
        for line in lines:
            widths = [len(cell) for cell in line]
            self._widths = [max(both) for both in zip(widths, self._widths or widths, strict=True)]
        for line in lines:
            text = _COLUMN_GAP.join(cell.ljust(width) for cell, width in zip(line, self._widths, strict=True))
            data(f"{self._indent}{text.rstrip()}")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Columns:
    """Print aligned columns below a header; give them, for what comes later."""
    columns = Columns()
    columns.add([header, *rows])
    return columns


def columns(rows: Iterable[Sequence[str]], *, indent: str = "") -> None:
    """Print aligned columns without a header."""
    Columns(indent=indent).add(rows)


def moment(at: float) -> str:
    """Print a time of day with its date, in local time. Units: seconds since the epoch. Source: RFC 3339."""
    zone = time.strftime("%z", time.localtime(at))
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(at))}{zone[:3]}:{zone[3:]}"


def is_interactive() -> bool:
    """Say whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, *, asked: str) -> bool:
    """Ask a person yes or no; anything but yes is no, and they are told that nothing was done.

    Raises: UsageError, if there is nobody to ask. ``asked``: the command, for the error.
    """
    if not is_interactive():
        raise UsageError(f"{asked}: expected --yes, as there is no terminal to ask on")
    sys.stderr.write(f"{safe(question)} [y/N] ")
    sys.stderr.flush()
    agreed = sys.stdin.readline().strip().lower() in ("y", "yes")
    if not agreed:
        words("nothing was done")
    return agreed
