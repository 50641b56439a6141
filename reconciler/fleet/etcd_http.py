"""One member of etcd, over HTTP: what surely never reached it is told apart from what it may have done."""

from __future__ import annotations

import asyncio
import os
import select
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import h11

from reconciler.model.etcd import EtcdAddress

TRY_S = 2.0
"""How long a member has to take a connection, and how long to answer. Units: seconds."""
_ANSWER_MAX = 64 << 20
_CHUNK = 1 << 18
_IDLE_MAX_S = 10.0
"""A connection that was quiet for longer may be gone without a word, and a write over it unknown for nothing."""
_IDLE_MOST = 4
_CLOSED = "it closed the connection without an answer"
_PORT = 2379


class NotSentError(Exception):
    """Nothing of a request was sent."""


class NotAnsweredError(Exception):
    """A request was sent, or a part of it, and no whole answer came."""


class Connection:
    """A connection to a member: one request after another, each read to its end.

    ``date``: when the newest answer was given, as the member has it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader, self._writer, self._host = reader, writer, host
        self.date = ""
        self._http = h11.Connection(h11.CLIENT)
        self._used_at = asyncio.get_running_loop().time()

    @property
    def is_fresh(self) -> bool:
        """Tell whether it may be used once more: nothing is to be read, not even its end."""
        idle_s = asyncio.get_running_loop().time() - self._used_at
        if idle_s > _IDLE_MAX_S or self._reader.at_eof() or self._writer.is_closing():
            return False
        readable = select.poll()
        readable.register(self._writer.get_extra_info("socket"), select.POLLIN)
        return not readable.poll(0)

    def close(self) -> None:
        """Close it, whatever is under way."""
        self._writer.transport.abort()

    async def send(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a request; one without a body is for something that etcd shows to everybody."""
        fields = {"host": self._host, "content-type": "application/json", "content-length": str(len(body)), **headers}
        request = h11.Request(method="POST" if body else "GET", target=path, headers=list(fields.items()))
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(self._http.send(event) or b"")
        await self._writer.drain()

    async def status(self) -> int:
        """Read the beginning of an answer, and give its status."""
        event = await self._event()
        if not isinstance(event, h11.Response):
            return 0
        self.date = next((value.decode("ascii", "replace") for name, value in event.headers if name == b"date"), "")
        return event.status_code

    async def chunk(self) -> bytes:
        """Read more of an answer; nothing at its end."""
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def chunk_within(self, limit_s: float) -> bytes:
        """Read more of an answer that comes when there is something to tell. Units: seconds.

        Raises: NotAnsweredError.
        """
        try:
            async with asyncio.timeout(limit_s):
                return await self.chunk()
        except (OSError, TimeoutError, h11.ProtocolError) as err:
            raise NotAnsweredError(_words(err)) from err

    def reuse(self) -> bool:
        """Make ready for the next request, if another one can be sent."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        self._used_at = asyncio.get_running_loop().time()
        return True

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            data = await self._reader.read(_CHUNK)
            if not data:
                raise ConnectionError(_CLOSED)
            self._http.receive_data(data)
        return event


class Member:
    """One member of a cluster. ``endpoint``: as the configuration has it; ``date``: of its newest answer."""

    def __init__(self, endpoint: str, address: EtcdAddress) -> None:
        self.endpoint, self.date = endpoint, ""
        self._address = address
        self._where = urlsplit(endpoint)
        self._idle: list[Connection] = []

    async def ask(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Send a request, and give the status and the whole of the answer.

        Raises: NotSentError, NotAnsweredError.
        """
        connection = await self._connection()
        try:
            async with asyncio.timeout(TRY_S) as limit:
                await connection.send(path, body, headers)
                status, data = await connection.status(), bytearray()
                while chunk := await connection.chunk():
                    data += chunk
                    if len(data) > _ANSWER_MAX:
                        raise NotAnsweredError(f"expected {_ANSWER_MAX} bytes at most, got more")
                    limit.reschedule(asyncio.get_running_loop().time() + TRY_S)
        except (OSError, TimeoutError, h11.ProtocolError) as err:
            connection.close()
            raise NotAnsweredError(_words(err)) from err
        except BaseException:
            connection.close()
            raise
        self.date = connection.date
        self._put_back(connection)
        return status, bytes(data)

    async def stream(self, path: str, body: bytes, headers: Mapping[str, str]) -> Connection:
        """Send a request whose answer has no end, and give the connection when it begins.

        Raises: as `ask`.
        """
        connection = await self._connection()
        try:
            async with asyncio.timeout(TRY_S):
                await connection.send(path, body, headers)
                await connection.status()
        except (OSError, TimeoutError, h11.ProtocolError) as err:
            connection.close()
            raise NotAnsweredError(_words(err)) from err
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_fresh:
                return connection
            connection.close()
        try:
            async with asyncio.timeout(TRY_S):
                connection = await self._connect()
                if self._where.scheme == "https":
                    await _expect_welcome(connection)
                return connection
        except (OSError, TimeoutError) as err:
            raise NotSentError(_words(err)) from err

    async def _connect(self) -> Connection:
        context = trusted(self._address) if self._where.scheme == "https" else None
        host, port = self._where.hostname or "", self._where.port or _PORT
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        return Connection(reader, writer, self._where.netloc)

    def _put_back(self, connection: Connection) -> None:
        if connection.reuse() and len(self._idle) < _IDLE_MOST:
            self._idle.append(connection)
        else:
            connection.close()


def trusted(address: EtcdAddress) -> ssl.SSLContext:
    """Say whom to believe, and who we are. Read anew for each connection, so that renewed files count at once.

    Raises: NotSentError, naming the file that is of no use.
    """
    try:
        context = ssl.create_default_context(cafile=address.ca)
    except OSError as err:
        raise NotSentError(f"read {address.ca}: expected certificates in PEM: {_words(err)}") from err
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # etcd's own tools make authorities without key usage
    if address.cert:
        try:
            context.load_cert_chain(address.cert, address.key)
        except OSError as err:
            what = f"read {address.cert} and {address.key}"
            raise NotSentError(f"{what}: expected a certificate and its key in PEM: {_words(err)}") from err
    return context


async def _expect_welcome(connection: Connection) -> None:
    """Ask for something harmless: only after our handshake does a server tell that it does not want our certificate.

    Raises: NotSentError; TimeoutError.
    """
    try:
        await connection.send("/version", b"", {})
        await connection.status()
        while await connection.chunk():
            pass
        connection.reuse()
    except BaseException as err:
        connection.close()
        if isinstance(err, OSError | h11.ProtocolError) and not isinstance(err, TimeoutError):
            raise NotSentError(f"it refuses our certificate, or all of us: {_words(err)}") from err
        raise


def _words(err: Exception) -> str:
    if isinstance(err, TimeoutError) and not err.args:
        return f"no answer within {TRY_S:g} s"
    if isinstance(err, ssl.SSLCertVerificationError):
        return f"its certificate is not to be believed: {err.verify_message}"
    if isinstance(err, ssl.SSLError):
        return f"TLS failed: {err.reason or err}"
    if isinstance(err, ConnectionResetError | BrokenPipeError):
        return _CLOSED
    if isinstance(err, OSError) and err.strerror:
        named = err.errno is not None and err.errno > 0  # those of names of hosts are not
        return (os.strerror(err.errno or 0) if named else err.strerror).lower()
    return str(err) or type(err).__name__
