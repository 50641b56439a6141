"""Names and ids that hosts take from one coordinator, each keeping its own books."""

from __future__ import annotations

import asyncio
from pathlib import Path

from reconciler.errors import CoordinatorAwayError, OwnedElsewhereError
from reconciler.fleet.coordinator import EtcdCoordinator
from reconciler.model.identity import IDS_PER_VE, Allocation, HostName, VeName
from reconciler.state.coordinator import LocalCoordinator
from reconciler.state.ids import IdRange
from reconciler.state.inventory import Inventory
from reconciler.twin.etcd import TwinEtcd
from reconciler.twin.store import TwinStore
from tests.support.owning import A, B, owners_of

_WEB, _SHOP = VeName("web1"), VeName("shop")


def _coordinator(host: HostName, store: TwinStore, directory: Path) -> EtcdCoordinator:
    """Give a host's coordinator; all of them would choose the same ids, left to themselves."""
    taken: set[int] = set()
    local = LocalCoordinator(
        Inventory(str(directory / host)),
        instance="vectl",
        source="test",
        existing=dict,
        reserved=lambda: [IdRange(slot * IDS_PER_VE) for slot in taken],
    )
    return EtcdCoordinator(owners_of(host, store).ledger, local, taken)


def test_hosts_that_allocate_at_once_give_every_ve_ids_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        etcd = TwinEtcd()
        wanted = {host: [VeName(f"{host}{number}") for number in range(5)] for host in (A, B)}
        coordinators = {host: _coordinator(host, TwinStore(etcd), tmp_path) for host in (A, B)}
        given = await asyncio.gather(*(coordinators[host].allocate(dict.fromkeys(wanted[host])) for host in (A, B)))
        bases = [one.id_base for each in given for one in each.values() if isinstance(one, Allocation)]
        assert len(bases) == 10
        assert len(set(bases)) == 10

    asyncio.run(scenario())


def test_a_name_of_another_host_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        etcd = TwinEtcd()
        at_a, at_b = (_coordinator(host, TwinStore(etcd), tmp_path) for host in (A, B))
        await at_a.allocate({_WEB: None})
        given = await at_b.allocate({_WEB: None, _SHOP: None})
        refused = given[_WEB]
        assert isinstance(refused, OwnedElsewhereError)
        assert refused.host == A
        assert isinstance(given[_SHOP], Allocation)
        assert len(Inventory(str(tmp_path / B)).read()) == 1

    asyncio.run(scenario())


def test_an_allocation_whose_answer_was_lost_is_the_same_one_when_it_is_asked_for_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        etcd = TwinEtcd()
        store = TwinStore(etcd, patience_s=0.01)
        at_a = _coordinator(A, store, tmp_path)
        first = (await at_a.allocate({_WEB: None}))[_WEB]
        again = (await _coordinator(A, store, tmp_path).allocate({_WEB: None}))[_WEB]
        assert isinstance(first, Allocation)
        assert first == again

    asyncio.run(scenario())


def test_nothing_is_allocated_while_the_coordinator_is_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = TwinStore(TwinEtcd())
        at_a = _coordinator(A, store, tmp_path)
        store.cut()
        try:
            await at_a.allocate({_WEB: None})
        except CoordinatorAwayError:
            store.mend()
        assert not Inventory(str(tmp_path / A)).read()
        assert isinstance((await at_a.allocate({_WEB: None}))[_WEB], Allocation)

    asyncio.run(scenario())
