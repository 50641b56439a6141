"""The values in limit files: their canonical form, and the text that the kernel takes and gives.

Canonical: bytes; microseconds of CPU per `PERIOD_US`; a weight on the scale of cgroup v2, 1 to 10000; tasks; CPU and
node numbers as a frozenset; None for unlimited, for all CPUs, for all nodes. A set of all there are reads as None.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from reconciler.errors import InUseError, KernelFormatError
from reconciler.model.units import format_size

LimitValue: TypeAlias = "int | frozenset[int] | None"

PERIOD_US = 100_000
PAGE = os.sysconf("SC_PAGESIZE")
LARGEST = (2**63 - 1) // PAGE * PAGE
"""What v1 shows for unlimited bytes, and more than any limit can be.

Source: Linux include/linux/page_counter.h, PAGE_COUNTER_MAX.
"""

_SHARES_OF_DEFAULT_WEIGHT = 1024
_DEFAULT_WEIGHT = 100


@dataclass(frozen=True, slots=True)
class LimitFiles:
    """Which files of which controller hold a limit, and how their texts become its value.

    ``names`` are relative to the cgroup's directory. ``decode`` raises `NoMeaningError` where the limit cannot be told.
    """

    controller: str
    names: tuple[str, ...]
    decode: Callable[[tuple[str, ...]], LimitValue]


class NoMeaningError(Exception):
    """The limit cannot be told from the others that are set now, so it is not reported."""


def parse_number(text: str) -> int | None:
    """Parse a number of bytes or tasks, where ``max``, -1 and v1's largest number mean unlimited.

    Raises: KernelFormatError.
    """
    word = text.strip()
    if word in ("max", "-1"):
        return None
    if not word.isdecimal():
        raise KernelFormatError(f"parse limit: expected a number or 'max', got {text!r}")
    number = int(word)
    return None if number >= LARGEST else number


def format_number(value: int | None, *, unlimited: str = "max") -> str:
    """Print a number of bytes or tasks; v1's memory files take ``-1`` for unlimited."""
    return unlimited if value is None else str(value)


def whole_pages(value: int | None) -> int | None:
    """Round a number of bytes down to pages, as the kernel does when it stores a memory limit."""
    return None if value is None or value >= LARGEST else value // PAGE * PAGE


def in_use(name: str, limit: int | None, *, use: int, now: int | None) -> InUseError:
    """Build the error for a limit that was not lowered below what is in use. Units: bytes."""
    stays = "no limit is in force" if now is None else f"{format_size(now)} stays in force"
    return InUseError(
        f"lower {name} to {format_size(limit)}: {format_size(use)} are in use and cannot be reclaimed; {stays} until "
        "memory is freed"
    )


def parse_cpu_max(text: str) -> int | None:
    """Parse the text of ``cpu.max``.

    Shape: ``"<quota> <period>"``; quota may be the word ``max``.
    Units: microseconds per `PERIOD_US`, whatever the period in the file is.
    Raises: KernelFormatError.
    Source: Linux Documentation/admin-guide/cgroup-v2.rst, "cpu.max".
    """
    words = text.split()
    if len(words) != 2:
        raise KernelFormatError(f"parse cpu.max: expected '<quota|max> <period>', got {text!r}")
    return parse_quota(words[0], words[1])


def parse_quota(quota: str, period: str) -> int | None:
    """Parse a CPU quota and its period, from the two files of v1 or the one of v2.

    Units: microseconds in; microseconds per `PERIOD_US` out.
    Raises: KernelFormatError.
    """
    amount, length = parse_number(quota), parse_number(period)
    if not length:
        raise KernelFormatError(f"parse CPU period: expected microseconds, got {period!r}")
    return None if amount is None else amount * PERIOD_US // length


def shares_of_weight(weight: int) -> int:
    """Convert a weight to v1's ``cpu.shares``.

    Both are proportional, so the ratio between VEs is kept, and the two defaults, 100 and 1024, meet. This is
    systemd's conversion; runc's maps 100 to 2597 and would favour our VEs over everything else on the host.
    """
    return max(2, (weight * _SHARES_OF_DEFAULT_WEIGHT + _DEFAULT_WEIGHT // 2) // _DEFAULT_WEIGHT)


def weight_of_shares(shares: int) -> int:
    """Convert v1's ``cpu.shares`` to a weight: exact for what `shares_of_weight` made.

    A foreign value may come out beyond 1 to 10000, so that it is never mistaken for a legal weight.
    """
    return (shares * _DEFAULT_WEIGHT + _SHARES_OF_DEFAULT_WEIGHT // 2) // _SHARES_OF_DEFAULT_WEIGHT


def parse_list(text: str) -> frozenset[int]:
    """Parse a list of CPUs or nodes.

    Shape: ``0-3,8,10-11``, or nothing.
    Raises: KernelFormatError.
    Source: cpuset(7), "List format".
    """
    numbers: set[int] = set()
    for part in text.strip().split(",") if text.strip() else ():
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise KernelFormatError(f"parse CPU list: expected numbers and ranges, got {text!r}")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def format_list(numbers: Iterable[int]) -> str:
    """Print a list of CPUs or nodes in the kernel's shortest form."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def parse_counters(text: str) -> dict[str, int]:
    """Parse a file of lines ``<name> <number>``, such as ``memory.events`` or ``cpu.stat``.

    Raises: KernelFormatError.
    """
    counters: dict[str, int] = {}
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if not number.strip().isdecimal():
            raise KernelFormatError(f"parse counters: expected '<name> <number>', got {line!r}")
        counters[name] = int(number)
    return counters
