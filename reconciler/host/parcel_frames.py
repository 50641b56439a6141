"""The form of a parcel on its way: a note, files, and perhaps the stream of a subvolume, in frames.

Shape: each frame is its kind, the length of what follows, and that; what belongs to a file or a stream comes in frames
of `FrameKind.BYTES` after it.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from enum import IntEnum

from reconciler.errors import StateError

LONGEST = 1 << 20
"""The most that one frame holds. Units: bytes."""

_HEAD = struct.Struct("!BI")


class FrameKind(IntEnum):
    """`NOTE`: what the parcel is, first. `FILE`: a name and a size. `STREAM`: of a subvolume. `END`: of it all."""

    NOTE = 1
    FILE = 2
    STREAM = 3
    BYTES = 4
    END = 5


def frame(kind: FrameKind, content: bytes = b"") -> bytes:
    """Give a frame."""
    return _HEAD.pack(kind, len(content)) + content


class Frames:
    """The frames in what arrives in chunks. Every failure to be one is a `StateError`."""

    def __init__(self, chunks: AsyncIterator[bytes], *, most: int) -> None:
        self._chunks, self._left = chunks, most
        self._held = bytearray()
        self._next: tuple[FrameKind, bytes] | None = None

    async def peek(self) -> FrameKind:
        """Say of which kind the next frame is."""
        if self._next is None:
            self._next = await self._read()
        return self._next[0]

    async def take(self, kind: FrameKind) -> bytes:
        """Give what the next frame holds, which is to be of this kind."""
        found = await self.peek()
        if found is not kind:
            raise _broken(f"{found.name}, where {kind.name} is expected")
        assert self._next is not None
        content, self._next = self._next[1], None
        return content

    async def bytes_of_stream(self) -> AsyncIterator[bytes]:
        """Give the bytes up to the next frame of another kind."""
        while await self.peek() is FrameKind.BYTES:
            yield await self.take(FrameKind.BYTES)

    async def finish(self) -> None:
        """Make sure that the parcel has come to its end, and nothing comes after."""
        await self.take(FrameKind.END)
        if self._held or [chunk async for chunk in self._chunks if chunk]:
            raise _broken("more after its end")

    async def _read(self) -> tuple[FrameKind, bytes]:
        kind, length = _HEAD.unpack(await self._exactly(_HEAD.size))
        if kind not in list(FrameKind) or length > LONGEST:
            raise _broken(f"a frame {kind} of {length} bytes")
        self._left -= _HEAD.size + length
        if self._left < 0:
            raise StateError("read parcel: it is larger than the pool")
        return FrameKind(kind), await self._exactly(length)

    async def _exactly(self, count: int) -> bytes:
        while len(self._held) < count:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                raise _broken("an end before its end")
            self._held += chunk
        data = bytes(self._held[:count])
        del self._held[:count]
        return data


def _broken(what: str) -> StateError:
    return StateError(f"read parcel: it has {what}")
