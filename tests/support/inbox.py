"""A server that takes in what is told, answers as it is asked to, and keeps what came."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support import gitserver
from tests.support.gitserver import Certificate
from tests.support.patience import PATIENCE

HOST = "127.0.0.1"
_WAIT_S = 60.0 * PATIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What came in one request."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # whatever came
        """The body, parsed."""
        return json.loads(self.body)


@dataclass(kw_only=True)
class Inbox:
    """``script``: the statuses of the next answers, with their headers and text; afterwards it is 200."""

    url: str = ""
    said: list[Said] = field(default_factory=list)
    script: list[tuple[int, Mapping[str, str], str]] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def take(self, said: Said) -> tuple[int, Mapping[str, str], str]:
        """Keep what came; give what to answer."""
        with self._news:
            self.said.append(said)
            self._news.notify_all()
            return self.script.pop(0) if self.script else (200, {}, "ok")

    def wait(self, count: int) -> list[Said]:
        """Wait until so many requests have come; give all."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.said) >= count, _WAIT_S), self.said
            return list(self.said)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up."""


@contextmanager
def inbox(*, tls: Certificate | None = None, listener: socket.socket | None = None) -> Iterator[Inbox]:
    """Take in what is told until the end of the block. ``listener``: where, if it is to be in another namespace."""
    made = Inbox()
    server = _Quiet((HOST, 0), _handler(made), bind_and_activate=False)
    server.socket.close()
    server.socket = listener or gitserver.listen()
    port = server.socket.getsockname()[1]
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.ca, tls.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    made.url = f"{'https' if tls else 'http'}://{HOST}:{port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(to: Inbox) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # its name in the base
            del format, args

        def do_POST(self) -> None:  # its name in the base
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, text = to.take(Said(path=self.path, headers=dict(self.headers.items()), body=body))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(text)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

    return Handler
