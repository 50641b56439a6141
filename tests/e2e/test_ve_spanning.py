"""Claims about a network that spans two hosts in different subnets, with a router between them, on a real kernel."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from reconciler.kernel import netns
from reconciler.model.identity import NetworkName, bridge_name, derived_mac, tunnel_name
from reconciler.model.vxlan import VXLAN_PORT, gateway_mac
from tests.support import frames
from tests.support.fleet import Document, Fleet, network, reaches, until, ve
from tests.support.fleet import fleet as made_fleet

pytestmark = pytest.mark.xdist_group("ve-spanning")

UNDERLAY = {"node-a": ("198.51.100.2", "198.51.100.1"), "node-b": ("203.0.113.2", "203.0.113.1")}
THIRD = "198.51.100.1"
"""A third host, that only this test speaks for: the router by its first address."""
BLUE, ID = NetworkName("blue"), 42
GATEWAYS = ("10.191.40.1", "fd91:40::1")
ADDRESSES = {
    "a1": ("10.191.40.11", "fd91:40::11"),
    "b1": ("10.191.40.12", "fd91:40::12"),
    "a2": ("10.191.41.11", "fd91:41::11"),
    "b2": ("10.191.41.12", "fd91:41::12"),
    "b3": ("10.191.42.12", "fd91:42::12"),
    "a3": ("10.191.42.11", "fd91:42::11"),
}
NETWORKS = {"1": "blue", "2": "red", "3": "cells"}


def documents(**blue: object) -> list[Document]:
    spec: dict[str, Any] = {"vxlan": {"id": ID}, "gateway": list(GATEWAYS), **blue}
    return [
        network("blue", "10.191.40.0/24", "fd91:40::/64", **spec),
        network("red", "10.191.41.0/24", "fd91:41::/64", vxlan={"id": 43, "port": 8472}, mtu=1400),
        network("cells", "10.191.42.0/24", "fd91:42::/64", vxlan={"id": 44}, isolated=True),
        *(one(name) for name in sorted(ADDRESSES)),
    ]


def one(name: str) -> Document:
    at = [f"{address}/{64 if ':' in address else 24}" for address in ADDRESSES[name]]
    return ve(name, *at, on=NETWORKS[name[1]], host=f"node-{name[0]}")


def hosts(**more: str) -> list[Document]:
    known = {name: own for name, (own, _) in UNDERLAY.items()} | {f"node-{name}": at for name, at in more.items()}
    return [
        {"apiVersion": "ve/v1", "kind": "Host", "metadata": {"name": name}, "spec": {"address": address}}
        for name, address in known.items()
    ]


@dataclass(frozen=True)
class Two:
    """Two fleets' hosts of one set of manifests. ``router``: the namespace between them."""

    a: Fleet
    b: Fleet
    router: int

    def put(self, *all_documents: Document) -> None:
        """Give both hosts a revision, and wait until it is carried out."""
        for fleet in (self.a, self.b):
            fleet.put("all.yaml", *all_documents)
        self.await_ready()

    def await_ready(self) -> None:
        """Wait until each host has its VEs as the manifests say, and nothing left to do."""
        for fleet, names in ((self.a, ("a1", "a2", "a3")), (self.b, ("b1", "b2", "b3"))):
            fleet.await_ready(*names)
            fleet.settle()

    def say(self, frame: bytes, *, to: str, source: str = THIRD, number: int = ID) -> None:
        """Send an encapsulated frame to a host, from one of the router's addresses."""
        with netns.open_socket_in(self.router, socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((source, 0))
            sock.sendto(encapsulated(frame, number), (to, VXLAN_PORT))


def encapsulated(frame: bytes, number: int) -> bytes:
    """Wrap a frame. Source: RFC 7348, section 5."""
    return struct.pack("!II", 0x08 << 24, number << 8) + frame


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    base, wanted = tmp_path_factory.getbasetemp(), [*documents(), *hosts(c=THIRD)]
    router = netns.create()
    try:
        with made_fleet(base, *wanted, host="node-a") as a, made_fleet(base, *wanted, host="node-b") as b:
            made = Two(a, b, router)
            connect(made)
            for fleet in (a, b):
                fleet.start_agent()
            made.await_ready()
            yield made
    finally:
        os.close(router)


def connect(two: Two) -> None:
    two.a.in_namespace(two.router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    for fleet, name in ((two.a, "node-a"), (two.b, "node-b")):
        own, router = UNDERLAY[name]
        far = f"to-{name[-1]}"
        fleet.host("ip", "link", "add", "under0", "type", "veth", "peer", "name", far)
        fleet.host("ip", "link", "set", far, "netns", f"/proc/{os.getpid()}/fd/{two.router}")
        fleet.host("ip", "addr", "add", f"{own}/24", "dev", "under0")
        fleet.host("ip", "link", "set", "under0", "up")
        fleet.in_namespace(two.router, "ip", "addr", "add", f"{router}/24", "dev", far)
        fleet.in_namespace(two.router, "ip", "link", "set", far, "up")
        fleet.host("ip", "route", "add", "default", "via", router)


@pytest.fixture(autouse=True)
def _as_declared(two: Two) -> Iterator[None]:
    """Let every test find, and leave, the network as the manifests have it."""
    yield
    two.put(*documents(), *hosts(c=THIRD))


def tunnel(fleet: Fleet, name: NetworkName = BLUE) -> str:
    return tunnel_name(fleet.instance.name, name)


def link(fleet: Fleet, name: str) -> Any:
    return fleet.host_json("ip", "-d", "-j", "link", "show", "dev", name)[0]


def flood(fleet: Fleet) -> set[str]:
    """Give the hosts to whom goes what is for all."""
    return set(where(fleet, "00:00:00:00:00:00"))


def where(fleet: Fleet, mac: str) -> list[str]:
    """Give the hosts at which somebody is looked for."""
    entries = fleet.host_json("bridge", "-j", "fdb", "show", "dev", tunnel(fleet))
    return [entry["dst"] for entry in entries if entry["mac"] == mac and "dst" in entry]


def mac_of(fleet: Fleet, name: str) -> str:
    return derived_mac(fleet.records()[name].uid, "eth0")  # type: ignore[index]  # a NewType of str


@pytest.mark.parametrize(("name", "other"), [("a1", "b1"), ("b1", "a1"), ("a2", "b2"), ("b2", "a2")])
def test_ves_on_hosts_in_different_subnets_reach_each_other(two: Two, name: str, other: str) -> None:
    fleet = two.a if name[0] == "a" else two.b
    for address in ADDRESSES[other]:
        reaches(fleet.ve(name), address)


def test_a_packet_of_the_networks_size_passes_whole_and_all_links_agree(two: Two) -> None:
    for fleet, name, other in ((two.a, "a1", "b1"), (two.b, "b1", "a1")):
        links = (bridge_name(fleet.instance.name, BLUE), tunnel(fleet), fleet.ve(name).link())
        assert {link(fleet, each)["mtu"] for each in links} == {1450}
        assert fleet.ve(name).net_json("ip", "-j", "link", "show", "dev", "eth0")[0]["mtu"] == 1450
        reaches(fleet.ve(name), ADDRESSES[other][0])
        before = fragments(fleet.host("cat", "/proc/net/snmp")), fragments(fleet.ve(name).net("cat", "/proc/net/snmp"))
        fleet.ve(name).run("ping", "-c", "3", "-W", "5", "-s", "1422", ADDRESSES[other][0])
        after = fragments(fleet.host("cat", "/proc/net/snmp")), fragments(fleet.ve(name).net("cat", "/proc/net/snmp"))
        assert after == before


def fragments(counted: str) -> str:
    lines = [line.split() for line in counted.splitlines() if line.startswith("Ip:")]
    counts: dict[str, str] = dict(zip(*lines, strict=True))
    return counts["FragCreates"]


def test_a_ve_reaches_the_gateway_of_its_own_host_and_never_that_of_another(two: Two) -> None:
    for fleet, name in ((two.a, "a1"), (two.b, "b1")):
        for address in GATEWAYS:
            reaches(fleet.ve(name), address)
        bridge = bridge_name(fleet.instance.name, BLUE)
        assert link(fleet, bridge)["address"] == gateway_mac(ID)
        flags = [
            found.get("dadfailed") or found.get("tentative")
            for entry in fleet.host_json(
                "ip", "-j", "-6", "addr", "show", "dev", bridge_name(fleet.instance.name, BLUE)
            )
            for found in entry["addr_info"]
        ]
        assert flags
        assert not any(flags)
    two.a.host("bridge", "fdb", "del", gateway_mac(ID), "dev", tunnel(two.a), check=False)  # from before the filter was
    assert not two.b.can_reach(ADDRESSES["a1"][0])
    reaches(two.b.ve("b1"), ADDRESSES["a1"][0])
    assert where(two.a, gateway_mac(ID)) == []


def test_ves_of_an_isolated_network_do_not_reach_those_on_other_hosts_either(two: Two) -> None:
    for address in ADDRESSES["b3"]:
        assert not two.a.ve("a3").can_reach(address)


def test_networks_of_different_ids_hear_nothing_of_each_other(two: Two) -> None:
    stranger = "02:00:00:00:99:02"
    frame = frames.arp(bytes.fromhex(stranger.replace(":", "")), "10.191.40.99", "10.191.40.98")
    two.say(frame, to=UNDERLAY["node-a"][0], number=43)
    two.say(frames.arp(b"\x02\0\0\0\x99\x03", "10.191.40.97", "10.191.40.98"), to=UNDERLAY["node-a"][0])
    until(lambda: where(two.a, "02:00:00:00:99:03") == [THIRD], "the frame of the network itself to be heard")
    assert where(two.a, stranger) == []


def test_a_ve_that_moved_is_found_from_its_first_frame_on(two: Two) -> None:
    reaches(two.a.ve("a1"), ADDRESSES["b1"][0])
    mac = mac_of(two.b, "b1")
    assert where(two.a, mac) == [UNDERLAY["node-b"][0]]
    said = frames.arp(bytes.fromhex(mac.replace(":", "")), ADDRESSES["b1"][0], ADDRESSES["b1"][0])
    two.say(said, to=UNDERLAY["node-a"][0])
    until(lambda: where(two.a, mac) == [THIRD], "the VE to be looked for on the third host")
    two.b.ve("b1").try_run("ping", "-c", "1", "-W", "1", ADDRESSES["a1"][0])
    until(lambda: where(two.a, mac) == [UNDERLAY["node-b"][0]], "the VE to be looked for on its own host again")
    reaches(two.a.ve("a1"), ADDRESSES["b1"][0])


def test_who_is_no_host_of_the_fleet_is_not_heard(two: Two) -> None:
    """The same frame is heard from a host, so that it is the sender that counts."""
    for source, last in ((UNDERLAY["node-b"][1], 4), (THIRD, 5)):
        frame = frames.arp(bytes((2, 0, 0, 0, 0x99, last)), "10.191.40.97", "10.191.40.98")
        two.say(frame, to=UNDERLAY["node-a"][0], source=source)
    until(lambda: where(two.a, "02:00:00:00:99:05") == [THIRD], "the frame of a host to be heard")
    assert where(two.a, "02:00:00:00:99:04") == []


@pytest.mark.parametrize("network_of_the_liar", ["blue", "private"])
def test_a_ve_cannot_speak_as_its_host_whose_address_it_has_by_nat(two: Two, network_of_the_liar: str) -> None:
    private = network("private", "10.191.43.0/24", gateway=["10.191.43.1"], nat=True)
    others = [document for document in documents(nat=True) if document["metadata"] != {"name": "a2"}]
    on_private = ve("a2", "10.191.43.11/24", on="private", host="node-a")
    two.put(private, *others, on_private, *hosts(c=THIRD))
    liar = two.a.ve("a1" if network_of_the_liar == "blue" else "a2")
    own, other = UNDERLAY["node-a"][0], UNDERLAY["node-b"][0]
    said = frames.arp(b"\x02\0\0\0\x99\x07", "10.191.40.97", "10.191.40.98")
    with netns.open_socket_in(two.b.namespace, socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind((other, 9999))
        heard.settimeout(20)
        with liar.in_network(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
            for port in (VXLAN_PORT, 9999):
                sock.sendto(encapsulated(said, ID), (other, port))
        assert heard.recvfrom(2000)[1][0] == own  # the way is open, and who answers it sees the host
    assert where(two.b, "02:00:00:00:99:07") == []


DRIFT = {
    "a host taken out": ("vxlan.hosts", "bridge fdb del 00:00:00:00:00:00 dev {link} dst 203.0.113.2"),
    "a host put in": ("vxlan.hosts", "bridge fdb append 00:00:00:00:00:00 dev {link} dst 192.0.2.77"),
    "a VE nailed to a host": ("vxlan.link", "bridge fdb replace 02:00:00:00:99:09 dev {link} dst 203.0.113.2"),
    "down": ("vxlan.link", "ip link set dev {link} down"),
    "another mtu": ("vxlan.link", "ip link set dev {link} mtu 1300"),
    "no port": ("vxlan.link", "ip link set dev {link} nomaster"),
    "no learning": ("vxlan.link", "ip link set dev {link} type vxlan id 42 nolearning"),
    "no flooding": ("vxlan.link", "bridge link set dev {link} flood off"),
    "isolated": ("isolated", "bridge link set dev {link} isolated on"),
    "removed": ("vxlan", "ip link delete dev {link}"),
}


@pytest.mark.parametrize("kind", DRIFT)
def test_what_is_changed_by_hand_is_put_right_by_event(two: Two, kind: str) -> None:
    path, command = DRIFT[kind]
    with two.a.puts_right("network/blue", path):
        two.a.host(*command.format(link=tunnel(two.a)).split())
    two.a.settle()
    assert flood(two.a) == {UNDERLAY["node-b"][0], THIRD}
    assert where(two.a, "02:00:00:00:99:09") == []
    for address in ADDRESSES["b1"]:
        reaches(two.a.ve("a1"), address)


def test_hosts_come_go_and_move_without_cutting_the_others(two: Two) -> None:
    before = [link(fleet, tunnel(fleet))["ifindex"] for fleet in (two.a, two.b)]
    reaches(two.a.ve("a1"), ADDRESSES["b1"][0])
    learnt = mac_of(two.b, "b1")
    for more in ({}, {"c": "192.0.2.13"}, {"c": THIRD}, {"c": THIRD, "d": "192.0.2.14"}):
        two.put(*documents(), *hosts(**more))
        assert flood(two.a) == {UNDERLAY["node-b"][0], *more.values()}
        assert flood(two.b) == {UNDERLAY["node-a"][0], *more.values()}
        assert where(two.a, learnt) == [UNDERLAY["node-b"][0]]
        two.a.ve("a1").run("ping", "-c", "1", "-W", "5", ADDRESSES["b1"][0])
    assert [link(fleet, tunnel(fleet))["ifindex"] for fleet in (two.a, two.b)] == before


def test_what_was_learnt_of_a_host_goes_with_it(two: Two) -> None:
    two.say(frames.arp(b"\x02\0\0\0\x99\x06", "10.191.40.97", "10.191.40.98"), to=UNDERLAY["node-a"][0])
    until(lambda: where(two.a, "02:00:00:00:99:06") == [THIRD], "the frame to be heard")
    two.put(*documents(), *hosts())
    assert where(two.a, "02:00:00:00:99:06") == []


def test_a_network_that_spans_no_more_leaves_no_link(two: Two) -> None:
    reaches(two.a.ve("a1"), ADDRESSES["b1"][0])
    alone = [document for document in documents() if document["metadata"] != {"name": "blue"}]
    kept = network("blue", "10.191.40.0/24", "fd91:40::/64", gateway=list(GATEWAYS), mtu=1450)
    two.put(kept, *alone, *hosts(c=THIRD))
    for fleet in (two.a, two.b):
        assert tunnel(fleet) not in {found["ifname"] for found in fleet.host_json("ip", "-j", "link", "show")}
        assert tunnel(fleet) not in fleet.host("nft", "list", "ruleset")
        reaches(fleet.ve("a1" if fleet is two.a else "b1"), GATEWAYS[0])
    assert not two.a.ve("a1").can_reach(ADDRESSES["b1"][0])
