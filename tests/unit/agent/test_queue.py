"""Whose turn it is: never twice at once, once more if asked meanwhile, the urgent first, nobody too early."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from reconciler.agent.queue import Priority, Queue, Turn
from tests.support import simloop

SEEDS = range(12)


async def take(queue: Queue) -> Turn:
    turn = await queue.get()
    queue.done(turn.key)
    return turn


def test_the_urgent_come_first_and_among_them_the_early() -> None:
    async def main() -> list[str]:
        queue = Queue(simloop.SimulatedClock())
        for key, priority in (("r", 3), ("d", 2), ("g1", 1), ("g2", 1), ("u", 0)):
            queue.add(key, priority=Priority(priority), reason="")
        return [(await take(queue)).key for _ in range(5)]

    assert simloop.run(0, main()) == ["u", "g1", "g2", "d", "r"]


def test_several_wishes_for_one_key_are_one_turn_the_soonest_and_most_urgent() -> None:
    async def main() -> tuple[str, float, bool]:
        queue, loop = Queue(simloop.SimulatedClock()), asyncio.get_running_loop()
        queue.add("a", priority=Priority.USER, reason="user", delay_s=9)
        queue.add("a", priority=Priority.RESYNC, reason="timer", delay_s=2)
        queue.add("a", priority=Priority.DRIFT, reason="event", delay_s=5)
        turn = await take(queue)
        return turn.reason, loop.time(), len(queue) == 0

    assert simloop.run(0, main()) == ("user", 2.0, True)


def test_a_turn_is_not_given_before_it_is_due() -> None:
    async def main() -> list[tuple[str, float]]:
        queue, loop = Queue(simloop.SimulatedClock()), asyncio.get_running_loop()
        queue.add("late", priority=Priority.USER, reason="", delay_s=5)
        queue.add("soon", priority=Priority.RESYNC, reason="", delay_s=1)
        return [((await take(queue)).key, loop.time()) for _ in range(2)]

    assert simloop.run(0, main()) == [("soon", 1.0), ("late", 5.0)]


def test_who_is_asked_for_while_being_worked_on_has_one_more_turn() -> None:
    async def main() -> tuple[bool, str]:
        queue = Queue(simloop.SimulatedClock())
        queue.add("a", priority=Priority.DRIFT, reason="first")
        await queue.get()
        for number in range(5):
            queue.add("a", priority=Priority.DRIFT, reason=f"again {number}")
        queue.add("a", priority=Priority.USER, reason="user")
        getting = asyncio.create_task(queue.get())
        await asyncio.sleep(10)
        was_held = not getting.done()
        queue.done("a")
        turn = await getting
        queue.done("a")
        assert len(queue) == 0
        return was_held, turn.reason

    assert simloop.run(0, main()) == (True, "user")


def test_after_a_failure_what_merely_happened_waits_and_what_somebody_wants_does_not() -> None:
    async def retried(*meanwhile: Priority) -> float:
        queue, loop = Queue(simloop.SimulatedClock()), asyncio.get_running_loop()
        queue.add("a", priority=Priority.DRIFT, reason="first")
        await queue.get()
        for priority in meanwhile:
            queue.add("a", priority=priority, reason="meanwhile")
        begun = loop.time()
        queue.defer("a", reason="retry", delay_s=8)
        queue.done("a")
        await queue.get()
        return loop.time() - begun

    assert simloop.run(0, retried()) == 8
    assert simloop.run(0, retried(Priority.DRIFT)) == 8
    assert simloop.run(0, retried(Priority.RESYNC, Priority.DRIFT)) == 8
    assert simloop.run(0, retried(Priority.REVISION)) == 0
    assert simloop.run(0, retried(Priority.USER, Priority.DRIFT)) == 0


def test_a_deferred_key_that_waits_already_is_deferred_too() -> None:
    async def main() -> float:
        queue, loop = Queue(simloop.SimulatedClock()), asyncio.get_running_loop()
        queue.add("a", priority=Priority.DRIFT, reason="event")
        queue.defer("a", reason="retry", delay_s=3)
        await queue.get()
        return loop.time()

    assert simloop.run(0, main()) == 3


@pytest.mark.parametrize("seed", SEEDS)
def test_under_any_load_no_key_is_twice_at_work_and_none_is_forgotten(seed: int) -> None:
    async def main() -> None:
        random, queue = Random(seed), Queue(simloop.SimulatedClock())
        at_work: Counter[str] = Counter()
        asked: dict[str, int] = {}
        seen: dict[str, int] = {}

        async def work() -> None:
            while True:
                turn = await queue.get()
                at_work[turn.key] += 1
                assert at_work[turn.key] == 1
                seen[turn.key] = asked[turn.key]
                await asyncio.sleep(random.random())
                at_work[turn.key] -= 1
                queue.done(turn.key)

        workers = [asyncio.create_task(work()) for _ in range(3)]
        for number in range(200):
            key = random.choice("abcdef")
            asked[key] = number
            delay_s = random.choice([0.0, 0.0, 0.5, 3.0])
            add = queue.add if random.random() < 0.9 else None
            if add is not None:
                queue.add(key, priority=random.choice(list(Priority)), reason="", delay_s=delay_s)
            else:
                queue.defer(key, reason="", delay_s=delay_s)
            await asyncio.sleep(random.random() * 0.3)
        await asyncio.sleep(30)
        assert len(queue) == 0
        assert seen == asked
        for worker in workers:
            assert not worker.done()
            worker.cancel()

    simloop.run(seed, main())
