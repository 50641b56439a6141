"""Ownership on a real etcd: two hosts at once, with keys of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest

from reconciler.errors import OwnedElsewhereError, OwnershipError
from reconciler.fleet import host_key
from reconciler.fleet.etcd import EtcdStore
from reconciler.fleet.keys import Keys
from reconciler.fleet.owners import EtcdOwners
from reconciler.fleet.records import Seal
from reconciler.model.etcd import EtcdAddress
from reconciler.model.identity import IDS_PER_VE, Allocation, HostName, Uid, VeName
from reconciler.model.ownership import Strategy
from tests.support.etcd import EtcdCluster, etcd
from tests.support.owning import A, B, owners_of

_UID = Uid("11111111-1111-4111-8111-111111111111")
_WEB = VeName("web1")
_GIVEN = Allocation(uid=_UID, id_base=9 * IDS_PER_VE)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EtcdCluster]:
    with etcd(tmp_path) as made:
        yield made


def _two_hosts(cluster: EtcdCluster, directory: Path) -> tuple[EtcdOwners, EtcdOwners]:
    keys = {host: host_key.make_key(str(directory / f"{host}.key")) for host in (A, B)}

    def one(host: HostName) -> EtcdOwners:
        store = EtcdStore(EtcdAddress(endpoints=cluster.endpoints))
        seal = Seal(
            host=host,
            signer=keys[host],
            pins=lambda of: (keys[of].public,) if of in keys else (),
            verify=host_key.verify,
        )
        return owners_of(host, store, seal=seal)

    return one(A), one(B)


def test_a_ve_moves_from_one_host_to_the_other_and_is_given_up_there(cluster: EtcdCluster, tmp_path: Path) -> None:
    async def scenario() -> None:
        at_a, at_b = _two_hosts(cluster, tmp_path)
        owned = await at_a.claim(_GIVEN, _WEB)
        assert await at_a.claim(_GIVEN, _WEB) == owned
        move = await at_a.begin(owned, target=B, strategy=Strategy.LIVE)
        assert await at_b.moves() == {_UID: move}
        handed = await at_a.hand_over(owned, move)
        assert await at_b.owner(_UID) == handed
        assert await at_a.hand_over(owned, move) == handed
        with pytest.raises(OwnershipError):
            await at_b.abandon(handed, move)
        await at_a.end(move)
        named = await at_b.rename(await at_b.claim(_GIVEN, _WEB), VeName("shop"))
        assert await at_a.owners() == {_UID: named}
        await at_b.disown(named)
        assert (await at_a.ledger.store.list(Keys().prefix)).pairs == ()

    asyncio.run(scenario())


def test_of_two_hosts_that_claim_a_ve_at_once_one_gets_it(cluster: EtcdCluster, tmp_path: Path) -> None:
    async def told(doing: Awaitable[object]) -> bool:
        try:
            await doing
        except OwnedElsewhereError:
            return False
        return True

    async def scenario() -> None:
        at_a, at_b = _two_hosts(cluster, tmp_path)
        for count in range(20):
            given = Allocation(uid=Uid(f"11111111-1111-4111-8111-{count:012}"), id_base=(9 + count) * IDS_PER_VE)
            name = VeName(f"web{count}")
            won = await asyncio.gather(told(at_a.claim(given, name)), told(at_b.claim(given, name)))
            assert sum(won) == 1

    asyncio.run(scenario())
