"""Changes to the addresses of a link. Each may be sent twice, and answers "already so" with success."""

from __future__ import annotations

import errno
import socket

from reconciler.errors import KernelError
from reconciler.kernel import netlink, rtnl, rtnlencode
from reconciler.kernel.rtnlsocket import RtnlSocket

_RTM_NEWADDR, _RTM_DELADDR = 20, 21
_POINT_TO_POINT_BITS = 1  # a prefix that leaves no more host bits has no broadcast address (RFC 3021)


def add_address(sock: RtnlSocket, index: int, address: rtnl.IpInterface, *, protocol: int = 0) -> None:
    """Give a link an address, usable at once: IPv6 without the wait for duplicates.

    ``protocol`` marks who made it; kernels older than 5.18 drop that.
    Raises: KernelError, with EEXIST if the link has this IPv6 address with another prefix: delete that one first.
    """
    doing = f"add address {address} to link {index}"
    attributes: list[tuple[str, object]] = [*_key(address), ("IFA_PROTO", protocol)]
    if address.version == 6:
        attributes.append(("IFA_FLAGS", rtnl.IFA_F_NODAD))
    elif address.max_prefixlen - address.network.prefixlen > _POINT_TO_POINT_BITS:
        attributes.append(("IFA_BROADCAST", str(address.network.broadcast_address)))
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    try:
        sock.request(_RTM_NEWADDR, _encode(address, index, attributes), doing=doing, flags=flags)
    except KernelError as err:
        if err.errno != errno.EEXIST or not _is_there(sock, index, address):
            raise


def delete_address(sock: RtnlSocket, index: int, address: rtnl.IpInterface) -> None:
    """Take an address from a link.

    With the first IPv4 address of a subnet the kernel deletes the others of it, unless the namespace's parameter
    ``net.ipv4.conf.all.promote_secondaries`` is 1.
    Raises: KernelError.
    """
    payload = _encode(address, index, _key(address))
    try:
        sock.request(_RTM_DELADDR, payload, doing=f"delete address {address} from link {index}")
    except KernelError as err:
        # ENXIO: the link has no IPv6 at all, as with an MTU below 1280.
        if err.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO):
            raise


def _encode(address: rtnl.IpInterface, index: int, attributes: rtnlencode.Attributes) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return rtnlencode.address(attributes, family=family, prefix=address.network.prefixlen, index=index)


def _key(address: rtnl.IpInterface) -> list[tuple[str, object]]:
    return [("IFA_LOCAL", str(address.ip)), ("IFA_ADDRESS", str(address.ip))]


def _is_there(sock: RtnlSocket, index: int, address: rtnl.IpInterface) -> bool:
    return any(found.interface == address for found in sock.dump_addresses(index=index))
