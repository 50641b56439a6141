"""A channel: one conversation with another host, whose name is proven, in frames over TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from reconciler.errors import PeerError
from reconciler.fleet import frames
from reconciler.fleet.frames import Frame, Kind, Seal
from reconciler.fleet.pace import Pace
from reconciler.model.facts import Json

WORDS_MAX = 2000
_LINGER_BYTES = 64 << 10

_ALERTS = {
    "CERTIFICATE_VERIFY_FAILED": "its key is not the one that its Host manifest pins",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no key",
    "UNSUPPORTED_PROTOCOL": "it does not speak TLS 1.3",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it does not speak TLS 1.3",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
}


def reason_of(error: OSError | EOFError) -> str:
    """Give the words for what broke a connection."""
    match error:
        case ssl.SSLError() if error.reason:
            return _ALERTS.get(error.reason, error.reason.lower().replace("_", " "))
        case EOFError() | ConnectionResetError() | BrokenPipeError():
            return "the connection ended"
        case TimeoutError():
            return "no answer in time"
        case _:
            return error.strerror.lower() if isinstance(error, OSError) and error.strerror else "the connection ended"


class Channel:
    """A conversation. Not more than a few frames are ever in memory, however slow the other end or our own is.

    ``consumed``: whether all was read that belongs to what was said. ``heard``: how many frames came. ``is_broken``:
    whether the connection is.
    """

    __slots__ = ("_reader", "_writer", "_written", "consumed", "heard", "is_broken", "pace", "peer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, peer: str, pace: Pace) -> None:
        self.peer = peer
        self.consumed, self.is_broken = True, False
        self._reader, self._writer, self.pace = reader, writer, pace
        self._written = self.heard = 0

    async def send(self, kind: Kind, payload: bytes | memoryview = b"") -> None:
        """Send a frame, as soon as the other end takes what came before.

        Raises: PeerError.
        """
        try:
            self._write(kind, payload)
            async with asyncio.timeout(self.pace.stall_s):
                await self._writer.drain()
        except OSError as err:
            raise self._broken(err) from err

    async def send_json(self, kind: Kind, value: Mapping[str, Json]) -> None:
        """Send a frame with a JSON object.

        Raises: PeerError.
        """
        await self.send(kind, frames.to_payload(value))

    async def receive(self) -> Frame:
        """Wait for a frame that says something, for as long as the other end shows that it is there.

        Raises: PeerError, if it is silent, gone, or says what is no frame.
        """
        frame = await self._said()
        if frame is None:
            raise self._broken(EOFError())
        return frame

    async def greet(self) -> None:
        """Let the other end know that it is welcome.

        Raises: PeerError.
        """
        await self.send(Kind.KEEP)

    async def be_greeted(self) -> None:
        """Wait until the other end has let us in: only then it has looked at who we are.

        Raises: PeerError, with what it says, or with what is the likely reason where it says nothing.
        """
        try:
            frame = await self._receive()
        except PeerError:
            frame = None
        if frame is None:
            raise PeerError(
                f"talk to {self.peer}: it does not let this host in; pin the line of `vectl host key` in this host's "
                "manifest, and see the log there"
            )
        if frame.kind is not Kind.KEEP:
            raise PeerError(f"talk to {self.peer}: {words_of(frame)}")

    async def next(self) -> Frame | None:
        """Wait for the next question; None, if the other end has no more, or takes too long.

        Raises: PeerError.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self.pace.idle_s):
                return await self._said()
        return None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Give the data of a shipment, to its end.

        Raises: PeerError, if they end too soon or are not what was sent.
        """
        seal = Seal()
        while (frame := await self.receive()).kind is Kind.DATA:
            seal.add(frame.payload)
            yield frame.payload
        if frame.kind is Kind.BREAK:
            raise PeerError(f"receive from {self.peer}: it gave up: {words_of(frame)}")
        if frame.kind is not Kind.END:
            raise PeerError(f"receive from {self.peer}: expected data, got {frame.kind.name.lower()}")
        seal.check(frame.payload)
        self.consumed = True

    @asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Show the other end that we are there, for the length of the block."""
        keeping = asyncio.create_task(self._keep_alive())
        try:
            yield
        finally:
            keeping.cancel()

    async def linger(self) -> None:
        """Read on for a little and throw away: closed with something unread, our last words would not arrive."""
        with suppress(OSError):
            async with asyncio.timeout(self.pace.linger_s):
                while await self._reader.read(_LINGER_BYTES):
                    pass

    async def close(self) -> None:
        """End the conversation; what was sent arrives."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    def abort(self) -> None:
        """End the conversation at once."""
        self._writer.transport.abort()

    @property
    def is_over(self) -> bool:
        """Whether nothing can be said any more."""
        return self._writer.is_closing() or self._reader.at_eof()

    def _write(self, kind: Kind, payload: bytes | memoryview) -> None:
        self._writer.write(b"".join((frames.head(kind, len(payload)), payload)))
        self._written += 1

    async def _said(self) -> Frame | None:
        while (frame := await self._receive()) is not None and frame.kind is Kind.KEEP:
            pass
        return frame

    async def _receive(self) -> Frame | None:
        """Wait for a frame; None, if the other end left after a whole one."""
        try:
            async with asyncio.timeout(self.pace.silence_s):
                head = await self._head()
                if head is None:
                    return None
                self.heard += 1
                kind, length = frames.parse_head(head)
                return Frame(kind, await self._reader.readexactly(length) if length else b"")
        except TimeoutError as err:
            self.is_broken = True
            raise PeerError(f"receive from {self.peer}: nothing came for {self.pace.silence_s:g} s") from err
        except (OSError, EOFError) as err:
            raise self._broken(err) from err

    async def _head(self) -> bytes | None:
        try:
            return await self._reader.readexactly(frames.HEAD_BYTES)
        except asyncio.IncompleteReadError as err:
            if err.partial:
                raise
            return None

    async def _keep_alive(self) -> None:
        while True:
            before = self._written
            await asyncio.sleep(self.pace.keep_alive_s)
            if before == self._written and not self._writer.is_closing():
                self._write(Kind.KEEP, b"")

    def _broken(self, error: OSError | EOFError) -> PeerError:
        self.is_broken = True
        return PeerError(f"talk to {self.peer}: {reason_of(error)}")


def words_of(frame: Frame) -> str:
    """Give the words of a frame that tells what is wrong; whatever they hold, they are text of one line."""
    told = str(frame.to_json().get("message", ""))[:WORDS_MAX]
    return "".join(char if char.isprintable() else " " for char in told)
