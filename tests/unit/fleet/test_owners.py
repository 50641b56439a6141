"""What becomes of ownership when hosts write at once, answers are lost, and writes arrive late: everything is tried."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from reconciler.errors import CoordinatorAwayError, OutcomeUnknownError, OwnedElsewhereError, OwnershipError
from reconciler.fleet.owners import EtcdOwners
from reconciler.model.identity import IDS_PER_VE, Allocation, HostName, Uid, VeName
from reconciler.model.ownership import Move, Ownership, Strategy
from reconciler.twin.etcd import TwinEtcd
from reconciler.twin.store import TwinStore
from tests.support.orders import OrderedStore, World, all_choices
from tests.support.owning import A, B, C, owners_of

_UID = Uid("11111111-1111-4111-8111-111111111111")
_OTHER = Uid("22222222-2222-4222-8222-222222222222")
_WEB, _SHOP = VeName("web1"), VeName("shop")
_GIVEN = Allocation(uid=_UID, id_base=9 * IDS_PER_VE)
_FAULTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What is there before anything is tried: a VE of host a, perhaps on its way to b, perhaps there."""

    etcd: TwinEtcd
    owned: Ownership
    move: Move


async def _fresh(*, moving: bool = True, handed: bool = False) -> Start:
    etcd = TwinEtcd()
    at_a = owners_of(A, TwinStore(etcd))
    owned = await at_a.claim(_GIVEN, _WEB)
    move = await at_a.begin(owned, target=B, strategy=Strategy.LIVE)
    if handed:
        owned = await at_a.hand_over(owned, move)
    if not moving:
        await at_a.abandon(owned, move)
    return Start(etcd=etcd, owned=owned, move=move)


Act = Callable[[EtcdOwners, Start], Awaitable[Any]]


async def _truth(start: Start) -> tuple[HostName | None, Move | None]:
    sure = owners_of(C, TwinStore(start.etcd))
    owned = await sure.owner(_UID)
    return None if owned is None else owned.host, await sure.move_of(_UID)


def _explore(
    acts: list[tuple[HostName, Act]],
    check: Callable[[list[Any], HostName | None, Move | None], None],
    *,
    faults: int = _FAULTS,
    **fresh: bool,
) -> int:
    """Try everything, and check each time what the actors were told against what is so in the end."""
    runs = 0

    async def once() -> None:
        start = await _fresh(**fresh)
        world = World(etcd=start.etcd, choices=choices, faults=faults, reads_fail=len(acts) == 1)
        told = await world.run(*(_told(act(owners_of(host, OrderedStore(world)), start)) for host, act in acts))
        check(told, *await _truth(start))

    with asyncio.Runner() as runner:
        for choices in all_choices():
            runs += 1
            try:
                runner.run(once())
            except AssertionError as err:
                raise AssertionError(f"{err}\nchoices: {choices.made}") from err
    return runs


async def _told(doing: Awaitable[Any]) -> Any:
    try:
        return await doing
    except (CoordinatorAwayError, OutcomeUnknownError, OwnershipError) as err:
        return err


def _failed(told: Any) -> bool:
    return isinstance(told, CoordinatorAwayError | OwnershipError)


def _unknown(told: Any) -> bool:
    return isinstance(told, OutcomeUnknownError)


def _ok(told: Any) -> bool:
    return not isinstance(told, Exception)


def test_a_move_is_either_abandoned_or_handed_over_and_whoever_is_told_so_is_told_the_truth() -> None:
    def check(told: list[Any], host: HostName | None, move: Move | None) -> None:
        abandoned, handed = told
        assert (host, move is None) in ((A, True), (B, False), (A, False))
        assert not (_ok(abandoned) and _ok(handed))
        assert host == A or not _ok(abandoned)
        assert host == B or not _ok(handed)
        assert not (_failed(handed) and host == B)
        assert _unknown(abandoned) or _unknown(handed) or move is not None or host == A

    async def abandon(owners: EtcdOwners, start: Start) -> None:
        await owners.abandon(start.owned, start.move)

    async def hand_over(owners: EtcdOwners, start: Start) -> Ownership:
        return await owners.hand_over(start.owned, start.move)

    assert _explore([(B, abandon), (A, hand_over)], check) > 100


def test_a_source_that_abandons_while_its_own_hand_over_is_on_its_way_learns_which_it_was() -> None:
    async def both(owners: EtcdOwners, start: Start) -> bool:
        try:
            await owners.hand_over(start.owned, start.move)
        except (OutcomeUnknownError, CoordinatorAwayError):
            await owners.abandon(start.owned, start.move)
            return False
        return True

    def check(told: list[Any], host: HostName | None, move: Move | None) -> None:
        if told == [True]:
            assert (host, move is None) == (B, False)
        if told == [False]:
            assert (host, move is None) == (A, True)

    assert _explore([(A, both)], check, faults=3) > 100


def test_two_hosts_cannot_both_own_a_ve() -> None:
    _claim_at_once((_UID, _WEB, 20), (_UID, _WEB, 20))


def test_two_hosts_cannot_both_have_a_name() -> None:
    _claim_at_once((_UID, _WEB, 20), (_OTHER, _WEB, 21))


def test_two_hosts_cannot_both_have_a_range_of_ids() -> None:
    _claim_at_once((_UID, _WEB, 20), (_OTHER, _SHOP, 20))


def _claim_at_once(first: tuple[Uid, VeName, int], second: tuple[Uid, VeName, int]) -> None:
    async def once(world: World) -> tuple[list[Any], list[HostName]]:
        acts = []
        for host, (uid, name, slot) in ((A, first), (B, second)):
            owners = owners_of(host, OrderedStore(world))
            acts.append(_told(owners.claim(Allocation(uid=uid, id_base=slot * IDS_PER_VE), name)))
        told = await world.run(*acts)
        return told, [one.host for one in (await owners_of(C, TwinStore(world.etcd)).owners()).values()]

    with asyncio.Runner() as runner:
        for choices in all_choices():
            told, hosts = runner.run(once(World(etcd=TwinEtcd(), choices=choices, faults=1)))
            winners = [host for host, one in zip((A, B), told, strict=True) if _ok(one)]
            assert len(hosts) <= 1, choices.made
            assert len(winners) <= 1, choices.made
            assert set(winners) <= set(hosts), choices.made
            losers = {host for host, one in zip((A, B), told, strict=True) if _failed(one)}
            assert not losers & set(hosts), choices.made


_ALONE: dict[str, tuple[HostName, dict[str, bool], Act, Callable[[HostName | None, Move | None], bool]]] = {
    "hand-over": (A, {}, lambda o, s: o.hand_over(s.owned, s.move), lambda host, move: host == B),
    "hand-back": (
        B,
        {"handed": True},
        lambda o, s: o.hand_back(s.owned, s.move),
        lambda host, move: host == A and move is None,
    ),
    "abandon": (A, {}, lambda o, s: o.abandon(s.owned, s.move), lambda host, move: move is None),
    "end": (A, {"handed": True}, lambda o, s: o.end(s.move), lambda host, move: move is None),
    "seize": (C, {}, lambda o, s: o.seize(s.owned), lambda host, move: host == C and move is None),
    "disown": (A, {"moving": False}, lambda o, s: o.disown(s.owned), lambda host, move: host is None),
    "begin": (
        A,
        {"moving": False},
        lambda o, s: o.begin(s.owned, target=C, strategy=Strategy.RESTART),
        lambda host, move: move is not None,
    ),
}


@pytest.mark.parametrize("name", _ALONE)
def test_what_a_host_is_told_of_its_write_is_so_whatever_the_way_to_the_store_does(name: str) -> None:
    host, fresh, act, done = _ALONE[name]

    def check(told: list[Any], owner: HostName | None, move: Move | None) -> None:
        if _ok(told[0]):
            assert done(owner, move)
        elif _failed(told[0]):
            assert not done(owner, move)

    assert _explore([(host, act)], check, faults=3, **fresh) > 10


def test_a_host_that_hands_over_and_one_that_seizes_come_to_one_owner() -> None:
    def check(told: list[Any], host: HostName | None, move: Move | None) -> None:
        handed, seized = told
        assert not (_ok(handed) and _ok(seized))
        assert host == B or not _ok(handed)
        assert host == C or not _ok(seized)

    acts: list[tuple[HostName, Act]] = [
        (A, lambda o, s: o.hand_over(s.owned, s.move)),
        (C, lambda o, s: o.seize(s.owned)),
    ]
    assert _explore(acts, check, faults=1) > 50


def test_a_ve_goes_on_one_move_at_a_time() -> None:
    def check(told: list[Any], host: HostName | None, move: Move | None) -> None:
        begun = [one for one in told if _ok(one)]
        assert len(begun) <= 1
        assert not begun or move == begun[0]

    acts: list[tuple[HostName, Act]] = [
        (A, lambda o, s: o.begin(s.owned, target=B, strategy=Strategy.LIVE)),
        (A, lambda o, s: _named(o, "other-").begin(s.owned, target=C, strategy=Strategy.LIVE)),
    ]
    assert _explore(acts, check, moving=False, faults=1) > 50


def _named(owners: EtcdOwners, prefix: str) -> EtcdOwners:
    from tests.support.owning import Ids, TurnedClock

    return EtcdOwners(owners.ledger, clock=TurnedClock(), new_id=Ids(prefix))


def test_a_ve_that_is_renamed_while_it_is_handed_over_keeps_one_name() -> None:
    async def once(world: World, start: Start) -> None:
        at_a = owners_of(A, OrderedStore(world))
        await world.run(_told(at_a.rename(start.owned, _SHOP)), _told(at_a.hand_over(start.owned, start.move)))
        owned = await owners_of(C, TwinStore(world.etcd)).owner(_UID)
        names = [pair.key for pair in world.etcd.list("/vectl/default/names/").pairs]
        assert owned is not None
        assert names == [f"/vectl/default/names/{owned.name}"]

    with asyncio.Runner() as runner:
        for choices in all_choices():
            start = runner.run(_fresh())
            runner.run(once(World(etcd=start.etcd, choices=choices, faults=1), start))


def test_a_ve_that_is_given_up_frees_its_name_and_its_ids() -> None:
    async def scenario() -> None:
        start = await _fresh(moving=False)
        await owners_of(A, TwinStore(start.etcd)).disown(start.owned)
        assert start.etcd.list("/vectl/default/").pairs == ()
        other = replace(_GIVEN, uid=_OTHER)
        assert (await owners_of(B, TwinStore(start.etcd)).claim(other, _WEB)).host == B

    asyncio.run(scenario())


def test_a_ve_on_its_way_is_not_given_up() -> None:
    async def scenario() -> None:
        start = await _fresh()
        with pytest.raises(OwnershipError, match="on its way"):
            await owners_of(A, TwinStore(start.etcd)).disown(start.owned)

    asyncio.run(scenario())


def test_a_claim_names_the_host_that_has_the_ve() -> None:
    async def scenario() -> None:
        start = await _fresh(moving=False)
        with pytest.raises(OwnedElsewhereError, match="web1 is on a") as caught:
            await owners_of(B, TwinStore(start.etcd)).claim(replace(_GIVEN, uid=_OTHER), _WEB)
        assert caught.value.host == A

    asyncio.run(scenario())


def test_nobody_writes_for_another_host() -> None:
    async def scenario() -> None:
        start = await _fresh()
        at_b = owners_of(B, TwinStore(start.etcd))
        for act in (at_b.rename(start.owned, _SHOP), at_b.disown(start.owned), at_b.hand_over(start.owned, start.move)):
            with pytest.raises(OwnershipError):
                await act
        assert await _truth(start) == (A, start.move)

    asyncio.run(scenario())
