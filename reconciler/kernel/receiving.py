"""Receiving a subvolume from a stream, in a process of its own that is ended with whoever wants it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict

import reconciler
from reconciler.errors import CommandError, KernelError, NoSpaceError, StateError
from reconciler.kernel import command, receive_child
from reconciler.kernel.receive_child import Reception

_SAID_MOST = 1 << 16


async def receive(job: Reception, chunks: AsyncIterator[bytes]) -> str:
    """Receive a subvolume, and give what the source calls it. It stays writable, and is not on disk yet.

    Whatever fails leaves half of it; the process has ended then.

    Raises: StateError, if the stream is none for it; NoSpaceError; KernelError; CommandError, if the process was
    killed; whatever ``chunks`` raises.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(reconciler.__file__)))
    argv = [sys.executable, "-P", "-s", "-S", "-m", receive_child.__name__]
    with command.started(argv[0]):
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env={"PYTHONPATH": package, "PATH": os.environ.get("PATH", os.defpath)},
            process_group=0,
        )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        await _feed(process.stdin, job, chunks)
        answer = await process.stdout.read(_SAID_MOST)
        status = await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return _judge(answer, status)


async def _feed(pipe: asyncio.StreamWriter, job: Reception, chunks: AsyncIterator[bytes]) -> None:
    """Write all chunks; a process that wants no more says why."""
    try:
        pipe.write(json.dumps(asdict(job)).encode() + b"\n")
        async for chunk in chunks:
            pipe.write(chunk)
            await pipe.drain()
        pipe.close()
        await pipe.wait_closed()
    except (BrokenPipeError, ConnectionResetError):
        return


def _judge(answer: bytes, status: int) -> str:
    try:
        said = json.loads(answer)
    except ValueError:
        raise CommandError("receive a subvolume: its process was killed", status=status, output="") from None
    if "uuid" in said:
        return str(said["uuid"])
    match said["error"]:
        case "NoSpaceError":
            raise NoSpaceError(said["text"])
        case "StateError":
            raise StateError(said["text"])
        case _:
            raise KernelError(said["text"], errno=said["errno"])
