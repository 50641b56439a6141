"""The HTTP server: few connections at a time, few a second, each with a deadline; strangers cost the agent little."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog

from reconciler.errors import VectlError
from reconciler.kernel.syscalls import translated
from reconciler.web.exchange import Answer, Exchange, Handler, Receiver, Request
from reconciler.web.rates import Rates

_QUIET_S = 60.0
_BACKLOG = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``connections`` at a time; ``each`` and ``total`` requests a minute of an address and of all.

    Units: ``headers_s`` and ``whole_s`` seconds for a request; ``pace_s`` seconds between two connections.
    """

    connections: int = 32
    each: int = 60
    total: int = 300
    headers_s: float = 5.0
    whole_s: float = 15.0
    pace_s: float = 0.01


class Server:
    """Answers requests while it runs. ``handlers``: by path, of POST."""

    def __init__(self, handlers: Mapping[str, Handler], *, limits: Limits) -> None:
        self._handlers, self._limits = handlers, limits
        self._rates = Rates(each=limits.each, total=limits.total, now=time.monotonic())
        self._told: dict[int, tuple[float, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, listener: socket.socket) -> None:
        """Answer until cancelled."""
        try:
            await self._accept(listener)
        finally:
            for task in self._tasks:
                task.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        """Take one connection after the other; what comes faster waits in the kernel's queue, which has an end."""
        loop, seats = asyncio.get_running_loop(), asyncio.Semaphore(self._limits.connections)
        while True:
            await seats.acquire()
            try:
                connection, peer = await loop.sock_accept(listener)
            except OSError as error:  # no descriptor left, or a client that has gone again
                seats.release()
                structlog.get_logger().warning("web.not_accepted", error=str(error))
                await asyncio.sleep(1.0)
                continue
            task = loop.create_task(self._serve(connection, peer[0]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: seats.release())
            await asyncio.sleep(self._limits.pace_s)

    async def _serve(self, connection: socket.socket, address: str) -> None:
        limits = self._limits
        with connection, suppress(OSError, TimeoutError):
            connection.setblocking(False)
            exchange = Exchange(connection, address)
            answer = await exchange.run(self, headers_s=limits.headers_s, whole_s=limits.whole_s)
            if answer is not None:
                self._tell(answer, address)

    def begin(self, request: Request) -> Receiver | Answer:
        """Find who answers a request, if its address may ask at all."""
        wait_s = self._rates.take(request.address, time.monotonic())
        if wait_s:
            return Answer(429, "too many requests", {"Retry-After": str(wait_s)})
        handler = self._handlers.get(request.path)
        if handler is None:
            return Answer(404, "nothing is here")
        if request.method != "POST":
            return Answer(405, "expected POST", {"Allow": "POST"})
        try:
            return handler.begin(request)
        except VectlError as error:
            structlog.get_logger().warning("web.not_ready", path=request.path, error=str(error))
            return Answer(503, "not set up; see the agent's log")

    def _tell(self, answer: Answer, address: str) -> None:
        """Log an answer; of those that refuse one a minute of each kind, so that a flood does not fill the log."""
        log, now = structlog.get_logger(), time.monotonic()
        if answer.status < 300:
            log.info("web.answered", status=answer.status, address=address)
            return
        at, untold = self._told.get(answer.status, (float("-inf"), 0))
        if now - at < _QUIET_S:
            self._told[answer.status] = at, untold + 1
            return
        self._told[answer.status] = now, 0
        log.warning("web.refused", status=answer.status, address=address, more_before=untold)


async def listen_at(address: str) -> socket.socket:
    """Listen at ``address:port``, IPv6 in brackets; connections are waited for without blocking.

    Raises: KernelError.
    """
    host, _, port = address.rpartition(":")
    with translated("listen", address):
        found = await asyncio.get_running_loop().getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, *_, where = found[0]
        made = socket.create_server((str(where[0]), int(where[1])), family=family, backlog=_BACKLOG)
        made.setblocking(False)
    return made
