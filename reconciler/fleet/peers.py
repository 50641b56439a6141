"""Peers: this host asks other hosts, and sends them what they are to have."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from reconciler.errors import PeerError, RefusedError
from reconciler.fleet import frames, tls
from reconciler.fleet.channel import Channel, reason_of, words_of
from reconciler.fleet.circle import Circle, CircleNow, Fellow
from reconciler.fleet.frames import Frame, Kind, Seal
from reconciler.fleet.pace import PACE, Meter, Pace, TokenBucket
from reconciler.model.facts import Json
from reconciler.model.identity import HostName

BUFFER = 256 << 10
"""What is read ahead, and what is sent ahead. Units: bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a shipment is, by its header. Units: ``sent`` bytes; ``rate`` bytes per second."""

    host: HostName
    header: Mapping[str, Json]
    sent: int
    rate: float


Told: TypeAlias = Callable[[Progress], None]


def tell_nobody(progress: Progress) -> None:
    """Take progress, and tell nobody."""


class TlsPeers:
    """`Peers` over TLS. A conversation that ended well is kept for the next question, for a little."""

    __slots__ = ("_bucket", "_circle", "_contexts", "_contexts_of", "_idle", "_pace", "_told")

    def __init__(
        self, circle: CircleNow, *, bandwidth: int | None = None, told: Told = tell_nobody, pace: Pace = PACE
    ) -> None:
        """Take ``bandwidth``: bytes per second of all shipments together; ``told``: what is called on progress."""
        self._circle, self._told, self._pace = circle, told, pace
        self._bucket = TokenBucket(bandwidth)
        self._idle: dict[Fellow, tuple[Channel, float]] = {}
        self._contexts_of: Circle | None = None
        self._contexts: dict[Fellow, ssl.SSLContext] = {}

    async def ask(self, host: HostName, question: Mapping[str, Json]) -> Mapping[str, Json]:
        """Ask one question.

        Raises: PeerError; RefusedError, with the other host's words.
        """
        fellow, payload = self._circle().fellow(host), frames.to_payload(question)
        frame = None
        if (kept := self._take_idle(fellow)) is not None:
            frame = await self._ask_kept(kept, fellow, payload)
        if frame is None:
            frame = await self._ask(await self._open(fellow), fellow, payload)
        return _answered(host, frame)

    async def ship(
        self, host: HostName, header: Mapping[str, Json], chunks: AsyncIterator[bytes]
    ) -> Mapping[str, Json]:
        """Send bytes with a header, and wait until the other host has them whole; if it has them already, none go.

        Raises: as `ask`; whatever ``chunks`` raises, and then the other host has nothing.
        """
        try:
            channel = await self._open(self._circle().fellow(host))
            try:
                frame = await self._ship(channel, _Shipment(host, header), chunks)
            except BaseException:
                channel.abort()
                raise
            await channel.close()
        finally:
            await _end(chunks)
        return _answered(host, frame)

    async def close(self) -> None:
        """End the conversations that are kept."""
        while self._idle:
            _, (channel, _) = self._idle.popitem()
            await channel.close()

    async def _ask_kept(self, channel: Channel, fellow: Fellow, payload: bytes) -> Frame | None:
        """Ask in a conversation that may have ended while nobody looked; None, if nothing shows that it was heard."""
        heard = channel.heard
        try:
            return await self._ask(channel, fellow, payload)
        except PeerError:
            if channel.heard > heard:
                raise
            return None

    async def _ask(self, channel: Channel, fellow: Fellow, payload: bytes) -> Frame:
        try:
            await channel.send(Kind.QUESTION, payload)
            frame = await channel.receive()
        except BaseException:
            channel.abort()
            raise
        if frame.kind in (Kind.ANSWER, Kind.ERROR):
            self._keep(fellow, channel)
        else:
            channel.abort()
        return frame

    def _take_idle(self, fellow: Fellow) -> Channel | None:
        """Take a kept conversation, if the other end surely still waits for a question."""
        channel, since = self._idle.pop(fellow, (None, 0.0))
        if channel is None:
            return None
        if channel.is_over or asyncio.get_running_loop().time() - since > self._pace.idle_s / 2:
            channel.abort()
            return None
        return channel

    def _keep(self, fellow: Fellow, channel: Channel) -> None:
        former, _ = self._idle.pop(fellow, (None, 0.0))
        if former is not None:
            former.abort()
        self._idle[fellow] = channel, asyncio.get_running_loop().time()

    async def _open(self, fellow: Fellow) -> Channel:
        """Begin a conversation with a host that has proven who it is, and that lets this one in."""
        where, context = f"{fellow.address} port {fellow.port}", self._context(fellow)
        try:
            async with asyncio.timeout(self._pace.handshake_s):
                reader, writer = await asyncio.open_connection(
                    fellow.address,
                    fellow.port,
                    ssl=context,
                    server_hostname="",
                    ssl_shutdown_timeout=self._pace.linger_s,
                    limit=BUFFER,
                )
                channel = Channel(reader, writer, peer=fellow.name, pace=self._pace)
                try:
                    if tls.proven(writer.get_extra_info("ssl_object")) != (fellow.name, fellow.key):
                        raise PeerError(f"talk to {fellow.name}: another host answers at {where}")
                    await channel.be_greeted()
                except BaseException:
                    channel.abort()
                    raise
        except OSError as err:
            raise PeerError(f"talk to {fellow.name} at {where}: {reason_of(err)}") from err
        return channel

    def _context(self, fellow: Fellow) -> ssl.SSLContext:
        """Give what to talk to a host with; made once, as it takes longer than a question."""
        circle = self._circle()
        if circle is not self._contexts_of:
            self._contexts_of, self._contexts = circle, {}
        if fellow not in self._contexts:
            self._contexts[fellow] = tls.client_context(circle, fellow)
        return self._contexts[fellow]

    async def _ship(self, channel: Channel, shipment: _Shipment, chunks: AsyncIterator[bytes]) -> Frame:
        """Send while listening: what the other end has to say may come before the end."""
        async with channel.kept_alive():
            await channel.send_json(Kind.SHIPMENT, shipment.header)
            listening = asyncio.create_task(channel.receive())
            pouring = asyncio.create_task(self._pour(channel, shipment, chunks))
            try:
                await asyncio.wait((listening, pouring), return_when=asyncio.FIRST_COMPLETED)
                if pouring.done() and (error := pouring.exception()) is not None:
                    return await _failed(channel, error, listening)
                return await listening
            except BaseException:
                channel.abort()  # at once, not after whoever makes the chunks has ended
                raise
            finally:
                await _cancel(pouring)
                await _cancel(listening)

    async def _pour(self, channel: Channel, shipment: _Shipment, chunks: AsyncIterator[bytes]) -> None:
        loop = asyncio.get_running_loop()
        seal, meter, portion = Seal(), Meter(started_at=loop.time()), self._bucket.portion(frames.DATA_MAX)
        try:
            async for chunk in chunks:
                for piece in _pieces(chunk, portion):
                    await self._bucket.take(len(piece))
                    seal.add(piece)
                    await channel.send(Kind.DATA, piece)
                    if meter.add(len(piece), now=loop.time()):
                        self._tell(shipment, meter)
        finally:
            await _end(chunks)
        await channel.send(Kind.END, seal.payload())
        meter.finish(now=loop.time())
        self._tell(shipment, meter)

    def _tell(self, shipment: _Shipment, meter: Meter) -> None:
        self._told(Progress(host=shipment.host, header=shipment.header, sent=meter.sent, rate=meter.rate))


@dataclass(frozen=True, slots=True)
class _Shipment:
    host: HostName
    header: Mapping[str, Json]


async def _failed(channel: Channel, error: BaseException, listening: asyncio.Task[Frame]) -> Frame:
    """Give what the other end said before it broke the conversation; if it was us who could not go on, tell it."""
    with suppress(PeerError, TimeoutError):
        async with asyncio.timeout(channel.pace.linger_s):
            if channel.is_broken:
                return await listening
            await channel.send_json(Kind.BREAK, {"message": f"{type(error).__name__} at the sender"})
            await channel.close()
    raise error


def _pieces(chunk: bytes, size: int) -> Iterator[bytes | memoryview]:
    if len(chunk) <= size:
        return iter((chunk,) if chunk else ())
    view = memoryview(chunk)
    return (view[start : start + size] for start in range(0, len(chunk), size))


async def _end(chunks: AsyncIterator[bytes]) -> None:
    """Close an iterator, if it is one that can be closed."""
    if isinstance(chunks, AsyncGenerator):
        await chunks.aclose()


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()  # looked at, so that nobody is told of it


def _answered(host: HostName, frame: Frame) -> Mapping[str, Json]:
    match frame.kind:
        case Kind.ANSWER:
            return frame.to_json()
        case Kind.ERROR if frame.to_json().get("refused") is True:
            raise RefusedError(f"ask {host}: {words_of(frame)}")
        case Kind.ERROR:
            raise PeerError(f"ask {host}: {words_of(frame)}")
        case _:
            raise PeerError(f"ask {host}: expected an answer, got {frame.kind.name.lower()}")
