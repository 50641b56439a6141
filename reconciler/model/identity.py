"""Names and identities, and every name that an instance gives to a kernel object."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NewType

VeName = NewType("VeName", str)
"""RFC 1123 label, unique in the fleet."""

Uid = NewType("Uid", str)
"""Identity of a VE for its whole life: a UUID in lower case, made at creation."""

NetworkName = NewType("NetworkName", str)
TemplateName = NewType("TemplateName", str)
SnapshotName = NewType("SnapshotName", str)
HostName = NewType("HostName", str)

Digest = NewType("Digest", str)
"""SHA-256 of content, 64 hex digits."""

IDS_PER_VE = 65536
"""Size of each VE's range of user and group ids: what a whole distribution may use."""

ROUTE_PROTOCOL = 118
"""rtm_protocol of every route we add; unassigned in rt_protos of iproute2. Units: none (8 bit)."""

_INTERFACE_NAME_MAX = 15
"""IFNAMSIZ - 1 of linux/if.h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What a coordinator gives a VE at birth: its identity and the first of its `IDS_PER_VE` ids."""

    uid: Uid
    id_base: int


def _short_hash(*parts: str, length: int) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]


def bridge_name(instance: str, network: NetworkName) -> str:
    """Give the bridge's interface name: readable where it fits in 15 characters, a hash where not."""
    plain = f"{instance}-{network}"
    if len(plain) <= _INTERFACE_NAME_MAX:
        return plain
    return f"vb{_short_hash(instance, network, length=12)}"


def host_link_name(instance: str, uid: Uid, interface: str) -> str:
    """Give the name of the host's end of a VE's interface; stable for the life of the VE."""
    return f"ve{_short_hash(instance, uid, interface, length=12)}"


def shaper_name(host_link: str) -> str:
    """Give the name of the link over which what comes in by the host's end of an interface is led."""
    return f"vi{host_link.removeprefix('ve')}"


def link_alias(instance: str, uid: Uid) -> str:
    """Give the ifalias that marks a link as ours and says whose it is."""
    return f"{instance}:{uid}"


def network_alias(instance: str, network: NetworkName, *, routed: bool) -> str:
    """Give the ifalias that marks a network's link as ours and says whether it switches or routes."""
    return f"{instance}:{'routed' if routed else 'bridged'}:{network}"


def tunnel_name(instance: str, network: NetworkName) -> str:
    """Give the name of a network's link to the other hosts."""
    return f"vx{_short_hash(instance, network, length=12)}"


def tunnel_alias(instance: str, network: NetworkName) -> str:
    """Give the ifalias that marks a network's link to the other hosts as ours."""
    return f"{instance}:vxlan:{network}"


def filter_table(instance: str) -> str:
    """Give the name of our nftables tables, one each in the families bridge and inet."""
    return instance.replace("-", "_")


def derived_mac(uid: Uid, interface: str) -> str:
    """Derive a stable locally administered unicast address from a VE's identity.

    Shape: six octets in lower case, joined by colons.
    Source: IEEE 802-2014, section 8.4 (the local bit).
    """
    digest = hashlib.sha256(f"{uid}\0{interface}".encode()).digest()
    octets = bytes([(digest[0] & 0xFC) | 0x02]) + digest[1:6]
    return ":".join(f"{octet:02x}" for octet in octets)
