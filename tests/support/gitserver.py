"""Real git servers on loopback: smart http and https by ``git http-backend``, and ssh by dropbear.

Each serves the bare repositories below a directory. To serve in another network namespace hand in a listening socket
of that one, e.g. ``netns.call_in(namespace, gitserver.listen)``.
"""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from tests.support.gitrepo import git
from tests.support.patience import PATIENCE

HOST = "127.0.0.1"
_COMMAND_S = 60.0 * PATIENCE
_SSH_PACKAGE = "dropbear-bin"


def listen() -> socket.socket:
    """Open a listening socket on loopback, of a port that it keeps while it does not listen.

    Source: tcp_disconnect of the kernel gives back only a port that nobody named.
    """
    with socket.socket() as chosen:
        chosen.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        chosen.bind((HOST, 0))
        return socket.create_server(chosen.getsockname())


class GitServer(Protocol):
    """What serves repositories."""

    def url(self, name: str) -> str:
        """Give the address of a repository, by its path below the served directory."""
        ...

    def gone(self) -> AbstractContextManager[None]:
        """Refuse connections until the end of the block."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A server's certificate for 127.0.0.1 and localhost, which is its own authority; ``ca`` is what a client needs."""

    ca: Path
    key: Path


def certificate(directory: Path) -> Certificate:
    """Make a certificate in a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Certificate(ca=directory / "ca.pem", key=directory / "key.pem")
    subject = ["-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{HOST},DNS:localhost"]
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    argv = ["openssl", "req", "-x509", *ec, *subject, "-keyout", str(made.key), "-out", str(made.ca)]
    subprocess.run(argv, check=True, capture_output=True, timeout=_COMMAND_S)
    return made


class HttpServer(ThreadingHTTPServer):
    """``login``: the ``user:password`` that every request needs, "" for none. ``asked``: methods and paths so far.

    ``on_request``: called before each answer, while the client waits.
    """

    daemon_threads = True

    def __init__(self, root: Path, listener: socket.socket, *, tls: Certificate | None, login: str) -> None:
        super().__init__((HOST, 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_address = listener.getsockname()
        self.root, self.login = root, login
        self.asked: list[str] = []
        self.on_request: Callable[[], object] = lambda: None
        self._tls = None if tls is None else _context(tls)
        self._serving: threading.Thread | None = None

    def url(self, name: str) -> str:
        """Give the address of a repository."""
        return f"{'http' if self._tls is None else 'https'}://{HOST}:{self.server_address[1]}/{name}"

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept a connection; its handshake is left to the thread that serves it."""
        connection, address = self.socket.accept()
        if self._tls is None:
            return connection, address
        return self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up."""

    def begin(self) -> None:
        """Answer."""
        self.socket.listen(64)
        self._serving = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._serving.start()

    def end(self) -> None:
        """Refuse connections from now on."""
        self.shutdown()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        if self._serving is not None:
            self._serving.join()

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Refuse connections until the end of the block."""
        self.end()
        yield
        self.begin()


def _context(tls: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.ca, tls.key)
    return context


@contextmanager
def http(
    root: Path, *, listener: socket.socket | None = None, tls: Certificate | None = None, login: str = ""
) -> Iterator[HttpServer]:
    """Serve the repositories below a directory over http, with a certificate over https."""
    with listener or listen() as bound:
        server = HttpServer(root, bound, tls=tls, login=login)
        server.begin()
        try:
            yield server
        finally:
            server.end()


class _Handler(BaseHTTPRequestHandler):
    """Hands requests on to ``git http-backend``. Source: RFC 3875."""

    protocol_version = "HTTP/1.1"
    server: HttpServer

    def log_message(self, format: str, *args: object) -> None:  # its name in the base
        """Say nothing."""

    def do_GET(self) -> None:  # its name in the base
        """Answer."""
        self._answer(b"")

    def do_POST(self) -> None:  # its name in the base
        """Answer."""
        self._answer(self._body())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _answer(self, body: bytes) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.on_request()
        if not self._may():
            self.send_response(HTTPStatus.UNAUTHORIZED)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        done = subprocess.run(
            ["git", "http-backend"], env=self._variables(body), input=body, capture_output=True, timeout=_COMMAND_S
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        self._send(head.decode(), content)

    def _may(self) -> bool:
        wanted = base64.b64encode(self.server.login.encode()).decode()
        return not self.server.login or self.headers.get("Authorization") == f"Basic {wanted}"

    def _variables(self, body: bytes) -> dict[str, str]:
        url = urlsplit(self.path)
        return {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": url.path,
            "QUERY_STRING": url.query,
            "REMOTE_ADDR": self.client_address[0],
            "REMOTE_USER": self.server.login.partition(":")[0] or "somebody",
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }

    def _send(self, head: str, content: bytes) -> None:
        headers = [tuple(line.split(": ", 1)) for line in head.splitlines()]
        status = next((value for name, value in headers if name == "Status"), "200 OK")
        self.send_response_only(int(status.split()[0]), status.partition(" ")[2])
        for name, value in headers:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class RawServer:
    """Accepts connections on loopback and hands each to a function, in a thread of its own."""

    def __init__(self, listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        self._listener, self._handle = listener, handle
        self._accepting: threading.Thread | None = None
        self._open: list[socket.socket] = []
        self.port = int(listener.getsockname()[1])

    def begin(self) -> None:
        """Answer."""
        self._listener.listen(64)
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def end(self) -> None:
        """Refuse connections from now on, and cut those that are open."""
        for connection in (self._listener, *self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self._accepting is not None:
            self._accepting.join()
        self._open.clear()

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Refuse connections until the end of the block."""
        self.end()
        yield
        self.begin()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, ssl.SSLError):
            self._handle(connection)


@contextmanager
def raw(handle: Callable[[socket.socket], None], *, listener: socket.socket | None = None) -> Iterator[RawServer]:
    """Hand every connection to a function: what a server does that is broken or means harm."""
    with listener or listen() as bound:
        server = RawServer(bound, handle)
        server.begin()
        try:
            yield server
        finally:
            server.end()


@dataclass(kw_only=True)
class SshServer:
    """``key``: a client's private key that is let in. ``known_hosts``: with the server's host key."""

    root: Path
    directory: Path
    raw: RawServer = field(init=False)

    @property
    def key(self) -> Path:
        """The private key of a client that is let in."""
        return self.directory / "client"

    @property
    def known_hosts(self) -> Path:
        """A file with the server's host key, as it was when the server was made."""
        return self.directory / "known_hosts"

    def url(self, name: str) -> str:
        """Give the address of a repository."""
        return f"ssh://root@{HOST}:{self.raw.port}{self.root}/{name}"

    @property
    def command(self) -> str:
        """What ``GIT_SSH_COMMAND`` is for a client that is let in."""
        files = f"-i {shlex.quote(str(self.key))} -o UserKnownHostsFile={shlex.quote(str(self.known_hosts))}"
        return f"ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes {files}"

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Refuse connections until the end of the block."""
        with self.raw.gone():
            yield

    def change_host_key(self) -> None:
        """Have another host key, as another server in its place would."""
        _make_host_key(self.directory)

    def serve(self, connection: socket.socket) -> None:
        """Speak ssh on one connection; the home of root, where keys are looked for, is ours."""
        script = f'mount --bind "$1/passwd" /etc/passwd && exec dropbear -i -s -m -j -k -r "$1/{_HOST_KEY}"'
        subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(self.directory)],
            stdin=connection.fileno(),
            stdout=connection.fileno(),
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        )


_HOST_KEY = "host_key"


@contextmanager
def ssh(directory: Path, root: Path, *, listener: socket.socket | None = None) -> Iterator[SshServer]:
    """Serve the repositories below a directory over ssh to root. ``directory``: for its keys, made if missing."""
    assert shutil.which("dropbear", path=f"{os.environ['PATH']}:/usr/sbin"), f"install {_SSH_PACKAGE}: no dropbear"
    made = SshServer(root=root, directory=directory)
    home = directory / "home" / ".ssh"
    home.mkdir(parents=True, mode=0o700)
    (directory / "home").chmod(0o700)
    make_key(made.key)
    _make_host_key(directory)
    (home / "authorized_keys").write_text(made.key.with_suffix(".pub").read_text())
    (directory / "passwd").write_text(f"root:x:0:0:root:{directory / 'home'}:/bin/sh\n")
    with raw(made.serve, listener=listener) as server:
        made.raw = server
        public = _public_host_key(directory)
        made.known_hosts.write_text(f"[{HOST}]:{server.port} {public}\n")
        yield made


def make_key(path: Path) -> None:
    """Make a key pair for a client."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "client", "-f", str(path)]
    subprocess.run(argv, check=True, timeout=_COMMAND_S)


def _make_host_key(directory: Path) -> None:
    new = directory / f"{_HOST_KEY}.new"
    argv = ["dropbearkey", "-t", "ed25519", "-f", str(new)]
    subprocess.run(argv, check=True, capture_output=True, timeout=_COMMAND_S)
    new.rename(directory / _HOST_KEY)


def _public_host_key(directory: Path) -> str:
    argv = ["dropbearkey", "-y", "-f", str(directory / _HOST_KEY)]
    told = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=_COMMAND_S).stdout
    return next(line for line in told.splitlines() if line.startswith("ssh-"))


def head(repository: Path, ref: str = "refs/heads/main") -> str:
    """Give the commit that a ref of a repository stands for."""
    return git(repository, "rev-parse", ref)


@contextmanager
def tampering(
    port: int, tamper: Callable[[bytes, int], bytes | None], *, sent: list[int] | None = None
) -> Iterator[RawServer]:
    """Stand before a server, and change what it sends.

    ``tamper`` is given a piece and how many bytes of the connection came before it; what it gives is sent on, b"" with
    the connection held open for ever, None cuts it. ``sent`` counts the bytes of each connection.
    """

    def handle(connection: socket.socket) -> None:
        with socket.create_connection((HOST, port)) as server:
            threading.Thread(target=_copy, args=(connection, server), daemon=True).start()
            before = 0
            while piece := server.recv(1 << 16):
                changed = tamper(piece, before)
                before += len(piece)
                if changed is None:
                    break
                connection.sendall(changed)
            if sent is not None:
                sent.append(before)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    with raw(handle) as server:
        yield server


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
