"""The listener: other hosts ask this one, once they have proven who they are."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import structlog

from reconciler.errors import PeerError, TerminalError, VectlError
from reconciler.fleet import frames, tls
from reconciler.fleet.channel import WORDS_MAX, Channel, reason_of
from reconciler.fleet.circle import Circle, CircleNow, Fellow
from reconciler.fleet.crowd import Crowd
from reconciler.fleet.frames import Frame, Kind
from reconciler.fleet.pace import PACE, Pace
from reconciler.fleet.peers import BUFFER
from reconciler.model.facts import Json
from reconciler.model.fleet_seam import PeerService
from reconciler.model.identity import HostName

_BACKLOG = 128
_AGAIN_S = 0.2


class Listener:
    """Serves a `PeerService` to the hosts of the circle."""

    __slots__ = ("_circle", "_context", "_crowd", "_pace", "_refused", "_service", "_sock")

    def __init__(self, service: PeerService, circle: CircleNow, *, address: str, port: int, pace: Pace = PACE) -> None:
        """Take the port, so that hosts that ask too early wait.

        Raises: PeerError, if it cannot be had.
        """
        self._service, self._circle, self._pace = service, circle, pace
        self._context: tuple[Circle, ssl.SSLContext] | None = None
        self._crowd, self._refused = Crowd(), ""
        self._sock = _bind(address, port)

    @property
    def port(self) -> int:
        """The port that it has."""
        number: int = self._sock.getsockname()[1]
        return number

    def conversations(self, host: HostName) -> int:
        """Say how many conversations with a host there are."""
        return self._crowd.conversations[host]

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    sock, address = await self._accept()
                    tasks.create_task(self._admit(sock, address[0]))
        finally:
            self.close()

    def close(self) -> None:
        """Give the port back."""
        self._sock.close()

    async def _accept(self) -> tuple[socket.socket, Any]:
        while True:
            try:
                return await asyncio.get_running_loop().sock_accept(self._sock)
            except OSError:  # the other end has left, or there are no descriptors just now
                await asyncio.sleep(_AGAIN_S)

    async def _admit(self, sock: socket.socket, address: str) -> None:
        """Talk to whoever came, if it is a host of the circle; nothing that it does ends more than its conversation."""
        log = structlog.get_logger()
        try:
            circle = self._circle()
            with self._crowd.handshake(address, circle):
                reader, writer = await self._shake_hands(sock, circle)
            await self._welcome(reader, writer, circle)
        except (VectlError, OSError) as error:
            self._tell(address, reason_of(error) if isinstance(error, OSError) else str(error))
        except Exception:  # a bug that one conversation meets must not end the others
            log.exception("peer.crashed", address=address)
        finally:
            sock.close()

    async def _shake_hands(
        self, sock: socket.socket, circle: Circle
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._context is None or self._context[0] is not circle:
            self._context = circle, tls.server_context(circle)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=BUFFER, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            sock,
            ssl=self._context[1],
            ssl_handshake_timeout=self._pace.handshake_s,
            ssl_shutdown_timeout=self._pace.linger_s,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, circle: Circle) -> None:
        try:
            name, key = tls.proven(writer.get_extra_info("ssl_object"))
            fellow = circle.fellows.get(name)
            if fellow is None or fellow.key != key:
                raise PeerError(f"verify peer: expected the key that Host {name!r} has in the revision in force")
            await self._talk(Channel(reader, writer, peer=name, pace=self._pace), fellow)
        finally:
            writer.transport.abort()

    async def _talk(self, channel: Channel, fellow: Fellow) -> None:
        try:
            with self._crowd.conversation(fellow.name):
                await channel.greet()
                await self._converse(channel, fellow)
        except PeerError as error:  # it goes away as it likes
            structlog.get_logger().info("peer.left", peer=fellow.name, reason=str(error))
            if not channel.is_broken:
                await channel.send(Kind.ERROR, _words(error))
        await channel.close()

    async def _converse(self, channel: Channel, fellow: Fellow) -> None:
        while (frame := await channel.next()) is not None:
            if self._circle().fellows.get(fellow.name) != fellow:
                return  # the revision in force has changed what we know of it: let it prove itself again
            async with channel.kept_alive():
                await channel.send(*await self._reply(channel, fellow, frame))
            if not channel.consumed:
                await channel.linger()
                return

    async def _reply(self, channel: Channel, fellow: Fellow, frame: Frame) -> tuple[Kind, bytes]:
        log = structlog.get_logger()
        try:
            return Kind.ANSWER, frames.to_payload(await self._serve(channel, fellow, frame))
        except VectlError as error:
            return Kind.ERROR, _words(error)
        except Exception:  # a bug in one answer must not end what keeps the host
            log.exception("peer.answer_crashed", peer=fellow.name)
            return Kind.ERROR, _words(PeerError("answer: an error of its own; see its log"))

    async def _serve(self, channel: Channel, fellow: Fellow, frame: Frame) -> Mapping[str, Json]:
        match frame.kind:
            case Kind.QUESTION:
                return await self._service.answer(fellow.name, frame.to_json())
            case Kind.SHIPMENT:
                channel.consumed = False
                async with aclosing(channel.chunks()) as chunks:
                    return await self._service.take(fellow.name, frame.to_json(), chunks)
            case _:
                channel.consumed = False
                raise PeerError(f"answer {fellow.name}: expected a question, got {frame.kind.name.lower()}")

    def _tell(self, address: str, reason: str) -> None:
        """Log who was not talked to; once, as whoever tries does so again and again."""
        told = f"{address}: {reason}"
        if told != self._refused:
            self._refused = told
            structlog.get_logger().warning("peer.refused", address=address, reason=reason)


def _words(error: VectlError) -> bytes:
    return frames.to_payload({"message": str(error)[:WORDS_MAX], "refused": isinstance(error, TerminalError)})


def _bind(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        sock = socket.create_server((address, port), family=family, backlog=_BACKLOG)
    except OSError as err:
        raise PeerError(f"listen on {address} port {port}: {reason_of(err)}") from err
    sock.setblocking(False)
    return sock
