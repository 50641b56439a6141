"""A coordinator that was put back from a backup, or is another one, is not believed."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.errors import CoordinatorAwayError
from reconciler.fleet.keys import Keys
from reconciler.fleet.ledger import Ledger
from reconciler.fleet.owners import EtcdOwners
from reconciler.fleet.witness import Known, Witness
from reconciler.model.identity import IDS_PER_VE, Allocation, Uid, VeName
from reconciler.model.kv import Listing
from reconciler.model.ownership import Strategy
from reconciler.twin.etcd import TwinEtcd
from reconciler.twin.store import TwinStore
from tests.support.owning import A, B, HeldMemory, Ids, TurnedClock, seal_of

_UID = Uid("11111111-1111-4111-8111-111111111111")
_GIVEN = Allocation(uid=_UID, id_base=9 * IDS_PER_VE)


def _owners(etcd: TwinEtcd, memory: HeldMemory) -> EtcdOwners:
    ledger = Ledger(TwinStore(etcd), Keys(), seal_of(A), Witness(memory))
    return EtcdOwners(ledger, clock=TurnedClock(), new_id=Ids("m"))


@pytest.mark.parametrize("cluster", ["c1", "another"])
def test_a_restored_store_says_nothing_that_is_believed_not_even_after_a_restart(cluster: str) -> None:
    async def scenario() -> None:
        etcd, memory = TwinEtcd(cluster="c1"), HeldMemory()
        owners = _owners(etcd, memory)
        owned = await owners.claim(_GIVEN, VeName("web1"))
        before = etcd.backup()
        move = await owners.begin(owned, target=B, strategy=Strategy.LIVE)
        await owners.hand_over(owned, move)
        etcd.restore(before, cluster=cluster)
        for again in (owners, _owners(etcd, memory)):
            with pytest.raises(CoordinatorAwayError, match="accept-coordinator"):
                await again.owner(_UID)
            with pytest.raises(CoordinatorAwayError, match="accept-coordinator"):
                await again.hand_over(owned, move)
        assert etcd.revision == before.revision

    asyncio.run(scenario())


def test_a_store_that_a_person_accepted_is_believed_by_who_was_running_all_the_time() -> None:
    memory = HeldMemory(Known(cluster="c1", revision=5))
    witness = Witness(memory)
    with pytest.raises(CoordinatorAwayError, match="another cluster"):
        witness.heed(Listing(revision=9, cluster="c2", pairs=()), witness.asked())
    with pytest.raises(CoordinatorAwayError):
        witness.asked()
    memory.write(Known(cluster="c2", revision=3))
    assert witness.asked().revision == 3


@pytest.mark.parametrize("answer", [("c1", 6), ("c2", 4)], ids=["of the former one", "of the accepted one"])
def test_an_answer_to_a_question_from_before_an_acceptance_counts_for_nothing(answer: tuple[str, int]) -> None:
    memory = HeldMemory(Known(cluster="c1", revision=5))
    witness = Witness(memory)
    early = witness.asked()
    with pytest.raises(CoordinatorAwayError, match="another cluster"):
        witness.heed(Listing(revision=2, cluster="c2", pairs=()), witness.asked())
    memory.write(Known(cluster="c2", revision=3))
    now = witness.asked()
    cluster, revision = answer
    with pytest.raises(CoordinatorAwayError, match="asked before"):
        witness.heed(Listing(revision=revision, cluster=cluster, pairs=()), early)
    witness.heed(Listing(revision=3, cluster="c2", pairs=()), now)
    assert memory.known == Known(cluster="c2", revision=3)


def test_who_did_not_notice_that_the_store_went_back_believes_the_acceptance_all_the_same() -> None:
    memory = HeldMemory(Known(cluster="c1", revision=5))
    witness = Witness(memory)
    memory.write(Known(cluster="c1", revision=2))
    with pytest.raises(CoordinatorAwayError, match="asked before"):
        witness.heed(Listing(revision=3, cluster="c1", pairs=()), witness.asked())
    witness.heed(Listing(revision=3, cluster="c1", pairs=()), witness.asked())
    assert memory.known == Known(cluster="c1", revision=2)
    with pytest.raises(CoordinatorAwayError, match="gone back from revision 3 to 1"):
        witness.heed(Listing(revision=1, cluster="c1", pairs=()), witness.asked())


def test_answers_that_come_in_another_order_than_they_were_given_are_no_restoration() -> None:
    witness = Witness(HeldMemory(Known(cluster="c1", revision=5)))
    asked = witness.asked()
    witness.heed(Listing(revision=9, cluster="c1", pairs=()), asked)
    witness.heed(Listing(revision=7, cluster="c1", pairs=()), asked)
    with pytest.raises(CoordinatorAwayError, match="gone back from revision 9 to 8"):
        witness.heed(Listing(revision=8, cluster="c1", pairs=()), witness.asked())


def test_what_this_host_wrote_is_remembered_at_once_and_what_others_wrote_now_and_then() -> None:
    memory = HeldMemory(Known(cluster="c1", revision=5))
    witness = Witness(memory)
    for revision in range(6, 60):
        witness.heed(Listing(revision=revision, cluster="c1", pairs=()), witness.asked())
    assert memory.known == Known(cluster="c1", revision=5)
    witness.wrote(60)
    assert memory.known == Known(cluster="c1", revision=60)
