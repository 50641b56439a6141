"""Traffic control: a token bucket at a link's way out, and the detour through an IFB for what comes in by it.

Only what a link sends can wait in a queue. What it receives is led over an intermediate functional block, a link whose
only purpose is to have a queue, and goes on from there as if it had come in just then: every filter sees it, once.
Source: tc-tbf(8); tc-u32(8); tc-mirred(8); linux/pkt_sched.h; linux/pkt_cls.h.
"""

from __future__ import annotations

import errno
import struct
import sys
from dataclasses import dataclass
from functools import lru_cache

from reconciler.errors import KernelError, KernelFormatError
from reconciler.kernel import netlink
from reconciler.kernel.netlink import attributes, encode_attribute, text, u32
from reconciler.kernel.rtnlsocket import RtnlSocket

_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38
_RTM_NEWTFILTER, _RTM_DELTFILTER, _RTM_GETTFILTER = 44, 45, 46

_TCMSG = struct.Struct("=BxxxiIII")
_ROOT, _INGRESS_QUEUE, _INGRESS = 0xFFFFFFFF, 0xFFFFFFF1, 0xFFFFFFF2
_INGRESS_HANDLE = 0xFFFF0000
_EVERYTHING_FIRST = 1 << 16 | 0x0300  # priority 1, and ETH_P_ALL in the network's byte order

_FIRST_OF_U32 = 0x80000800
"""What the kernel calls the first filter of its kind: tc shows it as 800::800."""
_ABSENT = frozenset({errno.ENOENT, errno.EINVAL})  # EINVAL: there is not even the queue that would hold it

_TCA_KIND, _TCA_OPTIONS = 1, 2
_TBF_PARMS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
_RATE = struct.Struct("=BBHhHI")
_TBF = struct.Struct("=12s12sIII")
_TBF_KIND = encode_attribute(_TCA_KIND, b"tbf\0")
_ETHERNET = 1  # the kernel works out times by itself, and wants no table of them
_TICK_NS = 64

_U32_SEL, _U32_ACT = 5, 7
_ANY_PACKET = struct.pack("=BBBxHHhhI", 1, 0, 1, 0, 0, 0, 0, 0) + bytes(16)  # terminal, one key that masks everything
_ACT_KIND, _ACT_OPTIONS, _MIRRED_PARMS = 1, 2, 2
_MIRRED = struct.Struct("=5IiI")
_STOLEN, _EGRESS_REDIRECT = 4, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A token bucket filter. Units: ``rate`` bytes per second; ``burst`` and ``limit``, the queue's length, bytes."""

    rate: int
    burst: int
    limit: int

    def resembles(self, other: Bucket) -> bool:
        """Say whether two are the same but for the kernel's rounding, which keeps the burst as a time."""
        same = (self.rate, self.limit) == (other.rate, other.limit)
        return same and abs(self.burst - other.burst) * 100 <= other.burst + 100


def set_bucket(sock: RtnlSocket, index: int, bucket: Bucket) -> None:
    """Let a link send no faster than this; a bucket that is there is changed, and nothing in it is lost.

    Raises: KernelError.
    """
    rate = _RATE.pack(0, _ETHERNET, 0, 0, 0, min(bucket.rate, 2**32 - 1))
    parameters = _TBF.pack(rate, bytes(_RATE.size), bucket.limit, 0, 0)
    options = encode_attribute(_TBF_PARMS, parameters) + encode_attribute(_TBF_BURST, netlink.U32.pack(bucket.burst))
    if bucket.rate >= 2**32:
        options += encode_attribute(_TBF_RATE64, struct.pack("=Q", bucket.rate))
    request = _TCMSG.pack(0, index, 0, _ROOT, 0) + _kind("tbf") + encode_attribute(_TCA_OPTIONS, options)
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    sock.request(_RTM_NEWQDISC, request, doing=f"limit the rate of link {index}", flags=flags)


def remove_queue(sock: RtnlSocket, index: int) -> None:
    """Give a link its default queue again; absent is success.

    Raises: KernelError.
    """
    _remove(sock, _RTM_DELQDISC, _TCMSG.pack(0, index, 0, _ROOT, 0), doing=f"unlimit the rate of link {index}")


def redirect_ingress(sock: RtnlSocket, index: int, to: int) -> None:
    """Lead all that comes in by a link over another one, in the place of what else was done with it first.

    Raises: KernelError.
    """
    doing = f"lead what link {index} receives over link {to}"
    queue = _TCMSG.pack(0, index, _INGRESS_HANDLE, _INGRESS_QUEUE, 0) + _kind("ingress")
    try:
        sock.request(_RTM_NEWQDISC, queue, doing=doing, flags=netlink.NLM_F_CREATE | netlink.NLM_F_EXCL)
    except KernelError as err:
        if err.errno != errno.EEXIST:
            raise
    place = _TCMSG.pack(0, index, 0, _INGRESS, _EVERYTHING_FIRST)
    _remove(sock, _RTM_DELTFILTER, place, doing=doing)
    options = encode_attribute(_U32_SEL, _ANY_PACKET) + encode_attribute(_U32_ACT, _redirection(to))
    request = place + _kind("u32") + encode_attribute(_TCA_OPTIONS, options)
    sock.request(_RTM_NEWTFILTER, request, doing=doing, flags=netlink.NLM_F_CREATE | netlink.NLM_F_EXCL)


def release_ingress(sock: RtnlSocket, index: int) -> None:
    """Let what comes in by a link go its plain way again; absent is success.

    Raises: KernelError.
    """
    request = _TCMSG.pack(0, index, 0, _INGRESS_QUEUE, 0)
    _remove(sock, _RTM_DELQDISC, request, doing=f"release what link {index} receives")


def dump_buckets(sock: RtnlSocket) -> dict[int, Bucket]:
    """Read the buckets at the way out of all links, by index.

    To ask for one instead would be told to everybody who listens for changes, which is ourselves.
    Raises: KernelError.
    """
    found = {}
    for entry in sock.dump(_RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0), doing="list queues"):
        _, index, _, parent, _ = _TCMSG.unpack_from(entry)
        if parent == _ROOT and entry.startswith(_TBF_KIND, _TCMSG.size):
            found[index] = _bucket(attributes(entry, _TCMSG.size).get(_TCA_OPTIONS, b""))
    return found


def redirected_to(sock: RtnlSocket, index: int) -> int | None:
    """Read which link all that comes in by a link is led over; None, if not all is, or nowhere.

    Raises: KernelError.
    """
    request = _TCMSG.pack(0, index, _FIRST_OF_U32, _INGRESS, _EVERYTHING_FIRST)
    try:
        return _redirect_in(sock.ask(_RTM_GETTFILTER, request, doing=f"read filter of link {index}"))
    except KernelError as err:
        if err.errno in _ABSENT:
            return None
        raise


def _kind(name: str) -> bytes:
    return encode_attribute(_TCA_KIND, name.encode() + b"\0")


def _redirection(to: int) -> bytes:
    parameters = _MIRRED.pack(0, 0, _STOLEN, 0, 0, _EGRESS_REDIRECT, to)
    action = encode_attribute(_ACT_KIND, b"mirred\0")
    action += encode_attribute(_ACT_OPTIONS, encode_attribute(_MIRRED_PARMS, parameters))
    return encode_attribute(1, action)


def _remove(sock: RtnlSocket, kind: int, request: bytes, *, doing: str) -> None:
    try:
        sock.request(kind, request, doing=doing)
    except KernelError as err:
        if err.errno not in _ABSENT:
            raise


@lru_cache(maxsize=256)  # many links have equal ones
def _bucket(options: bytes) -> Bucket:
    found = attributes(options)
    parameters = found.get(_TBF_PARMS, b"")
    if len(parameters) < _TBF.size:
        raise KernelFormatError(f"parse bucket: expected {_TBF.size} bytes, got {len(parameters)}")
    spec, _, limit, ticks, _ = _TBF.unpack_from(parameters)
    rate = _RATE.unpack(spec)[-1]
    if len(wide := found.get(_TBF_RATE64, b"")) == 8:
        rate = int.from_bytes(wide, sys.byteorder)
    return Bucket(rate=rate, burst=round(ticks * _TICK_NS * rate / 10**9), limit=limit)


def _redirect_in(entry: bytes) -> int | None:
    found = attributes(entry, _TCMSG.size)
    if _TCMSG.unpack_from(entry)[4] != _EVERYTHING_FIRST or text(found.get(_TCA_KIND, b"")) != "u32":
        return None
    options = attributes(found.get(_TCA_OPTIONS, b""))
    if not _takes_everything(options.get(_U32_SEL, b"")):
        return None
    action = attributes(attributes(options.get(_U32_ACT, b"")).get(1, b""))
    parameters = attributes(action.get(_ACT_OPTIONS, b"")).get(_MIRRED_PARMS, b"")
    if text(action.get(_ACT_KIND, b"")) != "mirred" or len(parameters) < _MIRRED.size:
        return None
    *_, verdict, _, _, what, to = _MIRRED.unpack_from(parameters)
    return to if (verdict, what) == (_STOLEN, _EGRESS_REDIRECT) else None


def _takes_everything(selector: bytes) -> bool:
    """Say whether a selector has one key, and that masks all."""
    return len(selector) >= len(_ANY_PACKET) and selector[2] == 1 and u32(selector[16:20]) == 0
