"""The simulated event loop: virtual time, seeded order, and an end to every run."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import AsyncIterator
from random import Random

import pytest

from reconciler.model.volume import PurgeTrash
from reconciler.twin.host import Crash, TwinHost
from tests.support import simloop
from tests.support.simloop import SimulatedClock, SlowHost, StuckError
from tests.support.twins import INSTANCE, A, data


async def _race(names: str) -> str:
    """Let tasks that are all ready write their names, three times each."""
    written: list[str] = []

    async def write(name: str) -> None:
        for _ in range(3):
            written.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(*(write(name) for name in names))
    return "".join(written)


def test_a_day_passes_at_once() -> None:
    async def sleep() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    before = time.monotonic()
    assert simloop.run(0, sleep()) == 86_400
    assert time.monotonic() - before < 3600


def test_equal_seeds_give_equal_orders_and_others_do_not() -> None:
    runs = {seed: simloop.run(seed, _race("abcdefgh")) for seed in range(10)}
    assert all(simloop.run(seed, _race("abcdefgh")) == order for seed, order in runs.items())
    assert len(set(runs.values())) == 10


def test_timers_fire_in_the_order_of_their_times_and_equal_ones_in_any() -> None:
    async def sleep_sort() -> list[int]:
        woken: list[int] = []

        async def wake(number: int) -> None:
            await asyncio.sleep(number // 10)
            woken.append(number)

        await asyncio.gather(*(wake(number) for number in (31, 10, 32, 20, 11)))
        return woken

    orders = {tuple(simloop.run(seed, sleep_sort())) for seed in range(20)}
    assert {tuple(number // 10 for number in order) for order in orders} == {(1, 1, 2, 3, 3)}
    assert len(orders) == 4


def test_a_deadlock_names_who_waits() -> None:
    async def wait_for_ever() -> None:
        await asyncio.create_task(asyncio.Event().wait(), name="the-waiter")

    with pytest.raises(StuckError, match=r"deadlock at 0\.0 s.*the-waiter"):
        simloop.run(0, wait_for_ever())


def test_a_loop_that_never_lets_time_go_on_is_stopped() -> None:
    async def spin() -> None:
        for _ in itertools.count():
            await asyncio.sleep(0)

    with pytest.raises(StuckError, match="time does not go on"):
        simloop.run(0, spin())


def test_a_run_has_a_limit_in_virtual_time() -> None:
    async def tick() -> None:
        for _ in itertools.count():
            await asyncio.sleep(1)

    with pytest.raises(StuckError, match="after 60"):
        simloop.run(0, tick(), limit_s=60)


def test_what_the_main_coroutine_raises_comes_out() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise Crash

    with pytest.raises(Crash):
        simloop.run(0, fail())


def test_tasks_and_generators_left_over_are_closed() -> None:
    closed: list[str] = []

    async def linger() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)
        closed.append("task")

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.append("generator")

    kept: list[object] = []

    async def leave() -> None:
        kept.append(asyncio.create_task(linger()))
        generator = numbers()
        kept.append(generator)
        await anext(generator)
        await asyncio.sleep(1)

    simloop.run(0, leave())
    assert sorted(closed) == ["generator", "task"]


def test_timeouts_and_cancelled_timers_work_in_virtual_time() -> None:
    async def time_out() -> float:
        async with asyncio.timeout(100):
            await asyncio.sleep(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(10)
        return asyncio.get_running_loop().time()

    assert simloop.run(0, time_out()) == 6


def test_what_is_meant_for_a_thread_is_done_in_its_place() -> None:
    async def use_thread() -> int:
        with pytest.raises(ValueError, match="invalid literal"):
            await asyncio.to_thread(int, "x")
        thread: int = await asyncio.to_thread(threading.get_ident)
        return thread

    assert simloop.run(0, use_thread()) == threading.get_ident()


def test_the_clock_goes_with_the_loop() -> None:
    async def read() -> tuple[float, float]:
        clock = SimulatedClock(start=100.0)
        await asyncio.sleep(7)
        return clock.now(), clock.monotonic()

    assert simloop.run(0, read()) == (107.0, 7.0)


def test_on_a_slow_host_others_come_in_between() -> None:
    async def work(seed: int) -> list[str]:
        told: list[str] = []
        host = SlowHost(TwinHost(INSTANCE), Random(seed), longest_s=1.0)

        async def perform(name: str) -> None:
            await host.perform(PurgeTrash(trash_id=f"{A}.1"))
            told.append(name)

        await asyncio.gather(perform("a"), perform("b"), perform("c"))
        return told

    orders = {tuple(simloop.run(0, work(seed))) for seed in range(30)}
    assert len(orders) == 6


def test_what_a_slow_host_shows_may_be_stale() -> None:
    async def look() -> bool:
        twin = TwinHost(INSTANCE)
        host = SlowHost(twin, Random(0), longest_s=1.0)
        seeing = asyncio.create_task(host.observe())
        await asyncio.sleep(1.0)
        for effect in data(A):
            await twin.perform(effect)
        return (await seeing).ves == {}

    assert simloop.run(0, look())
