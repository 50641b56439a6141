"""Addresses, routes and neighbours, written and read back."""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from reconciler.errors import KernelError
from reconciler.kernel import address, link, neighbour, netns, route, rtnl, sysctl
from reconciler.kernel.rtnlsocket import RtnlSocket

pytestmark = pytest.mark.kernel

OURS, TENANTS = 199, 4
TENTATIVE, PERMANENT = 0x40, 0x80  # IFA_F_*
V4, V6 = ipaddress.ip_interface("10.76.0.11/24"), ipaddress.ip_interface("fd76::11/64")
DEFAULT_4, DEFAULT_6 = ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")
GATEWAY_4, GATEWAY_6 = ipaddress.ip_address("10.76.0.1"), ipaddress.ip_address("fd76::1")
BOTH = pytest.mark.parametrize("given", [V4, V6], ids=["v4", "v6"])


@dataclass(frozen=True)
class Ve:
    """A namespace with a link that is up."""

    namespace: int
    sock: RtnlSocket
    index: int

    def addresses(self) -> list[rtnl.Address]:
        """List what is not the kernel's own link-local address."""
        found = self.sock.dump_addresses(index=self.index)
        return [one for one in found if one.scope == rtnl.RT_SCOPE_UNIVERSE]

    def routes(self) -> list[rtnl.Route]:
        return self.sock.dump_routes(protocol=OURS)


@pytest.fixture
def ve() -> Iterator[Ve]:
    namespace = netns.create()
    try:
        with RtnlSocket.open_in(namespace) as sock:
            index = link.create_bridge(sock, "eth0", mac="02:76:00:00:00:01", mtu=1500, alias="x")
            link.set_up(sock, index)
            yield Ve(namespace, sock, index)
    finally:
        os.close(namespace)


@BOTH
def test_an_address_is_usable_at_once_and_adding_it_again_is_no_error(ve: Ve, given: rtnl.IpInterface) -> None:
    for _ in range(2):
        address.add_address(ve.sock, ve.index, given, protocol=OURS)
    (found,) = ve.addresses()
    assert (found.index, found.interface, found.protocol) == (ve.index, given, OURS)
    assert not found.flags & TENTATIVE
    assert found.flags & PERMANENT


@BOTH
def test_a_deleted_address_is_gone_and_deleting_it_again_is_no_error(ve: Ve, given: rtnl.IpInterface) -> None:
    address.add_address(ve.sock, ve.index, given)
    for _ in range(2):
        address.delete_address(ve.sock, ve.index, given)
    assert ve.addresses() == []


def test_another_prefix_for_the_same_ipv6_address_is_an_error_and_no_silent_success(ve: Ve) -> None:
    address.add_address(ve.sock, ve.index, V6)
    with pytest.raises(KernelError) as caught:
        address.add_address(ve.sock, ve.index, ipaddress.ip_interface(f"{V6.ip}/80"))
    assert caught.value.errno == errno.EEXIST
    assert [found.interface for found in ve.addresses()] == [V6]


def test_a_second_address_of_a_subnet_survives_the_first_where_it_is_promoted(ve: Ve) -> None:
    second = ipaddress.ip_interface("10.76.0.12/24")
    netns.call_in(ve.namespace, lambda: sysctl.write("net.ipv4.conf.all.promote_secondaries", "1"))
    for one in (V4, second):
        address.add_address(ve.sock, ve.index, one)
    address.delete_address(ve.sock, ve.index, V4)
    assert [found.interface for found in ve.addresses()] == [second]


def test_addresses_of_a_link_that_is_gone_are_gone(ve: Ve) -> None:
    address.delete_address(ve.sock, 4242, V4)
    with pytest.raises(KernelError) as caught:
        address.add_address(ve.sock, 4242, V4)
    assert caught.value.errno == errno.ENODEV


def network(text: str) -> rtnl.IpNetwork:
    return ipaddress.ip_network(text)


LINK_LOCAL_GATEWAY = ipaddress.ip_address("169.254.0.1")
ROUTES = {
    "default-4": route.via(DEFAULT_4, GATEWAY_4, index=0, protocol=OURS),
    "default-6": route.via(DEFAULT_6, GATEWAY_6, index=0, protocol=OURS),
    "metric-4": route.via(network("10.9.0.0/16"), GATEWAY_4, index=0, protocol=OURS, metric=50),
    "metric-6": route.via(network("fd09::/48"), GATEWAY_6, index=0, protocol=OURS, metric=50),
    "direct-4": route.direct(network("10.8.0.1/32"), index=0, protocol=OURS),
    "direct-6": route.direct(network("fd08::1/128"), index=0, protocol=OURS),
    "source-4": route.direct(network("10.7.0.1/32"), index=0, protocol=OURS, source=V4.ip),
    "on-link": route.via(DEFAULT_4, LINK_LOCAL_GATEWAY, index=0, protocol=OURS, on_link=True),
    "4-by-6": route.via(network("10.6.0.0/24"), GATEWAY_6, index=0, protocol=OURS),
}


@pytest.mark.parametrize("built", ROUTES.values(), ids=ROUTES.keys())
def test_a_route_reads_back_as_it_was_built(ve: Ve, built: rtnl.Route) -> None:
    for one in (V4, V6):
        address.add_address(ve.sock, ve.index, one)
    wanted = replace(built, index=ve.index)
    for _ in range(2):
        route.replace_route(ve.sock, wanted)
    assert ve.routes() == [wanted]
    for _ in range(2):
        route.delete_route(ve.sock, wanted)
    assert ve.routes() == []


@pytest.mark.parametrize(
    ("destination", "given", "gateways"),
    [(DEFAULT_4, V4, ("10.76.0.1", "10.76.0.2")), (DEFAULT_6, V6, ("fd76::1", "fd76::2"))],
    ids=["v4", "v6"],
)
def test_a_route_is_replaced_and_not_doubled(
    ve: Ve, destination: rtnl.IpNetwork, given: rtnl.IpInterface, gateways: tuple[str, str]
) -> None:
    address.add_address(ve.sock, ve.index, given)
    old, new = (route.via(destination, ipaddress.ip_address(one), index=ve.index, protocol=OURS) for one in gateways)
    route.replace_route(ve.sock, old)
    route.replace_route(ve.sock, new)
    assert ve.routes() == [new]


def test_routes_of_another_protocol_are_neither_listed_nor_deleted(ve: Ve) -> None:
    address.add_address(ve.sock, ve.index, V4)
    tenants = route.via(DEFAULT_4, GATEWAY_4, index=ve.index, protocol=TENANTS)
    route.replace_route(ve.sock, tenants)
    assert ve.routes() == []
    route.delete_route(ve.sock, route.via(DEFAULT_4, GATEWAY_4, index=ve.index, protocol=OURS))
    assert tenants in ve.sock.dump_routes()


def test_an_unreachable_gateway_is_an_error_in_the_kernels_words(ve: Ve) -> None:
    with pytest.raises(KernelError, match="Nexthop has invalid gateway"):
        route.replace_route(ve.sock, route.via(DEFAULT_4, GATEWAY_4, index=ve.index, protocol=OURS))


@BOTH
def test_a_proxy_is_added_and_deleted(ve: Ve, given: rtnl.IpInterface) -> None:
    for _ in range(2):
        neighbour.add_proxy(ve.sock, ve.index, given.ip, protocol=OURS)
    (found,) = ve.sock.dump_neighbours(proxy=True)
    assert (found.index, found.address, found.proxy, found.protocol) == (ve.index, given.ip, True, OURS)
    for _ in range(2):
        neighbour.delete_proxy(ve.sock, ve.index, given.ip)
    assert ve.sock.dump_neighbours(proxy=True) == []
