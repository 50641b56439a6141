"""What rtnetlink says of links, addresses, routes and neighbours, as frozen values.

The parsers are pure: payload of a kernel message in, value out. A pass meets the same payloads as the one before, so
they remember their answers: the key is everything that the kernel said, and a hit costs a twentieth of parsing.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from functools import lru_cache

from reconciler.errors import KernelFormatError
from reconciler.kernel.netlink import attributes, label, s32, text, u32

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

IFF_UP = 0x1
IFF_RUNNING = 0x40

IFA_F_NODAD = 0x02

RT_TABLE_MAIN = 254
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTN_UNICAST = 1
RTNH_F_ONLINK = 4

NTF_PROXY = 0x08

IFINFOMSG = struct.Struct("=BxHiII")
IFADDRMSG = struct.Struct("=BBBBI")
RTMSG = struct.Struct("=BBBBBBBBI")
NDMSG = struct.Struct("=BxxxiHBB")

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_QDISC = 6
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_LINK_NETNSID = 18, 20, 37
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_BR_FORWARD_DELAY, _BR_STP_STATE, _BR_MCAST_SNOOPING = 1, 5, 23
_BRPORT_HAIRPIN, _BRPORT_LEARNING, _BRPORT_FLOOD, _BRPORT_ISOLATED = 4, 8, 9, 33
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS, _IFA_PROTO = 1, 2, 8, 11
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 9, 15, 18
_NDA_DST, _NDA_LLADDR, _NDA_PROTOCOL = 1, 2, 12
_ANY = {2: bytes(4), 10: bytes(16)}  # AF_INET, AF_INET6
_BRIDGE = b"bridge\0"
_VXLAN = b"vxlan\0"
_VX_ID, _VX_GROUP, _VX_LINK, _VX_LOCAL, _VX_LEARNING, _VX_PORT = 1, 2, 3, 4, 7, 15
_VX_GROUP6, _VX_LOCAL6 = 16, 17
_VX_TURNED = (11, 12, 13, 14, 25)  # PROXY, RSC, L2MISS, L3MISS, COLLECT_METADATA


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeOptions:
    """How a bridge switches.

    Units: the delay in hundredths of a second.
    """

    stp: bool
    forward_delay: int
    multicast_snooping: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VxlanOptions:
    """How a VXLAN link wraps what it sends. ``plain``: with nothing else turned on."""

    id: int
    port: int
    local: IpAddress | None
    learning: bool
    plain: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgePort:
    """How a bridge treats one port: ``isolated`` ports do not reach each other, ``hairpin`` sends back where from."""

    isolated: bool
    hairpin: bool
    learning: bool
    flood: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface.

    ``up`` is what an administrator asked for, ``running`` whether it carries. ``peer_index`` is the other end of a
    veth, in the namespace ``peer_nsid``, or in the same one if that is None. ``queue``: the kind of what is before its
    way out.
    """

    index: int
    name: str
    kind: str | None
    mac: str | None
    mtu: int
    up: bool
    running: bool
    master: int | None
    alias: str | None
    peer_index: int | None
    peer_nsid: int | None
    port: BridgePort | None
    bridge: BridgeOptions | None
    queue: str = ""
    vxlan: VxlanOptions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address of an interface, with the prefix that it spans.

    ``protocol`` is who made it (IFA_PROTO), 0 where nobody said or the kernel is older than 5.18.
    """

    index: int
    interface: IpInterface
    scope: int
    flags: int
    protocol: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route; equal to another if the kernel would treat them the same.

    Build one by `route.via` or `route.on_link`, which fill in what the kernel derives. ``multipath`` routes have
    several next hops, and then neither gateway nor index here.
    """

    destination: IpNetwork
    gateway: IpAddress | None
    index: int | None
    protocol: int
    metric: int
    kind: int = RTN_UNICAST
    scope: int = RT_SCOPE_UNIVERSE
    table: int = RT_TABLE_MAIN
    source: IpAddress | None = None
    on_link: bool = False
    multipath: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """What a link-layer address was learnt, set or (``proxy``) is answered for.

    ``protocol`` is who made it (NDA_PROTOCOL), 0 where nobody said.
    """

    index: int
    address: IpAddress
    mac: str | None
    state: int
    proxy: bool
    protocol: int


@lru_cache(maxsize=1024)  # some 1.5 KB each
def parse_link(payload: bytes) -> Link:
    """Parse RTM_NEWLINK.

    Raises: KernelFormatError.
    Source: rtnetlink(7); Linux Documentation/netlink/specs/rt_link.yaml.
    """
    _require(payload, IFINFOMSG.size, "link")
    _, _, index, flags, _ = IFINFOMSG.unpack_from(payload)
    found = attributes(payload, IFINFOMSG.size)
    info = attributes(found[_IFLA_LINKINFO]) if _IFLA_LINKINFO in found else {}
    kind = info.get(_INFO_KIND)
    return Link(
        index=index,
        name=label(found.get(_IFLA_IFNAME, b"")),
        kind=None if kind is None else text(kind),
        mac=_mac(found.get(_IFLA_ADDRESS)),
        mtu=_number(found.get(_IFLA_MTU)) or 0,
        up=bool(flags & IFF_UP),
        running=bool(flags & IFF_RUNNING),
        master=_number(found.get(_IFLA_MASTER)),
        alias=label(found[_IFLA_IFALIAS]) if _IFLA_IFALIAS in found else None,
        peer_index=_number(found.get(_IFLA_LINK)),
        peer_nsid=s32(found[_IFLA_LINK_NETNSID]) if _IFLA_LINK_NETNSID in found else None,
        port=_bridge_port(info[_INFO_SLAVE_DATA]) if info.get(_INFO_SLAVE_KIND) == _BRIDGE else None,
        bridge=_bridge_options(info[_INFO_DATA]) if kind == _BRIDGE else None,
        queue=text(found.get(_IFLA_QDISC, b"")),
        vxlan=_vxlan_options(info[_INFO_DATA]) if kind == _VXLAN and _INFO_DATA in info else None,
    )


@lru_cache(maxsize=2048)
def parse_address(payload: bytes) -> Address:
    """Parse RTM_NEWADDR.

    Raises: KernelFormatError.
    Source: rtnetlink(7).
    """
    _require(payload, IFADDRMSG.size, "address")
    _, prefix, flags, scope, index = IFADDRMSG.unpack_from(payload)
    found = attributes(payload, IFADDRMSG.size)
    # IFA_ADDRESS is the far end on a point-to-point link; IFA_LOCAL, where given, is always ours.
    own = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if own is None:
        raise KernelFormatError(f"parse address on link {index}: expected IFA_LOCAL or IFA_ADDRESS, got neither")
    return Address(
        index=index,
        interface=_interface(own, prefix),
        scope=scope,
        flags=u32(found[_IFA_FLAGS]) if _IFA_FLAGS in found else flags,
        protocol=int.from_bytes(found.get(_IFA_PROTO, b""), "little"),
    )


@lru_cache(maxsize=2048)
def parse_route(payload: bytes) -> Route:
    """Parse RTM_NEWROUTE; a default route has the destination ``0.0.0.0/0`` or ``::/0``.

    Raises: KernelFormatError.
    Source: rtnetlink(7).
    """
    _require(payload, RTMSG.size, "route")
    family, prefix, _, _, table, protocol, scope, kind, flags = RTMSG.unpack_from(payload)
    found = attributes(payload, RTMSG.size)
    destination = found.get(_RTA_DST) or _ANY.get(family)
    if destination is None:
        raise KernelFormatError(f"parse route: expected address family 2 or 10, got {family}")
    return Route(
        destination=_network(destination, prefix),
        gateway=_gateway(found),
        index=_number(found.get(_RTA_OIF)),
        protocol=protocol,
        metric=_number(found.get(_RTA_PRIORITY)) or 0,
        kind=kind,
        scope=scope,
        table=_number(found.get(_RTA_TABLE)) or table,
        source=_ip(found[_RTA_PREFSRC]) if _RTA_PREFSRC in found else None,
        on_link=bool(flags & RTNH_F_ONLINK),
        multipath=_RTA_MULTIPATH in found,
    )


@lru_cache(maxsize=2048)
def parse_neighbour(payload: bytes) -> Neighbour:
    """Parse RTM_NEWNEIGH.

    Raises: KernelFormatError.
    Source: rtnetlink(7).
    """
    _require(payload, NDMSG.size, "neighbour")
    _, index, state, flags, _ = NDMSG.unpack_from(payload)
    found = attributes(payload, NDMSG.size)
    if _NDA_DST not in found:
        raise KernelFormatError(f"parse neighbour on link {index}: expected NDA_DST, got none")
    return Neighbour(
        index=index,
        address=_ip(found[_NDA_DST]),
        mac=_mac(found.get(_NDA_LLADDR)),
        state=state,
        proxy=bool(flags & NTF_PROXY),
        protocol=int.from_bytes(found.get(_NDA_PROTOCOL, b""), "little"),
    )


def _require(payload: bytes, size: int, what: str) -> None:
    if len(payload) < size:
        raise KernelFormatError(f"parse {what}: expected at least {size} bytes, got {len(payload)}")


def _number(value: bytes | None) -> int | None:
    return None if value is None else u32(value)


def _mac(value: bytes | None) -> str | None:
    return value.hex(":") if value else None


def _flag(found: dict[int, bytes], kind: int) -> bool:
    return any(found.get(kind, b""))


def _bridge_port(data: bytes) -> BridgePort:
    found = attributes(data)
    return BridgePort(
        isolated=_flag(found, _BRPORT_ISOLATED),
        hairpin=_flag(found, _BRPORT_HAIRPIN),
        learning=_flag(found, _BRPORT_LEARNING),
        flood=_flag(found, _BRPORT_FLOOD),
    )


def _bridge_options(data: bytes) -> BridgeOptions:
    found = attributes(data)
    return BridgeOptions(
        stp=_flag(found, _BR_STP_STATE),
        forward_delay=_number(found.get(_BR_FORWARD_DELAY)) or 0,
        multicast_snooping=_flag(found, _BR_MCAST_SNOOPING),
    )


def _vxlan_options(data: bytes) -> VxlanOptions:
    found = attributes(data)
    local = found.get(_VX_LOCAL) or found.get(_VX_LOCAL6)
    named = any(any(found.get(kind, b"")) for kind in (_VX_GROUP, _VX_GROUP6, _VX_LINK))
    return VxlanOptions(
        id=_number(found.get(_VX_ID)) or 0,
        port=int.from_bytes(found.get(_VX_PORT, b""), "big"),
        local=_ip(local) if local else None,
        learning=_flag(found, _VX_LEARNING),
        plain=not named and not any(_flag(found, kind) for kind in _VX_TURNED),
    )


def _gateway(found: dict[int, bytes]) -> IpAddress | None:
    if _RTA_GATEWAY in found:
        return _ip(found[_RTA_GATEWAY])
    if _RTA_VIA in found:
        return _ip(found[_RTA_VIA][2:])  # behind the address family: an IPv4 route by an IPv6 neighbour
    return None


def _ip(raw: bytes) -> IpAddress:
    try:
        return ipaddress.ip_address(raw)
    except ValueError as err:
        raise _no_address(raw) from err


def _interface(raw: bytes, prefix: int) -> IpInterface:
    try:
        return ipaddress.ip_interface((raw, prefix))
    except ValueError as err:
        raise _no_address(raw, prefix) from err


def _network(raw: bytes, prefix: int) -> IpNetwork:
    try:
        return ipaddress.ip_network((raw, prefix))
    except ValueError as err:
        raise _no_address(raw, prefix) from err


def _no_address(raw: bytes, prefix: int | None = None) -> KernelFormatError:
    end = "" if prefix is None else f" with prefix {prefix}"
    return KernelFormatError(f"parse address: expected 4 or 16 bytes and a prefix that fits, got {raw.hex()!r}{end}")
