"""What is printed: data on standard output, words on standard error, nothing that a VE wrote reaches a terminal raw."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from reconciler.errors import VectlError
from reconciler.model.facts import Json

_STYLES = {"good": "32", "warn": "33", "bad": "31", "dim": "2", "strong": "1"}
_COLUMN_GAP = "   "

_choice: dict[str, bool | None] = {"color": None}


def choose_color(wanted: bool | None) -> None:
    """Take the command line's word on colour; None leaves it to the environment and the terminal."""
    _choice["color"] = wanted


def has_color(stream: TextIO) -> bool:
    """Say whether colours belong on a stream.

    Source: no-color.org; bixense.com/clicolors for FORCE_COLOR.
    """
    if _choice["color"] is not None:
        return _choice["color"]
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


def words(text: str) -> None:
    """Print words for a person."""
    sys.stderr.write(f"{safe(text)}\n")
    sys.stderr.flush()


def report(error: VectlError, *, as_json: bool) -> None:
    """Print an error: one line, or one JSON object where JSON was asked for."""
    if as_json:
        body = {"error": str(error), "kind": type(error).__name__, "exit_code": int(error.exit_code)}
        sys.stderr.write(json.dumps(body) + "\n")
    else:
        words(f"vectl: {error}")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns, as kubectl does: no borders, so that awk can read them."""
    lines = [list(header), *([safe(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in lines) for column in range(len(header))]
    for row in lines:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        data(_COLUMN_GAP.join(cells).rstrip())


def is_interactive() -> bool:
    """Say whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str) -> bool:
    """Ask a person yes or no; anything but yes is no."""
    sys.stderr.write(f"{safe(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
