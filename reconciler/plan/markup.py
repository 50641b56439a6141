"""Untrusted text in Markdown: it shows as it is, and is neither markup, nor HTML, nor a link, nor a mention.

Source: CommonMark 0.31, section 6.1, Code spans, and 4.5, Fenced code blocks; GitHub Flavored Markdown, 4.10, Tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from reconciler.plan.words import printable

_WIDTH = 400
_RUNS = re.compile("`+")


def code(text: str, *, width: int = _WIDTH) -> str:
    """Give a text as a code span, in which forges look for nothing. Units: ``width`` characters, cut in the middle."""
    shown = cut(printable(text), width)
    if not shown.strip():
        return "` `"
    fence = _fence(shown, least=1)
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def cell(text: str, *, width: int = 80) -> str:
    """Give a text as a code span in a table, where a bar would end the cell even within code."""
    return code(text, width=width).replace("|", "\\|")


def block(lines: Iterable[str], language: str = "") -> list[str]:
    """Give lines as a block of code."""
    shown = [printable(line) for line in lines]
    fence = _fence("\n".join(shown), least=3)
    return [f"{fence}{language}", *shown, fence]


def cut(text: str, width: int) -> str:
    """Cut a text to a width in the middle: its end often says most."""
    if len(text) <= width:
        return text
    end = width // 3
    return f"{text[: width - end - 1]}…{text[-end:]}"


def fit(lines: Sequence[str], room: int, left_out: str) -> list[str]:
    """Give as many lines as there is room for, the first and the last of them.

    ``left_out``: what stands for the others, with ``{}`` for their number. Units: ``room`` bytes of UTF-8.
    """
    if size(lines) <= room:
        return [*lines]
    room -= len(left_out.encode()) + 20
    first = _count(lines, room * 2 // 3)
    last = _count(lines[:first:-1], room // 3)
    kept = [*lines[:first], left_out.format(len(lines) - first - last)]
    return [*kept, *(lines[-last:] if last else ())]


def size(lines: Iterable[str]) -> int:
    """Give how long lines are together. Units: bytes of UTF-8."""
    return sum(len(line.encode(errors="replace")) + 1 for line in lines)


def _count(lines: Iterable[str], room: int) -> int:
    """Count the lines from the first on that there is room for."""
    number = 0
    for line in lines:
        room -= size((line,))
        if room < 0:
            break
        number += 1
    return number


def _fence(text: str, *, least: int) -> str:
    return "`" * max(least, 1 + max((len(run) for run in _RUNS.findall(text)), default=0))
