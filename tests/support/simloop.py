"""A deterministic event loop: virtual time, a seeded order of whatever is ready, and no input but time.

Concurrent code runs here thousands of times faster than the clock, and a seed replays it exactly, provided that it
uses no threads, takes time and chance from what it is given, and never iterates over sets.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

from reconciler.model.effects import Effect
from reconciler.model.observation import ALL_FACETS, EVERYTHING, Facet, HostObservation, Scope
from reconciler.model.seam import Host

_Result = TypeVar("_Result")

_YEAR_S = 365 * 86_400.0
_MOST_ROUNDS_AT_ONE_TIME = 100_000


class StuckError(AssertionError):
    """Nothing will ever happen again, or nothing but the same."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs callbacks in a seeded order; when none is ready, the time jumps to the next timer."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, seed: int, *, limit_s: float) -> None:
        super().__init__()
        self._random = Random(seed)
        self._now = 0.0
        self._limit_s = limit_s
        self._rounds = 0

    def time(self) -> float:
        """Give the virtual time. Units: seconds since the loop was made."""
        return self._now

    def run_in_executor(self, executor: object, func: Callable[..., _Result], *args: object) -> asyncio.Future[_Result]:
        """Call at once, and tell of it later: threads have an order of their own."""
        future: asyncio.Future[_Result] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        self._rounds += 1
        if self._rounds > _MOST_ROUNDS_AT_ONE_TIME:
            raise StuckError(f"{_MOST_ROUNDS_AT_ONE_TIME} rounds at {self._now} s, and time does not go on")
        self._collect_due()
        if not self._ready:
            self._jump()
            self._collect_due()
        batch = list(self._ready)
        self._ready.clear()
        self._random.shuffle(batch)
        for handle in batch:
            if not handle.cancelled():
                handle._run()

    def _collect_due(self) -> None:
        while self._scheduled and (self._scheduled[0].cancelled() or self._scheduled[0].when() <= self._now):
            handle = heapq.heappop(self._scheduled)
            if not handle.cancelled():
                self._ready.append(handle)

    def _jump(self) -> None:
        if not self._scheduled:
            raise StuckError(f"deadlock at {self._now} s: {self._waiting()}")
        self._now, self._rounds = self._scheduled[0].when(), 0
        if self._now > self._limit_s:
            raise StuckError(f"still not done after {self._limit_s} virtual seconds: {self._waiting()}")

    def _waiting(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        return ", ".join(f"{task.get_name()} waits in {task.get_coro()!r}" for task in tasks) or "no task is left"

    def _process_events(self, _: object) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""


class SimulatedClock:
    """Implements `model.seam.Clock` with the time of the loop that runs."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = start

    def now(self) -> float:
        """Give the time of day. Units: seconds since the epoch."""
        return self._start + self.monotonic()

    def monotonic(self) -> float:
        """Give the loop's time. Units: seconds."""
        return asyncio.get_running_loop().time()


class SlowHost:
    """A host on which everything takes a while, so that what others do comes in between.

    Units: ``longest_s`` seconds, of each wait before and after.
    """

    def __init__(self, inner: Host, random: Random, *, longest_s: float) -> None:
        self._inner, self._random, self._longest_s = inner, random, longest_s

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect, late, and say so later still."""
        await self._wait()
        await self._inner.perform(effect)
        await self._wait()

    async def observe(self, scope: Scope = EVERYTHING, facets: frozenset[Facet] = ALL_FACETS) -> HostObservation:
        """Look at the host, and hand over what was seen when it may be stale already."""
        await self._wait()
        seen = await self._inner.observe(scope, facets)
        await self._wait()
        return seen

    async def _wait(self) -> None:
        await asyncio.sleep(self._random.uniform(0.0, self._longest_s))


def run(seed: int, main: Coroutine[Any, Any, _Result], *, limit_s: float = _YEAR_S) -> _Result:
    """Run a coroutine to its end in virtual time. Equal seeds give equal runs.

    Units: ``limit_s`` virtual seconds.
    Raises: StuckError, on a deadlock, on a loop without end, and beyond the limit.
    """
    loop = SimulatedLoop(seed, limit_s=limit_s)
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            _cancel_all(loop)
        finally:
            loop.close()


def _cancel_all(loop: SimulatedLoop) -> None:
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks))
    loop.run_until_complete(loop.shutdown_asyncgens())
