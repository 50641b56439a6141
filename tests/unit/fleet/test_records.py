"""A record of the coordinator is believed only if the host signed it that may write it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import UnprovenError
from reconciler.fleet import host_key
from reconciler.fleet.keys import Keys
from reconciler.fleet.records import FORMAT, Seal
from reconciler.model.decode import render_object
from reconciler.model.identity import IDS_PER_VE, Allocation, HostName, Uid, VeName
from reconciler.model.kv import Put
from reconciler.model.ownership import Ownership, Strategy
from reconciler.model.public_key import PublicLine
from reconciler.twin.etcd import TwinEtcd
from reconciler.twin.store import TwinStore
from tests.support.owning import PINS, A, B, owners_of, seal_of

_UID = Uid("11111111-1111-4111-8111-111111111111")
_OTHER = Uid("22222222-2222-4222-8222-222222222222")
_WEB = VeName("web1")
_GIVEN = Allocation(uid=_UID, id_base=9 * IDS_PER_VE)
_KEY = Keys().ve(_UID)


async def _claimed(etcd: TwinEtcd) -> Ownership:
    return await owners_of(A, TwinStore(etcd)).claim(_GIVEN, _WEB)


def _rewritten(etcd: TwinEtcd, change: Callable[[dict[str, Any]], None], *, key: str = _KEY, to: str = _KEY) -> None:
    pair = etcd.get(key)
    assert pair is not None
    content = json.loads(pair.value)
    change(content)
    content.pop("format")
    etcd.transact([], [Put(key=to, value=render_object(content, format=FORMAT))])


@pytest.mark.parametrize("field", ["uid", "name", "host", "id_base", "how", "by", "after", "move", "signature"])
def test_a_record_of_which_any_field_was_changed_is_not_believed(field: str) -> None:
    async def scenario() -> None:
        etcd = TwinEtcd()
        await _claimed(etcd)
        changed = {"id_base": 4 * IDS_PER_VE, "after": 3, "host": "b", "by": "b", "how": "seized", "uid": _OTHER}
        _rewritten(etcd, lambda content: content.update({field: changed.get(field, "QUJD")}))
        with pytest.raises(UnprovenError):
            await owners_of(B, TwinStore(etcd)).owner(_UID)

    asyncio.run(scenario())


def test_a_record_does_not_pass_for_that_of_another_ve() -> None:
    async def scenario() -> None:
        etcd = TwinEtcd()
        await _claimed(etcd)
        _rewritten(etcd, lambda content: None, to=Keys().ve(_OTHER))
        _rewritten(etcd, lambda content: None, to=Keys("other").ve(_UID))
        with pytest.raises(UnprovenError, match="not signed with the key of a"):
            await owners_of(B, TwinStore(etcd)).owner(_OTHER)

    asyncio.run(scenario())


def test_a_host_without_a_pinned_key_is_named_and_told_how_to_be_believed() -> None:
    async def scenario() -> None:
        etcd = TwinEtcd()
        await _claimed(etcd)
        at_b = owners_of(B, TwinStore(etcd), seal=seal_of(B, {B: PINS[B]}))
        with pytest.raises(UnprovenError, match="signed by a, whose key is not known"):
            await at_b.owner(_UID)

    asyncio.run(scenario())


def test_a_key_that_is_no_longer_pinned_is_no_longer_believed() -> None:
    async def scenario() -> None:
        etcd, pins = TwinEtcd(), dict(PINS)
        await _claimed(etcd)
        at_b = owners_of(B, TwinStore(etcd), seal=seal_of(B, pins))
        assert await at_b.owner(_UID) is not None
        pins[A] = (PublicLine("another"),)
        with pytest.raises(UnprovenError):
            await at_b.owner(_UID)

    asyncio.run(scenario())


def test_one_bad_record_is_told_beside_the_good_ones() -> None:
    async def scenario() -> None:
        etcd = TwinEtcd()
        await _claimed(etcd)
        etcd.transact([], [Put(key=Keys().ve(_OTHER), value=b"{}")])
        standing = await owners_of(B, TwinStore(etcd)).ledger.standing()
        assert set(standing.owners) == {_UID}
        assert set(standing.unread) == {_OTHER}

    asyncio.run(scenario())


@pytest.mark.parametrize("value", [b"", b"[]", b"\xff" * 99, b'{"format":1}', b"{" * 4000, b" " * 5000])
def test_rubbish_is_an_error_of_ours(value: bytes) -> None:
    async def scenario() -> None:
        etcd = TwinEtcd()
        etcd.transact([], [Put(key=_KEY, value=value), Put(key=Keys().move(_UID), value=value)])
        at_a = owners_of(A, TwinStore(etcd))
        for read in (at_a.owner(_UID), at_a.move_of(_UID), at_a.owners(), at_a.moves()):
            with pytest.raises(UnprovenError):
                await read

    asyncio.run(scenario())


def test_a_ve_that_came_from_a_host_is_its_owners_own_word_once_the_move_has_ended() -> None:
    """So that a host which handed VEs over can leave the fleet, and its key with it."""

    async def scenario() -> None:
        etcd = TwinEtcd()
        owned = await _claimed(etcd)
        at_a, at_b = owners_of(A, TwinStore(etcd)), owners_of(B, TwinStore(etcd))
        move = await at_a.begin(owned, target=B, strategy=Strategy.LIVE)
        handed = await at_a.hand_over(owned, move)
        assert await at_b.claim(_GIVEN, _WEB) == handed  # on its way: nothing is written
        await at_a.end(move)
        await at_b.claim(_GIVEN, _WEB)
        alone = owners_of(B, TwinStore(etcd), seal=seal_of(B, {B: PINS[B]}))
        seen = await alone.owner(_UID)
        assert seen is not None
        assert seen.host == B
        revision = etcd.revision
        await at_b.claim(_GIVEN, _WEB)
        assert etcd.revision == revision

    asyncio.run(scenario())


def test_records_are_signed_with_the_key_of_the_host(tmp_path: Path) -> None:
    keys = {host: host_key.make_key(str(tmp_path / host)) for host in (A, B)}

    def seal(host: HostName, of: HostName) -> Seal:
        pins = {name: (key.public,) for name, key in keys.items()}
        return Seal(host=host, signer=keys[of], pins=lambda name: pins.get(name, ()), verify=host_key.verify)

    async def scenario() -> None:
        etcd = TwinEtcd()
        forged = owners_of(A, TwinStore(etcd), seal=seal(A, B))
        await forged.claim(_GIVEN, _WEB)
        honest = owners_of(A, TwinStore(etcd), seal=seal(A, A))
        with pytest.raises(UnprovenError):
            await honest.owner(_UID)
        other = Allocation(uid=_OTHER, id_base=11 * IDS_PER_VE)
        claimed = await honest.claim(other, VeName("shop"))
        assert await owners_of(B, TwinStore(etcd), seal=seal(B, B)).owner(_OTHER) == claimed

    asyncio.run(scenario())
