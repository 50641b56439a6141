"""Two hosts on this machine, each a process with a network namespace, a pool and a keeper of its own, and a switch
between them, at which this process is a client."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from reconciler.errors import VectlError
from reconciler.host.carrier import HostCarrier
from reconciler.host.host import RealHost
from reconciler.model.effects import Effect
from reconciler.model.identity import Uid
from reconciler.model.observation import VeObservation
from reconciler.model.placement import Parcel
from reconciler.model.volume import Record
from tests.support import real_host, storage
from tests.support.inside import Ve

CLIENT = ("10.77.0.200", "fd77::200")
UPLINK = "up0"
_SWITCH = "sw0"
_IP_S = 20

Work = Callable[[RealHost], Awaitable[Any]]


class FailedThereError(AssertionError):
    """What a host refused or could not do. ``kind``: the name of the error there."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Remote:
    """One of the hosts, as seen from the client."""

    def __init__(self, pid: int, connection: Connection) -> None:
        self.pid, self._connection = pid, connection

    async def do(self, work: Work) -> Any:
        """Have something done there, and give what came of it. Raises: FailedThereError."""
        return await asyncio.to_thread(self._do, work)

    def _do(self, work: Work) -> Any:
        self._connection.send_bytes(pickle.dumps(work))
        failed, result = pickle.loads(self._connection.recv_bytes())
        if failed is not None:
            raise FailedThereError(*failed)
        return result

    async def perform(self, *effects: Effect) -> None:
        """Perform effects there, one after the other."""
        await self.do(partial(real_host.perform_all, effects=effects))

    async def see(self, uid: Uid) -> VeObservation:
        """Look at a VE there."""
        seen = await self.do(partial(_see, uid=uid))
        assert isinstance(seen, VeObservation)
        return seen

    async def shell(self, uid: Uid, script: str) -> str:
        """Run a script in a VE there."""
        return str(await self.do(partial(_shell, uid=uid, script=script)))

    def end(self) -> None:
        """Take the host down."""
        self._connection.send_bytes(pickle.dumps(None))
        os.waitpid(self.pid, 0)


async def _see(host: RealHost, uid: Uid) -> VeObservation:
    return (await host.observe()).ves[uid]


async def _shell(host: RealHost, uid: Uid, script: str) -> str:
    return await asyncio.to_thread(Ve(host.site.instance, uid).shell, script)


async def put_program(host: RealHost, uid: Uid, program: bytes, name: str) -> None:
    """Put a program into a VE."""
    put = f"cat >/bin/{name} && chmod 755 /bin/{name}"
    await asyncio.to_thread(Ve(host.site.instance, uid).as_host, "sh", "-c", put, given=program)


async def send_all(source: Remote, target: Remote, uid: Uid, move: str, place: str) -> list[str]:
    """Send what the target has not; give the parcels' words. ``place``: a directory of this machine for them."""
    has = await target.do(partial(_received, uid=uid, move=move))
    sent = []
    for parcel in await source.do(partial(_parcels, uid=uid, move=move)):
        if str(parcel) not in has:
            await source.do(partial(_send, uid=uid, move=move, parcel=parcel, path=f"{place}/parcel"))
            await target.do(partial(_receive, uid=uid, move=move, parcel=parcel, path=f"{place}/parcel"))
            sent.append(str(parcel))
    return sent


async def record_of(host: RealHost, uid: Uid) -> Record:
    """Give the record of a VE."""
    return host.site.need_record(uid)


async def _received(host: RealHost, uid: Uid, move: str) -> frozenset[str]:
    return await HostCarrier(host.site).received(uid, move)


async def _parcels(host: RealHost, uid: Uid, move: str) -> tuple[Parcel, ...]:
    return await HostCarrier(host.site).parcels(uid, move)


async def _send(host: RealHost, uid: Uid, move: str, parcel: Parcel, path: str) -> None:
    pieces = [piece async for piece in HostCarrier(host.site).send(uid, move, parcel)]
    Path(path).write_bytes(b"".join(len(piece).to_bytes(4, "little") + piece for piece in pieces))


async def _receive(host: RealHost, uid: Uid, move: str, parcel: Parcel, path: str) -> None:
    content = memoryview(Path(path).read_bytes())

    async def pieces() -> AsyncIterator[bytes]:
        at = 0
        while at < len(content):
            end = at + 4 + int.from_bytes(content[at : at + 4], "little")
            yield bytes(content[at + 4 : end])
            at = end

    await HostCarrier(host.site).receive(uid, move, parcel, pieces())


def between_hosts(story: Callable[[Remote, Remote], Coroutine[Any, Any, None]]) -> None:
    """Let a story happen on two hosts and a client; nothing is left of them."""

    def in_namespaces() -> None:
        real_host.enter_private_namespaces()
        _ip("link", "add", _SWITCH, "type", "bridge", "forward_delay", "0")
        _ip("link", "set", _SWITCH, "up")
        _ip("addr", "add", f"{CLIENT[0]}/24", "dev", _SWITCH)
        _ip("addr", "add", f"{CLIENT[1]}/64", "dev", _SWITCH, "nodad")
        source = _fork(1)
        target = _fork(2)
        try:
            asyncio.run(story(source, target))
        finally:
            source.end()
            target.end()

    storage.in_child(in_namespaces)


def _fork(number: int) -> Remote:
    ours, theirs = Pipe()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _serve(theirs)
    theirs.close()
    assert ours.recv_bytes() == b"entered"
    port = f"port{number}"
    _ip("link", "add", port, "type", "veth", "peer", "name", UPLINK, "netns", str(pid))
    _ip("link", "set", port, "master", _SWITCH, "up")
    ours.send_bytes(b"linked")
    return Remote(pid, ours)


def _serve(connection: Connection) -> None:
    status = 1
    try:
        real_host.enter_private_namespaces()
        connection.send_bytes(b"entered")
        assert connection.recv_bytes() == b"linked"
        _ip("link", "set", UPLINK, "up")
        asyncio.run(_work(connection))
        status = 0
    finally:
        os._exit(status)


async def _work(connection: Connection) -> None:
    async with real_host.real_host() as host:
        while True:
            try:
                work: Work | None = pickle.loads(await asyncio.to_thread(connection.recv_bytes))
            except EOFError:
                return
            if work is None:
                return
            try:
                answer: tuple[tuple[str, str] | None, object] = None, await work(host)
            except VectlError as err:
                answer = (type(err).__name__, str(err)), None
            connection.send_bytes(pickle.dumps(answer))


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=_IP_S, capture_output=True)
