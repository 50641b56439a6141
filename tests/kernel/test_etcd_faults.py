"""Members of etcd die and stand still, and answers are lost: what the store says was done was, and what not was not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from reconciler.errors import CoordinatorAwayError, OutcomeUnknownError
from reconciler.fleet.etcd import EtcdStore
from reconciler.model.etcd import EtcdAddress
from reconciler.model.kv import Put, Unchanged
from tests.support.etcd import CLIENT_PORT, EtcdCluster, EtcdMember, etcd
from tests.support.patience import PATIENCE
from tests.support.storelog import Log, certain
from tests.support.way import Way, way_to

pytestmark = pytest.mark.xdist_group("three members of etcd")

_LIMIT_S = 60.0 * PATIENCE
_CLIENTS = 3

_Fault = Callable[[EtcdCluster, Log], Awaitable[None]]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with etcd(tmp_path_factory.mktemp("etcd"), members=3) as made:
        yield made


@pytest.fixture
def cluster(three: EtcdCluster) -> Iterator[EtcdCluster]:
    """Give the three members, well again whatever became of them in the test before."""
    for member in three.members:
        if member.process is None:
            member.start()
        member.resume()
    three.await_health()
    yield three
    for member in three.members:
        if member.process is not None:
            member.resume()


def _run(main: Coroutine[Any, Any, None], limit_s: float = _LIMIT_S) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(limit_s):
            await main

    asyncio.run(bounded())


@asynccontextmanager
async def _store(*endpoints: str) -> AsyncIterator[EtcdStore]:
    store = EtcdStore(EtcdAddress(endpoints=endpoints))
    try:
        yield store
    finally:
        store.close()


async def _kill_leader(cluster: EtcdCluster, log: Log) -> None:
    leader = await asyncio.to_thread(cluster.leader)
    leader.kill()
    await log.progress(*_writers())
    leader.start()


async def _pause_leader(cluster: EtcdCluster, log: Log) -> None:
    leader = await asyncio.to_thread(cluster.leader)
    leader.pause()
    await log.progress(*_writers())
    leader.resume()


async def _pause_follower(cluster: EtcdCluster, log: Log) -> None:
    leader = await asyncio.to_thread(cluster.leader)
    follower = next(member for member in cluster.members if member is not leader)
    follower.pause()
    await log.progress(*_writers())
    follower.resume()


def _writers() -> list[str]:
    return [f"w{number}" for number in range(_CLIENTS)]


_FAULTS = (_kill_leader, _pause_leader, _pause_follower)


async def _write_during(cluster: EtcdCluster, name: str, faults: Sequence[_Fault]) -> None:
    """Let writers append while faults come one after another, and see what became of all entries."""
    log = Log(f"/{name}/")
    ends = cluster.endpoints
    async with _store(*ends) as a, _store(*ends[1:], ends[0]) as b, _store(ends[2], *ends[:2]) as c:
        stores = dict(zip(_writers(), (a, b, c), strict=True))
        tasks = [asyncio.create_task(log.write(store, name)) for name, store in stores.items()]
        tasks.append(asyncio.create_task(log.watch(a)))
        await log.progress(*stores)
        for fault in faults:
            await fault(cluster, log)
            await log.progress(*stores)
            await asyncio.to_thread(cluster.await_health)
        for task in tasks[:-1]:
            task.cancel()
        there = await log.check(a)
        await log.until(lambda: there <= log.seen)
        tasks[-1].cancel()
        await asyncio.wait(tasks)


@pytest.mark.parametrize("fault", _FAULTS)
def test_what_is_said_to_be_done_is_done_and_nothing_else(cluster: EtcdCluster, fault: _Fault) -> None:
    _run(_write_during(cluster, fault.__name__, [fault]))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_many_faults_leave_nothing_that_was_said_otherwise(cluster: EtcdCluster, seed: int) -> None:
    _run(_write_during(cluster, f"seed-{seed}", Random(seed).choices(_FAULTS, k=25)), limit_s=20 * _LIMIT_S)


def test_a_member_without_a_quorum_tells_nothing_old(cluster: EtcdCluster) -> None:
    async def main() -> None:
        alone, *others = cluster.members
        async with _store(alone.endpoint) as store:
            await store.transact([], [Put(key="/quorum", value=b"old")])
            for member in others:
                member.kill()
            for asked in (store.get("/quorum"), store.list("/quorum"), store.grant(5.0), store.keep_alive(1)):
                with pytest.raises(CoordinatorAwayError):
                    await asked
            with pytest.raises((CoordinatorAwayError, OutcomeUnknownError)):
                await store.transact([Unchanged(key="/quorum", modified=0)], [Put(key="/quorum", value=b"new")])
            (status,) = await store.status()
            assert status.version
            assert status.problem
            assert not status.healthy
            for member in others:
                member.start()
            found = await certain(lambda: store.get("/quorum"))
            assert found is not None
            assert found.value == b"old"

    _run(main())


def test_a_dead_member_is_named_and_passed_over(cluster: EtcdCluster) -> None:
    async def main() -> None:
        dead, *others = cluster.members
        dead.kill()
        await asyncio.to_thread(cluster.await_health, *others)
        async with _store(*cluster.endpoints) as store:
            assert await store.transact([], [Put(key="/passed", value=b"over")])
            statuses = await store.status()
        assert [status.healthy for status in statuses] == [False, True, True]
        assert "connection refused" in statuses[0].problem

    _run(main())


@asynccontextmanager
async def _by_way(member: EtcdMember) -> AsyncIterator[tuple[Way, EtcdStore, EtcdStore]]:
    """Give a way to a member, a store that has only this, and one that goes there directly."""
    async with (
        way_to(member.address, CLIENT_PORT) as way,
        _store(way.endpoint) as ours,
        _store(member.endpoint) as sure,
    ):
        yield way, ours, sure


def _put(name: str) -> list[Put]:
    return [Put(key=f"/way/{name}", value=b"1")]


def test_a_lost_answer_leaves_the_outcome_unknown(cluster: EtcdCluster) -> None:
    async def main() -> None:
        async with _by_way(cluster.members[0]) as (way, ours, sure):
            await ours.get("/way/")
            way.back = False
            with pytest.raises(OutcomeUnknownError):
                await ours.transact([], _put("answer"))
            assert await sure.get("/way/answer") is not None

    _run(main())


def test_a_lost_request_leaves_the_outcome_unknown(cluster: EtcdCluster) -> None:
    async def main() -> None:
        async with _by_way(cluster.members[0]) as (way, ours, sure):
            way.there = False
            with pytest.raises(OutcomeUnknownError):
                await ours.transact([], _put("request"))
            assert await sure.get("/way/request") is None

    _run(main())


def test_a_request_that_cannot_be_sent_is_surely_not_carried_out(cluster: EtcdCluster) -> None:
    async def main() -> None:
        async with _by_way(cluster.members[0]) as (way, ours, sure):
            await ours.get("/way/")
            await way.close()
            with pytest.raises(CoordinatorAwayError):
                await ours.transact([], _put("refused"))
            assert await sure.get("/way/refused") is None

    _run(main())


def test_a_client_that_is_cut_off_at_one_member_goes_to_the_next(cluster: EtcdCluster) -> None:
    async def main() -> None:
        one, other, _ = cluster.members
        async with way_to(one.address, CLIENT_PORT) as way, _store(way.endpoint, other.endpoint) as store:
            await store.transact([], _put("next"))
            way.there = way.back = False
            assert await store.get("/way/next") is not None
            assert await store.transact([], _put("next")) is not None

    _run(main())


def test_a_client_that_is_cut_off_everywhere_knows_nothing(cluster: EtcdCluster) -> None:
    async def main() -> None:
        async with _by_way(cluster.members[0]) as (way, ours, sure):
            lease = await ours.grant(2.0)
            await ours.transact([], [Put(key="/way/alive", value=b"", lease=lease)])
            found = await sure.get("/way/alive")
            assert found is not None
            way.there = way.back = False
            with pytest.raises(CoordinatorAwayError):
                await ours.keep_alive(lease)
            async for change in sure.watch("/way/alive", since=found.modified):
                assert change.pair is None
                break
            way.there = way.back = True
            assert not await ours.keep_alive(lease)

    _run(main())


def test_restarted_data_is_what_was_written(tmp_path: Path) -> None:
    async def main(cluster: EtcdCluster) -> None:
        (member,) = cluster.members
        async with _store(member.endpoint) as store:
            revision = await store.transact([], [Put(key="/kept", value=b"1")])
            before = await store.list("/kept")
            member.kill()
            with pytest.raises(CoordinatorAwayError, match="connection refused"):
                await store.transact([], [Put(key="/kept", value=b"2")])
            member.start()
            await certain(lambda: store.get("/kept"))
            after = await store.list("/kept")
            assert (after.pairs, after.cluster, after.revision) == (before.pairs, before.cluster, revision)

    with etcd(tmp_path) as cluster:
        _run(main(cluster))
