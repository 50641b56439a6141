"""Every order in which requests reach a store, and every way in which few of them fail, tried one after another.

Whoever asks stands still until the explorer carries the request out; so what is tried is all that a network and a
store can do to those who ask, and a failure is found again by its choices.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from reconciler.errors import CoordinatorAwayError, OutcomeUnknownError
from reconciler.model.kv import Change, Listing, Pair, StoreStatus, Unchanged, Write
from reconciler.twin.etcd import TwinEtcd
from reconciler.twin.store import Fault

_T = TypeVar("_T")

_SETTLING = 5
"""Turns of the loop after which everybody who does not wait for the explorer has come to rest."""

_OF_WRITES = (Fault.AWAY, Fault.LOST, Fault.LATE, Fault.DROPPED)


@dataclass(slots=True)
class Choices:
    """Chooses as it is told, and beyond that the first; ``made`` is what was chosen, and of how many."""

    told: Sequence[int] = ()
    made: list[tuple[int, int]] = field(default_factory=list)

    def choose(self, count: int) -> int:
        """Choose one of so many."""
        at = len(self.made)
        chosen = self.told[at] if at < len(self.told) else 0
        self.made.append((chosen, count))
        return chosen

    def next(self) -> tuple[int, ...] | None:
        """Give what to choose the next time; None, if everything was tried."""
        made = list(self.made)
        while made and made[-1][0] + 1 == made[-1][1]:
            made.pop()
        return None if not made else (*(one for one, _ in made[:-1]), made[-1][0] + 1)


def all_choices() -> Iterator[Choices]:
    """Give choices until everything was tried; each is to be used before the next one is asked for."""
    told: tuple[int, ...] | None = ()
    while told is not None:
        choices = Choices(told)
        yield choices
        told = choices.next()


@dataclass(frozen=True, slots=True)
class _Asked:
    future: asyncio.Future[Any]
    done: Callable[[], Any]
    writes: bool


@dataclass(slots=True)
class World:
    """One run. ``faults``: how many requests may fail; ``reads_fail``: reads too."""

    etcd: TwinEtcd
    choices: Choices
    faults: int
    reads_fail: bool = False
    _asked: list[_Asked] = field(default_factory=list)
    _late: list[Callable[[], Any]] = field(default_factory=list)

    async def ask(self, done: Callable[[], _T], *, writes: bool) -> _T:
        """Wait until a request is carried out, or fails."""
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._asked.append(_Asked(future, done, writes))
        return await future

    async def run(self, *actors: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run actors side by side; give what each came to, its error too, once whatever was late has arrived."""
        tasks = [asyncio.ensure_future(actor) for actor in actors]
        while not all(task.done() for task in tasks):
            for _ in range(_SETTLING):
                await asyncio.sleep(0)
            if self._asked:
                self._step()
        for done in self._late:
            done()
        return await asyncio.gather(*tasks, return_exceptions=True)

    def _step(self) -> None:
        """Carry one thing out. Reads among each other come to the same in any order."""
        reads = [one for one in self._asked if not one.writes]
        asked = [*reads[:1], *(one for one in self._asked if one.writes)]
        options = [(one, fate) for one in asked for fate in self._fates(one)]
        chosen = self.choices.choose(len(options) + len(self._late))
        if chosen >= len(options):
            self._late.pop(chosen - len(options))()
        else:
            self._carry_out(*options[chosen])

    def _fates(self, one: _Asked) -> tuple[Fault, ...]:
        if not self.faults or not (one.writes or self.reads_fail):
            return (Fault.NONE,)
        return (Fault.NONE, *(_OF_WRITES if one.writes else (Fault.AWAY,)))

    def _carry_out(self, one: _Asked, fate: Fault) -> None:
        self._asked.remove(one)
        self.faults -= fate is not Fault.NONE
        if fate is Fault.AWAY:
            one.future.set_exception(CoordinatorAwayError("it does not answer"))
            return
        if fate is Fault.LATE:
            self._late.append(one.done)
        answer = one.done() if fate in (Fault.NONE, Fault.LOST) else None
        if fate is Fault.NONE:
            one.future.set_result(answer)
        else:
            one.future.set_exception(OutcomeUnknownError("no answer came"))


class OrderedStore:
    """Implements `Store` for one host of a world, but leases and watches."""

    def __init__(self, world: World) -> None:
        self._world, self._etcd = world, world.etcd

    async def get(self, key: str) -> Pair | None:
        """Read one key."""
        return await self._world.ask(lambda: self._etcd.get(key), writes=False)

    async def list(self, prefix: str) -> Listing:
        """Read all keys below a prefix."""
        return await self._world.ask(lambda: self._etcd.list(prefix), writes=False)

    async def transact(self, guards: Sequence[Unchanged], writes: Sequence[Write]) -> int | None:
        """Make all writes if all guards hold."""
        return await self._world.ask(lambda: self._etcd.transact(guards, writes), writes=True)

    async def grant(self, ttl_s: float) -> int:
        """Make no lease."""
        raise NotImplementedError

    async def keep_alive(self, lease: int) -> bool:
        """Keep no lease."""
        raise NotImplementedError

    def watch(self, prefix: str, *, since: int) -> AsyncIterator[Change]:
        """Tell nothing."""
        raise NotImplementedError

    async def status(self) -> tuple[StoreStatus, ...]:
        """Say nothing."""
        return ()
