"""Plain scalars: which unquoted words of a manifest are numbers, truth values or nothing, and which are text.

Source: YAML 1.2.2, section 10.3.2 (core schema).
"""

from __future__ import annotations

import math
import re

_WORDS: dict[str, bool | float | None] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{f"{sign}{word}": float(f"{sign}inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}
_NUMBER = re.compile(
    r"(?P<integer>[-+]?[0-9]+)"
    r"|(?P<octal>0o[0-7]+)"
    r"|(?P<hexadecimal>0x[0-9a-fA-F]+)"
    r"|(?P<decimal>[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)"
)
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+\Z")
_FIRST_OF_A_SCALAR = frozenset("0123456789+-.~ntfNTF")
_LENGTH_MAX = 32
"""Longer numbers serve nobody, and converting one takes time that grows with the square of its length."""


def resolve(text: str) -> bool | int | float | str | None:
    """Give the value of a plain scalar.

    Raises: ValueError, for a number that readers of YAML 1.1 and 1.2 take differently, or that has no end.
    """
    if text and text[0] not in _FIRST_OF_A_SCALAR:
        return text
    if text in _WORDS:
        return _WORDS[text]
    match = _NUMBER.fullmatch(text)
    return text if match is None else _number(text, match)


def _number(text: str, match: re.Match[str]) -> int | float:
    if len(text) > _LENGTH_MAX:
        raise ValueError(f"expected a number of at most {_LENGTH_MAX} digits, got one of {len(text)}")
    if _LEADING_ZERO.match(text):
        raise ValueError(f"expected a number without leading zeros, got {text}: it is octal to some readers of YAML")
    match match.lastgroup:
        case "integer":
            return int(text)
        case "octal":
            return int(text[2:], 8)
        case "hexadecimal":
            return int(text[2:], 16)
        case _ if math.isinf(value := float(text)):
            raise ValueError(f"expected a number that is not beyond all measure, got {text}")
        case _:
            return value


def is_text(text: str) -> bool:
    """Tell whether a plain scalar is text, and nothing else to any reader of YAML."""
    try:
        return isinstance(resolve(text), str)
    except ValueError:
        return False
