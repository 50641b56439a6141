"""Writers who append behind each other: what they were told became of each entry, beside what is there in the end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.errors import CoordinatorAwayError, OutcomeUnknownError
from reconciler.model.kv import Pair, Put, Store, Unchanged

_DONE_EACH = 5


class Outcome(StrEnum):
    """What a writer is told of an entry."""

    DONE = "done"
    REFUSED = "refused"
    AWAY = "away"
    UNKNOWN = "unknown"


async def certain(read: Callable[[], Awaitable[Pair | None]]) -> Pair | None:
    """Read until it is answered."""
    while True:
        try:
            return await read()
        except CoordinatorAwayError:
            await asyncio.sleep(0.05)


@dataclass
class Log:
    """Entries that several writers append, each behind the last one.

    ``history``: what each was told became of his. ``seen``: what a watch told of.
    """

    root: str
    history: dict[str, Outcome] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, store: Store, writer: str) -> None:
        """Try to append without an end."""
        for number in range(1_000_000):
            head = await certain(lambda: store.get(f"{self.root}head"))
            key = f"{self.root}log/{writer}/{number}"
            self.history[key] = await self._append(store, head.modified if head else 0, key)
            self.done[writer] += self.history[key] is Outcome.DONE
            self.news.set()
            await asyncio.sleep(0.01)

    async def watch(self, store: Store) -> None:
        """Note what is told without an end."""
        while True:
            try:
                async for change in store.watch(f"{self.root}log/", since=0):
                    self.seen.add(change.key)
                    self.news.set()
            except CoordinatorAwayError:
                await asyncio.sleep(0.05)

    async def _append(self, store: Store, behind: int, key: str) -> Outcome:
        self.history[key] = Outcome.UNKNOWN
        guard = Unchanged(key=f"{self.root}head", modified=behind)
        try:
            made = await store.transact([guard], [Put(key=guard.key, value=key.encode()), Put(key=key, value=b"")])
        except CoordinatorAwayError:
            return Outcome.AWAY
        except OutcomeUnknownError:
            return Outcome.UNKNOWN
        return Outcome.REFUSED if made is None else Outcome.DONE

    async def progress(self, *writers: str) -> None:
        """Wait until writers have appended a few more."""
        wanted = {writer: self.done[writer] + _DONE_EACH for writer in writers}
        await self.until(lambda: all(self.done[writer] >= number for writer, number in wanted.items()))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that news may bring about."""
        while not holds():
            self.news.clear()
            await self.news.wait()

    async def check(self, store: Store) -> set[str]:
        """Compare what is there with what was told; give the entries."""
        await self._overtake(store)
        listing = await store.list(f"{self.root}log/")
        there = {pair.key for pair in listing.pairs}
        for key, outcome in self.history.items():
            assert outcome is Outcome.UNKNOWN or (key in there) is (outcome is Outcome.DONE), (key, outcome)
        assert len({pair.modified for pair in listing.pairs}) == len(there)
        return there

    async def _overtake(self, store: Store) -> None:
        """Append once more: whatever is still under way finds that it is too late."""
        for number in range(1_000_000):
            head = await certain(lambda: store.get(f"{self.root}head"))
            key = f"{self.root}log/last/{number}"
            self.history[key] = await self._append(store, head.modified if head else 0, key)
            if self.history[key] is Outcome.DONE:
                return
