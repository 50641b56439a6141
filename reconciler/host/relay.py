"""Standing between a person's terminal and a program in a VE.

A VE's processes are never given a descriptor of the person's terminal: whoever holds one can read what is typed on it
later. They get pipes, or a terminal of their own that is shown on the person's one.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from typing import TypeAlias

from reconciler.host.keeper.client import Execution
from reconciler.kernel import terminal

_CHUNK = 65536
_END_OF_INPUT = b"\x04"
_LEFT = 1 << 18
"""More than a pipe or a terminal holds: what comes beyond it was written after the program's end. Units: bytes."""

Starter: TypeAlias = Callable[[tuple[int, int, int] | None], Awaitable[Execution]]
"""Starts the program, on these descriptors or on a terminal of its own."""


async def on_terminal(start: Starter, *, stdin: int | None, stdout: int) -> int:
    """Run a program on a terminal of its own, shown on ours; give its exit status. ``stdin`` None: nothing is typed.

    Raises: what starting raises; KeeperError.
    """
    execution = await start(None)
    master = execution.terminal
    assert master is not None, "a program was asked for on a terminal"
    loop = asyncio.get_running_loop()
    terminal.copy_size(stdout, master)
    loop.add_signal_handler(signal.SIGWINCH, terminal.copy_size, stdout, master)
    tasks = []
    try:
        with _raw(stdin):
            if stdin is not None:
                tasks.append(asyncio.create_task(_type(stdin, master)))
            shown = asyncio.create_task(_copy(master, stdout))
            tasks.append(shown)
            status = await execution.wait()
            await _finish(shown, master, stdout)
        return status
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        await _end(tasks)
        os.close(master)


@contextmanager
def _raw(stdin: int | None) -> Iterator[None]:
    if stdin is None:
        yield
        return
    with terminal.raw(stdin):
        yield


async def on_pipes(start: Starter, *, interactive: bool) -> int:
    """Run a program on our own descriptors, a terminal among them replaced by a pipe; give its exit status.

    Raises: what starting raises; KeeperError.
    """
    with ExitStack() as held:
        null = held.enter_context(FileIO(os.devnull, "rb"))
        pipes = {number: _pipe(held) for number in (0, 1, 2) if os.isatty(number) and (number or interactive)}
        stdin = (pipes[0][0].fileno() if 0 in pipes else 0) if interactive else null.fileno()
        out, err = (pipes[number][1].fileno() if number in pipes else number for number in (1, 2))
        return await _attend(await start((stdin, out, err)), pipes)


def _pipe(held: ExitStack) -> tuple[FileIO, FileIO]:
    source, target = os.pipe()
    return (
        held.enter_context(FileIO(source, "rb")),
        held.enter_context(FileIO(target, "wb")),
    )


async def _attend(execution: Execution, pipes: Mapping[int, tuple[FileIO, FileIO]]) -> int:
    """Copy between the pipes and our own descriptors until the program ends."""
    tasks = []
    shown: dict[int, asyncio.Task[None]] = {}
    for number, (source, target) in pipes.items():
        if number == 0:
            source.close()
            tasks.append(asyncio.create_task(_type_into_pipe(target)))
        else:
            target.close()
            os.set_blocking(source.fileno(), False)
            shown[number] = asyncio.create_task(_copy(source.fileno(), number))
            tasks.append(shown[number])
    try:
        status = await execution.wait()
        for number, task in shown.items():
            await _finish(task, pipes[number][0].fileno(), number)
        return status
    finally:
        await _end(tasks)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """End what is still copied, before its descriptors are closed; how it ends is of no interest any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _type(stdin: int, master: int) -> None:
    await _copy(stdin, master, waits=True)
    with suppress(OSError):
        os.write(master, _END_OF_INPUT)


async def _type_into_pipe(pipe: FileIO) -> None:
    os.set_blocking(pipe.fileno(), False)
    try:
        await _copy(0, pipe.fileno(), waits=True)
    finally:
        pipe.close()


async def _finish(task: asyncio.Task[None], source: int, target: int) -> None:
    """End a copy whose program has ended: what is left to show is shown; background processes are not waited for."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    left = _LEFT
    while left > 0 and (data := _read(source)):
        left -= len(data)
        while data:
            data = data[_write(target, data) :]


async def _copy(source: int, target: int, *, waits: bool = False) -> None:
    """Copy until the source ends. ``waits``: the target does not block and has to be waited for."""
    while True:
        await _ready(source)
        data = _read(source)
        if data is None:
            continue
        if not data:
            return
        while data:
            if waits:
                await _ready(target, to_write=True)
            data = data[_write(target, data) :]


def _read(source: int) -> bytes | None:
    """Read what is there; nothing at the end, None if there is nothing now."""
    try:
        return os.read(source, _CHUNK)
    except BlockingIOError:
        return None
    except OSError:  # EIO: the last process that had the terminal open is gone
        return b""


def _write(target: int, data: bytes) -> int:
    try:
        return os.write(target, data)
    except BlockingIOError:
        return 0


async def _ready(descriptor: int, *, to_write: bool = False) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    add, remove = (loop.add_writer, loop.remove_writer) if to_write else (loop.add_reader, loop.remove_reader)
    add(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        remove(descriptor)
