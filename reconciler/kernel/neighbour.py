"""Changes to the neighbour tables: addresses that are answered for on behalf of VEs, and those that VEs had learnt.

Each change may be sent twice, and answers "already so" with success.
"""

from __future__ import annotations

import errno
import socket

from reconciler.errors import KernelError
from reconciler.kernel import netlink, rtnl, rtnlencode
from reconciler.kernel.rtnl import IpAddress
from reconciler.kernel.rtnlsocket import RtnlSocket

_RTM_NEWNEIGH, _RTM_DELNEIGH = 28, 29
_STALE = 0x04
_LEARNT = 0x02 | _STALE | 0x08 | 0x10
"""The states of an entry whose hardware address is used. Source: linux/neighbour.h, NUD_REACHABLE and others."""
_UPSERT = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE


def add_proxy(sock: RtnlSocket, index: int, address: IpAddress, *, protocol: int) -> None:
    """Answer ARP or neighbour solicitations on a link for an address that is routed elsewhere.

    The host must forward; IPv6 also needs the parameter ``proxy_ndp`` of the link. ``protocol``: who wants it, as with
    routes.
    Raises: KernelError.
    Source: ip-neighbour(8), "proxy".
    """
    doing = f"add proxy for {address} on link {index}"
    attributes = [("NDA_DST", str(address)), ("NDA_PROTOCOL", protocol)]
    sock.request(_RTM_NEWNEIGH, _proxy(index, address, attributes), doing=doing, flags=_UPSERT)


def delete_proxy(sock: RtnlSocket, index: int, address: IpAddress) -> None:
    """Stop answering for an address.

    Raises: KernelError.
    """
    payload = _proxy(index, address, [("NDA_DST", str(address))])
    try:
        sock.request(_RTM_DELNEIGH, payload, doing=f"delete proxy for {address} on link {index}")
    except KernelError as err:
        if err.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def is_learnt(found: rtnl.Neighbour) -> bool:
    """Say whether a hardware address was learnt, and is used."""
    return found.mac is not None and not found.proxy and bool(found.state & _LEARNT)


def learn(sock: RtnlSocket, index: int, address: IpAddress, mac: str) -> None:
    """Have a neighbour's hardware address used at once, and asked for while it is.

    Raises: KernelError.
    """
    payload = rtnlencode.neighbour(
        [("NDA_DST", str(address)), ("NDA_LLADDR", mac)], family=_family(address), index=index, state=_STALE, flags=0
    )
    sock.request(_RTM_NEWNEIGH, payload, doing=f"set neighbour {address} on link {index}", flags=_UPSERT)


def _proxy(index: int, address: IpAddress, attributes: rtnlencode.Attributes) -> bytes:
    return rtnlencode.neighbour(attributes, family=_family(address), index=index, state=0, flags=rtnl.NTF_PROXY)


def _family(address: IpAddress) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
