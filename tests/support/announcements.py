"""Frames that announce an address, built by hand: what a VE may send about its own ones."""

from __future__ import annotations

import ipaddress
import struct

from reconciler.kernel.rtnl import IpAddress

_ETH_P_ARP, _ETH_P_IPV6 = 0x0806, 0x86DD
_ARP_REQUEST = 1
_BROADCAST = b"\xff" * 6
_ALL_NODES = ipaddress.IPv6Address("ff02::1")
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ICMPV6, _NEIGHBOR_ADVERTISEMENT, _HOP_LIMIT = 58, 136, 255
_OVERRIDE = 0x20000000
_TARGET_LINK_LAYER = 2


def frame_for(mac: str, address: IpAddress) -> bytes:
    """Build the Ethernet frame that announces an address."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    if isinstance(address, ipaddress.IPv4Address):
        return gratuitous_arp(hardware, address)
    return unsolicited_advertisement(hardware, address)


def gratuitous_arp(hardware: bytes, address: ipaddress.IPv4Address) -> bytes:
    """Build an ARP announcement: a request whose sender asks for itself.

    Source: RFC 5227, section 3.
    """
    ethernet = _BROADCAST + hardware + struct.pack("!H", _ETH_P_ARP)
    return ethernet + struct.pack(
        "!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, _ARP_REQUEST, hardware, address.packed, bytes(6), address.packed
    )


def unsolicited_advertisement(hardware: bytes, address: ipaddress.IPv6Address) -> bytes:
    """Build a neighbour advertisement to all nodes that overrides what they know.

    Source: RFC 4861, sections 4.4 and 7.2.6.
    """
    option = struct.pack("!BB6s", _TARGET_LINK_LAYER, 1, hardware)
    body = struct.pack("!I16s", _OVERRIDE, address.packed) + option
    message = struct.pack("!BBH", _NEIGHBOR_ADVERTISEMENT, 0, 0) + body
    checksum = _checksum(_pseudo_header(address, len(message)) + message)
    message = struct.pack("!BBH", _NEIGHBOR_ADVERTISEMENT, 0, checksum) + body
    header = struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, _HOP_LIMIT) + address.packed + _ALL_NODES.packed
    return _ALL_NODES_MAC + hardware + struct.pack("!H", _ETH_P_IPV6) + header + message


def _pseudo_header(source: ipaddress.IPv6Address, length: int) -> bytes:
    return source.packed + _ALL_NODES.packed + struct.pack("!IxxxB", length, _ICMPV6)


def _checksum(data: bytes) -> int:
    """Sum up data of an even length (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
