"""Telling a server something by HTTP, once, with one deadline for all of it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from reconciler.errors import ConfigError, DeliveryError

TIMEOUT_S = 20.0
"""How long a server may take. Units: seconds."""

_KEPT = 2000
_ANSWER_MAX = 1 << 20
_HEADERS = {"Content-Type": "application/json", "User-Agent": "vectl"}


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
    """Send a message, through the proxy that the environment names; follow no redirection.

    Raises: DeliveryError, of what the server or the way to it did; ConfigError, if the authorities cannot be read.
    """
    shown = server_of(message.url)
    # The system's authorities take tens of milliseconds to read, in which the loop would stand still.
    trusted = await asyncio.to_thread(_trusting, message.ca) if message.url.startswith("https:") else False
    try:
        async with asyncio.timeout(timeout_s), httpx.AsyncClient(verify=trusted, timeout=timeout_s) as client:
            return await _sent(message, client)
    except TimeoutError as err:
        raise DeliveryError(f"tell {shown}: no answer in {timeout_s:.0f} s") from err
    except (httpx.HTTPError, httpx.InvalidURL) as err:
        raise DeliveryError(f"tell {shown}: {_words(err)}") from err


def _words(err: Exception) -> str:
    """Say what went wrong in the words of what lies deepest: the library's own say less."""
    found, cause = str(err) or type(err).__name__, err.__cause__ or err.__context__
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not to be believed: {cause.verify_message}"
        found = (isinstance(cause, OSError) and cause.strerror) or found
        cause = cause.__cause__ or cause.__context__
    return found


def _trusting(ca: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as err:
        raise ConfigError(f"read {ca}: expected certificates in PEM: {err.strerror or err}") from err
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _sent(message: Message, client: httpx.AsyncClient) -> Reply:
    headers = {**_HEADERS, **message.headers}
    async with client.stream("POST", message.url, content=message.body, headers=headers) as answer:
        text, taken = b"", 0
        async for part in answer.aiter_raw():
            text += part[: _KEPT - len(text)]
            taken += len(part)
            if taken > _ANSWER_MAX:
                break
        return Reply(status=answer.status_code, text=text.decode(errors="replace"), wait_s=_wait_s(answer.headers))


def _wait_s(headers: Mapping[str, str]) -> float:
    """Give what a server asks us to wait, of the one form that needs no clock."""
    text = headers.get("retry-after", "0")
    return float(text) if text.isdecimal() and len(text) < 6 else 0.0
