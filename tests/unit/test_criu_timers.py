"""Claims about timers in images: those that tick for ever and have ticked tick on, and nothing else is touched."""

from __future__ import annotations

import struct

import pytest

from reconciler.errors import KernelFormatError
from reconciler.kernel.criu_timers import corrected

MAGIC = struct.pack("<II", 0x54564319, 0x56303138)
REGULAR = bytes((8, 1, 16, 5, 26, 4, 8, 5, 16, 7))  # of another kind of file


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes((low,)) if not rest else bytes((low | 0x80,)) + varint(rest)


def timer(*, left: tuple[int, int], every: tuple[int, int]) -> bytes:
    """Encode a timer of id 3 as a file of type 17."""
    numbers = {1: 3, 2: 0x802, 4: 1, 5: 1, 6: 0, 7: left[0], 8: left[1], 9: every[0], 10: every[1]}
    message = b"".join(varint(number << 3) + varint(value) for number, value in numbers.items())
    return varint(8) + varint(17) + varint(16) + varint(3) + varint(12 << 3 | 2) + varint(len(message)) + message


def image(*entries: bytes) -> bytes:
    return MAGIC + b"".join(struct.pack("<I", len(entry)) + entry for entry in entries)


def test_a_timer_that_ticked_begins_its_next_tick() -> None:
    before = image(REGULAR, timer(left=(0, 0), every=(1, 500_000_000)), REGULAR)
    assert corrected(before) == image(REGULAR, timer(left=(1, 500_000_000), every=(1, 500_000_000)), REGULAR)


@pytest.mark.parametrize(
    "entry",
    [REGULAR, timer(left=(0, 0), every=(0, 0)), timer(left=(0, 7), every=(1, 0)), timer(left=(9, 0), every=(0, 0))],
)
def test_whatever_else_there_is_stays_as_it_is(entry: bytes) -> None:
    assert corrected(image(entry, entry)) == image(entry, entry)


@pytest.mark.parametrize("damaged", [b"", b"12345678", image(REGULAR)[:-1], image(b"\x0b"), MAGIC + b"\xff"])
def test_an_image_of_another_form_is_told_of(damaged: bytes) -> None:
    with pytest.raises(KernelFormatError):
        corrected(damaged)
