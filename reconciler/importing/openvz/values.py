"""Values: beancounters with their units, sizes and limits, as vzctl reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

PAGE = 4096
_UNENDING = frozenset({2**63 - 1, 2**31 - 1, 2**64 - 1})
"""LONG_MAX of hosts of 64 and of 32 bits."""

_LONG_MAX = 2**63 - 1
_NUMBER = re.compile(r"([0-9]{1,24})(?:\.([0-9]{1,9}))?([TGMKPB]?)\Z", re.IGNORECASE | re.ASCII)
_FACTORS = {"T": 1 << 40, "G": 1 << 30, "M": 1 << 20, "K": 1 << 10, "P": PAGE, "B": 1}


class Unit(Enum):
    """What a number without a suffix counts."""

    ITEMS = 1
    BYTES = 2
    PAGES = 3
    KIB = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Barrier and limit, or soft and hard limit. Units: items, or bytes of whole pages or KiB; None for unlimited."""

    barrier: int | None
    limit: int | None


def pair(text: str, unit: Unit) -> Pair:
    """Read ``barrier:limit``; one number is both.

    Raises: ValueError.
    """
    first, sign, second = text.strip().partition(":")
    barrier = amount(first, unit)
    return Pair(barrier=barrier, limit=amount(second, unit) if sign else barrier)


def amount(text: str, unit: Unit) -> int | None:
    """Read a number with a suffix. Units: items or bytes; None for unlimited.

    Raises: ValueError.
    """
    text = text.strip()
    if text.lower() == "unlimited":
        return None
    match = _NUMBER.match(text)
    if match is None or (match[2] is not None and not match[3]):
        raise ValueError("expected a number, with a suffix of T, G, M, K, P or B, or unlimited")
    if match[3] and unit is Unit.ITEMS:
        raise ValueError("expected a number without a suffix")
    number = Fraction(f"{match[1]}.{match[2] or 0}")
    step = {Unit.ITEMS: 1, Unit.BYTES: 1, Unit.PAGES: PAGE, Unit.KIB: 1024}[unit]
    if not match[3]:
        return None if number in _UNENDING or number > _LONG_MAX else min(int(number) * step, _LONG_MAX // PAGE * PAGE)
    found = int(number * _FACTORS[match[3].upper()]) // step * step
    return None if found >= _LONG_MAX // PAGE * PAGE else found


def truth(text: str) -> bool | None:
    """Read yes or no; None for anything else."""
    return {"yes": True, "on": True, "no": False, "off": False}.get(text.strip().lower())
