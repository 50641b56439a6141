"""Findings as people read them: where, which field, what is wrong, the line itself, and a caret below the place."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from reconciler.model.fleet import Finding

_WIDTH = 160
"""Of a quoted source line; a longer one is cut around the place."""

_BOLD, _RED, _CYAN, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[36m", "\x1b[0m"


def render_findings(findings: Iterable[Finding], *, color: bool) -> str:
    """Print findings, each with its line of source. Shape: lines that end with a line feed."""
    return "".join(f"{line}\n" for finding in findings for line in _lines(finding, color=color))


def _lines(finding: Finding, *, color: bool) -> Iterable[str]:
    def painted(text: str, style: str) -> str:
        return f"{style}{text}{_PLAIN}" if color else text

    place = _shown(f"{finding.place.file}:{finding.place.line}:{finding.place.column}")
    path = f"{_shown(finding.path)}: " if finding.path else ""
    hint = f" ({painted(_shown(finding.hint), _CYAN)})" if finding.hint else ""
    yield f"{painted(f'{place}:', _BOLD)} {path}{painted(_shown(finding.message), _RED)}{hint}"
    if finding.source.strip():
        source, caret = _cut(finding.source, finding.place.column - 1)
        yield f"    {source}"
        yield f"    {' ' * caret}{painted('^', _RED)}"


def _cut(source: str, column: int) -> tuple[str, int]:
    """Give a line as it may be shown, and the column of the caret in it. Units: characters, then cells."""
    start = max(0, column - _WIDTH // 2) if len(source) > _WIDTH else 0
    before, after = source[start:column], source[column : start + _WIDTH]
    lead = "..." if start else ""
    shown = lead + _shown(before)
    return shown + _shown(after) + ("..." if start + _WIDTH < len(source) else ""), _cells(shown)


def _shown(text: str) -> str:
    """Replace what would move the cursor or colour the terminal. File names and sources are not ours."""
    return "".join(char if char.isprintable() else " " if char == "\t" else "\ufffd" for char in text)


def _cells(text: str) -> int:
    return sum(_width(char) for char in text)


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1
