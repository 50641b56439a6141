"""Frames: what goes over a conversation between hosts, one after another.

Shape: one byte of kind, four bytes of length in network order, the payload. Questions, answers and errors are JSON
objects. A shipment is a header, data, and an end that tells what the data were in all.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NoReturn

from reconciler.errors import PeerError
from reconciler.model.facts import Json

PAYLOAD_MAX = 1 << 20
"""Units: bytes."""

DATA_MAX = 256 << 10
"""What we put into one frame of data: enough to cost little each, little enough for a slow line. Units: bytes."""

HEAD_BYTES = 5
_HEAD = struct.Struct("!BI")
_END = struct.Struct("!32sQ")


class Kind(IntEnum):
    """What a frame is. `KEEP`: "I am still here". `BREAK`: the data ends here, unfinished; with words."""

    QUESTION = 1
    SHIPMENT = 2
    ANSWER = 3
    ERROR = 4
    DATA = 5
    END = 6
    BREAK = 7
    KEEP = 8


_EXACT = {Kind.END: _END.size, Kind.KEEP: 0}


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame."""

    kind: Kind
    payload: bytes

    def to_json(self) -> dict[str, Json]:
        """Read the payload as the JSON object that it should be.

        Raises: PeerError.
        """
        try:
            value = json.loads(self.payload, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as err:
            raise PeerError("read frame: expected JSON") from err
        if not isinstance(value, dict):
            raise PeerError("read frame: expected a JSON object")
        return value


def head(kind: Kind, length: int) -> bytes:
    """Give what precedes a payload."""
    if length > PAYLOAD_MAX:
        raise PeerError(f"write frame: expected {PAYLOAD_MAX} bytes at most, got {length}")
    return _HEAD.pack(kind, length)


def parse_head(data: bytes) -> tuple[Kind, int]:
    """Take what precedes a payload: the kind, and the payload's length.

    Raises: PeerError, if it is nothing that we would write.
    """
    number, length = _HEAD.unpack(data)
    try:
        kind = Kind(number)
    except ValueError as err:
        raise PeerError(f"read frame: expected a kind from {min(Kind)} to {max(Kind)}, got {number}") from err
    if length > PAYLOAD_MAX or length != _EXACT.get(kind, length):
        raise PeerError(f"read frame: expected {_EXACT.get(kind, PAYLOAD_MAX)} bytes at most, got {length}")
    return kind, length


def to_payload(value: Mapping[str, Json]) -> bytes:
    """Write a JSON object.

    Raises: PeerError, if it is larger than a frame.
    """
    payload = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    head(Kind.ANSWER, len(payload))
    return payload


class Seal:
    """What a shipment's data were in all: their digest and their length, on either side."""

    __slots__ = ("_digest", "length")

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.length = 0

    def add(self, data: bytes | memoryview) -> None:
        """Count data in."""
        self._digest.update(data)
        self.length += len(data)

    def payload(self) -> bytes:
        """Give the end's payload."""
        return _END.pack(self._digest.digest(), self.length)

    def check(self, payload: bytes) -> None:
        """Compare with the end that came.

        Raises: PeerError, if data are missing, changed or too many.
        """
        if payload != self.payload():
            _, length = _END.unpack(payload)
            raise PeerError(f"receive data: expected {length} bytes of a digest, got {self.length} that differ from it")


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"expected a number, got {word}")
