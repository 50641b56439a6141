"""Established connections to a port of this network namespace, by sock_diag(7).

Source: linux/inet_diag.h; Linux net/ipv4/inet_diag.c, "inet_diag_dump_icsk".
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from reconciler.errors import KernelError
from reconciler.kernel import nlsocket
from reconciler.kernel.nlsocket import NetlinkSocket

SSH_PORT = 22
"""Source: RFC 4253, section 4.1."""

_NETLINK_SOCK_DIAG = 4
_BOTH_FAMILIES = 18
"""TCPDIAG_GETSOCK: the older request is the only one that is answered for IPv4 and IPv6 in one walk."""

_ESTABLISHED = 1
_REQUEST = struct.Struct("=BBBBHH44xII")  # family, and three; ports; the rest of the id; states, dump number
_ANSWER = struct.Struct("=B3x4x16s")  # family; ports; source address
_ABSENT = (errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL)


class SessionSocket:
    """A socket that is kept open to ask for connections with."""

    def __init__(self) -> None:
        self._socket = NetlinkSocket(nlsocket.open_here(_NETLINK_SOCK_DIAG))

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def local_ends(self, port: int) -> frozenset[ipaddress.IPv4Address | ipaddress.IPv6Address]:
        """Give the addresses of this machine at which somebody is connected to a port; a loopback's are none.

        Raises: KernelError.
        """
        request = _REQUEST.pack(socket.AF_UNSPEC, 0, 0, 0, socket.htons(port), 0, 1 << _ESTABLISHED, 0)
        try:
            answers = self._socket.dump(_BOTH_FAMILIES, request, doing="list connections")
        except KernelError as err:
            if err.errno in _ABSENT:
                return frozenset()
            raise
        found = {_address(*_ANSWER.unpack_from(answer)) for answer in answers}
        return frozenset(address for address in found if not address.is_loopback)


def _address(family: int, raw: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(raw[:4])
    address = ipaddress.IPv6Address(raw)
    return address.ipv4_mapped or address
