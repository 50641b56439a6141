"""Announcements, judged by what a neighbour's kernel makes of them."""

from __future__ import annotations

import errno
import ipaddress
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from reconciler.errors import KernelError
from reconciler.kernel import address, announce, link, netns, rtnl
from reconciler.kernel.rtnlsocket import RtnlSocket

pytestmark = pytest.mark.kernel

DEADLINE_S = 10.0
OLD_MAC, NEW_MAC, PEERS_MAC = "02:76:00:00:00:99", "02:76:00:00:00:0a", "02:76:00:00:00:0b"
MOVED = {
    "v4": (ipaddress.ip_interface("10.76.0.10/24"), ipaddress.ip_interface("10.76.0.11/24")),
    "v6": (ipaddress.ip_interface("fd76::a/64"), ipaddress.ip_interface("fd76::b/64")),
}


@dataclass(frozen=True)
class Wire:
    """A VE and its neighbour at the two ends of a veth."""

    sock: RtnlSocket
    index: int
    neighbour: RtnlSocket
    neighbours_index: int
    neighbours_namespace: int

    def knows(self, wanted: rtnl.IpAddress) -> str | None:
        """Look up the MAC that the neighbour has for an address."""
        return {found.address: found.mac for found in self.neighbour.dump_neighbours()}.get(wanted)

    def teach(self, address: rtnl.IpAddress, mac: str) -> None:
        """Have the neighbour believe that an address is at a MAC."""
        argv = ["ip", "neighbour", "replace", str(address), "lladdr", mac, "nud", "reachable", "dev", "eth0"]
        netns.call_in(self.neighbours_namespace, lambda: subprocess.run(argv, check=True, timeout=20))


def wait_for(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.005)


def runs(sock: RtnlSocket) -> bool:
    found = sock.link("eth0")
    return found is not None and found.running


@pytest.fixture
def wire() -> Iterator[Wire]:
    with ExitStack() as stack:
        here, there = netns.create(), netns.create()
        for descriptor in (here, there):
            stack.callback(os.close, descriptor)
        ours, theirs = (stack.enter_context(RtnlSocket.open_in(descriptor)) for descriptor in (here, there))
        ours.assign_nsid(there)
        netns.call_in(here, announce.enable)
        pair = link.VethPair(
            host_name="eth0", host_mac=NEW_MAC, peer_name="eth0", peer_mac=PEERS_MAC, mtu=1500, alias="vectl:x"
        )
        near, far = link.create_veth(ours, theirs, there, pair)
        link.set_up(ours, near)
        link.set_up(theirs, far)
        wait_for(lambda: runs(ours) and runs(theirs), "the link does not run")
        yield Wire(ours, near, theirs, far, there)


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_a_neighbour_learns_the_new_place_of_an_address(wire: Wire, version: str) -> None:
    moved, peers = MOVED[version]
    address.add_address(wire.sock, wire.index, moved)
    address.add_address(wire.neighbour, wire.neighbours_index, peers)
    wire.teach(moved.ip, OLD_MAC)
    assert wire.knows(moved.ip) == OLD_MAC
    announce.announce(wire.sock, wire.index, NEW_MAC)
    wait_for(lambda: wire.knows(moved.ip) == NEW_MAC, "the neighbour did not learn the address")


def test_several_addresses_are_announced_at_once(wire: Wire) -> None:
    addresses = [moved.ip for moved, _ in MOVED.values()]
    for moved, peers in MOVED.values():
        address.add_address(wire.sock, wire.index, moved)
        address.add_address(wire.neighbour, wire.neighbours_index, peers)
        wire.teach(moved.ip, OLD_MAC)
    announce.announce(wire.sock, wire.index, NEW_MAC)
    wait_for(lambda: {wire.knows(one) for one in addresses} == {NEW_MAC}, "not all addresses were learnt")


def test_a_link_that_is_gone_is_an_error(wire: Wire) -> None:
    with pytest.raises(KernelError) as caught:
        announce.announce(wire.sock, 4242, NEW_MAC)
    assert caught.value.errno == errno.ENODEV
