"""Claims about an exported observation: what comes back is what was seen, and nothing strange is taken in."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from reconciler.errors import StateError
from reconciler.model import exchange
from reconciler.model.facts import Unknown
from reconciler.model.observation import HostObservation
from tests.support import twins

SEEN = twins.look(twins.twin_after(*twins.running(twins.A), *twins.data(twins.B)))


def test_what_was_seen_comes_back() -> None:
    text = exchange.encode_observation("node", SEEN)
    assert exchange.decode_observation(text, where="o.json") == ("node", SEEN)
    assert exchange.encode_observation("node", SEEN) == text


def test_what_could_not_be_read_stays_unknown() -> None:
    unread = Unknown("the disk is gone")
    blind = replace(SEEN, networks=unread, trash=unread, pool=unread)
    blind = replace(blind, ves={uid: replace(ve, power=unread, network=unread) for uid, ve in SEEN.ves.items()})
    assert exchange.decode_observation(exchange.encode_observation("node", blind), where="o")[1] == blind


def test_the_pool_and_what_is_used_are_carried_too() -> None:
    _, found = exchange.decode_observation(exchange.encode_observation("node", SEEN), where="o")
    assert found.pool == SEEN.pool
    for uid, ve in SEEN.ves.items():
        assert exchange.to_json(found.ves[uid]) == exchange.to_json(ve)


def broken(**changes: object) -> bytes:
    content = json.loads(exchange.encode_observation("node", SEEN))
    content["observed"].update(changes)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"complete": "yes"}, "observed.complete: expected bool, got 'yes'"),
        ({"strange": 1}, "'strange' is not known to this version"),
        ({"trash": {"a": 1}}, "observed.trash: expected"),
        ({"capabilities": {}}, "observed.capabilities: "),
        ({"networks": {"lan": {"mode": "magic"}}}, "observed.networks.lan.mode: 'magic' is not a valid NetworkMode"),
        ({"networks": {"lan": {"mode": "bridged", "addresses": ["x"]}}}, "observed.networks.lan.addresses"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_with_its_place(changes: dict[str, object], message: str) -> None:
    with pytest.raises(StateError) as caught:
        exchange.decode_observation(broken(**changes), where="o.json")
    assert str(caught.value).startswith("read o.json: ")
    assert message in str(caught.value)


def test_an_observation_of_another_host_is_refused() -> None:
    with pytest.raises(StateError, match="expected an observation of host a, got one of b"):
        exchange.check_host("b", "a", where="o.json")


def test_every_type_of_an_observation_is_one_that_is_carried() -> None:
    assert isinstance(exchange._build(HostObservation, exchange.to_json(SEEN), "observed"), HostObservation)
