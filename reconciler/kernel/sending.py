"""Sending: a snapshot as a stream, whole or as the difference to another one, made by the kernel while it is read."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import struct
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

from reconciler.kernel import btrfs
from reconciler.kernel.btrfs_call import call, opened
from reconciler.kernel.syscalls import translated

_IOC_SEND = 0x40489426
_ARGUMENTS = struct.Struct("<qQQQQI28x")
_PIPE_BYTES = 1 << 20
_PIECE = 1 << 18


async def send(path: str, *, parent: str | None, clones: Sequence[str] = ()) -> AsyncGenerator[bytes, None]:
    """Give the stream of a read-only snapshot. ``parent``: the one that is there already, of which it is a difference.

    ``clones``: others that are there, whose data need not be sent again. Whoever reads too slowly holds up the kernel.

    Raises: KernelError.
    Source: btrfs-send(8); linux/btrfs.h, BTRFS_IOC_SEND.
    """
    sources = [*dict.fromkeys([*([parent] if parent else []), *clones])]
    above = btrfs.subvolume_id(parent) if parent else 0
    with translated("make", "pipe"):
        reading, writing = os.pipe()
    with suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=_PIPE_BYTES)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
    )
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="send") as once:
        sending = loop.run_in_executor(once, _send, path, sources, above, writing)
        try:
            while data := await reader.read(_PIECE):
                yield data
            await asyncio.shield(sending)
        finally:
            transport.close()
            await _ended(sending)


async def _ended(sending: asyncio.Future[None]) -> None:
    """Wait for the kernel, which stops at the closed pipe."""
    while not sending.done():
        await asyncio.wait({sending})
    sending.cancelled() or sending.exception()


def _send(path: str, sources: Sequence[str], above: int, writing: int) -> None:
    try:
        with ExitStack() as held:
            fd = held.enter_context(opened(path))
            numbers = array.array("Q", [btrfs.subvolume_id(source) for source in sources])
            address = numbers.buffer_info()[0] if numbers else 0
            arguments = _ARGUMENTS.pack(writing, len(numbers), address, above, 0, 0)
            call(fd, _IOC_SEND, bytearray(arguments), "send", path)
    finally:
        os.close(writing)
