"""One rtnetlink socket per network namespace, kept open: the reading side of links, addresses and routes.

Writers (`link`, `route`) take it as their first argument and send through it, so that a change and the reading back
of it go the same way, and neither needs setns(2) nor an event loop.
"""

from __future__ import annotations

import errno
import socket
from typing import Self

from reconciler.errors import KernelError
from reconciler.kernel import netlink, netns, nlsocket, rtnl
from reconciler.kernel.netlink import encode_attribute

NETLINK_ROUTE = 0

_RTM_GETLINK, _RTM_GETADDR, _RTM_GETROUTE, _RTM_GETNEIGH = 18, 22, 26, 30
_RTM_NEWNSID, _RTM_GETNSID = 88, 90
_IFLA_IFNAME, _IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS = 3, 29, 8
_RTA_DST, _RTA_OIF, _RTA_TABLE = 1, 4, 15
_NETNSA_NSID, _NETNSA_FD = 1, 3
_NSID_ANY = -1

_SKIP_STATS = encode_attribute(_IFLA_EXT_MASK, netlink.U32.pack(_RTEXT_FILTER_SKIP_STATS))
_ALL_LINKS = rtnl.IFINFOMSG.pack(0, 0, 0, 0, 0) + _SKIP_STATS
_RTGENMSG = bytes(4)


class RtnlSocket(nlsocket.NetlinkSocket):
    """An rtnetlink socket of one network namespace; `open_here` or `open_in` makes one."""

    def __init__(self, sock: socket.socket, *, dump_limit: int = 100_000) -> None:
        super().__init__(sock, dump_limit=dump_limit)
        sock.setsockopt(nlsocket.SOL_NETLINK, nlsocket.NETLINK_GET_STRICT_CHK, 1)

    @classmethod
    def open_here(cls) -> Self:
        """Open one in the namespace of the calling thread.

        Raises: KernelError.
        """
        return cls(nlsocket.open_here(NETLINK_ROUTE))

    @classmethod
    def open_in_place(cls, *, dump_limit: int = 10_000) -> Self:
        """Open one in the namespace of the calling thread, which is not ours: its tables are believed up to a limit.

        Raises: KernelError.
        """
        return cls(nlsocket.open_here(NETLINK_ROUTE), dump_limit=dump_limit)

    @classmethod
    def open_in(cls, namespace: int, *, dump_limit: int = 10_000) -> Self:
        """Open one in a namespace given by its descriptor; its tables are believed up to a limit of entries.

        Raises: KernelError.
        """
        sock = netns.open_socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
        return cls(sock, dump_limit=dump_limit)

    def dump_links(self) -> list[rtnl.Link]:
        """List all links, without their counters.

        Raises: KernelError.
        """
        return [rtnl.parse_link(entry) for entry in self.dump(_RTM_GETLINK, _ALL_LINKS, doing="list links")]

    def link(self, name: str) -> rtnl.Link | None:
        """Look one link up by its name; None is: read, and not there.

        Raises: KernelError.
        """
        request = rtnl.IFINFOMSG.pack(0, 0, 0, 0, 0)
        return self._link(request + encode_attribute(_IFLA_IFNAME, name.encode() + b"\0"), doing=f"read link {name}")

    def link_at(self, index: int) -> rtnl.Link | None:
        """Look one link up by its index; None is: read, and not there.

        Raises: KernelError.
        """
        return self._link(rtnl.IFINFOMSG.pack(0, 0, index, 0, 0), doing=f"read link {index}")

    def _link(self, request: bytes, *, doing: str) -> rtnl.Link | None:
        try:
            return rtnl.parse_link(self.ask(_RTM_GETLINK, request + _SKIP_STATS, doing=doing))
        except KernelError as err:
            if err.errno == errno.ENODEV:
                return None
            raise

    def dump_addresses(self, *, index: int = 0) -> list[rtnl.Address]:
        """List the addresses of both families, of all links or of one.

        Raises: KernelError.
        """
        request = rtnl.IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, index)
        return [rtnl.parse_address(entry) for entry in self.dump(_RTM_GETADDR, request, doing="list addresses")]

    def dump_routes(
        self, *, protocol: int = 0, table: int = rtnl.RT_TABLE_MAIN, index: int | None = None
    ) -> list[rtnl.Route]:
        """List the routes of both families in one table; the kernel picks those of a protocol number or a link.

        Raises: KernelError.
        """
        request = rtnl.RTMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0, protocol, 0, 0, 0)
        request += encode_attribute(_RTA_TABLE, netlink.U32.pack(table))
        if index is not None:
            request += encode_attribute(_RTA_OIF, netlink.U32.pack(index))
        entries = self.dump(_RTM_GETROUTE, request, doing="list routes")
        return [rtnl.parse_route(entry) for entry in entries]

    def dump_neighbours(self, *, proxy: bool = False) -> list[rtnl.Neighbour]:
        """List the neighbours of both families, or instead the addresses that are answered for.

        Raises: KernelError.
        """
        request = rtnl.NDMSG.pack(socket.AF_UNSPEC, 0, 0, rtnl.NTF_PROXY if proxy else 0, 0)
        entries = self.dump(_RTM_GETNEIGH, request, doing="list neighbours")
        return [rtnl.parse_neighbour(entry) for entry in entries]

    def nsid(self, namespace: int) -> int | None:
        """Read the number by which this socket's namespace knows another one; None if it has none yet.

        Raises: KernelError.
        """
        request = _RTGENMSG + encode_attribute(_NETNSA_FD, netlink.U32.pack(namespace))
        answer = self.ask(_RTM_GETNSID, request, doing="read namespace id")
        number = netlink.s32(netlink.attributes(answer, len(_RTGENMSG)).get(_NETNSA_NSID, b""))
        return None if number < 0 else number

    def assign_nsid(self, namespace: int) -> int:
        """Give another namespace a number here, or read the one that it has: its events then carry that number.

        Raises: KernelError.
        Source: Linux net/core/net_namespace.c, "rtnl_net_newid".
        """
        known = self.nsid(namespace)
        if known is not None:
            return known
        request = _RTGENMSG + encode_attribute(_NETNSA_NSID, netlink.S32.pack(_NSID_ANY))
        request += encode_attribute(_NETNSA_FD, netlink.U32.pack(namespace))
        try:
            self.request(_RTM_NEWNSID, request, doing="assign namespace id")
        except KernelError as err:
            if err.errno != errno.EEXIST:
                raise
        assigned = self.nsid(namespace)
        if assigned is None:
            raise KernelError("assign namespace id: the kernel took it and knows none")
        return assigned
