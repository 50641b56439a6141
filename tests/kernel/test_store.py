"""The store in memory and etcd itself do the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from reconciler.errors import CoordinatorAwayError
from reconciler.fleet.etcd import EtcdStore
from reconciler.fleet.etcd_members import Members
from reconciler.model.etcd import EtcdAddress
from reconciler.model.kv import Change, Delete, Put, Store, Unchanged, Write
from reconciler.twin.etcd import TwinEtcd
from reconciler.twin.store import TwinStore
from tests.support import simloop
from tests.support.etcd import EtcdCluster, etcd
from tests.support.patience import PATIENCE

_LIMIT_S = 30.0 * PATIENCE


@dataclass
class _Subject:
    """A store, and a way to make it forget its past. ``root``: of keys that no other test has."""

    store: Store
    compact: Callable[[int], Awaitable[object]]
    root: str


_Case = Callable[[_Subject], Coroutine[Any, Any, None]]
_Run = Callable[[_Case], None]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with etcd(tmp_path_factory.mktemp("etcd")) as made:
        yield made


def _on_twin(case: _Case) -> None:
    async def main() -> None:
        twin = TwinEtcd()

        async def compact(revision: int) -> None:
            twin.compact()

        await case(_Subject(TwinStore(twin), compact, "/t/"))

    simloop.run(1, main())


@pytest.fixture(params=["twin", "etcd"])
def run(request: pytest.FixtureRequest) -> _Run:
    if request.param == "twin":
        return _on_twin
    address = EtcdAddress(endpoints=request.getfixturevalue("cluster").endpoints)

    def on_etcd(case: _Case) -> None:
        async def main() -> None:
            store, members = EtcdStore(address), Members(address)

            async def compact(revision: int) -> object:
                message = {"revision": str(revision), "physical": True}
                return await members.ask_once("/v3/kv/compaction", message)

            try:
                async with asyncio.timeout(_LIMIT_S):
                    await case(_Subject(store, compact, f"/{request.node.name}/"))
            finally:
                store.close()
                members.close()

        asyncio.run(main())

    return on_etcd


async def _told(subject: _Subject, since: int, count: int) -> list[Change]:
    told: list[Change] = []
    async for change in subject.store.watch(subject.root, since=since):
        told.append(change)
        if len(told) == count:
            break
    return told


async def _put(subject: _Subject, name: str, value: bytes = b"1", lease: int | None = None) -> int:
    revision = await subject.store.transact([], [Put(key=subject.root + name, value=value, lease=lease)])
    assert revision is not None
    return revision


def test_what_was_never_written_is_absent(run: _Run) -> None:
    async def case(at: _Subject) -> None:
        assert await at.store.get(at.root + "a") is None
        assert (await at.store.list(at.root)).pairs == ()

    run(case)


@pytest.mark.parametrize("value", [b"", b"\0\xff\n", bytes(range(256)) * 1000], ids=["empty", "binary", "large"])
def test_what_was_written_is_read_with_its_revisions(run: _Run, value: bytes) -> None:
    async def case(at: _Subject) -> None:
        first = await _put(at, "ä")
        second = await _put(at, "ä", value)
        found = await at.store.get(at.root + "ä")
        assert found is not None
        assert (found.key, found.value, found.created, found.modified) == (at.root + "ä", value, first, second)
        assert second == first + 1

    run(case)


def test_a_listing_has_all_keys_below_a_prefix_and_none_beside_it(run: _Run) -> None:
    async def case(at: _Subject) -> None:
        for name in ("d/b", "d/a", "d0", "d", "c/z"):
            last = await _put(at, name)
        listing = await at.store.list(at.root + "d/")
        assert [pair.key for pair in listing.pairs] == [at.root + "d/a", at.root + "d/b"]
        assert listing.revision == last
        assert listing.cluster
        assert listing.cluster == (await at.store.list(at.root)).cluster

    run(case)


def test_writes_are_made_together_or_not_at_all(run: _Run) -> None:
    async def case(at: _Subject) -> None:
        a, b = at.root + "a", at.root + "b"
        revision = await _put(at, "a")
        held, fails = Unchanged(key=a, modified=revision), Unchanged(key=b, modified=revision)
        writes: list[Write] = [Put(key=b, value=b"2"), Delete(key=a)]
        assert await at.store.transact([held, fails], writes) is None
        assert (await at.store.list(at.root)).revision == revision
        assert await at.store.transact([held, Unchanged(key=b, modified=0)], writes) == revision + 1
        assert await at.store.get(a) is None
        assert await at.store.transact([held], [Put(key=a, value=b"3")]) is None

    run(case)


def test_a_transaction_without_writes_asks_whether_its_guards_hold(run: _Run) -> None:
    async def case(at: _Subject) -> None:
        revision = await _put(at, "a")
        assert await at.store.transact([Unchanged(key=at.root + "a", modified=revision)], []) == revision
        assert await at.store.transact([Unchanged(key=at.root + "a", modified=0)], []) is None

    run(case)


def test_deleting_what_is_absent_changes_nothing(run: _Run) -> None:
    async def case(at: _Subject) -> None:
        revision = await _put(at, "a")
        absent = Delete(key=at.root + "b")
        assert await at.store.transact([], [absent, absent]) == revision

    run(case)


def test_a_key_is_written_once_in_a_transaction(run: _Run) -> None:
    async def case(at: _Subject) -> None:
        put = Put(key=at.root + "a", value=b"1")
        twice: tuple[list[Write], ...] = ([put, put], [put, Delete(key=put.key)])
        for writes in twice:
            with pytest.raises(CoordinatorAwayError, match="duplicate key"):
                await at.store.transact([], writes)
        assert await at.store.get(put.key) is None

    run(case)


def test_what_changed_since_a_revision_is_told_in_order(run: _Run) -> None:
    async def case(at: _Subject) -> None:
        await _put(at, "a", b"0")
        since = await _put(at, "b", b"1")
        await at.store.transact([], [Put(key=at.root + "c", value=b"2"), Delete(key=at.root + "a")])
        told = await _told(at, since, 2)
        assert [(change.key, change.pair and change.pair.value) for change in told] == [
            (at.root + "c", b"2"),
            (at.root + "a", None),
        ]

    run(case)


def test_a_change_is_told_while_it_is_waited_for(run: _Run) -> None:
    async def case(at: _Subject) -> None:
        watching = asyncio.ensure_future(_told(at, await _put(at, "a"), 1))
        assert not (await asyncio.wait([watching], timeout=0.1))[0]
        revision = await _put(at, "b")
        told = await watching
        assert [change.pair and change.pair.modified for change in told] == [revision]

    run(case)


def test_a_watch_ends_when_its_past_is_forgotten(run: _Run) -> None:
    async def case(at: _Subject) -> None:
        since = await _put(at, "a")
        await _put(at, "a")
        last = await _put(at, "a")
        await at.compact(last)
        assert await _told(at, since, 9) == []
        assert len(await _told(at, last - 1, 1)) == 1

    run(case)


def test_keys_with_a_lease_go_when_that_ends_unless_they_were_written_without(run: _Run) -> None:
    async def case(at: _Subject) -> None:
        lease = await at.store.grant(1.0)
        await at.store.transact([], [Put(key=at.root + name, value=b"", lease=lease) for name in "ab"])
        since = await _put(at, "a")
        assert await at.store.keep_alive(lease)
        assert await _told(at, since, 1) == [Change(key=at.root + "b", pair=None)]
        assert await at.store.get(at.root + "a") is not None
        assert not await at.store.keep_alive(lease)
        with pytest.raises(CoordinatorAwayError, match="lease not found"):
            await _put(at, "b", lease=lease)

    run(case)


def test_a_member_says_how_it_is(run: _Run) -> None:
    async def case(at: _Subject) -> None:
        (one,) = await at.store.status()
        listing = await at.store.list(at.root)
        assert (one.healthy, one.problem, one.cluster) == (True, "", listing.cluster)
        assert one.version.startswith("3.")
        assert one.revision >= 1

    run(case)
