"""Quantities as people write them: sizes, rates, durations, CPUs; parsed to integers and printed back."""

from __future__ import annotations

import re

_BINARY = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_DURATION = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BITS = {"bit": 1, "Kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9, "Tbit": 10**12}
_QUANTITY = re.compile(r"(\d{1,18})(?:\.(\d{1,9}))?([A-Za-z]*)\Z", re.ASCII)
_NUMBERS = re.compile(r"\d{1,4}(?:-\d{1,4})?(?:,\d{1,4}(?:-\d{1,4})?){0,1023}\Z", re.ASCII)
NUMBER_MAX = 8191
"""The largest CPU number of any kernel. Source: Linux arch/x86/Kconfig, NR_CPUS_RANGE_END."""


def _parse(text: str, factors: dict[str, int] | dict[str, float], expected: str) -> float:
    match = _QUANTITY.match(text)
    if match is None or match[3] not in factors:
        raise ValueError(f"expected {expected}, got {text!r}")
    return float(f"{match[1]}.{match[2] or 0}") * factors[match[3]]


def parse_size(text: str) -> int:
    """Parse a size such as ``512Mi``, ``2G`` or ``4096``.

    Units: bytes. Raises: ValueError.
    """
    match = _QUANTITY.match(text)
    if match is not None and match[2] is None and match[3] in _BINARY:
        return int(match[1]) * _BINARY[match[3]]
    size = _parse(text, _BINARY, "a size such as 512Mi, 2Gi or 1G")
    if size != int(size):
        raise ValueError(f"expected a whole number of bytes, got {text!r}")
    return int(size)


def parse_duration(text: str) -> float:
    """Parse a duration such as ``30s``, ``5m`` or ``7d``.

    Units: seconds. Raises: ValueError.
    """
    return _parse(text, _DURATION, "a duration such as 30s, 5m, 12h or 7d")


def parse_bit_rate(text: str) -> int:
    """Parse a network rate such as ``100Mbit``.

    Units: bit/s. Raises: ValueError.
    """
    return int(_parse(text, _BITS, "a rate such as 100Mbit or 1Gbit"))


def parse_number_set(text: str) -> frozenset[int]:
    """Parse a list of CPU or node numbers such as ``0-1,3``.

    Raises: ValueError. Source: cpuset(7), "List format".
    """
    if _NUMBERS.match(text) is None:
        raise ValueError(f"expected a list of numbers such as 0-1,3, got {text!r}")
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if int(last or first) < int(first):
            raise ValueError(f"expected an ascending range, got {part!r}")
        if int(last or first) > NUMBER_MAX:
            raise ValueError(f"expected numbers up to {NUMBER_MAX}, got {part!r}")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def format_number_set(numbers: frozenset[int]) -> str:
    """Print CPU or node numbers as the kernel does, e.g. ``0-1,3``.

    Source: cpuset(7), "List format".
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def format_size(size: int | None) -> str:
    """Print a size in the largest binary unit that keeps it whole, or with one decimal.

    Units: bytes; None prints as ``unlimited``.
    """
    if size is None:
        return "unlimited"
    for unit in ("Ti", "Gi", "Mi", "Ki"):
        factor = _BINARY[unit]
        if size >= factor:
            whole = size % factor == 0
            return f"{size // factor}{unit}" if whole else f"{size / factor:.1f}{unit}"
    return str(size)


def format_bit_rate(rate: int) -> str:
    """Print a network rate in the largest unit that keeps it whole. Units: bit/s."""
    for unit in ("Tbit", "Gbit", "Mbit", "Kbit"):
        factor = int(_BITS[unit])
        if rate >= factor and rate % factor == 0:
            return f"{rate // factor}{unit}"
    return f"{rate}bit"


def format_duration(seconds: float) -> str:
    """Print a duration as kubectl prints an age: the largest unit, and the next one where it says something.

    Units: seconds.
    """
    whole = int(seconds)
    if whole < 120:
        return f"{whole}s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 120:
        return f"{minutes}m"
    if hours < 48:
        return f"{hours}h"
    return f"{days}d"
