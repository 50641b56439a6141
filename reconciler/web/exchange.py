"""One request and its answer over a connection, within bounds of size and time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

import h11

HEADERS_MAX = 16 << 10
"""The most that a request's line and headers may have. Units: bytes."""

BODY_MAX = 1 << 20
"""The most that a request's body may have. Units: bytes."""

_CHUNK = 1 << 16
_LINGER_S = 1.0
_LINGER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is known of a request before its body. ``headers``: names in lower case; of several of a name the last."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    address: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` beside those of every answer."""

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Receiver(Protocol):
    """Takes in a request's body."""

    def feed(self, data: bytes) -> None:
        """Take in a part of it."""
        ...

    def finish(self) -> Answer:
        """Answer, now that all of it is there."""
        ...


class Handler(Protocol):
    """Decides what becomes of requests."""

    def begin(self, request: Request) -> Receiver | Answer:
        """Take in a request's headers; an answer is given without reading the body."""
        ...


class Exchange:
    """One request on a connection, which ends with the answer."""

    def __init__(self, connection: socket.socket, address: str) -> None:
        self._socket, self._address = connection, address
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADERS_MAX)

    async def run(self, handler: Handler, *, headers_s: float, whole_s: float) -> Answer | None:
        """Have a request answered; give the answer, None if nobody asked for anything. Units: seconds.

        Raises: ConnectionError.
        """
        answer = await self._ask(handler, headers_s, whole_s)
        if answer is not None:
            async with asyncio.timeout(headers_s):
                await self._send(answer)
                await self._linger()
        return answer

    async def _ask(self, handler: Handler, headers_s: float, whole_s: float) -> Answer | None:
        try:
            async with asyncio.timeout(whole_s):
                async with asyncio.timeout(headers_s):
                    request = await self._request()
                return None if request is None else await self._receive(_begin(handler, request))
        except TimeoutError:
            return Answer(408, "expected the whole request by now")
        except h11.RemoteProtocolError as error:
            return Answer(error.error_status_hint, "expected HTTP/1.1")

    async def _request(self) -> Request | None:
        event = await self._event()
        if not isinstance(event, h11.Request):
            return None
        return Request(
            method=event.method.decode("ascii"),
            path=event.target.partition(b"?")[0].decode("latin-1"),
            headers={name.decode("ascii"): value.decode("latin-1") for name, value in event.headers},
            address=self._address,
        )

    async def _receive(self, receiver: Receiver | Answer) -> Answer:
        if isinstance(receiver, Answer):
            return receiver
        if self._http.they_are_waiting_for_100_continue:
            await self._put(h11.InformationalResponse(status_code=100, headers=[]))
        size = 0
        while isinstance(event := await self._event(), h11.Data):
            size += len(event.data)
            if size > BODY_MAX:
                return _too_large()
            receiver.feed(bytes(event.data))
        return receiver.finish()

    async def _event(self) -> object:
        """Give the next part of what they send."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._read())
        return event

    async def _send(self, answer: Answer) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = answer.text.encode() + b"\n"
        ours = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body)), "Connection": "close"}
        headers = [(name.encode(), value.encode()) for name, value in {**ours, **answer.headers}.items()]
        reason = HTTPStatus(answer.status).phrase.encode()
        await self._put(h11.Response(status_code=answer.status, headers=headers, reason=reason))
        await self._put(h11.Data(data=body))
        await self._put(h11.EndOfMessage())

    async def _put(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def _linger(self) -> None:
        """Let them read the answer: closed with something unread, the connection is reset, and the answer lost."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            taken = 0
            with suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_S):
                    while taken < _LINGER_BYTES and (data := await self._read()):
                        taken += len(data)

    async def _read(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._socket, _CHUNK)


def _begin(handler: Handler, request: Request) -> Receiver | Answer:
    length = request.headers.get("content-length", "0")  # h11 let nothing but digits through
    return _too_large() if len(length) > 12 or int(length) > BODY_MAX else handler.begin(request)


def _too_large() -> Answer:
    return Answer(413, f"expected {BODY_MAX} bytes at most")
