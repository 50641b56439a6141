"""What etcd says is understood, and what it does not say is not made up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.fleet import etcd_wire as wire
from reconciler.fleet.etcd_wire import EtcdRefusalError
from reconciler.model.kv import Pair

HEADER = {"cluster_id": "10144879847569953045", "member_id": "1", "revision": "7", "raft_term": "2"}
KV = {"key": "L8Ok", "create_revision": "5", "mod_revision": "7", "version": "2", "value": "AP8="}


def _answer(found: object, status: int = 200) -> wire.Message:
    return wire.parse_answer(status, json.dumps(found).encode())


def test_keys_of_an_answer_are_read() -> None:
    listing = wire.listing_of(_answer({"header": HEADER, "kvs": [KV], "count": "1"}))
    assert listing.pairs == (Pair(key="/ä", value=b"\0\xff", created=5, modified=7),)
    assert (listing.revision, listing.cluster) == (7, "8cc9da78b36d1115")


@pytest.mark.parametrize(
    "found",
    [
        pytest.param({}, id="nothing"),
        pytest.param([], id="list"),
        pytest.param("text", id="text"),
        pytest.param({"kvs": []}, id="no-header"),
        pytest.param({"header": {}}, id="empty-header"),
        pytest.param({"header": {"cluster_id": "x"}}, id="no-number"),
        pytest.param({"header": [HEADER]}, id="header-is-a-list"),
        pytest.param({"header": {**HEADER, "revision": None}}, id="no-revision"),
        pytest.param({"result": {}}, id="empty-stream"),
        pytest.param({"error": "gone"}, id="error-without-words"),
    ],
)
def test_another_servers_answer_is_not_one_that_a_key_is_absent(found: object) -> None:
    with pytest.raises(EtcdRefusalError, match="expected an answer of etcd") as caught:
        _answer(found)
    assert not caught.value.is_without_effect


@pytest.mark.parametrize("kv", [{}, {**KV, "mod_revision": "x"}, {**KV, "value": "?"}, {**KV, "key": 7}, "text"])
def test_a_malformed_key_is_no_key(kv: object) -> None:
    with pytest.raises(EtcdRefusalError):
        wire.pairs_of(_answer({"header": HEADER, "kvs": [kv]}))
    with pytest.raises(EtcdRefusalError):
        wire.news_of(_answer({"result": {"header": HEADER, "events": [{"kv": kv}]}}))


@pytest.mark.parametrize(
    ("code", "message", "is_final", "is_without_effect"),
    [
        pytest.param(3, "etcdserver: duplicate key given in txn request", True, True, id="invalid"),
        pytest.param(5, "etcdserver: requested lease not found", True, True, id="lease"),
        pytest.param(7, "etcdserver: permission denied", True, True, id="denied"),
        pytest.param(8, "etcdserver: mvcc: database space exceeded", True, True, id="full"),
        pytest.param(9, "etcdserver: authentication is not enabled", True, True, id="precondition"),
        pytest.param(16, "etcdserver: invalid auth token", True, True, id="token"),
        pytest.param(14, "etcdserver: no leader", False, True, id="no-leader"),
        pytest.param(14, "etcdserver: request timed out", False, False, id="timed-out"),
        pytest.param(14, "etcdserver: request timed out, possibly due to connection lost", False, False, id="cut"),
        pytest.param(14, "etcdserver: leader changed", False, False, id="leader-changed"),
        pytest.param(4, "context deadline exceeded", False, False, id="deadline"),
        pytest.param(1, "context canceled", False, False, id="canceled"),
        pytest.param(2, "anything", False, False, id="unknown"),
        pytest.param(13, "anything", False, False, id="internal"),
    ],
)
def test_only_what_is_known_to_be_refused_is_without_effect(
    code: int, message: str, is_final: bool, is_without_effect: bool
) -> None:
    shapes: tuple[Any, ...] = ({"code": code, "message": message}, {"error": {"grpc_code": code, "message": message}})
    for found, status in zip(shapes, (503, 200), strict=True):
        with pytest.raises(EtcdRefusalError) as caught:
            _answer(found, status)
        assert (caught.value.is_final, caught.value.is_without_effect) == (is_final, is_without_effect)


def test_text_of_a_proxy_is_quoted_in_part() -> None:
    with pytest.raises(EtcdRefusalError, match="got HTTP 502: '<html>") as caught:
        wire.parse_answer(502, b"<html>" + b"x" * 10_000)
    assert len(str(caught.value)) < 300


def test_a_watch_says_when_its_past_is_gone() -> None:
    news = wire.news_of(_answer({"result": {"header": HEADER, "canceled": True, "compact_revision": "6"}}))
    assert news.is_compacted
    with pytest.raises(EtcdRefusalError, match="permission denied"):
        wire.news_of(_answer({"result": {"header": HEADER, "canceled": True, "cancel_reason": "permission denied"}}))


def test_the_end_of_a_prefix_is_the_next_one() -> None:
    assert wire.list_request("/a/") == {"key": "L2Ev", "range_end": "L2Ew"}


@pytest.mark.parametrize(
    ("date", "seconds"), [("Mon, 23 Nov 2026 22:11:11 GMT", 1_795_471_871.5), ("", None), ("yesterday", None)]
)
def test_the_time_of_an_answer_is_read(date: str, seconds: float | None) -> None:
    assert wire.time_of(date) == seconds
