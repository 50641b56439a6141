"""A way to a server that swallows what goes there, what comes back, or both; or that is not there at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

_CHUNK = 1 << 16


class Way:
    """Relays connections. ``there`` and ``back`` tell whether bytes pass; connections stay either way."""

    def __init__(self, host: str, port: int) -> None:
        self.there = self.back = True
        self._server_at = host, port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        """Give its address."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    async def open(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)

    async def close(self) -> None:
        """Refuse connections, and end those that are there."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with suppress(OSError, EOFError, asyncio.CancelledError):  # asyncio would print what ends a connection
            await self._carry(reader, writer)
        self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._server_at)
        ways = (
            asyncio.ensure_future(_pass(reader, server_writer, lambda: self.there)),
            asyncio.ensure_future(_pass(server_reader, writer, lambda: self.back)),
        )
        try:
            await asyncio.gather(*ways)
        finally:
            for way in ways:
                way.cancel()
            for end in (writer, server_writer):
                end.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, may: Callable[[], bool]) -> None:
    while data := await reader.read(_CHUNK):
        if may():
            writer.write(data)
            await writer.drain()
    raise EOFError


@asynccontextmanager
async def way_to(host: str, port: int) -> AsyncIterator[Way]:
    """Have a way until the end of the block."""
    way = Way(host, port)
    await way.open()
    try:
        yield way
    finally:
        await way.close()
