"""`Store` in memory, with the weaknesses of a real one: answers that are lost, late writes, events that go missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from enum import StrEnum
from random import Random
from typing import Protocol, TypeVar

from reconciler.errors import CoordinatorAwayError, OutcomeUnknownError
from reconciler.model.kv import Change, Listing, Pair, StoreStatus, Unchanged, Write
from reconciler.twin.etcd import RefusedByEtcdError, TwinEtcd

_T = TypeVar("_T")


class Fault(StrEnum):
    """What happens to one request.

    `AWAY`: it is not sent. Of the others no answer comes: `LOST` is carried out at once, `LATE` some time after the
    asker gave up, `DROPPED` never.
    """

    NONE = "none"
    AWAY = "away"
    LOST = "lost"
    LATE = "late"
    DROPPED = "dropped"


class Faults(Protocol):
    """Decides what goes wrong. Units: seconds."""

    def fate(self, asked: str) -> Fault:
        """Choose what happens to a request; ``asked`` is the name of a method of `Store`."""
        ...

    def wait_s(self) -> float:
        """Choose how long one way takes, of a request or an answer."""
        ...

    def late_s(self) -> float:
        """Choose when, after the asker gave up, a late request is carried out."""
        ...

    def times_told(self) -> int:
        """Choose how often an event is told."""
        ...


class NoFaults:
    """Implements `Faults`: none."""

    def fate(self, asked: str) -> Fault:
        """Let every request succeed."""
        return Fault.NONE

    def wait_s(self) -> float:
        """Take no time."""
        return 0.0

    def late_s(self) -> float:
        """Take no time."""
        return 0.0

    def times_told(self) -> int:
        """Tell every event once."""
        return 1


class SeededFaults:
    """Implements `Faults` by chance. ``chance``: of each request and event. Units: ``longest_s`` of each way."""

    def __init__(self, random: Random, *, chance: float, longest_s: float = 0.0, latest_s: float = 30.0) -> None:
        self._random, self._chance = random, chance
        self._longest_s, self._latest_s = longest_s, latest_s

    def fate(self, asked: str) -> Fault:
        """Choose by chance."""
        return self._random.choice(_MISHAPS) if self._random.random() < self._chance else Fault.NONE

    def wait_s(self) -> float:
        """Choose by chance."""
        return self._random.uniform(0.0, self._longest_s)

    def late_s(self) -> float:
        """Choose by chance."""
        return self._random.uniform(0.0, self._latest_s)

    def times_told(self) -> int:
        """Lose some, tell some twice."""
        return self._random.choice((0, 2)) if self._random.random() < self._chance else 1


_MISHAPS = tuple(fault for fault in Fault if fault is not Fault.NONE)


class TwinStore:
    """Implements `Store`: one client of a cluster. ``faults`` may be changed at any time.

    Units: ``patience_s`` seconds until an asker gives up.
    """

    def __init__(self, etcd: TwinEtcd, faults: Faults | None = None, *, patience_s: float = 2.0) -> None:
        self.faults: Faults = faults or NoFaults()
        self._etcd, self._patience_s = etcd, patience_s
        self._is_cut = False

    def cut(self) -> None:
        """Take away the way to the cluster; what is under way is not answered."""
        self._is_cut = True
        self._etcd.wake()

    def mend(self) -> None:
        """Give it back."""
        self._is_cut = False

    async def get(self, key: str) -> Pair | None:
        """Read one key."""
        return await self._read("get", lambda: self._etcd.get(key))

    async def list(self, prefix: str) -> Listing:
        """Read all keys below a prefix."""
        return await self._read("list", lambda: self._etcd.list(prefix))

    async def transact(self, guards: Sequence[Unchanged], writes: Sequence[Write]) -> int | None:
        """Make all writes if all guards hold."""
        return await self._ask("transact", lambda: self._etcd.transact(guards, writes))

    async def grant(self, ttl_s: float) -> int:
        """Make a lease."""
        return await self._read("grant", lambda: self._etcd.grant(ttl_s))

    async def keep_alive(self, lease: int) -> bool:
        """Begin a lease's time anew."""
        return await self._read("keep_alive", lambda: self._etcd.keep_alive(lease))

    async def watch(self, prefix: str, *, since: int) -> AsyncIterator[Change]:
        """Tell what changes; some of it twice, some never."""
        generation, told = self._etcd.generation, since
        if await self._go("watch") is not Fault.NONE:
            raise CoordinatorAwayError("watch the coordinator: it does not answer")
        while self._etcd.generation == generation and told + 1 >= self._etcd.compacted:
            changes = self._etcd.changes(prefix, since=told)
            told = max(told, self._etcd.revision)
            for change in changes:
                for _ in range(self.faults.times_told()):
                    yield change
            if told >= self._etcd.revision:
                await self._etcd.news()
            if self._is_cut:
                raise CoordinatorAwayError("watch the coordinator: it does not answer")

    async def status(self) -> tuple[StoreStatus, ...]:
        """Say how the one member is."""
        away = self._is_cut or self.faults.fate("status") is not Fault.NONE
        problem = "it does not answer" if away else ""
        cluster, revision = ("", 0) if away else (self._etcd.cluster, self._etcd.revision)
        return (
            StoreStatus(
                endpoint="twin", version="3.5.30", cluster=cluster, revision=revision, healthy=not away, problem=problem
            ),
        )

    async def _read(self, asked: str, done: Callable[[], _T]) -> _T:
        """Ask what may be asked again: an answer that is lost says no more than none."""
        try:
            return await self._ask(asked, done)
        except OutcomeUnknownError as err:
            raise CoordinatorAwayError(f"{asked} of the coordinator: it does not answer") from err

    async def _ask(self, asked: str, done: Callable[[], _T]) -> _T:
        fate = await self._go(asked)
        if fate is Fault.LATE:
            late_s = self._patience_s + self.faults.late_s()
            asyncio.get_running_loop().call_later(late_s, _unheard, done)
        elif fate is not Fault.DROPPED:
            answer = self._answer(asked, done)
            if fate is Fault.NONE and await self._come_back():
                return answer
        await asyncio.sleep(self._patience_s)
        raise OutcomeUnknownError(f"{asked} of the coordinator: no answer came; read what became of it")

    async def _go(self, asked: str) -> Fault:
        """Go to the cluster, and give what befalls on the way.

        Raises: CoordinatorAwayError, if it was never sent.
        """
        fate = self.faults.fate(asked)
        if self._is_cut or fate is Fault.AWAY:
            await asyncio.sleep(0)
            raise CoordinatorAwayError(f"{asked} of the coordinator: it does not answer")
        await asyncio.sleep(self.faults.wait_s())
        return Fault.DROPPED if self._is_cut else fate

    async def _come_back(self) -> bool:
        await asyncio.sleep(self.faults.wait_s())
        return not self._is_cut

    def _answer(self, asked: str, done: Callable[[], _T]) -> _T:
        try:
            return done()
        except RefusedByEtcdError as err:
            raise CoordinatorAwayError(f"{asked} of the coordinator: refused: {err}") from err


def _unheard(done: Callable[[], object]) -> None:
    """Carry out a request whose asker is gone."""
    try:
        done()
    except RefusedByEtcdError:
        return
