"""Sockets of a network namespace that hold what cannot be saved, found by sock_diag(7).

Unlike /proc/net/tcp, which walks all of the host's connections for each namespace, this asks for listening ones only.
Source: linux/inet_diag.h, linux/netlink_diag.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.errors import KernelError
from reconciler.kernel import netlink, netns
from reconciler.kernel.nlsocket import NetlinkSocket

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY = 20
_DUMP_LIMIT = 20_000

_LISTEN = 10
_INET_REQUEST = struct.Struct("=BBBxI48x")
_INET_ANSWER = struct.Struct("=4xH46xIIIII")  # source port (big-endian); expires, receive queue, send queue, uid, inode
_NETLINK_REQUEST = struct.Struct("=BBxxII8x")
_NETLINK_ANSWER = struct.Struct("=BBBBIIII8x")  # family, type, protocol, state; port, two of the peer, inode
_ALL_PROTOCOLS = 255
_SHOW_MEMORY, _SHOW_GROUPS = 1, 2
_MEMORY, _GROUPS = 0, 1
_U32 = 4

_ABSENT = (errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL)
"""What the kernel answers where it has no such diagnosis; criu has none there either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketNote:
    """What is to be said of a socket. ``waits``: what nobody has taken from it. ``protocol``: more than its name."""

    waits: str = ""
    protocol: str = ""


def read_notes(namespace: int) -> Mapping[int, SocketNote]:
    """Find the sockets of a network namespace of which something is to be said, by inode.

    Raises: KernelError, also if there are more of them than are believed.
    """
    made = netns.open_socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
    with NetlinkSocket(made, dump_limit=_DUMP_LIMIT) as sock:
        return {**dict(_listening(sock)), **dict(_netlink(sock))}


def _listening(sock: NetlinkSocket) -> Iterator[tuple[int, SocketNote]]:
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _INET_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << _LISTEN)
        for answer in _dump(sock, request, doing="list listening sockets"):
            port, _, waiting, _, _, inode = _INET_ANSWER.unpack_from(answer)
            if waiting:
                text = f"has not accepted all connections to its port {socket.ntohs(port)}"
                yield inode, SocketNote(waits=text)


def _netlink(sock: NetlinkSocket) -> Iterator[tuple[int, SocketNote]]:
    request = _NETLINK_REQUEST.pack(socket.AF_NETLINK, _ALL_PROTOCOLS, 0, _SHOW_MEMORY | _SHOW_GROUPS)
    for answer in _dump(sock, request, doing="list netlink sockets"):
        inode = _NETLINK_ANSWER.unpack_from(answer)[7]
        parts = netlink.attributes(answer, _NETLINK_ANSWER.size)
        memory, groups = parts.get(_MEMORY, b""), parts.get(_GROUPS, b"")
        waits = "has not read all that the kernel told it (netlink)" if any(memory[:_U32]) else ""
        protocol = "NETLINK with more than 32 groups" if _are_many(groups) else ""
        if inode and (waits or protocol):
            yield inode, SocketNote(waits=waits, protocol=protocol)


def _are_many(groups: bytes) -> bool:
    """Say whether criu finds more groups than it can save: it looks at all but a last word of none."""
    words = len(groups) // _U32
    return words - (words > 0 and not any(groups[-_U32:])) > 1


def _dump(sock: NetlinkSocket, request: bytes, *, doing: str) -> list[bytes]:
    try:
        return sock.dump(_BY_FAMILY, request, doing=doing)
    except KernelError as err:
        if err.errno in _ABSENT:
            return []
        raise
