"""The twin's rules of links, addresses and routes are the kernel's: random changes, failing alike, leave the same."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from reconciler.errors import KernelError
from reconciler.kernel import address, link, netns, route, rtnl, sysctl
from reconciler.kernel.rtnlsocket import RtnlSocket
from reconciler.model.identity import ROUTE_PROTOCOL
from reconciler.model.network import Interface, InterfaceObservation, Route
from reconciler.twin import link as rules

pytestmark = pytest.mark.kernel

MACS = {"eth0": "02:76:00:00:02:01", "eth1": "02:76:00:00:02:02"}
ADDRESSES = tuple(
    ipaddress.ip_interface(text)
    for text in (
        *("10.76.0.2/24", "10.76.0.3/24", "10.77.0.2/24", "10.78.0.2/32"),
        *("fd76::2/64", "fd76::3/64", "fd76::2/48", "fd77::2/64"),
    )
)
ROUTES = (
    Route(to="0.0.0.0/0", via="10.76.0.1"),
    Route(to="0.0.0.0/0", via="10.77.0.1"),
    Route(to="0.0.0.0/0", via="10.78.0.1"),
    Route(to="10.78.0.1/32"),
    Route(to="10.99.0.0/16", via="203.0.113.1"),
    Route(to="::/0", via="fd76::1"),
    Route(to="::/0", via="fd77::1"),
    Route(to="::/0", via="fd76::2"),
    Route(to="fd78::1/128"),
    Route(to="fd99::/64", via="fd78::1"),
)
MTUS = (67, 1000, 1279, 1280, 1500, 65_536)


@dataclass
class Pair:
    """The links of one namespace, in the kernel and as the twin imagines them."""

    sock: RtnlSocket
    indexes: dict[str, int] = field(default_factory=dict)
    imagined: dict[str, InterfaceObservation] = field(default_factory=dict)

    def seen(self) -> dict[str, InterfaceObservation]:
        """Read from the kernel what the twin imagines."""
        links = {found.index: found for found in self.sock.dump_links()}
        addresses, routes = self.sock.dump_addresses(), self.sock.dump_routes(protocol=ROUTE_PROTOCOL)
        return {
            name: InterfaceObservation(
                mac=MACS[name],
                mtu=links[index].mtu,
                up=links[index].up,
                host_up=True,
                addresses=frozenset(
                    one.interface for one in addresses if one.index == index and one.scope == rtnl.RT_SCOPE_UNIVERSE
                ),
                routes=frozenset(_route(one) for one in routes if one.index == index),
            )
            for name, index in self.indexes.items()
        }


def _route(seen: rtnl.Route) -> Route:
    return Route(to=str(seen.destination), via="" if seen.gateway is None else str(seen.gateway))


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        namespaces = [netns.create(), netns.create()]
        for namespace in namespaces:
            stack.callback(os.close, namespace)
        netns.call_in(namespaces[1], lambda: sysctl.write("net.ipv4.conf.all.promote_secondaries", "1"))
        outside, inside = (stack.enter_context(RtnlSocket.open_in(namespace)) for namespace in namespaces)
        made = Pair(inside)
        for number, (name, mac) in enumerate(MACS.items()):
            veth = link.VethPair(
                host_name=f"h{number}",
                host_mac=f"02:76:00:00:03:0{number}",
                peer_name=name,
                peer_mac=mac,
                mtu=1500,
                alias="x",
            )
            near, made.indexes[name] = link.create_veth(outside, inside, namespaces[1], veth)
            link.set_up(outside, near)
        made.imagined = made.seen()
        yield made


class Change:
    """One change, done to the kernel and to what the twin imagines."""

    def __init__(self, pair: Pair, name: str) -> None:
        self.sock, self.index, self.links, self.name = pair.sock, pair.indexes[name], pair.imagined, name

    def put(self, change: Callable[[InterfaceObservation], InterfaceObservation]) -> None:
        self.links[self.name] = change(self.links[self.name])

    def add_address(self, given: Interface) -> None:
        address.add_address(self.sock, self.index, given)

    def imagine_add_address(self, given: Interface) -> None:
        self.put(lambda seen: replace(seen, addresses=rules.with_address(seen.addresses, given, seen.mtu, "add")))

    def remove_address(self, given: Interface) -> None:
        address.delete_address(self.sock, self.index, given)

    def imagine_remove_address(self, given: Interface) -> None:
        self.put(lambda seen: rules.without_address(seen, given))

    def add_route(self, given: Route) -> None:
        route.replace_route(self.sock, self._kernels(given))

    def imagine_add_route(self, given: Route) -> None:
        rules.require_route_fits(self.links, self.name, given, "add")
        self.links.update(rules.with_route(self.links, self.name, given))

    def remove_route(self, given: Route) -> None:
        route.delete_route(self.sock, self._kernels(given))

    def imagine_remove_route(self, given: Route) -> None:
        self.put(lambda seen: replace(seen, routes=seen.routes - {given}))

    def set_mtu(self, given: int) -> None:
        link.set_mtu(self.sock, self.index, given)

    def imagine_set_mtu(self, given: int) -> None:
        rules.require_mtu(given, "set")
        self.put(lambda seen: rules.with_mtu(seen, given))

    def set_up(self, given: bool) -> None:
        (link.set_up if given else link.set_down)(self.sock, self.index)

    def imagine_set_up(self, given: bool) -> None:
        self.put(lambda seen: replace(seen, up=True) if given else rules.set_down(seen))

    def _kernels(self, given: Route) -> rtnl.Route:
        destination = ipaddress.ip_network(given.to)
        if given.via:
            gateway = ipaddress.ip_address(given.via)
            return route.via(destination, gateway, index=self.index, protocol=ROUTE_PROTOCOL)
        return route.direct(destination, index=self.index, protocol=ROUTE_PROTOCOL)


def _draw(random: Random) -> tuple[str, object]:
    return random.choice(
        [
            ("add_address", random.choice(ADDRESSES)),
            ("add_address", random.choice(ADDRESSES)),
            ("remove_address", random.choice(ADDRESSES)),
            ("add_route", random.choice(ROUTES)),
            ("add_route", random.choice(ROUTES)),
            ("remove_route", random.choice(ROUTES)),
            ("set_mtu", random.choice(MTUS)),
            ("set_up", random.random() < 0.8),
        ]
    )


def _fails(do: Callable[[object], None], given: object) -> bool:
    try:
        do(given)
    except KernelError:
        return True
    return False


@pytest.mark.parametrize("seed", range(12))
def test_the_kernel_does_what_the_twin_imagines(pair: Pair, seed: int) -> None:
    random = Random(seed)
    trace = []
    for _ in range(150):
        change = Change(pair, random.choice(sorted(MACS)))
        what, given = _draw(random)
        trace.append((change.name, what, given))
        failed = _fails(getattr(change, what), given)
        imagined = _fails(getattr(change, f"imagine_{what}"), given)
        assert (failed, pair.seen()) == (imagined, pair.imagined), trace[-1]
