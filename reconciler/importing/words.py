"""Words: names, quantities and texts of other systems in the form that manifests have."""

from __future__ import annotations

import re
from collections.abc import Container

from reconciler.manifests.yaml_builder import INVISIBLE

_NAME_MOST = 63
_SHOWN_MOST = 80
_SIZES = (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))
_RATES = (("Tbit", 10**12), ("Gbit", 10**9), ("Mbit", 10**6), ("Kbit", 10**3))


def shown(text: str) -> str:
    """Give a text as a report and a comment repeat it: on one line, short, without what does not show."""
    line = visible(" ".join(text[: 4 * _SHOWN_MOST].split()))
    return line if len(line) <= _SHOWN_MOST else f"{line[: _SHOWN_MOST - 3]}..."


def visible(text: str) -> str:
    """Replace what does not show, or turns the text around it."""
    clean = INVISIBLE.sub("\ufffd", text)
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in clean)


def name_of(text: str, *, otherwise: str) -> str:
    """Make an RFC 1123 label of a text."""
    label = re.sub(r"[^a-z0-9]+", "-", text[:256].lower())[:_NAME_MOST].strip("-")
    return label or otherwise


def unique(name: str, taken: Container[str], *, by: str) -> str:
    """Give a name that is not taken, told apart by what else is known, or else by a number."""
    if name not in taken:
        return name
    ends = [name_of(by, otherwise="x"), *(str(number) for number in range(2, 100_000))]
    candidates = (f"{name[: _NAME_MOST - 1 - len(end)].rstrip('-')}-{end}" for end in ends)
    return next(candidate for candidate in candidates if candidate not in taken)


def size(number: int | None) -> str | int:
    """Write a size exactly, in the largest unit that keeps it whole. Units: bytes, None for unlimited."""
    if number is None:
        return "unlimited"
    for unit, factor in _SIZES:
        if number >= factor and number % factor == 0:
            return f"{number // factor}{unit}"
    return number


def count(number: int | None) -> str | int:
    """Write a number of things, None for unlimited."""
    return "unlimited" if number is None else number


def bit_rate(number: int) -> str:
    """Write a rate. Units: bit/s."""
    for unit, factor in _RATES:
        if number >= factor and number % factor == 0:
            return f"{number // factor}{unit}"
    return f"{number}bit"


def cpus(number: float) -> int | float:
    """Write a number of CPUs."""
    rounded = round(number, 5)
    return int(rounded) if rounded == int(rounded) else rounded


def whole(text: str, *, most: int = 2**63 - 1) -> int:
    """Read a whole number that is not negative. Raises: ValueError."""
    if not text.isascii() or not text.isdecimal() or len(text) > 20:
        raise ValueError("expected a whole number")
    return min(int(text), most)


def decimal(text: str) -> float:
    """Read a number that is not negative. Raises: ValueError."""
    if re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,9})?", text, re.ASCII) is None:
        raise ValueError("expected a number")
    return float(text)
