"""Asking whether somebody answers: by a connection, or by an echo."""

from __future__ import annotations

import os
import socket
import struct
import time
from ipaddress import IPv4Address, IPv6Address

_ECHO_REQUEST = {4: 8, 6: 128}
_ECHO_REPLY = {4: 0, 6: 129}
_HEADER = struct.Struct("!BBHHH")
"""Type, code, checksum, identifier, sequence number. Source: RFC 792; RFC 4443, section 4."""

_IP_HEADER_WORDS = 0x0F
_PACKET_BYTES = 4096


def accepts_connections(host: str, port: int, *, timeout_s: float) -> bool:
    """Say whether something accepts a connection now. Blocks for as long as ``timeout_s`` for each address of a name.

    Units: seconds.
    """
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def answers_echo(address: IPv4Address | IPv6Address, *, timeout_s: float) -> bool:
    """Say whether an address answers an echo request now. Blocks.

    Units: seconds.
    """
    family, protocol = (
        (socket.AF_INET, socket.IPPROTO_ICMP) if address.version == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    )
    try:
        with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as sock:
            sock.connect((str(address), 0))
            return _exchange(sock, address.version, time.monotonic() + timeout_s)
    except OSError:
        return False


def _exchange(sock: socket.socket, version: int, deadline: float) -> bool:
    """Send a request, and wait for the answer to just this one."""
    token = os.urandom(8)
    identifier, number = int.from_bytes(token[:2]), 1
    sock.send(_request(version, identifier, number, token))
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        packet = sock.recv(_PACKET_BYTES)
        if version == 4:  # a raw socket of IPv4 gives the header as well
            packet = packet[4 * (packet[0] & _IP_HEADER_WORDS) :]
        if len(packet) >= _HEADER.size + len(token):
            kind, _, _, found, sequence = _HEADER.unpack_from(packet)
            ours = (kind, found, sequence) == (_ECHO_REPLY[version], identifier, number)
            if ours and packet[_HEADER.size :] == token:
                return True
    return False


def _request(version: int, identifier: int, number: int, token: bytes) -> bytes:
    empty = _HEADER.pack(_ECHO_REQUEST[version], 0, 0, identifier, number) + token
    if version == 6:
        return empty  # the kernel fills in the checksum, which covers addresses that only it knows
    return _HEADER.pack(_ECHO_REQUEST[version], 0, _checksum(empty), identifier, number) + token


def _checksum(data: bytes) -> int:
    """Source: RFC 1071."""
    total = sum(int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
