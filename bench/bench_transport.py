"""What one host sends to another over loopback, beside a plain TLS socket of Python's that counts and sums nothing.

Each has a sender and a receiver in processes of their own, with the same keys and the same cipher; rounds alternate.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

from bench import common
from reconciler.fleet import tls
from reconciler.fleet.circle import Circle, Fellow
from reconciler.fleet.host_key import HostKey
from reconciler.fleet.listener import Listener
from reconciler.fleet.peers import TlsPeers
from reconciler.model.facts import Json
from reconciler.model.identity import HostName
from reconciler.model.public_key import public_line

ROUNDS = 5
MIB = 1 << 20
SIZE = 512 * MIB
BLOCK = 256 << 10
ASKS = 300
LOOPBACK = "127.0.0.1"
SEEDS = bytes(range(32)), bytes(range(1, 33))
HERE, THERE = HostName("here"), HostName("there")


@dataclass(frozen=True, slots=True)
class Round:
    """What one way cost. Units: MB (10^6 bytes) per second; ``cpu`` seconds of both ends per GB (10^9 bytes)."""

    speed: float
    cpu: float


def main() -> None:
    """Alternate them, and print the medians."""
    common.machine()
    ours, floor = [], []
    for _ in range(ROUNDS):
        ours.append(_round(_take_ours, _send_ours))
        floor.append(_round(_take_plain, _send_plain))
    for what, rounds in (("a shipment of 512 MiB", ours), ("the same by a plain TLS socket", floor)):
        speed, cpu = (statistics.median(getattr(one, name) for one in rounds) for name in ("speed", "cpu"))
        common.report(what, f"{speed:.0f} MB/s, {cpu:.1f} s of CPU per GB", "none")
    ratio = statistics.median(one.speed / other.speed for one, other in zip(ours, floor, strict=True))
    common.report("shipment / plain TLS socket", f"{ratio:.2f}x the speed (median)", "none")
    asyncio.run(_questions())


def _key(seed: bytes) -> HostKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.from_private_bytes(seed)
    return HostKey(public=public_line(private.public_key().public_bytes_raw()), private=private)


def _circle(*, own: HostName, port: int = 1) -> Circle:
    here, there = (_key(seed) for seed in SEEDS)
    mine, other, name = (here, there, THERE) if own == HERE else (there, here, HERE)
    fellow = Fellow(name=name, address=LOOPBACK, port=port, key=other.public)
    return Circle(name=own, key=mine, fellows={name: fellow})


def _round(take: Callable[[Connection], None], send: Callable[[int], None]) -> Round:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    receiver = context.Process(target=take, args=(theirs,))
    receiver.start()
    try:
        port = ours.recv()
        before, began = time.process_time(), time.perf_counter()
        send(port)
        took, cpu = time.perf_counter() - began, time.process_time() - before
        ours.send(None)
        cpu += ours.recv()
    finally:
        receiver.join(30)
        receiver.kill()
    return Round(SIZE / took / 1e6, cpu / SIZE * 1e9)


class _Sink:
    """Takes bytes, and tells the time that this process worked."""

    async def answer(self, source: HostName, question: Mapping[str, Json]) -> Mapping[str, Json]:
        return question

    async def take(
        self, source: HostName, header: Mapping[str, Json], chunks: AsyncIterator[bytes]
    ) -> Mapping[str, Json]:
        return {"bytes": sum([len(chunk) async for chunk in chunks])}


def _take_ours(pipe: Connection) -> None:
    asyncio.run(_listen(pipe))


async def _listen(pipe: Connection) -> None:
    circle = _circle(own=THERE)
    listener = Listener(_Sink(), lambda: circle, address=LOOPBACK, port=0)
    running = asyncio.create_task(listener.run())
    before = time.process_time()
    pipe.send(listener.port)
    await asyncio.to_thread(pipe.recv)
    pipe.send(time.process_time() - before)
    running.cancel()
    await asyncio.wait((running,))


def _send_ours(port: int) -> None:
    asyncio.run(_ship(port))


async def _ship(port: int) -> None:
    circle = _circle(own=HERE, port=port)
    answer = await TlsPeers(lambda: circle).ship(THERE, {"parcel": "data:1"}, _blocks())
    assert answer == {"bytes": SIZE}, answer


async def _blocks() -> AsyncIterator[bytes]:
    block = os.urandom(BLOCK)
    for _ in range(SIZE // BLOCK):
        yield block


def _take_plain(pipe: Connection) -> None:
    context = tls.server_context(_circle(own=THERE))
    with socket.create_server((LOOPBACK, 0)) as server:
        before = time.process_time()
        pipe.send(server.getsockname()[1])
        sock, _ = server.accept()
        with context.wrap_socket(sock, server_side=True) as plain:
            buffer, left = bytearray(BLOCK), SIZE
            while left:
                left -= plain.recv_into(buffer)
            plain.sendall(b"!")
            pipe.recv()
            pipe.send(time.process_time() - before)


def _send_plain(port: int) -> None:
    circle = _circle(own=HERE, port=port)
    context = tls.client_context(circle, circle.fellow(THERE))
    block = os.urandom(BLOCK)
    with context.wrap_socket(socket.create_connection((LOOPBACK, port))) as plain:
        for _ in range(SIZE // BLOCK):
            plain.sendall(block)
        assert plain.recv(1) == b"!"


async def _questions() -> None:
    """Time questions: the first of a conversation, which proves who both are, and those that follow."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    receiver = context.Process(target=_take_ours, args=(theirs,))
    receiver.start()
    first, later = [], []
    try:
        circle = _circle(own=HERE, port=ours.recv())
        for _ in range(ROUNDS * 4):
            peers = TlsPeers(lambda: circle)
            first.append(await _asked(peers))
            later += [await _asked(peers) for _ in range(ASKS // ROUNDS // 4)]
            await peers.close()
        ours.send(None)
        ours.recv()
    finally:
        receiver.join(30)
        receiver.kill()
    common.report("a question that begins a conversation", common.distribution(first), "none")
    common.report("a question that goes on with one", common.distribution(later), "none")


async def _asked(peers: TlsPeers) -> float:
    began = time.perf_counter()
    await peers.ask(THERE, {"ask": "hello"})
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
