"""Who is told to end, ends: also in the moment in which what he waited for comes."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from reconciler.host.keeper import protocol
from reconciler.host.keeper.client import KeeperClient
from reconciler.host.keeper.protocol import Pong
from reconciler.kernel import command

ROUNDS = range(10)
"""After how many rounds of the event loop, from the moment the answer is there, the waiting task is cancelled."""


async def stays_cancelled(task: asyncio.Task[object], rounds: int) -> None:
    for _ in range(rounds):
        await asyncio.sleep(0)
    if task.cancel():
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        assert task.done()


@pytest.mark.parametrize("rounds", ROUNDS)
def test_while_the_keeper_answers(rounds: int) -> None:
    async def ask() -> None:
        ours, keepers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        client = KeeperClient(ours)
        with keepers:
            asking: asyncio.Task[object] = asyncio.create_task(client.ping())
            await asyncio.sleep(0)
            number = json.loads(keepers.recv(protocol.MESSAGE_BYTES))["id"]
            keepers.send(protocol.encode(number, Pong(version=protocol.VERSION, pid=1, inits=0, programs=0)))
            await stays_cancelled(asking, rounds)
            client.close()

    asyncio.run(ask())


@pytest.mark.parametrize("rounds", ROUNDS)
def test_while_a_command_ends(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        waits, ends = asyncio.Event(), asyncio.Event()

        async def converse(process: asyncio.subprocess.Process, input: bytes | None) -> tuple[bytes, bytes]:
            del input
            await process.wait()
            waits.set()
            await ends.wait()
            return b"", b""

        monkeypatch.setattr(command, "_converse", converse)
        running: asyncio.Task[object] = asyncio.create_task(command.run_async(["true"], timeout_s=60))
        await waits.wait()
        ends.set()
        await stays_cancelled(running, rounds)

    asyncio.run(run())
