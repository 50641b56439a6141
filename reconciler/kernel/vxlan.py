"""VXLAN links and their forwarding tables: made, read, and changed entry by entry.

Source: RFC 7348; Linux drivers/net/vxlan; bridge(8), "fdb".
"""

from __future__ import annotations

import errno
import ipaddress
from dataclasses import dataclass

from reconciler.errors import KernelError, KernelFormatError
from reconciler.kernel import link, netlink, rtnl
from reconciler.kernel.netlink import encode_attribute
from reconciler.kernel.rtnl import IpAddress
from reconciler.kernel.rtnlencode import nested
from reconciler.kernel.rtnlsocket import RtnlSocket

FLOOD = bytes(6)
"""The all-zero address: where frames go whose receiver nobody knows, and those for all."""

_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 28, 29, 30
_AF_BRIDGE = 7
_NTF_SELF = 0x02
_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80
_NDA_DST, _NDA_LLADDR, _NDA_PORT, _NDA_VNI, _NDA_IFINDEX = 1, 2, 6, 7, 8
_APPEND = netlink.NLM_F_CREATE | 0x800  # NLM_F_APPEND: beside the other receivers, not in their place


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where the frames for a hardware address go.

    ``lasting``: somebody wrote it, it was not learnt. ``plain``: by the link's own number and port.
    """

    mac: bytes
    remote: IpAddress | None
    lasting: bool
    plain: bool


def create(sock: RtnlSocket, name: str, *, mac: str, mtu: int, options: rtnl.VxlanOptions, alias: str) -> rtnl.Link:
    """Create a VXLAN link, down; like a bridge, one of the MAC without an alias is completed.

    It learns where others are. The alternative is to write down where each VE is, which a VE that moves outruns; or to
    send every frame to all hosts. Packets may be cut into fragments between the hosts: a path smaller than was thought
    is slow then, and not silent.
    Raises: KernelError, with EEXIST if another link has the name, or the number and the port.
    """
    doing = f"create vxlan {name} of id {options.id}"
    local = "IFLA_VXLAN_LOCAL" if options.local is None or options.local.version == 4 else "IFLA_VXLAN_LOCAL6"
    data = nested(
        ("IFLA_VXLAN_ID", options.id),
        ("IFLA_VXLAN_PORT", options.port),
        (local, str(options.local)),
        ("IFLA_VXLAN_LEARNING", int(options.learning)),
    )
    info = nested(("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", data))
    attributes = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", mac), ("IFLA_MTU", mtu), ("IFLA_LINKINFO", info)]
    link.create(sock, attributes, doing=doing)
    made = sock.link(name)
    if made is None:  # the name is free: it is the number that is taken
        what = f"{doing}: another link of this host has the id and port {options.port}; delete that, or use another id"
        raise KernelError(what, errno=errno.EEXIST)
    if made.kind != "vxlan" or not (made.alias == alias or (made.alias is None and made.mac == mac)):
        raise KernelError(f"{doing}: a link of the name is there, and not ours; delete that first", errno=errno.EEXIST)
    if made.alias is None:
        link.set_alias(sock, made.index, alias)
    return made


def entries(sock: RtnlSocket, index: int) -> list[Entry]:
    """List a VXLAN link's own forwarding table.

    Raises: KernelError.
    """
    request = rtnl.NDMSG.pack(_AF_BRIDGE, index, 0, 0, 0)
    dumped = sock.dump(_RTM_GETNEIGH, request, doing=f"list forwarding table of link {index}")
    return [found for payload in dumped if (found := _parse(payload, index)) is not None]


def is_about_flooding(payload: bytes) -> bool:
    """Say whether a notice is about what was written into a forwarding table, not about what it learnt.

    Shape: the payload of RTM_NEWNEIGH or RTM_DELNEIGH.
    """
    family, _, state, flags, _ = rtnl.NDMSG.unpack_from(payload)
    return family == _AF_BRIDGE and bool(flags & _NTF_SELF) and bool(state & (_NUD_NOARP | _NUD_PERMANENT))


def _parse(payload: bytes, index: int) -> Entry | None:
    if len(payload) < rtnl.NDMSG.size:
        raise KernelFormatError(f"parse forwarding entry: expected {rtnl.NDMSG.size} bytes, got {len(payload)}")
    _, of, state, flags, _ = rtnl.NDMSG.unpack_from(payload)
    if of != index or not flags & _NTF_SELF:  # the bridge tells of its own entries for the same port
        return None
    found = netlink.attributes(payload, rtnl.NDMSG.size)
    return Entry(
        mac=found.get(_NDA_LLADDR, b""),
        remote=ipaddress.ip_address(found[_NDA_DST]) if _NDA_DST in found else None,
        lasting=bool(state & (_NUD_NOARP | _NUD_PERMANENT)),
        plain=not {_NDA_PORT, _NDA_VNI, _NDA_IFINDEX} & found.keys(),
    )


def add_flood(sock: RtnlSocket, index: int, remote: IpAddress) -> None:
    """Send frames of no known receiver to a host, too.

    Raises: KernelError.
    """
    doing = f"send what is for all on link {index} to {remote}"
    sock.request(_RTM_NEWNEIGH, _entry(index, FLOOD, remote), doing=doing, flags=_APPEND)


def delete_entry(sock: RtnlSocket, index: int, mac: bytes, remote: IpAddress | None) -> None:
    """Delete one receiver of an address, or the address as a whole; absent is success.

    Raises: KernelError.
    """
    doing = f"delete {mac.hex(':')} at {remote} of link {index}"
    try:
        sock.request(_RTM_DELNEIGH, _entry(index, mac, remote), doing=doing)
    except KernelError as err:
        if err.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def forget_learnt(sock: RtnlSocket, index: int, remote: IpAddress) -> None:
    """Delete what was learnt of a host that is no more.

    Raises: KernelError.
    """
    for entry in entries(sock, index):
        if entry.remote == remote and not entry.lasting:
            delete_entry(sock, index, entry.mac, None)


def _entry(index: int, mac: bytes, remote: IpAddress | None) -> bytes:
    header = rtnl.NDMSG.pack(_AF_BRIDGE, index, _NUD_NOARP | _NUD_PERMANENT, _NTF_SELF, 0)
    named = header + encode_attribute(_NDA_LLADDR, mac)
    return named if remote is None else named + encode_attribute(_NDA_DST, remote.packed)
