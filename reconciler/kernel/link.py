"""Changes to network interfaces. Each is one request, may be sent twice, and answers "already so" with success.

Links are addressed by index: a name may have gone to another link since it was read. ``RtnlSocket`` names the
namespace. What a link carries afterwards is read by `rtnlsocket`.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from reconciler.errors import KernelError
from reconciler.kernel import netlink, rtnl, rtnlencode
from reconciler.kernel.rtnlencode import Attributes, nested
from reconciler.kernel.rtnlsocket import RtnlSocket

_RTM_NEWLINK, _RTM_DELLINK = 16, 17
_CREATE = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL

# Without spanning trees a delay would only keep a new port silent for its first seconds. Snooping is off since a
# hostile VE could pose as the querier and cut its neighbours off from IPv6 neighbour discovery.
PLAIN_SWITCH = rtnl.BridgeOptions(stp=False, forward_delay=0, multicast_snooping=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class VethPair:
    """A veth to create: its two ends share MTU and alias."""

    host_name: str
    host_mac: str
    peer_name: str
    peer_mac: str
    mtu: int
    alias: str


def create_bridge(sock: RtnlSocket, name: str, *, mac: str, mtu: int, alias: str) -> int:
    """Create a bridge, down and a `PLAIN_SWITCH`, and give its index.

    The kernel takes no alias at creation. A bridge that has the MAC but no alias was left so by a crash between the
    two steps, and is completed; so the MAC must be one that only we would choose.
    Raises: KernelError, with EEXIST if another link has the name.
    """
    doing = f"create bridge {name}"
    info = nested(("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", _bridge_data(PLAIN_SWITCH)))
    attributes = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", mac), ("IFLA_MTU", mtu), ("IFLA_LINKINFO", info)]
    create(sock, attributes, doing=doing)
    made = _require(sock, name, doing=doing)
    marked = made.alias == alias or (made.alias is None and made.mac == mac)
    if made.kind != "bridge" or not marked:
        raise _taken(doing, made)
    _complete(sock, made, alias)
    return made.index


def create_veth(host: RtnlSocket, peer: RtnlSocket, peer_namespace: int, pair: VethPair) -> tuple[int, int]:
    """Create a veth whose peer is born in another namespace, both ends down, and give the two indexes.

    A pair of these names that already connects the two namespaces is completed: a crash may have left it unmarked.
    Raises: KernelError, with EEXIST if one of the names is taken otherwise.
    """
    doing = f"create veth {pair.host_name}"
    create(host, _veth_attributes(pair, peer_namespace), doing=doing)
    near = _require(host, pair.host_name, doing=doing)
    far = peer.link(pair.peer_name)
    if far is None or not _are_pair(near, far, host.nsid(peer_namespace)) or near.alias not in (None, pair.alias):
        raise _taken(doing, near)
    _complete(host, near, pair.alias)
    _complete(peer, far, pair.alias)
    return near.index, far.index


def create_ifb(sock: RtnlSocket, name: str, *, mac: str, alias: str) -> rtnl.Link:
    """Create an intermediate functional block, down; like a bridge, one of the MAC without an alias is completed.

    Raises: KernelError, with EEXIST if another link has the name.
    """
    doing = f"create ifb {name}"
    info = nested(("IFLA_INFO_KIND", "ifb"))
    create(sock, [("IFLA_IFNAME", name), ("IFLA_ADDRESS", mac), ("IFLA_LINKINFO", info)], doing=doing)
    made = _require(sock, name, doing=doing)
    if made.kind != "ifb" or not (made.alias == alias or (made.alias is None and made.mac == mac)):
        raise _taken(doing, made)
    _complete(sock, made, alias)
    return made


def create(sock: RtnlSocket, attributes: Attributes, *, doing: str) -> None:
    """Ask for a link; that one of its names is taken is for the caller to find out.

    Raises: KernelError.
    """
    try:
        sock.request(_RTM_NEWLINK, rtnlencode.link(attributes), doing=doing, flags=_CREATE)
    except KernelError as err:
        if err.errno != errno.EEXIST:
            raise


def set_up(sock: RtnlSocket, index: int) -> None:
    """Bring a link up.

    Raises: KernelError.
    """
    _change(sock, index, (), doing=f"set link {index} up", flags=rtnl.IFF_UP)


def set_down(sock: RtnlSocket, index: int) -> None:
    """Take a link down; the kernel drops its IPv6 addresses and its routes.

    Raises: KernelError.
    """
    _change(sock, index, (), doing=f"set link {index} down", flags=0)


def set_mtu(sock: RtnlSocket, index: int, mtu: int) -> None:
    """Set the largest packet of one end of a link.

    Units: bytes.
    Raises: KernelError.
    """
    _change(sock, index, [("IFLA_MTU", mtu)], doing=f"set mtu {mtu} of link {index}")


def set_mac(sock: RtnlSocket, index: int, mac: str) -> None:
    """Set the hardware address.

    Raises: KernelError.
    """
    _change(sock, index, [("IFLA_ADDRESS", mac)], doing=f"set mac {mac} of link {index}")


def set_alias(sock: RtnlSocket, index: int, alias: str) -> None:
    """Set the alias, by which we know what is ours; an empty one removes it.

    Raises: KernelError.
    """
    _change(sock, index, [("IFLA_IFALIAS", alias)], doing=f"set alias {alias!r} of link {index}")


def set_master(sock: RtnlSocket, index: int, master: int | None) -> None:
    """Make a link a port of a bridge, or of none.

    Raises: KernelError.
    """
    _change(sock, index, [("IFLA_MASTER", master or 0)], doing=f"set master {master} of link {index}")


def set_port(sock: RtnlSocket, index: int, port: rtnl.BridgePort) -> None:
    """Set how a bridge treats one port.

    Raises: KernelError.
    """
    data = nested(
        ("IFLA_BRPORT_ISOLATED", int(port.isolated)),
        ("IFLA_BRPORT_MODE", int(port.hairpin)),
        ("IFLA_BRPORT_LEARNING", int(port.learning)),
        ("IFLA_BRPORT_UNICAST_FLOOD", int(port.flood)),
    )
    info = nested(("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", data))
    _change(sock, index, [("IFLA_LINKINFO", info)], doing=f"set options of bridge port {index}")


def move(sock: RtnlSocket, index: int, namespace: int, *, name: str) -> None:
    """Move a link into another namespace, given by its descriptor; there it is down and has no addresses.

    Raises: KernelError, with EEXIST if a link there has the name.
    """
    attributes = [("IFLA_NET_NS_FD", namespace), ("IFLA_IFNAME", name)]
    _change(sock, index, attributes, doing=f"move link {name} to another namespace", flags=0)


def delete_link(sock: RtnlSocket, index: int) -> None:
    """Delete a link, and the other end of a veth with it; waits some 16 ms for the kernel.

    Raises: KernelError.
    """
    try:
        sock.request(_RTM_DELLINK, rtnlencode.link(index=index), doing=f"delete link {index}")
    except KernelError as err:
        if err.errno != errno.ENODEV:
            raise


def _change(sock: RtnlSocket, index: int, attributes: Attributes, *, doing: str, flags: int | None = None) -> None:
    change = 0 if flags is None else rtnl.IFF_UP
    payload = rtnlencode.link(attributes, index=index, flags=flags or 0, change=change)
    sock.request(_RTM_NEWLINK, payload, doing=doing)


def _require(sock: RtnlSocket, name: str, *, doing: str) -> rtnl.Link:
    found = sock.link(name)
    if found is None:
        raise KernelError(f"{doing}: it was gone again before it could be read", errno=errno.ENODEV)
    return found


def _complete(sock: RtnlSocket, made: rtnl.Link, alias: str) -> None:
    if made.alias is None:
        set_alias(sock, made.index, alias)


def _taken(doing: str, other: rtnl.Link) -> KernelError:
    mark = "no alias" if other.alias is None else f"alias {other.alias!r}"
    what = f"{other.kind or 'link'} {other.name} of {mark}"
    return KernelError(
        f"{doing}: one of its names is taken, by {what} or its peer; delete that first", errno=errno.EEXIST
    )


def _are_pair(near: rtnl.Link, far: rtnl.Link, far_nsid: int | None) -> bool:
    """Tell whether two ends point at each other; in one namespace neither has the number of the other's."""
    connected = near.peer_index == far.index and far.peer_index == near.index
    return connected and near.kind == far.kind == "veth" and near.peer_nsid == far_nsid


def _veth_attributes(pair: VethPair, peer_namespace: int) -> Attributes:
    peer = nested(
        ("IFLA_IFNAME", pair.peer_name),
        ("IFLA_ADDRESS", pair.peer_mac),
        ("IFLA_MTU", pair.mtu),
        ("IFLA_NET_NS_FD", peer_namespace),
    )
    data = nested(("VETH_INFO_PEER", peer))
    return [
        ("IFLA_IFNAME", pair.host_name),
        ("IFLA_ADDRESS", pair.host_mac),
        ("IFLA_MTU", pair.mtu),
        ("IFLA_LINKINFO", nested(("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data))),
    ]


def _bridge_data(options: rtnl.BridgeOptions) -> object:
    return nested(
        ("IFLA_BR_STP_STATE", int(options.stp)),
        ("IFLA_BR_FORWARD_DELAY", options.forward_delay),
        ("IFLA_BR_MCAST_SNOOPING", int(options.multicast_snooping)),
    )
