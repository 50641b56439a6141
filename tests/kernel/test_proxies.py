"""The host answers for routed VEs where its default routes lead, also after they moved, and for nobody else."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import pytest

from reconciler.host import proxies
from reconciler.kernel import address, link, neighbour, netns, route, rtnl, sysctl
from reconciler.kernel.rtnlsocket import RtnlSocket
from reconciler.model.identity import ROUTE_PROTOCOL
from reconciler.model.network import Address

pytestmark = pytest.mark.kernel

BOOT = 3
ANYWHERE: dict[int, rtnl.IpNetwork] = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}
VES = [ipaddress.ip_address("10.76.0.11"), ipaddress.ip_address("fd76::11")]
BOTH = pytest.mark.parametrize("ve", VES, ids=["v4", "v6"])
LINKS = {"up0": ("192.0.2.2/24", "2001:db8:0::2/64"), "up1": ("198.51.100.2/24", "2001:db8:1::2/64"), "ve0": ()}

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Network:
    """A namespace with two links that may be uplinks, and one that stands for a VE's."""

    namespace: int
    sock: RtnlSocket
    index: dict[str, int]

    def inside(self, call: Callable[[], _Result]) -> _Result:
        """Call in the namespace, whose kernel parameters are its own."""
        return netns.call_in(self.namespace, call)

    def default_by(self, name: str, version: int) -> None:
        """Make a link the one uplink of an IP version."""
        gateway = ipaddress.ip_interface(LINKS[name][0 if version == 4 else 1]).ip + 1
        way = route.via(ANYWHERE[version], gateway, index=self.index[name], protocol=BOOT)
        route.replace_route(self.sock, way)

    def lead(self, ve: Address, *, by: str = "ve0") -> None:
        """Lead an address to a link."""
        route.replace_route(self.sock, self.route_to(ve, by))

    def route_to(self, ve: Address, by: str) -> rtnl.Route:
        """Build the route that leads an address to a link."""
        return route.direct(
            ipaddress.ip_network(f"{ve}/{ve.max_prefixlen}"), index=self.index[by], protocol=ROUTE_PROTOCOL
        )

    def answer_for(self, ve: Address) -> None:
        """Answer for an address."""
        self.inside(lambda: proxies.answer_for(self.sock, ve))

    def unanswered(self, ve: Address) -> bool:
        """Say whether an address is in want of an answer."""
        names = {index: name for name, index in self.index.items()}
        return bool(self.inside(lambda: proxies.unanswered(self.sock, [ve], names.get)))

    def answering(self) -> set[tuple[str, Address]]:
        """List by which links the kernel answers for whom."""
        names = {index: name for name, index in self.index.items()}
        return {(names[found.index], found.address) for found in self.sock.dump_neighbours(proxy=True)}


@pytest.fixture
def network() -> Iterator[Network]:
    namespace = netns.create()
    try:
        with RtnlSocket.open_in(namespace) as sock:
            index = {}
            for number, (name, held) in enumerate(LINKS.items()):
                index[name] = link.create_bridge(sock, name, mac=f"02:76:00:00:05:0{number}", mtu=1500, alias="x")
                link.set_up(sock, index[name])
                for one in held:
                    address.add_address(sock, index[name], ipaddress.ip_interface(one))
            yield Network(namespace, sock, index)
    finally:
        os.close(namespace)


@BOTH
def test_an_address_is_answered_for_where_the_default_route_leads(network: Network, ve: Address) -> None:
    network.default_by("up0", ve.version)
    network.lead(ve)
    assert network.unanswered(ve)
    for _ in range(2):
        network.answer_for(ve)
    assert network.answering() == {("up0", ve)}
    assert not network.unanswered(ve)


@BOTH
def test_without_an_uplink_nobody_is_there_to_be_answered(network: Network, ve: Address) -> None:
    network.lead(ve)
    network.answer_for(ve)
    assert network.answering() == set()
    assert not network.unanswered(ve)


@BOTH
def test_an_uplink_that_moved_is_seen_and_the_answers_move_after_it(network: Network, ve: Address) -> None:
    network.default_by("up0", ve.version)
    network.lead(ve)
    network.answer_for(ve)
    route.delete_route(network.sock, next(r for r in network.sock.dump_routes() if r.destination.prefixlen == 0))
    network.default_by("up1", ve.version)
    assert network.unanswered(ve)
    network.answer_for(ve)
    assert network.answering() == {("up1", ve)}
    assert not network.unanswered(ve)


@BOTH
def test_what_is_led_nowhere_is_answered_for_on_no_link_whatever_the_uplink_is_now(
    network: Network, ve: Address
) -> None:
    network.default_by("up0", ve.version)
    network.lead(ve)
    network.answer_for(ve)
    network.default_by("up1", ve.version)
    route.delete_route(network.sock, network.route_to(ve, "ve0"))
    proxies.stop_answering_for_strays(network.sock)
    assert network.answering() == set()


@BOTH
def test_a_link_that_leaves_takes_its_answers_with_it_and_nobody_elses(network: Network, ve: Address) -> None:
    network.default_by("up0", ve.version)
    for number, by in enumerate(("ve0", "up1")):
        network.lead(ve + number, by=by)
        network.answer_for(ve + number)
    proxies.stop_answering_for_strays(network.sock, lambda: {network.index["ve0"]})
    assert network.answering() == {("up0", ve + 1)}


@BOTH
def test_what_an_administrator_answers_for_is_left_alone(network: Network, ve: Address) -> None:
    network.default_by("up0", ve.version)
    neighbour.add_proxy(network.sock, network.index["up1"], ve, protocol=BOOT)
    neighbour.add_proxy(network.sock, network.index["up1"], ve + 1, protocol=BOOT)
    network.lead(ve)
    network.answer_for(ve)
    route.delete_route(network.sock, network.route_to(ve, "ve0"))
    proxies.stop_answering_for_strays(network.sock)
    assert network.answering() == {("up1", ve), ("up1", ve + 1)}


@BOTH
def test_an_uplink_on_which_the_kernel_was_told_not_to_answer_is_seen(network: Network, ve: Address) -> None:
    network.default_by("up0", ve.version)
    network.lead(ve)
    network.answer_for(ve)
    key = "net.ipv4.conf.up0.forwarding" if ve.version == 4 else "net.ipv6.conf.up0.proxy_ndp"
    network.inside(lambda: sysctl.write(key, "0"))
    assert network.unanswered(ve)
    network.answer_for(ve)
    assert not network.unanswered(ve)
