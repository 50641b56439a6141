"""Two hosts on loopback, each with a listener of its own, and a service that notes what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from reconciler.fleet.circle import Circle, Fellow
from reconciler.fleet.host_key import HostKey
from reconciler.fleet.listener import Listener
from reconciler.fleet.pace import Pace
from reconciler.fleet.peers import TlsPeers
from reconciler.model.facts import Json
from reconciler.model.identity import HostName
from reconciler.model.public_key import public_line
from tests.support.patience import PATIENCE

A, B, C = HostName("node-a"), HostName("node-b"), HostName("node-c")
LOOPBACK = "127.0.0.1"
QUICK = Pace(
    handshake_s=2.0 * PATIENCE,
    silence_s=1.5 * PATIENCE,
    keep_alive_s=0.2,
    stall_s=2.6 * PATIENCE,
    idle_s=1.0 * PATIENCE,
    linger_s=0.3 * PATIENCE,
)
"""Shorter than any network would like it, and long enough for a busy machine."""

Json_ = Mapping[str, Json]


def new_key() -> HostKey:
    """Make a key."""
    private = Ed25519PrivateKey.generate()
    return HostKey(public=public_line(private.public_key().public_bytes_raw()), private=private)


@dataclass(slots=True)
class Service:
    """Notes what it is asked and sent. ``answers`` and ``takes`` stand in for what it does by itself."""

    asked: list[tuple[HostName, Json_]] = field(default_factory=list)
    taken: list[tuple[HostName, Json_, bytes]] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)
    has_failed: asyncio.Event = field(default_factory=asyncio.Event)
    was_sent: asyncio.Event = field(default_factory=asyncio.Event)
    answers: Callable[[Json_], Awaitable[Json_]] | None = None
    takes: Callable[[AsyncIterator[bytes]], Awaitable[Json_]] | None = None

    async def answer(self, source: HostName, question: Json_) -> Json_:
        """Note a question, and give it back."""
        self.asked.append((source, question))
        return await self.answers(question) if self.answers else {"heard": dict(question)}

    async def take(self, source: HostName, header: Json_, chunks: AsyncIterator[bytes]) -> Json_:
        """Note a shipment that came whole."""
        self.was_sent.set()
        try:
            if self.takes is not None:
                return await self.takes(chunks)
            data = b"".join([chunk async for chunk in chunks])
        except BaseException as error:
            self.failed.append(error)
            self.has_failed.set()
            raise
        self.taken.append((source, header, data))
        return {"bytes": len(data)}


@dataclass(slots=True)
class Node:
    """A host that listens on loopback."""

    circle: Circle
    service: Service
    listener: Listener

    def as_fellow(self) -> Fellow:
        """Give what the others pin."""
        return Fellow(name=self.circle.name, address=LOOPBACK, port=self.listener.port, key=self.circle.key.public)

    def meet(self, *others: Fellow) -> None:
        """Let its manifests name these hosts, and no others."""
        self.circle = replace(self.circle, fellows={other.name: other for other in others})

    def peers(self, **more: object) -> TlsPeers:
        """Give what it talks to the others with."""
        return TlsPeers(lambda: self.circle, **{"pace": QUICK, **more})  # type: ignore[arg-type]


@asynccontextmanager
async def node(name: HostName, key: HostKey | None = None, *, pace: Pace = QUICK) -> AsyncIterator[Node]:
    """Run a host that knows nobody yet."""
    service = Service()
    made = Node(circle=Circle(name=name, key=key or new_key(), fellows={}), service=service, listener=None)  # type: ignore[arg-type]
    made.listener = Listener(service, lambda: made.circle, address=LOOPBACK, port=0, pace=pace)
    running = asyncio.create_task(made.listener.run())
    try:
        yield made
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Node, Node]]:
    """Run two hosts that know each other."""
    async with node(A) as one, node(B) as other:
        one.meet(other.as_fellow())
        other.meet(one.as_fellow())
        yield one, other


async def giving(*chunks: bytes) -> AsyncIterator[bytes]:
    """Give these chunks."""
    for chunk in chunks:
        yield chunk
