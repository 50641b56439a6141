"""Whose turn it is: a queue keyed by VE, with priorities, that never hands out the same key twice at once."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field
from enum import IntEnum

from reconciler.model.seam import Clock


class Priority(IntEnum):
    """The most urgent first."""

    USER = 0
    REVISION = 1
    DRIFT = 2
    RESYNC = 3


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """A key's turn. ``due``: not before this moment. Units: seconds of the monotonic clock."""

    due: float
    priority: Priority
    number: int
    key: str = field(compare=False)
    reason: str = field(compare=False)


class Queue:
    """Keys that wait for a pass. A key that is added while it is worked on gets one more turn afterwards."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[str, Turn] = {}
        self._heap: list[Turn] = []
        self._working: dict[str, Turn | None] = {}
        self._number = 0
        self._changed = asyncio.Event()

    def add(self, key: str, *, priority: Priority, reason: str, delay_s: float = 0.0) -> None:
        """Ask for a turn; of several wishes for one key the soonest and most urgent counts. Units: seconds."""
        self._number += 1
        turn = Turn(self._clock.monotonic() + delay_s, priority, self._number, key, reason)
        if key in self._working:
            again = self._working[key]
            self._working[key] = turn if again is None else _merge(again, turn)
            return
        waiting = self._waiting.get(key)
        if waiting is not None:
            turn = _merge(waiting, turn)
            if turn == waiting:
                return
        self._waiting[key] = turn
        heapq.heappush(self._heap, turn)
        self._changed.set()

    def defer(self, key: str, *, reason: str, delay_s: float) -> None:
        """Ask for a turn after a failure; what merely happened to the key meanwhile waits as long. Units: seconds."""
        for pending in (self._working, self._waiting):
            turn = pending.get(key)
            if turn is not None and turn.priority >= Priority.DRIFT:
                self._drop(key)
        self.add(key, priority=Priority.DRIFT, reason=reason, delay_s=delay_s)

    def _drop(self, key: str) -> None:
        self._waiting.pop(key, None)
        if key in self._working:
            self._working[key] = None

    async def get(self) -> Turn:
        """Wait for the next turn that is due, and mark its key as worked on."""
        while True:
            turn, wait_s = self._next_due()
            if turn is not None:
                del self._waiting[turn.key]
                self._working[turn.key] = None
                return turn
            self._changed.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, key: str) -> None:
        """Say that a key's turn is over."""
        again = self._working.pop(key)
        if again is not None:
            self.add(key, priority=again.priority, reason=again.reason, delay_s=again.due - self._clock.monotonic())

    def __len__(self) -> int:
        """How many keys wait for a turn, now or later, or are worked on."""
        return len(self._waiting.keys() | self._working.keys())

    def _next_due(self) -> tuple[Turn | None, float | None]:
        now = self._clock.monotonic()
        due = []
        while self._heap and self._heap[0].due <= now:
            turn = heapq.heappop(self._heap)
            if self._waiting.get(turn.key) is turn:
                due.append(turn)
        if not due:
            return None, (self._heap[0].due - now if self._heap else None)
        first = min(due, key=lambda turn: (turn.priority, turn.due, turn.number))
        for turn in due:
            if turn is not first:
                heapq.heappush(self._heap, turn)
        return first, None


def _merge(one: Turn, other: Turn) -> Turn:
    urgent = min(one, other, key=lambda turn: (turn.priority, turn.number))
    return Turn(min(one.due, other.due), urgent.priority, urgent.number, urgent.key, urgent.reason)
