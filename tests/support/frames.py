"""Frames that a hostile VE may send: whole, byte by byte, for a packet socket."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

ALL = b"\xff" * 6
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_UDP, _ICMPV6 = 17, 58
_ROUTER_ADVERTISEMENT, _SOLICITATION, _ADVERTISEMENT, _REDIRECT = 134, 135, 136, 137


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """Somebody on a link, with his addresses."""

    mac: bytes
    v4: str
    v6: str


def attacks(liar: Station, victim: Station) -> dict[str, bytes]:
    """Give the frames by which one station may take another's traffic, or a role on the link that is not his."""
    link_local = "fe80::1234"
    return {
        "arp-reply": arp(liar.mac, victim.v4, victim.v4, operation=2),
        "arp-request": arp(liar.mac, victim.v4, "0.0.0.0"),
        "arp-with-another-mac": arp(liar.mac, liar.v4, victim.v4, hardware=victim.mac),
        "mac": ipv4(victim.mac, liar.v4, victim.v4),
        "ipv4": ipv4(liar.mac, victim.v4, liar.v4),
        "dhcp-server": ipv4(liar.mac, liar.v4, victim.v4, ports=(67, 68)),
        "ipv6": udp6(liar.mac, victim.v6),
        "advertisement": icmp6(liar.mac, liar.v6, _ADVERTISEMENT, victim.v6),
        "advertisement-from-link-local": icmp6(liar.mac, link_local, _ADVERTISEMENT, victim.v6),
        "duplicate-detection": icmp6(liar.mac, "::", _SOLICITATION, victim.v6),
        "router-advertisement": icmp6(liar.mac, link_local, _ROUTER_ADVERTISEMENT),
        "redirect": icmp6(liar.mac, link_local, _REDIRECT, victim.v6),
        "dhcpv6-server": udp6(liar.mac, link_local, ports=(547, 546)),
        "vlan": ALL + liar.mac + struct.pack("!HH", 0x8100, 7) + ipv4(liar.mac, liar.v4, victim.v4)[12:],
        "other-protocol": ethernet(liar.mac, 0x9000, bytes(46)),
    }


def ethernet(source: bytes, kind: int, body: bytes) -> bytes:
    """Make a frame to everybody."""
    return ALL + source + struct.pack("!H", kind) + body


def arp(mac: bytes, sender: str, target: str, *, operation: int = 1, hardware: bytes | None = None) -> bytes:
    """Make an ARP request or reply. Source: RFC 826."""
    head = struct.pack("!HHBBH", 1, _IPV4, 6, 4, operation)
    body = (hardware or mac) + IPv4Address(sender).packed + bytes(6) + IPv4Address(target).packed
    return ethernet(mac, _ARP, head + body)


def ipv4(mac: bytes, source: str, target: str, *, ports: tuple[int, int] = (5000, 5001)) -> bytes:
    """Make an IPv4 packet that carries UDP."""
    udp = struct.pack("!HHHH", *ports, 12, 0) + b"test"
    addresses = IPv4Address(source).packed + IPv4Address(target).packed
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(udp), 1, 0, 9, _UDP)
    # Where bridged packets are shown to the IP hooks as well, one with a wrong checksum gets nowhere.
    total = sum(struct.unpack("!5H", head)) + sum(struct.unpack("!4H", addresses))
    checksum = struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
    return ethernet(mac, _IPV4, head + checksum + addresses + udp)


def udp6(mac: bytes, source: str, *, ports: tuple[int, int] = (5000, 5001)) -> bytes:
    """Make an IPv6 packet that carries UDP, to all nodes."""
    return _ipv6(mac, source, _UDP, struct.pack("!HHHH", *ports, 12, 0) + b"test")


def icmp6(mac: bytes, source: str, kind: int, target: str = "::") -> bytes:
    """Make a message of neighbour discovery, to all nodes. Source: RFC 4861, section 4."""
    return _ipv6(mac, source, _ICMPV6, struct.pack("!BBHI", kind, 0, 0, 0) + IPv6Address(target).packed)


def _ipv6(mac: bytes, source: str, protocol: int, body: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 255)
    return ethernet(mac, _IPV6, head + IPv6Address(source).packed + IPv6Address("ff02::1").packed + body)
