"""Notices of changes, from the listener's own namespace and from others."""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from reconciler.kernel import address, link, netlink, netns, route, rtnlsocket
from reconciler.kernel.netevents import EventKind, NftCommit, NftEvents, RouteEvent, RouteEvents
from reconciler.kernel.rtnlsocket import RtnlSocket
from tests.support import nftables

pytestmark = pytest.mark.kernel

DEADLINE_S = 10.0
MAC = "02:76:00:00:00:01"


@pytest.fixture
def host() -> Iterator[int]:
    descriptor = netns.create()
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def ve() -> Iterator[int]:
    descriptor = netns.create()
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def events(host: int) -> Iterator[RouteEvents]:
    with netns.call_in(host, RouteEvents) as listener:
        yield listener


@pytest.fixture
def commits(host: int) -> Iterator[NftEvents]:
    with netns.call_in(host, NftEvents) as listener:
        yield listener


def heard_until(events: RouteEvents, wanted: Callable[[RouteEvent], bool]) -> list[RouteEvent]:
    heard: list[RouteEvent] = []
    deadline = time.monotonic() + DEADLINE_S
    while not any(map(wanted, heard)):
        assert time.monotonic() < deadline, f"the event did not come in time, but {heard}"
        select.select([events], [], [], 0.1)
        heard += events.read()
    return heard


def awaited(events: RouteEvents, wanted: Callable[[RouteEvent], bool]) -> RouteEvent:
    return next(filter(wanted, heard_until(events, wanted)))


def numbered(host: int, ve: int) -> int:
    with RtnlSocket.open_in(host) as sock:
        return sock.assign_nsid(ve)


def test_nothing_waiting_is_an_empty_list(events: RouteEvents, commits: NftEvents) -> None:
    assert events.read() == []
    assert commits.read() == []


def test_a_change_in_the_own_namespace_has_no_number(host: int, events: RouteEvents) -> None:
    with RtnlSocket.open_in(host) as sock:
        index = link.create_bridge(sock, "br0", mac=MAC, mtu=1500, alias="vectl:lan")
        link.set_up(sock, index)
    event = awaited(events, lambda event: event.kind is EventKind.LINK and event.alias is not None)
    assert (event.nsid, event.index, event.name, event.alias) == (None, index, "br0", "vectl:lan")


def test_changes_in_another_namespace_carry_its_number(host: int, ve: int, events: RouteEvents) -> None:
    number = numbered(host, ve)
    gateway, destination = ipaddress.ip_address("10.76.0.1"), ipaddress.ip_network("0.0.0.0/0")
    with RtnlSocket.open_in(ve) as sock:
        index = link.create_bridge(sock, "eth0", mac=MAC, mtu=1500, alias="vectl:u1")
        link.set_up(sock, index)
        address.add_address(sock, index, ipaddress.ip_interface("10.76.0.11/24"), protocol=199)
        route.replace_route(sock, route.via(destination, gateway, index=index, protocol=198))
        link.delete_link(sock, index)
    heard = heard_until(events, lambda event: event.kind is EventKind.LINK_GONE)
    assert {event.nsid for event in heard} == {number}
    assert RouteEvent(kind=EventKind.ADDRESS, nsid=number, index=index, protocol=199) in heard
    assert RouteEvent(kind=EventKind.ROUTE, nsid=number, index=index, protocol=198) in heard
    gone = next(event for event in heard if event.kind is EventKind.LINK_GONE)
    assert (gone.name, gone.alias) == ("eth0", "vectl:u1")


def test_the_end_of_a_namespace_is_told_by_its_number(host: int, events: RouteEvents) -> None:
    short_lived = netns.create()
    number = numbered(host, short_lived)
    os.close(short_lived)
    gone = awaited(events, lambda event: event.kind is EventKind.NAMESPACE_GONE)
    assert gone.nsid == number


def test_lost_events_are_an_error_and_the_listener_goes_on(host: int, events: RouteEvents) -> None:
    smallest = socket.socket(fileno=os.dup(events.fileno()))
    smallest.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    smallest.close()
    with RtnlSocket.open_in(host) as sock:
        index = link.create_bridge(sock, "br0", mac=MAC, mtu=1500, alias="x")
        for number in range(40):
            link.set_up(sock, index)
            link.set_mtu(sock, index, 1000 + number)
        with pytest.raises(netlink.OverrunError, match="messages are lost"):
            drained(events)
        drained(events)
        link.set_mtu(sock, index, 1400)
    assert awaited(events, lambda event: event.index == index)


def drained(events: RouteEvents) -> None:
    while events.read():
        pass


def test_a_forged_event_is_not_believed(host: int, ve: int, events: RouteEvents) -> None:
    """Root of a VE may send to the multicast groups of its namespace."""
    number = numbered(host, ve)
    with netns.open_socket_in(ve, socket.AF_NETLINK, socket.SOCK_RAW, rtnlsocket.NETLINK_ROUTE) as forger:
        forged = netlink.encode_message(16, 0, sequence=0, payload=bytes(16))
        forger.sendto(forged, (0, 1))
    with RtnlSocket.open_in(ve) as sock:
        link.set_up(sock, 1)
    heard = heard_until(events, lambda event: (event.nsid, event.index) == (number, 1))
    assert all(event.index != 0 for event in heard)


def awaited_commits(commits: NftEvents) -> list[NftCommit]:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        select.select([commits], [], [], 0.1)
        if found := commits.read():
            return found
    raise AssertionError("no transaction was reported in time")


def test_a_transaction_names_its_tables_and_its_author(host: int, commits: NftEvents) -> None:
    netns.call_in(host, lambda: nftables.load("table inet one { chain c { accept; }; }\ntable bridge two\n"))
    (commit,) = awaited_commits(commits)
    assert commit.tables == {("inet", "one"), ("bridge", "two")}
    assert commit.process == "nft"
    assert commit.pid != os.getpid()
    netns.call_in(host, lambda: nftables.load("add rule inet one c drop\n"))
    (later,) = awaited_commits(commits)
    assert later.tables == {("inet", "one")}
    assert later.generation == commit.generation + 1
