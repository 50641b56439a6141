"""Ending the agent when it is told to, in bounded time."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
from collections.abc import Callable
from typing import Any

import structlog

END_S = 20.0
"""How long an agent that is told to end may take to bring to its end what is under way.

What is still under way then is left as a crash would leave it, which the next agent knows how to go on from. Units:
seconds.
"""

_TELL_S = 1.0


def end_on_signals(task: asyncio.Task[None]) -> Callable[[], None]:
    """Cancel a task on SIGTERM and SIGINT, and see to it that the process ends; give what undoes the first of it."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        task.cancel()
        loop.call_later(END_S - _TELL_S, _tell_what_goes_on, loop)
        faulthandler.dump_traceback_later(END_S, exit=True)

    def undo() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    return undo


def _tell_what_goes_on(loop: asyncio.AbstractEventLoop) -> None:
    waits = sorted(_describe(task) for task in asyncio.all_tasks(loop))
    structlog.get_logger().warning("agent.does_not_end", waits=waits)


def _describe(task: asyncio.Task[Any]) -> str:
    """Say where a task waits: its functions, from the outermost to the innermost."""
    frames: list[str] = []
    waiting: Any = task.get_coro()
    while (frame := getattr(waiting, "cr_frame", None)) is not None:
        frames.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        waiting = waiting.cr_await
    return " > ".join(frames) or repr(task)
