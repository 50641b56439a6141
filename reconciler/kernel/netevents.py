"""Notices that the network changed, from every namespace that the host has a number for.

A notice only wakes a pass: it says where to look, never what is so. A VE's root can cause as many as it likes, and
forge none: what did not come from the kernel is dropped.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self, assert_never

from reconciler.errors import KernelError
from reconciler.kernel import netlink, nlsocket, rtnl, vxlan
from reconciler.kernel.nlsocket import SOL_NETLINK

_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_LISTEN_ALL_NSID = 8
_RTNLGRP_LINK, _RTNLGRP_NEIGH, _RTNLGRP_TC, _RTNLGRP_NSID = 1, 3, 4, 28
_RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV4_ROUTE = 5, 7
_RTNLGRP_IPV6_IFADDR, _RTNLGRP_IPV6_ROUTE = 9, 11
_NFNLGRP_NFTABLES = 7
_NFGENMSG_BYTES = 4
_NFT_MSG_NEWGEN = 15
_NFTA_TABLE = 1
_NFTA_GEN_ID, _NFTA_GEN_PROC_PID, _NFTA_GEN_PROC_NAME = 1, 2, 3
_RTGENMSG_BYTES = 4
_TCMSG_INDEX = slice(4, 8)
_NETNSA_NSID = 1
_FAMILY_NAMES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_BUFFER_BYTES = 8 * 1024 * 1024
_BATCH = 256  # datagrams in one read: the loop has others to serve


class EventKind(Enum):
    """What a notice is about; ``*_GONE``: it was removed."""

    LINK = 16
    LINK_GONE = 17
    ADDRESS = 20
    ADDRESS_GONE = 21
    ROUTE = 24
    ROUTE_GONE = 25
    QUEUE = 36
    QUEUE_GONE = 37
    FILTER = 44
    FILTER_GONE = 45
    NAMESPACE = 88
    NAMESPACE_GONE = 89


_KINDS = frozenset(kind.value for kind in EventKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteEvent:
    """A change of a link, an address, a route, a queue or a filter before one.

    ``nsid`` is the namespace by the listener's number, None for the listener's own; ``name`` and ``alias`` are known
    for links, ``protocol`` for addresses and routes. ``NAMESPACE_GONE``: the number ``nsid`` may be given to another.
    """

    kind: EventKind
    nsid: int | None
    index: int | None = None
    name: str | None = None
    alias: str | None = None
    protocol: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NftCommit:
    """One transaction on the ruleset: the tables that it touched, as (family, name), and who made it."""

    generation: int
    tables: frozenset[tuple[str, str]]
    pid: int
    process: str


class _Listener:
    """A non-blocking multicast socket; closed by `close` or at the end of a ``with`` block."""

    def __init__(self, protocol: int, groups: tuple[int, ...]) -> None:
        self._socket = nlsocket.open_here(protocol)
        self._socket.setblocking(False)
        # A socket without a port of its own gets no notices.
        self._socket.bind((0, 0))
        nlsocket.enlarge_buffer(self._socket, _BUFFER_BYTES)
        for group in groups:
            self._socket.setsockopt(SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; closing twice is allowed."""
        self._socket.close()

    def fileno(self) -> int:
        """Give the descriptor, to wait for it to be readable."""
        return self._socket.fileno()

    def _batch(self, *, doing: str) -> list[tuple[bytes, int | None]]:
        """Read what waits, up to a limit, with the number of the namespace that each datagram is from."""
        found: list[tuple[bytes, int | None]] = []
        while len(found) < _BATCH:
            try:
                datagram, control = nlsocket.receive(self._socket, doing=doing)
            except KernelError as err:
                if err.errno == errno.EAGAIN:
                    break
                raise
            found.append((datagram, _nsid(control)))
        return found


class RouteEvents(_Listener):
    """Notices of links, addresses, routes and queues, of this namespace and of all that have a number here."""

    def __init__(self) -> None:
        addresses_and_routes = (_RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV6_IFADDR, _RTNLGRP_IPV4_ROUTE, _RTNLGRP_IPV6_ROUTE)
        super().__init__(_NETLINK_ROUTE, (_RTNLGRP_LINK, _RTNLGRP_TC, _RTNLGRP_NSID, *addresses_and_routes))
        self._socket.setsockopt(SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, 1)

    def read(self) -> list[RouteEvent]:
        """Read what waits, a bounded number; nothing waiting is an empty list.

        Raises: OverrunError, if notices were lost: look at everything.
        """
        return [
            event
            for datagram, nsid in self._batch(doing="read network events")
            for message in netlink.messages(datagram)
            if (event := parse_route_event(message, nsid)) is not None
        ]


class ForwardingEvents(_Listener):
    """Notices of what is written into the forwarding tables of this namespace's links, not of what they learn.

    Of this namespace alone: the neighbours of all VEs would be told by the same group.
    """

    def __init__(self) -> None:
        super().__init__(_NETLINK_ROUTE, (_RTNLGRP_NEIGH,))

    def read(self) -> list[int]:
        """Read what waits, a bounded number: the index of the link of each; nothing waiting is an empty list.

        Raises: OverrunError, if notices were lost: look at everything.
        """
        return [
            rtnl.NDMSG.unpack_from(message.payload)[1]
            for datagram, _ in self._batch(doing="read forwarding events")
            for message in netlink.messages(datagram)
            if len(message.payload) >= rtnl.NDMSG.size and vxlan.is_about_flooding(message.payload)
        ]


class NftEvents(_Listener):
    """Notices of committed changes to the nftables ruleset of this namespace."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_NETFILTER, (_NFNLGRP_NFTABLES,))
        self._touched: set[tuple[str, str]] = set()

    def read(self) -> list[NftCommit]:
        """Read the transactions that are complete, a bounded number; none is an empty list.

        Raises: OverrunError, if notices were lost: look at everything.
        """
        try:
            datagrams = self._batch(doing="read nftables events")
        except netlink.OverrunError:
            self._touched.clear()
            raise
        return [
            commit
            for datagram, _ in datagrams
            for message in netlink.messages(datagram)
            if (commit := self._take(message)) is not None
        ]

    def _take(self, message: netlink.Message) -> NftCommit | None:
        """Collect a table's name; the message that names the new generation ends a transaction."""
        found = netlink.attributes(message.payload, _NFGENMSG_BYTES)
        if message.kind & 0xFF != _NFT_MSG_NEWGEN:
            number = int.from_bytes(message.payload[:1], "big")
            family = _FAMILY_NAMES.get(number, str(number))
            self._touched.add((family, netlink.text(found.get(_NFTA_TABLE, b""))))
            return None
        tables, self._touched = frozenset(self._touched), set()
        return NftCommit(
            generation=int.from_bytes(found.get(_NFTA_GEN_ID, b""), "big"),
            tables=tables,
            pid=int.from_bytes(found.get(_NFTA_GEN_PROC_PID, b""), "big"),
            process=netlink.text(found.get(_NFTA_GEN_PROC_NAME, b"")),
        )


def parse_route_event(message: netlink.Message, nsid: int | None) -> RouteEvent | None:
    """Parse one notice of the route family; None for a kind that nobody asked for.

    Raises: KernelFormatError.
    """
    if message.kind not in _KINDS:
        return None
    kind = EventKind(message.kind)
    match kind:
        case EventKind.LINK | EventKind.LINK_GONE:
            return _link_event(kind, nsid, message.payload)
        case EventKind.ADDRESS | EventKind.ADDRESS_GONE:
            address = rtnl.parse_address(message.payload)
            return RouteEvent(kind=kind, nsid=nsid, index=address.index, protocol=address.protocol)
        case EventKind.ROUTE | EventKind.ROUTE_GONE:
            route = rtnl.parse_route(message.payload)
            return RouteEvent(kind=kind, nsid=nsid, index=route.index, protocol=route.protocol)
        case EventKind.QUEUE | EventKind.QUEUE_GONE | EventKind.FILTER | EventKind.FILTER_GONE:
            return RouteEvent(kind=kind, nsid=nsid, index=netlink.s32(message.payload[_TCMSG_INDEX]))
        case EventKind.NAMESPACE | EventKind.NAMESPACE_GONE:
            found = netlink.attributes(message.payload, _RTGENMSG_BYTES)
            return RouteEvent(kind=kind, nsid=netlink.s32(found.get(_NETNSA_NSID, b"")))
        case _:
            assert_never(kind)


def _link_event(kind: EventKind, nsid: int | None, payload: bytes) -> RouteEvent:
    link = rtnl.parse_link(payload)
    return RouteEvent(kind=kind, nsid=nsid, index=link.index, name=link.name, alias=link.alias)


def _nsid(control: list[tuple[int, int, bytes]]) -> int | None:
    """Find the namespace's number among the control messages.

    Source: netlink(7), NETLINK_LISTEN_ALL_NSID.
    """
    for level, kind, data in control:
        if level == SOL_NETLINK and kind == _NETLINK_LISTEN_ALL_NSID:
            return netlink.s32(data)
    return None
