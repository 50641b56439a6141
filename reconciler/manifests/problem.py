"""Problems: what is wrong with a document and where in it, before anyone asks for the line and the column."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Path: TypeAlias = "tuple[str | int, ...]"
"""The way from a document's root to a value: keys of maps, and positions in lists.

An entry of a keyed list may be named by its key instead of its position.
"""

Mark: TypeAlias = "tuple[int, int]"
"""Line and column. Units: both from 1."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_ECHO_MAX = 60
"""What of a value is repeated in a message: enough to recognise it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong. ``at_key``: the key at ``path`` is meant, not its value. ``mark``: set where it is known."""

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False
    mark: Mark | None = None


def format_path(path: Path) -> str:
    """Print a path as people write it, e.g. ``spec.interfaces[0].addresses[1]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.match(part):
            text += f".{part}" if text else part
        else:
            text += f"[{quoted(part)}]"
    return text


def quoted(text: str) -> str:
    """Print text from a manifest in a message: short, in quotes, on one line, without control characters."""
    return ascii_controls(repr(text if len(text) <= _ECHO_MAX else f"{text[:_ECHO_MAX]}..."))


def ascii_controls(text: str) -> str:
    """Replace characters that do not show on a terminal by their escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Give the hint for a misspelt word, or an empty text if no known word is near."""
    import difflib  # only mistakes need it

    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower()[:_ECHO_MAX], by_lower, n=1, cutoff=0.6)
    return f"did you mean {by_lower[near[0]]!r}?" if near else ""


def listed(words: Iterable[str]) -> str:
    """Print words as an enumeration: ``a, b or c``."""
    *first, last = list(words)
    return f"{', '.join(first)} or {last}" if first else last
