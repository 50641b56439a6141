"""A client that talks to a VE without end, over connections in both directions, and notices whatever goes wrong."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.support.patience import PATIENCE

ECHO, DATAGRAM, COUNTER = 7001, 7002, 7100
_NUMBER = struct.Struct("=Q")
_EVERY_S = 0.002
_SILENCE_S = 30.0 * PATIENCE


@dataclass
class Talk:
    """What became of one conversation. ``wrong``: the first thing that was. Units: seconds of the monotonic clock."""

    kind: str
    heard: int = 0
    last: float = field(default_factory=time.monotonic)
    gap: float = 0.0
    wrong: str = ""

    def hear(self) -> None:
        """Note that something was heard, and how long nothing was."""
        now = time.monotonic()
        self.gap = max(self.gap, now - self.last)
        self.last, self.heard = now, self.heard + 1


class Client:
    """All conversations with a VE."""

    def __init__(self) -> None:
        self.talks: list[Talk] = []

    def begin(self, kind: str) -> Talk:
        """Begin to listen to one more."""
        self.talks.append(Talk(kind))
        return self.talks[-1]

    def gaps(self) -> dict[str, float]:
        """Give the longest silence of each kind since it was asked last. Units: milliseconds."""
        found: dict[str, float] = {}
        for talk in self.talks:
            found[talk.kind] = max(found.get(talk.kind, 0.0), talk.gap * 1000)
            talk.gap = 0.0
        return found

    async def until_all_go_on(self, *, at_least: int = 0) -> None:
        """Wait until every conversation has heard something new. Raises: AssertionError, naming what has not."""
        before = {id(talk): talk.heard for talk in self.talks}
        deadline = time.monotonic() + _SILENCE_S
        while True:
            self.expect_right()
            silent = [talk.kind for talk in self.talks if talk.heard <= before.get(id(talk), 0) + 1]
            if not silent and len(self.talks) >= at_least:
                return
            assert time.monotonic() < deadline, f"silent: {silent} of {len(self.talks)}"
            await asyncio.sleep(0.01)

    def expect_right(self) -> None:
        """Raises: AssertionError, if anything was reset, lost or out of order."""
        wrong = [f"{talk.kind}: {talk.wrong}" for talk in self.talks if talk.wrong]
        assert wrong == []


@asynccontextmanager
async def listening(client: Client, addresses: tuple[str, ...]) -> AsyncIterator[None]:
    """Hear what counts aloud, on each of the client's own addresses."""

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk, expected = client.begin(f"counting to {writer.get_extra_info('sockname')[0]}"), 0
        try:
            while True:
                (number,) = _NUMBER.unpack(await reader.readexactly(_NUMBER.size))
                if number != expected:
                    talk.wrong = talk.wrong or f"heard {number} after {expected - 1}"
                expected = number + 1
                talk.hear()
        except (OSError, asyncio.IncompleteReadError) as err:
            talk.wrong = talk.wrong or repr(err)

    servers = [await asyncio.start_server(hear, address, COUNTER) for address in addresses]
    try:
        yield
    finally:
        for server in servers:
            server.close()


@asynccontextmanager
async def talking(client: Client, addresses: tuple[str, ...]) -> AsyncIterator[None]:
    """Ask a VE at each of its addresses, over TCP and UDP, every other millisecond."""
    tasks = [asyncio.create_task(it) for to in addresses for it in (_echo(client, to), _datagrams(client, to))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _echo(client: Client, to: str) -> None:
    reader, writer = await asyncio.open_connection(to, ECHO)
    made = writer.get_extra_info("socket")
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    talk, number = client.begin(f"echo of {to}"), 0
    try:
        while True:
            writer.write(_NUMBER.pack(number))
            (heard,) = _NUMBER.unpack(await reader.readexactly(_NUMBER.size))
            if heard != number:
                talk.wrong = talk.wrong or f"heard {heard} for {number}"
            talk.hear()
            number += 1
            await asyncio.sleep(_EVERY_S)
    except (OSError, asyncio.IncompleteReadError) as err:
        talk.wrong = talk.wrong or repr(err)
    finally:
        writer.close()


async def _datagrams(client: Client, to: str) -> None:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.setblocking(False)
        made.connect((to, DATAGRAM))
        talk = client.begin(f"datagrams of {to}")
        while True:
            with suppress(OSError):
                made.send(_NUMBER.pack(0))
            with suppress(OSError):
                while made.recv(64):
                    talk.hear()
            await asyncio.sleep(_EVERY_S)
