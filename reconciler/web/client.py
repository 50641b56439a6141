"""Telling a server something by HTTP, once, with one deadline for all of it."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

import h11

from reconciler.errors import ConfigError, DeliveryError

TIMEOUT_S = 20.0
"""How long a server may take. Units: seconds."""

_KEPT = 2000
_ANSWER_MAX = 1 << 20
_CHUNK = 1 << 16
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What to send. ``headers`` and ``url`` may hold secrets, and stand in no error.

    ``ca``: the path of the authorities that are believed, None for the system's.
    """

    url: str = field(repr=False)
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a server answered. ``text``: the beginning of it. Units: ``wait_s`` seconds, as it asks for."""

    status: int
    text: str
    wait_s: float = 0.0


def server_of(url: str) -> str:
    """Give what of an address may be shown: the server."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}" + (f":{parts.port}" if parts.port else "")


async def post(message: Message, *, timeout_s: float = TIMEOUT_S) -> Reply:
    """Send a message; follow no redirection.

    Raises: DeliveryError, of what the server or the way to it did; ConfigError, if the authorities cannot be read.
    """
    shown = server_of(message.url)
    try:
        async with asyncio.timeout(timeout_s):
            async with _connected(urlsplit(message.url), message.ca) as (reader, writer):
                return await _exchange(message, reader, writer)
    except TimeoutError as err:
        raise DeliveryError(f"tell {shown}: no answer in {timeout_s:.0f} s") from err
    except ssl.SSLCertVerificationError as err:
        raise DeliveryError(f"tell {shown}: its certificate is not to be believed: {err.verify_message}") from err
    except (OSError, EOFError, UnicodeError) as err:
        raise DeliveryError(f"tell {shown}: {_words(err)}") from err
    except h11.ProtocolError as err:
        raise DeliveryError(f"tell {shown}: it speaks no HTTP/1.1") from err


def _words(err: Exception) -> str:
    return getattr(err, "strerror", None) or str(err) or type(err).__name__


@asynccontextmanager
async def _connected(
    url: SplitResult, ca: str | None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = url.hostname or "", url.port or _PORTS[url.scheme]
    # The system's authorities take tens of milliseconds to read, in which the loop would stand still.
    context = await asyncio.to_thread(_trusting, ca) if url.scheme == "https" else None
    proxy = _proxy(host) if context is not None else None
    if proxy is None:
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
    else:
        reader, writer = await asyncio.open_connection(proxy.hostname, proxy.port or _PORTS["http"])
    try:
        if proxy is not None and context is not None:
            await _through(reader, writer, f"{host}:{port}")
            await writer.start_tls(context, server_hostname=host)
        yield reader, writer
    finally:
        writer.transport.abort()  # what is not sent by now never will be


def _trusting(ca: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as err:
        raise ConfigError(f"read {ca}: expected certificates in PEM: {_words(err)}") from err
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _proxy(host: str) -> SplitResult | None:
    """Give the proxy that the environment names for https, as curl and git take it."""
    named = os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY")
    if not named:
        return None
    from urllib.request import proxy_bypass  # brings a megabyte that few need

    if proxy_bypass(host):
        return None
    return urlsplit(named if "://" in named else f"http://{named}")


async def _through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: str) -> None:
    """Ask a proxy for a connection.

    Source: RFC 9110, section 9.3.6.
    """
    writer.write(f"CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n".encode("ascii"))
    await writer.drain()
    head = await _head(reader)
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        raise ConnectionError(f"the proxy answers {b''.join(status).decode('latin-1')[:3] or 'nothing'}")


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as err:
        raise ConnectionError("the proxy speaks no HTTP/1.1") from err


async def _exchange(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Reply:
    http, url = h11.Connection(h11.CLIENT), urlsplit(message.url)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    ours = {
        "Host": url.netloc,
        "User-Agent": "vectl",
        "Content-Type": "application/json",
        "Content-Length": str(len(message.body)),
        "Connection": "close",
    }
    headers = list({**ours, **message.headers}.items())
    parts = (h11.Request(method="POST", target=target, headers=headers), h11.Data(message.body), h11.EndOfMessage())
    writer.write(b"".join(http.send(part) or b"" for part in parts))
    with suppress(ConnectionError):  # it may answer without reading everything
        await writer.drain()
    return await _reply(http, reader)


async def _reply(http: h11.Connection, reader: asyncio.StreamReader) -> Reply:
    status, wait_s, text, taken = 0, 0.0, b"", 0
    while not isinstance(event := http.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Response):
            status, wait_s = event.status_code, _wait_s(dict(event.headers))
        elif isinstance(event, h11.Data):
            taken += len(event.data)
            text += bytes(event.data[: _KEPT - len(text)])
            if taken > _ANSWER_MAX:
                break
    if not status:
        raise EOFError("the connection ended before an answer")
    return Reply(status=status, text=text.decode(errors="replace"), wait_s=wait_s)


def _wait_s(headers: Mapping[bytes, bytes]) -> float:
    """Give what a server asks us to wait, of the one form that needs no clock."""
    text = headers.get(b"retry-after", b"0")
    return float(text) if text.isdigit() and len(text) < 6 else 0.0
