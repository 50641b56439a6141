"""The store in memory goes wrong in the ways that a real one does, and in no other."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from random import Random
from typing import Any, TypeVar

import pytest

from reconciler.errors import CoordinatorAwayError, OutcomeUnknownError
from reconciler.model.kv import Change, Put, Unchanged
from reconciler.twin.etcd import TwinEtcd
from reconciler.twin.store import Fault, NoFaults, SeededFaults, TwinStore
from tests.support.simloop import run
from tests.support.storelog import Log, Outcome

_T = TypeVar("_T")
A = "/a"


class _Chosen(NoFaults):
    """Faults in the order that a test wants them, then none. ``told``: how often events are told."""

    def __init__(self, *fates: Fault, told: int = 1) -> None:
        self._fates: Iterator[Fault] = iter(fates)
        self._told = told

    def fate(self, asked: str) -> Fault:
        return next(self._fates, Fault.NONE)

    def late_s(self) -> float:
        return 5.0

    def times_told(self) -> int:
        return self._told


def _run(main: Coroutine[Any, Any, _T]) -> _T:
    return run(1, main)


def _put(value: bytes = b"1") -> Put:
    return Put(key=A, value=value)


async def _first(store: TwinStore, count: int) -> list[Change]:
    told = []
    async for change in store.watch("/", since=1):
        told.append(change)
        if len(told) == count:
            break
    return told


@pytest.mark.parametrize(
    ("fate", "error", "at_once", "later"),
    [
        pytest.param(Fault.AWAY, CoordinatorAwayError, False, False, id="away"),
        pytest.param(Fault.DROPPED, OutcomeUnknownError, False, False, id="dropped"),
        pytest.param(Fault.LOST, OutcomeUnknownError, True, True, id="lost"),
        pytest.param(Fault.LATE, OutcomeUnknownError, False, True, id="late"),
    ],
)
def test_a_write_that_is_not_answered_may_or_may_not_be_made(
    fate: Fault, error: type[Exception], at_once: bool, later: bool
) -> None:
    async def main() -> tuple[bool, bool]:
        store = TwinStore(TwinEtcd(), _Chosen(fate))
        with pytest.raises(error):
            await store.transact([Unchanged(key=A, modified=0)], [_put()])
        seen = await store.get(A) is not None
        await asyncio.sleep(60)
        return seen, await store.get(A) is not None

    assert _run(main()) == (at_once, later)


def test_a_late_write_is_made_only_if_its_guards_hold_by_then() -> None:
    async def main() -> bytes:
        store = TwinStore(TwinEtcd(), _Chosen(Fault.LATE))
        with pytest.raises(OutcomeUnknownError):
            await store.transact([Unchanged(key=A, modified=0)], [_put(b"late")])
        await store.transact([Unchanged(key=A, modified=0)], [_put(b"first")])
        await asyncio.sleep(60)
        found = await store.get(A)
        assert found is not None
        return found.value

    assert _run(main()) == b"first"


@pytest.mark.parametrize("fate", [fate for fate in Fault if fate is not Fault.NONE])
def test_a_read_that_is_not_answered_tells_nothing(fate: Fault) -> None:
    async def main() -> None:
        store = TwinStore(TwinEtcd(), _Chosen(fate))
        with pytest.raises(CoordinatorAwayError):
            await store.list("/")

    _run(main())


def test_one_client_is_cut_off_and_the_others_are_not() -> None:
    async def main() -> None:
        etcd = TwinEtcd()
        ours, theirs = TwinStore(etcd), TwinStore(etcd)
        ours.cut()
        with pytest.raises(CoordinatorAwayError):
            await ours.transact([], [_put()])
        assert await theirs.transact([], [_put()]) == 2
        assert [one.healthy for one in (*await ours.status(), *await theirs.status())] == [False, True]
        ours.mend()
        assert await ours.get(A) == await theirs.get(A)

    _run(main())


def test_a_watch_fails_when_its_client_is_cut_off() -> None:
    async def main() -> None:
        store = TwinStore(TwinEtcd())
        watching = asyncio.ensure_future(_first(store, 1))
        await asyncio.sleep(1)
        store.cut()
        with pytest.raises(CoordinatorAwayError):
            await watching

    _run(main())


@pytest.mark.parametrize("times", [0, 2])
def test_events_are_lost_and_told_twice(times: int) -> None:
    async def main() -> list[Change]:
        store = TwinStore(TwinEtcd(), _Chosen(told=times))
        watching = asyncio.ensure_future(_first(store, 2))
        await asyncio.sleep(1)
        await store.transact([], [_put()])
        await asyncio.sleep(1)
        return await watching if times else [] if not watching.done() else watching.result()

    told = _run(main())
    assert len(told) == times
    assert len(set(told)) <= 1


def test_a_restored_cluster_has_what_was_backed_up_and_ends_watches() -> None:
    async def main() -> None:
        etcd = TwinEtcd()
        store = TwinStore(etcd)
        await store.transact([], [_put(b"old")])
        backup = etcd.backup()
        await store.transact([], [_put(b"new")])
        watching = asyncio.ensure_future(_first(store, 3))
        await asyncio.sleep(1)
        etcd.restore(backup, cluster="c2")
        assert len(await watching) == 2
        listing = await store.list("/")
        assert (listing.cluster, listing.revision, listing.pairs[0].value) == ("c2", 2, b"old")

    _run(main())


@pytest.mark.parametrize("seed", range(20))
def test_what_is_said_to_be_done_is_done_and_nothing_else(seed: int) -> None:
    async def main() -> None:
        etcd, log, random = TwinEtcd(), Log("/"), Random(seed)
        stores = {f"w{n}": TwinStore(etcd, SeededFaults(random, chance=0.3, longest_s=0.5)) for n in range(3)}
        tasks = [asyncio.create_task(log.write(store, name)) for name, store in stores.items()]
        await log.progress(*stores)
        stores["w0"].cut()
        await log.progress("w1", "w2")
        stores["w0"].mend()
        await log.progress(*stores)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        there = await log.check(TwinStore(etcd))
        await asyncio.sleep(600)
        assert {pair.key for pair in etcd.list("/log/").pairs} == there
        assert set(log.history.values()) == set(Outcome)

    run(seed, main())


def test_a_seed_repeats_what_it_does() -> None:
    async def main(seed: int) -> list[str]:
        store = TwinStore(TwinEtcd(), SeededFaults(Random(seed), chance=0.5, longest_s=1.0))
        told = []
        for number in range(40):
            try:
                told.append(str(await store.transact([], [_put(str(number).encode())])))
            except (CoordinatorAwayError, OutcomeUnknownError) as err:
                told.append(type(err).__name__)
        return told

    first = _run(main(7))
    assert first == _run(main(7)) != _run(main(8))
    assert {"CoordinatorAwayError", "OutcomeUnknownError"} < set(first)
