"""Proxies: the host answers on its uplinks for the addresses of routed VEs, as nobody out there knows the way to them.

Those that we made carry our protocol number; what an administrator answers for is none of our business.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from reconciler.kernel import neighbour, rtnl, sysctl
from reconciler.kernel.rtnlsocket import RtnlSocket
from reconciler.model.identity import ROUTE_PROTOCOL
from reconciler.model.network import Address

_NEEDED = {4: ("ipv4", "forwarding"), 6: ("ipv6", "proxy_ndp")}
"""The parameter of a link without which the kernel answers for nobody, by IP version.

Source: Linux net/ipv4/arp.c, "arp_process"; net/ipv6/ndisc.c, "ndisc_recv_ns".
"""


def answer_for(sock: RtnlSocket, address: Address) -> None:
    """Answer for an address on every uplink of its kind, and no longer on what was one before.

    Raises: KernelError.
    """
    uplinks = _uplinks(sock).get(address.version, set())
    _stop(sock, (found for found in _ours(sock) if found.address == address and found.index not in uplinks))
    names = {entry.index: entry.name for entry in sock.dump_links()} if uplinks else {}
    for index in sorted(uplinks & names.keys()):
        sysctl.write(_needed(address.version, names[index]), "1")
        neighbour.add_proxy(sock, index, address, protocol=ROUTE_PROTOCOL)


def stop_answering_for_strays(sock: RtnlSocket, leaving: Callable[[], Collection[int]] = frozenset) -> None:
    """Stop answering, on any link, for addresses to which no route of ours leads but by links that are ``leaving``.

    Where nobody is answered for, neither routes nor links are looked at.
    Raises: KernelError.
    """
    answered = _ours(sock)
    if answered:
        routes, left = sock.dump_routes(protocol=ROUTE_PROTOCOL), leaving()
        led = {found.destination.network_address for found in routes if found.index not in left}
        _stop(sock, (found for found in answered if found.address not in led))


def _stop(sock: RtnlSocket, proxies: Iterable[rtnl.Neighbour]) -> None:
    for found in proxies:
        neighbour.delete_proxy(sock, found.index, found.address)


def unanswered(
    sock: RtnlSocket, addresses: Iterable[Address], name_of: Callable[[int], str | None]
) -> frozenset[Address]:
    """Give those of the addresses for which the uplinks do not answer, or something else does in our name.

    ``name_of``: gives the name of the link of an index.
    Raises: KernelError.
    """
    asked = list(addresses)
    if not asked:
        return frozenset()
    uplinks = _uplinks(sock)
    mute = {version for version, indexes in uplinks.items() if not _may_answer(version, map(name_of, indexes))}
    answered: dict[Address, set[int]] = {}
    for found in _ours(sock):
        answered.setdefault(found.address, set()).add(found.index)
    return frozenset(
        address
        for address in asked
        if address.version in mute or answered.get(address, set()) != uplinks.get(address.version, set())
    )


def _uplinks(sock: RtnlSocket) -> dict[int, set[int]]:
    """Give the links of the host's default routes by IP version: there others ask who has an address."""
    found: dict[int, set[int]] = {}
    for route in sock.dump_routes():
        if route.destination.prefixlen == 0 and route.kind == rtnl.RTN_UNICAST and route.index is not None:
            found.setdefault(route.destination.version, set()).add(route.index)
    return found


def _ours(sock: RtnlSocket) -> list[rtnl.Neighbour]:
    return [found for found in sock.dump_neighbours(proxy=True) if found.protocol == ROUTE_PROTOCOL]


def _may_answer(version: int, links: Iterable[str | None]) -> bool:
    return all(link is not None and sysctl.read(_needed(version, link)) == "1" for link in links)


def _needed(version: int, link: str) -> str:
    family, key = _NEEDED[version]
    return sysctl.of_interface(family, link, key)
