"""Values as text on one line of YAML, which every reader takes for what they are."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from reconciler.manifests import scalars
from reconciler.model.facts import Json

_SAFE_ANYWHERE = re.compile(r"[A-Za-z0-9_./](?:[A-Za-z0-9_./@+%=~^()*$-]| (?=[A-Za-z0-9_./]))*\Z")
_SAFE_IN_BLOCK = re.compile(r"[A-Za-z0-9_./](?:[^\s:#]|:(?=\S)|(?<=\S)#| (?=[^\s#]))*\Z")
_TRUTH_ELSEWHERE = frozenset({"yes", "no", "on", "off", "y", "n"})
"""Words that are truth values to readers of YAML 1.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How text is written.

    ``quote``: what text stands in that needs quotes. ``all_quoted``: every text and key does, as in JSON. ``flow``:
    within braces or brackets.
    """

    quote: str = '"'
    all_quoted: bool = False
    flow: bool = False


def inline(value: Json, style: Style) -> str:
    """Write a value on one line."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():
            return repr(value) if value == value and abs(value) != float("inf") else f".{value}".replace(".-", "-.")
        case str():
            return _text(value, style)
        case list():
            return f"[{', '.join(inline(item, _inside(style)) for item in value)}]"
        case dict():
            return f"{{{pairs(value, _inside(style))}}}"


def pairs(value: dict[str, Json], style: Style) -> str:
    """Write the entries of a map without its braces."""
    return ", ".join(f"{inline(key, style)}: {inline(item, style)}" for key, item in value.items())


def quoted(text: str, quote: str) -> str:
    """Write a text in quotes: in single ones, if they are asked for and can hold it."""
    if quote == "'" and text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return json.dumps(text, ensure_ascii=False)


def _inside(style: Style) -> Style:
    return Style(quote=style.quote, all_quoted=style.all_quoted, flow=True)


def _text(text: str, style: Style) -> str:
    safe = _SAFE_ANYWHERE if style.flow else _SAFE_IN_BLOCK
    plain = safe.match(text) and scalars.is_text(text) and text.lower() not in _TRUTH_ELSEWHERE and text.isprintable()
    return text if plain and not style.all_quoted else quoted(text, style.quote)
