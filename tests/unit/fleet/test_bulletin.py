"""What hosts tell each other: what is new, of bounded size, and never more than that."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.errors import CoordinatorAwayError
from reconciler.fleet.bulletin import ALIVE_S, ROW_MAX, Bulletin, read_bulletins, row_bytes
from reconciler.fleet.keys import Keys
from reconciler.model.facts import Json
from reconciler.model.kv import Put
from reconciler.twin.etcd import TwinEtcd
from reconciler.twin.store import TwinStore
from tests.support import simloop
from tests.support.owning import A, B


def _row(name: str, **more: Json) -> dict[str, Json]:
    return {"name": name, "uid": None, "host": "a", "power": "running", **more}


def test_only_what_changed_is_written_also_after_a_restart() -> None:
    async def scenario() -> None:
        etcd = TwinEtcd()
        store = TwinStore(etcd)
        rows = {f"web{count}": _row(f"web{count}") for count in range(200)}
        assert await Bulletin(store, Keys(), A).tell(rows, whole=True) == 200
        again, revision = Bulletin(store, Keys(), A), etcd.revision
        assert await again.tell(rows, whole=True) == 0
        assert etcd.revision == revision
        assert await again.tell({"web7": _row("web7", power="stopped")}, whole=False) == 1
        del rows["web9"]
        assert await again.tell(rows, whole=True) == 2
        told = (await read_bulletins(store, Keys()))[A]
        assert told.rows == rows

    asyncio.run(scenario())


def test_what_may_not_have_been_written_is_written_again() -> None:
    async def scenario() -> None:
        store = TwinStore(TwinEtcd(), patience_s=0.01)
        bulletin = Bulletin(store, Keys(), A)
        await bulletin.tell({"web": _row("web")}, whole=True)
        store.cut()
        with pytest.raises(CoordinatorAwayError):
            await bulletin.tell({"web": _row("web", power="stopped")}, whole=True)
        store.mend()
        assert await bulletin.tell({"web": _row("web", power="stopped")}, whole=True) == 1

    asyncio.run(scenario())


def test_a_host_that_falls_silent_is_no_longer_alive_and_what_it_told_stays() -> None:
    async def scenario() -> None:
        etcd = TwinEtcd()
        store = TwinStore(etcd)
        bulletin = Bulletin(store, Keys(), A)
        for _ in range(5):
            await bulletin.live({"time": 1.0})
            await asyncio.sleep(ALIVE_S / 3)
        assert (await read_bulletins(store, Keys()))[A].alive
        await asyncio.sleep(ALIVE_S + 1)
        told = (await read_bulletins(store, Keys()))[A]
        assert (told.alive, told.status) == (False, {"time": 1.0})
        await bulletin.live({"time": 2.0})
        assert (await read_bulletins(store, Keys()))[A].alive

    simloop.run(1, scenario())


def test_a_row_that_is_too_long_keeps_what_matters_most() -> None:
    conditions: list[Json] = [{"type": "Ready", "status": "True"}]
    long: dict[str, Json] = {"text": "x" * ROW_MAX}
    row = _row("web", conditions=conditions, desired=long, observed={"power": "running"})
    data = row_bytes(row)
    assert len(data) <= ROW_MAX
    assert b'"observed":{"power":"running"}' in data
    assert len(row_bytes({**row, "conditions": [long]})) <= ROW_MAX


@pytest.mark.parametrize("value", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_rubbish_of_another_host_hides_nothing_of_the_others(value: bytes) -> None:
    async def scenario() -> None:
        etcd = TwinEtcd()
        store = TwinStore(etcd)
        await Bulletin(store, Keys(), A).tell({"web": _row("web")}, whole=True)
        key = Keys().host(B)
        etcd.transact([], [Put(key=f"{key}status", value=value), Put(key=f"{key}rows/x", value=value)])
        told = await read_bulletins(store, Keys())
        assert set(told[A].rows) == {"web"}
        assert (told[B].rows, told[B].status) == ({}, {})

    asyncio.run(scenario())
