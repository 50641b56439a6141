"""Claims about a VE whose root lies on the network: nobody hears it, and everybody does once our rules are gone."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from reconciler.model.condition import ConditionType
from reconciler.model.identity import NetworkName, bridge_name
from tests.support import frames
from tests.support.fleet import DEADLINE_S, Document, Fleet, network, reaches, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.frames import Station
from tests.support.inside import Ve

pytestmark = pytest.mark.xdist_group("ve-spoofing")

EVERYTHING = 3
"""Source: linux/if_ether.h, ETH_P_ALL."""

ATTACKS = tuple(frames.attacks(*[Station(mac=bytes(6), v4="192.0.2.1", v6="2001:db8::1")] * 2))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    documents = (
        network("lan", "10.191.10.0/24", "fd91:10::/64", gateway=["10.191.10.1", "fd91:10::1"]),
        network("routed", "10.191.11.0/24", "fd91:11::/64", mode="routed"),
        held(ve("liar", "10.191.10.11/24", "fd91:10::11/64")),
        ve("victim", "10.191.10.12/24", "fd91:10::12/64"),
        held(ve("routed-liar", "10.191.11.11/32", "fd91:11::11/128", on="routed")),
        ve("routed-victim", "10.191.11.12/32", "fd91:11::12/128", on="routed"),
    )
    with made_fleet(tmp_path_factory.getbasetemp(), *documents) as made:
        made.start_agent()
        made.await_ready("liar", "victim", "routed-liar", "routed-victim")
        # Else the agent would put right within milliseconds what is tried here.
        made.ask("pause", reason="what VEs do to themselves", by="test")
        made.await_reason("liar", "Paused", ConditionType.PAUSED)
        yield made


def held(document: Document) -> Document:
    """Hold a VE to a rate: what it sends takes a detour then, which must not lead around our rules."""
    spec = json.loads(json.dumps(document["spec"]))
    spec["interfaces"][0]["rate"] = {"egress": "1Gbit", "ingress": "1Gbit"}
    return {**document, "spec": spec}


@pytest.fixture(scope="module")
def liar(fleet: Fleet) -> Ve:
    return fleet.ve("liar")


@pytest.fixture(scope="module")
def victim(fleet: Fleet) -> Ve:
    return fleet.ve("victim")


def station(one: Ve) -> Station:
    mac = one.net_json("ip", "-j", "link", "show", "eth0")[0]["address"]
    v4, v6 = (address.split("/")[0] for address in sorted(one.addresses(), key=lambda text: ":" in text))
    return Station(mac=bytes.fromhex(mac.replace(":", "")), v4=v4, v6=v6)


@contextmanager
def without_our_rules(fleet: Fleet, family: str = "bridge") -> Iterator[None]:
    """Take a table of ours away, and load it again as it was."""
    loaded = fleet.host("nft", "list", "table", family, fleet.instance.name)
    fleet.host("nft", "delete", "table", family, fleet.instance.name)
    try:
        yield
    finally:
        rules = fleet.directory / "rules.nft"
        rules.write_text(loaded)
        fleet.host("nft", "-f", str(rules))


def arrives(sender: Ve, receiver: Ve, frame: bytes, last: bytes) -> bool:
    """Say whether a frame comes to a VE before another one that follows it and certainly comes."""
    with sender.packet_socket(EVERYTHING) as out, receiver.packet_socket(EVERYTHING) as into:
        into.settimeout(DEADLINE_S)
        out.send(frame)
        out.send(last)
        return not {frame, without_tag(frame)}.isdisjoint(received_up_to(into, last))


def without_tag(frame: bytes) -> bytes:
    """Give a frame as a packet socket shows it: a VLAN's tag is told apart from it."""
    return frame[:12] + frame[16:] if frame[12:14] == b"\x81\0" else frame


def received_up_to(sock: socket.socket, last: bytes) -> list[bytes]:
    seen: list[bytes] = []
    while not seen or not seen[-1].startswith(last):
        seen.append(sock.recv(2048))
    return seen


def honest(one: Station) -> bytes:
    """Make a frame that a VE may send."""
    return frames.arp(one.mac, one.v4, "10.191.10.77")


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_lie_reaches_nobody(liar: Ve, victim: Ve, attack: str) -> None:
    me, other = station(liar), station(victim)
    assert not arrives(liar, victim, frames.attacks(me, other)[attack], honest(me))


def test_every_lie_reaches_the_others_without_our_rules(fleet: Fleet, liar: Ve, victim: Ve) -> None:
    me, other = station(liar), station(victim)
    with without_our_rules(fleet):
        heard = {name: arrives(liar, victim, frame, honest(me)) for name, frame in frames.attacks(me, other).items()}
    assert heard == dict.fromkeys(ATTACKS, True)
    assert not arrives(liar, victim, frames.attacks(me, other)["arp-reply"], honest(me))


def test_the_neighbours_of_the_victim_keep_its_address(fleet: Fleet, liar: Ve, victim: Ve) -> None:
    """What counts in the end: who the host takes to have the victim's addresses."""
    me, other = station(liar), station(victim)
    lies = frames.attacks(me, other)
    for address in (other.v4, other.v6):
        reaches(fleet, address)
    with liar.packet_socket(EVERYTHING) as out:
        for name in ("arp-reply", "arp-request", "advertisement", "advertisement-from-link-local"):
            out.send(lies[name])
    for address in (other.v4, other.v6):
        reaches(fleet, address)
        known = fleet.host_json("ip", "-j", "neigh", "show", address)
        assert [entry["lladdr"].replace(":", "") for entry in known] == [other.mac.hex()]


OTHERS_ADDRESSES: dict[str, Callable[[Ve], object]] = {
    "another-ipv4": lambda one: one.run("ip", "addr", "add", "10.191.10.99/24", "dev", "eth0"),
    "another-ipv6": lambda one: one.net("ip", "addr", "add", "fd91:10::99/64", "dev", "eth0", "nodad"),
}


@pytest.mark.parametrize("case", OTHERS_ADDRESSES)
def test_an_address_that_a_ve_gives_itself_is_of_no_use(fleet: Fleet, liar: Ve, case: str) -> None:
    before = liar.addresses()
    OTHERS_ADDRESSES[case](liar)
    try:
        (taken,) = (address.split("/")[0] for address in liar.addresses() - before)
        gateway = "fd91:10::1" if ":" in taken else "10.191.10.1"
        assert liar.try_run("ping", "-c", "1", "-W", "1", "-I", taken, gateway)[0] != 0
        with without_our_rules(fleet):
            until(lambda: liar.try_run("ping", "-c", "1", "-W", "1", "-I", taken, gateway)[0] == 0, "an answer")
    finally:
        liar.net("ip", "addr", "del", f"{taken}/{64 if ':' in taken else 24}", "dev", "eth0")
    reaches(liar, "10.191.10.1")


def test_a_hardware_address_that_a_ve_gives_itself_is_of_no_use(fleet: Fleet, liar: Ve) -> None:
    own = station(liar).mac.hex(":")
    liar.run("ip", "link", "set", "eth0", "address", "02:76:00:00:00:99")
    try:
        assert liar.try_run("ping", "-c", "1", "-W", "1", "10.191.10.1")[0] != 0
        with without_our_rules(fleet):
            reaches(liar, "10.191.10.1")
    finally:
        liar.run("ip", "link", "set", "eth0", "address", own)
    fleet.host("ip", "neigh", "flush", "dev", bridge_name(fleet.instance.name, NetworkName("lan")))
    reaches(liar, "10.191.10.1")


@pytest.mark.parametrize("taken", ["10.191.11.99", "fd91:11::99"], ids=["ipv4", "ipv6"])
def test_a_routed_ve_cannot_speak_for_another(fleet: Fleet, taken: str) -> None:
    liar, victim = fleet.ve("routed-liar"), fleet.ve("routed-victim")
    own, target = (address_of(one, like=taken) for one in (liar, victim))
    reaches(liar, target)
    liar.net("ip", "addr", "add", taken, "dev", "eth0", *(("nodad",) if ":" in taken else ()))
    try:
        with udp_socket(victim, target) as into, udp_socket(liar, taken) as lie, udp_socket(liar, own) as truth:
            assert first_heard(into, lie, truth) == b"truth"
            with without_our_rules(fleet, "inet"):
                assert first_heard(into, lie, truth) == b"lie"
    finally:
        liar.net("ip", "addr", "del", taken, "dev", "eth0")


def address_of(one: Ve, *, like: str) -> str:
    """Give a VE's address of the family of another one."""
    me = station(one)
    return me.v6 if ":" in like else me.v4


def udp_socket(one: Ve, address: str) -> socket.socket:
    """Open a socket of a VE that is bound to one of its addresses."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def opened() -> socket.socket:
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.settimeout(DEADLINE_S)
        made.bind((address, 0))
        return made

    return one.in_network(opened)


def first_heard(into: socket.socket, lie: socket.socket, truth: socket.socket) -> bytes:
    """Send a lie and then the truth, and give what came first."""
    lie.sendto(b"lie", into.getsockname())
    truth.sendto(b"truth", into.getsockname())
    first = last = into.recv(100)
    while last != b"truth":
        last = into.recv(100)
    return first
