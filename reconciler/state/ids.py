"""Ranges of user and group ids: which slots of `IDS_PER_VE` ids a host has free."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from reconciler.errors import StateError
from reconciler.kernel import files
from reconciler.model.identity import IDS_PER_VE

FIRST_SLOT = 8
"""524288, the first id meant for containers. Source: systemd's UIDS-GIDS.md, "Special Systemd UID ranges"."""

LAST_SLOT = 28671
"""Ends at 1879048191, the last id meant for containers; from 2^31 on, programs take ids for negative."""

_SHARED_SLOT = 4096
"""Where the instances but the default one begin: what is below is left to the default one."""

_SUBID_FILES = ("/etc/subuid", "/etc/subgid")


@dataclass(frozen=True, slots=True, order=True)
class IdRange:
    """``count`` ids from ``start`` on."""

    start: int
    count: int = IDS_PER_VE

    def slots(self) -> range:
        """Give the slots that the range touches, among those that are ours to give."""
        if self.count <= 0:
            return range(0)
        first = max(self.start // IDS_PER_VE, FIRST_SLOT)
        return range(first, min((self.start + self.count - 1) // IDS_PER_VE, LAST_SLOT) + 1)


def first_slot(instance: str) -> int:
    """Give the slot where an instance begins to look, spread out so that two instances rarely meet."""
    if instance == "vectl":
        return FIRST_SLOT
    return spread(instance, _SHARED_SLOT)


def spread(text: str, lowest: int) -> int:
    """Give a slot from ``lowest`` on that looks random, and is the same for the same text."""
    digest = hashlib.sha256(text.encode()).digest()
    return lowest + int.from_bytes(digest[:8]) % (LAST_SLOT + 1 - lowest)


def free(first: int, reserved: Iterable[IdRange]) -> Iterator[int]:
    """Give the first ids of the free slots, from ``first`` on and beginning again at the bottom after the last."""
    taken = {slot for one in reserved for slot in one.slots()}
    for slot in chain(range(first, LAST_SLOT + 1), range(FIRST_SLOT, first)):
        if slot not in taken:
            yield slot * IDS_PER_VE


def none_left() -> StateError:
    """Say that no slot is free, and what frees one."""
    return StateError(
        f"allocate ids: all {LAST_SLOT + 1 - FIRST_SLOT} ranges are taken; "
        "purge the trash, or free ranges in /etc/subuid and /etc/subgid"
    )


def parse_subids(text: str) -> tuple[IdRange, ...]:
    """Parse the ranges that users of this host may map, ours among them or not.

    Shape: lines of ``name:start:count``; other lines are skipped, as shadow's own tools do.
    Source: subuid(5).
    """
    ranges = []
    for line in text.splitlines():
        parts = line.strip().split(":")
        if len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal():
            ranges.append(IdRange(int(parts[1]), int(parts[2])))
    return tuple(ranges)


def read_subids() -> tuple[IdRange, ...]:
    """Read the ranges that this host has given to its users.

    Raises: KernelError.
    """
    texts = (files.read_bytes_if_exists(path) or b"" for path in _SUBID_FILES)
    return tuple(found for text in texts for found in parse_subids(text.decode(errors="replace")))
