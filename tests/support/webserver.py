"""Our HTTP server on loopback, on an event loop of its own, for clients that block."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from reconciler.web.exchange import Handler
from reconciler.web.server import Limits, Server
from tests.support.patience import PATIENCE

HOST = "127.0.0.1"
CLIENT_S = 30.0 * PATIENCE


@contextmanager
def serving(handlers: Mapping[str, Handler], limits: Limits | None = None) -> Iterator[int]:
    """Serve until the end of the block; give the port."""
    loop = asyncio.new_event_loop()
    with socket.create_server((HOST, 0), backlog=64) as listener:
        listener.setblocking(False)
        server = Server(handlers, limits=limits or Limits())
        task = loop.create_task(server.run(listener))
        thread = threading.Thread(target=_run, args=(loop, task))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            loop.call_soon_threadsafe(task.cancel)
            thread.join(CLIENT_S)
            loop.close()


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    async def to_the_end() -> None:
        await asyncio.wait([task])
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    loop.run_until_complete(to_the_end())


def post(port: int, path: str, body: bytes, headers: Mapping[str, str], method: str = "POST") -> tuple[int, str]:
    """Ask; give the status and the text of the answer."""
    connection = HTTPConnection(HOST, port, timeout=CLIENT_S)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def raw(port: int, data: bytes) -> bytes:
    """Send bytes; give all that comes back until the connection ends."""
    with socket.create_connection((HOST, port), timeout=CLIENT_S) as connection:
        connection.sendall(data)
        return rest_of(connection)


def rest_of(connection: socket.socket) -> bytes:
    """Read what comes until the connection ends."""
    found = b""
    try:
        while part := connection.recv(1 << 16):
            found += part
    except ConnectionError:
        pass
    return found


def secret_file(path: Path, *secrets: str) -> str:
    """Write secrets to a file that nobody else may read."""
    path.write_text("".join(f"{secret}\n" for secret in secrets))
    path.chmod(0o600)
    return str(path)
