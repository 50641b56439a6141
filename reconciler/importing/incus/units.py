"""Units: sizes, rates and truth values as Incus writes them."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"([0-9]{1,18}) ?([A-Za-z]{0,5})\Z", re.ASCII)
_POWERS = ("", "k", "m", "g", "t", "p", "e")


def bytes_of(text: str) -> int:
    """Read a size such as ``512MiB`` or ``10GB``. Units: bytes. Raises: ValueError."""
    return _read(text, frozenset({"b", "bytes"}), "a size such as 512MiB")


def bits_of(text: str) -> int:
    """Read a rate such as ``100Mbit``. Units: bit/s. Raises: ValueError."""
    return _read(text, frozenset({"bit"}), "a rate such as 100Mbit")


def _read(text: str, ends: frozenset[str], expected: str) -> int:
    match = _NUMBER.match(text.strip())
    unit = match[2].lower() if match is not None else ""
    if match is None:
        raise ValueError(f"expected {expected}")
    if unit == "" or unit in ends:
        return int(match[1])
    end = next((end for end in sorted(ends) if unit.endswith(end)), None)
    power = None if end is None else unit.removesuffix(end)
    if power is None or power.removesuffix("i") not in _POWERS or power in ("i", ""):
        raise ValueError(f"expected {expected}")
    exponent = _POWERS.index(power.removesuffix("i"))
    return int(match[1]) * int((1024 if power.endswith("i") else 1000) ** exponent)


def is_true(text: str) -> bool:
    """Say whether a value is true to Incus."""
    return text.lower() in ("true", "1", "yes", "on")
