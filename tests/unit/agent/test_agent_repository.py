"""A repository is looked at when its time has come, or somebody asks; what came of it wakes the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from reconciler.agent.repository import REST_S, GitSource
from reconciler.model.commit import Commit
from reconciler.model.condition import ConditionType, Status
from reconciler.sources.snapshot import Snapshot
from reconciler.state.conditions import SOURCE
from reconciler.state.location import GitLocation
from tests.support import simloop
from tests.support.rig import Rig, text_of, ve
from tests.support.simulation import clocked_rig

POLL_S = 60.0
AWAY = Snapshot(reason="RemoteUnreachable", problem="it is away")


def commit(number: int, *documents: str) -> Snapshot:
    """Give what a commit brings."""
    oid = f"{number:040x}"
    made = Commit(id=oid, tree="0" * 40, parents=(), author="Ann", committer="Ann", committed_at=0.0, message="change")
    return Snapshot(files={"fleet.yaml": text_of(*documents)}, revision=oid, digest=str(number), commit=made)


class Pulled(GitSource):
    """A source whose server says what a test says."""

    def __init__(self, rig: Rig, said: Snapshot | Exception, jitter: float = 0.0) -> None:
        location = GitLocation(urls=("https://git.example.org/fleet.git",), poll_s=POLL_S)
        super().__init__(location, rig.desk(), jitter=lambda: jitter)
        self.said = said
        self.asked: list[float] = []
        self.hold_s = 0.0
        self.puller.pull = self._answer  # type: ignore[method-assign]

    async def _answer(self, in_force: str, *, with_steps: bool = False) -> Snapshot:
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.hold_s)
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    async def _look_after_mirror(self, in_force: str) -> None:
        pass


@asynccontextmanager
async def running(source: GitSource) -> AsyncIterator[None]:
    task = asyncio.create_task(source.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def simulate(work: Callable[[Rig], object]) -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            await work(rig)  # type: ignore[misc]  # every one is a coroutine function

    simloop.run(0, main())


@pytest.mark.parametrize(("jitter", "wait_s"), [(0.0, POLL_S), (1.0, POLL_S * 1.1)])
def test_it_is_asked_at_the_start_and_then_now_and_then_with_jitter(jitter: float, wait_s: float) -> None:
    async def work(rig: Rig) -> None:
        source = Pulled(rig, commit(1), jitter)
        async with running(source):
            await asyncio.sleep(3 * wait_s + 1)
        assert source.asked == pytest.approx([0, wait_s, 2 * wait_s, 3 * wait_s])

    simulate(work)


def test_after_failures_it_is_asked_sooner_and_then_as_seldom_as_ever() -> None:
    async def work(rig: Rig) -> None:
        source = Pulled(rig, AWAY)
        async with running(source):
            await asyncio.sleep(300)
        waits = [after - before for before, after in zip(source.asked, source.asked[1:], strict=False)]
        assert waits == pytest.approx([2, 4, 8, 16, 32, 60, 60, 60])

    simulate(work)


def test_many_hints_are_one_question_and_never_two_in_a_second() -> None:
    async def work(rig: Rig) -> None:
        source = Pulled(rig, commit(1))
        async with running(source):
            await asyncio.sleep(10)
            for _ in range(200):
                source.hint()
                await asyncio.sleep(0.01)
            await asyncio.sleep(5)
        gaps = [after - before for before, after in zip(source.asked, source.asked[1:], strict=False)]
        assert 3 <= len(source.asked) <= 5
        assert min(gaps) >= REST_S

    simulate(work)


def test_who_asks_for_the_newest_waits_for_a_question_that_began_after_he_asked() -> None:
    async def work(rig: Rig) -> None:
        source = Pulled(rig, commit(1))
        source.hold_s = 5.0
        async with running(source):
            await asyncio.sleep(1)  # the first question is under way
            source.said = commit(2)
            assert (await source.refresh()).revision == commit(2).revision
            assert len(source.asked) == 2
            one, other = await asyncio.gather(source.refresh(), source.refresh())
            assert one is other
            assert len(source.asked) == 3

    simulate(work)


def test_what_was_in_force_stays_while_the_server_is_away_also_after_a_start() -> None:
    async def work(rig: Rig) -> None:
        source = Pulled(rig, commit(1, ve("web1")))
        async with running(source):
            await source.changed()
            first = source.look()
            source.said = AWAY
            await source.refresh()
            assert first is not None
            assert source.look() is first
        again = Pulled(rig, AWAY)
        restored = again.look()
        assert restored is not None
        assert (restored.revision, set(restored.ves)) == (commit(1).revision, {"web1"})
        assert standing(rig, ConditionType.FETCHED) == (Status.UNKNOWN, "SourceNotRead")
        async with running(again):
            await again.changed()
            again.look()
        assert standing(rig, ConditionType.FETCHED) == (Status.FALSE, "RemoteUnreachable")
        told = [event.reason for event in rig.desk().events.read() if event.ve == "source"]
        assert told == ["RemoteUnreachable", "RemoteUnreachable"]

    simulate(work)


def standing(rig: Rig, kind: ConditionType) -> tuple[Status, str]:
    found = {condition.type: condition for condition in rig.desk().conditions.read(SOURCE)}
    return found[kind].status, found[kind].reason


def test_the_same_content_by_another_commit_is_another_revision() -> None:
    async def work(rig: Rig) -> None:
        source = Pulled(rig, commit(1, ve("web1")))
        async with running(source):
            await source.refresh()
            source.look()
            source.said = replace(commit(1, ve("web1")), revision="2" * 40)
            await source.refresh()
            found = source.look()
        assert found is not None
        assert found.revision == "2" * 40

    simulate(work)


def test_a_bug_in_reading_is_a_condition_and_no_end() -> None:
    async def work(rig: Rig) -> None:
        source = Pulled(rig, RuntimeError("a bug"))
        async with running(source):
            await source.refresh()
            source.look()
            assert standing(rig, ConditionType.FETCHED) == (Status.FALSE, "Crashed")
            source.said = commit(1, ve("web1"))
            await source.refresh()
            assert source.look() is not None

    simulate(work)


def test_a_removal_needs_no_wait() -> None:
    async def work(rig: Rig) -> None:
        source = Pulled(rig, commit(1, ve("web1"), ve("web2")))
        async with running(source):
            await source.refresh()
            fleet = source.look()
            assert fleet is not None
            source.know(frozenset(fleet.ves))
            source.said = commit(2, ve("web1"))
            await source.refresh()
            source.look()
        assert source.removed() == {"web2"}

    simulate(work)
