"""The progress of `apply`: each VE's steps as they begin and end, and what takes long while it does."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from reconciler.cli import output

if TYPE_CHECKING:
    from reconciler.model.action import Action

_LOOK_EVERY_S = 1.0
_LONG_S = 5.0
_ENDS = ("done", "failed")


_CAPITAL = re.compile("(?<=[a-z])(?=[A-Z])")


def step_words(step: str) -> str:
    """Give the name of an effect as people write it, e.g. ``create volume`` for ``CreateVolume``."""
    return _CAPITAL.sub(" ", step).lower()


class Progress:
    """Tells on standard error: on one line of a terminal, else line by line. Units: seconds since the beginning."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._steps: dict[str, tuple[str, float]] = {}
        self._told: dict[str, str] = {}
        self._on_terminal = sys.stderr.isatty()

    def step(self, action: Action, step: str) -> None:
        """Take note of an effect that begins, or of an action's end."""
        from reconciler.plan.render import is_bookkeeping

        if is_bookkeeping(action):
            return
        if step in _ENDS:
            self._steps.pop(action.id, None)
            self._tell(action.id, step, ends=True)
            return
        self._steps[action.id] = (step, time.monotonic())
        if self._on_terminal:
            self._tell(action.id, step)

    def _tell(self, what: str, step: str, *, ends: bool = False) -> None:
        line = f"{time.monotonic() - self._started:7.2f} s  {output.one_line(what)}: {step_words(step)}"
        if self._on_terminal:
            sys.stderr.write(f"\r\x1b[K{line}" + ("\n" if ends else ""))
            sys.stderr.flush()
        else:
            output.words(line)

    def _tell_long(self) -> None:
        """Tell once of each step that takes long; on a terminal go on counting."""
        now = time.monotonic()
        for what, (step, since) in self._steps.items():
            if now - since >= _LONG_S and (self._on_terminal or self._told.get(what) != step):
                self._told[what] = step
                self._tell(what, f"{step}, still under way")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look after what takes long for the block."""
        import asyncio

        async def look() -> None:
            while True:
                await asyncio.sleep(_LOOK_EVERY_S)
                self._tell_long()

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
