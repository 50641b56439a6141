"""The netlink wire format: messages, attributes and the errors that ride on an acknowledgement.

Reading 300 namespaces in one pass leaves 0.1 ms for each, which no general library reaches: hence this codec. What
changes the kernel is encoded by pyroute2 (`rtnlencode`).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from reconciler.errors import KernelError, KernelFormatError

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
U32 = struct.Struct("=I")
S32 = struct.Struct("=i")

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3
_ENDS = (NLMSG_ERROR, NLMSG_DONE)

_NLMSGERR_ATTR_MSG = 1
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


class OverrunError(KernelError):
    """The kernel dropped messages because the socket's buffer was full: what was heard is incomplete, look at all."""


class InterruptedDumpError(KernelError):
    """The kernel's tables changed under a dump, again and again: the listing may be inconsistent."""


class Message(NamedTuple):
    """One netlink message without its header."""

    kind: int
    flags: int
    sequence: int
    payload: bytes


def encode_message(kind: int, flags: int, *, sequence: int, payload: bytes) -> bytes:
    """Put a header before a payload.

    Source: RFC 3549, section 2.2; netlink(7).
    """
    return HEADER.pack(HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def messages(datagram: bytes) -> list[Message]:
    """Split a datagram into its messages.

    Raises: KernelFormatError, if a length leads out of the datagram.
    """
    found: list[Message] = []
    unpack, offset, end = HEADER.unpack_from, 0, len(datagram)
    while offset + 16 <= end:
        length, kind, flags, sequence, _ = unpack(datagram, offset)
        if length < 16 or offset + length > end:
            raise _bad_message(length, end - offset)
        found.append(Message(kind, flags, sequence, datagram[offset + 16 : offset + length]))
        offset += (length + 3) & ~3
    return found


def dump_part(datagram: bytes, sequence: int) -> tuple[list[bytes], int, Message | None]:
    """Give the entries that a datagram adds to a dump, the flags of all of them, and the message that ends it, if any.

    What answers another request is passed over. A pass over hundreds of namespaces reads thousands of these: a
    `Message` for each would cost as much as reading them.

    Raises: KernelFormatError, if a length leads out of the datagram.
    """
    entries: list[bytes] = []
    unpack, offset, end, seen = HEADER.unpack_from, 0, len(datagram), 0
    while offset + 16 <= end:
        length, kind, flags, number, _ = unpack(datagram, offset)
        if length < 16 or offset + length > end:
            raise _bad_message(length, end - offset)
        if number == sequence:
            seen |= flags
            payload = datagram[offset + 16 : offset + length]
            if kind in _ENDS:
                return entries, seen, Message(kind, flags, number, payload)
            entries.append(payload)
        offset += (length + 3) & ~3
    return entries, seen, None


def encode_attribute(kind: int, value: bytes) -> bytes:
    """Encode one attribute, padded to four bytes."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Parse attributes that occur once each; of several of one kind the last one is kept.

    Raises: KernelFormatError, if a length leads out of the data.
    """
    found: dict[int, bytes] = {}
    unpack, end = ATTRIBUTE.unpack_from, len(data)
    while offset + 4 <= end:
        length, kind = unpack(data, offset)
        if length < 4 or offset + length > end:
            raise _bad_attribute(length, end - offset)
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def attribute_list(data: bytes, offset: int = 0) -> list[tuple[int, bytes]]:
    """Parse attributes in their order, repeated ones included.

    Raises: KernelFormatError, if a length leads out of the data.
    """
    found: list[tuple[int, bytes]] = []
    unpack, end = ATTRIBUTE.unpack_from, len(data)
    while offset + 4 <= end:
        length, kind = unpack(data, offset)
        if length < 4 or offset + length > end:
            raise _bad_attribute(length, end - offset)
        found.append((kind & _TYPE_MASK, data[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    return found


def text(value: bytes) -> str:
    """Decode a zero-terminated string; bytes that are no UTF-8 stay distinguishable."""
    return value.rstrip(b"\0").decode(errors="surrogateescape")


def label(value: bytes) -> str:
    """Decode a zero-terminated string that anybody may have chosen: bytes that are no UTF-8 are spelt out.

    What comes out can be written and hashed like any other text. It leads back to the bytes only where all were UTF-8.
    """
    return value.rstrip(b"\0").decode(errors="backslashreplace")


def u32(value: bytes) -> int:
    """Decode a 32-bit number in the host's byte order.

    Raises: KernelFormatError, if there are fewer than four bytes.
    """
    return _number(U32, value)


def s32(value: bytes) -> int:
    """Decode a signed 32-bit number in the host's byte order.

    Raises: KernelFormatError, if there are fewer than four bytes.
    """
    return _number(S32, value)


def error_of(message: Message) -> tuple[int, str]:
    """Read the errno, 0 for none, and the kernel's own words from an NLMSG_ERROR or NLMSG_DONE message.

    Source: Linux Documentation/userspace-api/netlink/intro.rst, "Ext ACK".
    """
    if len(message.payload) < 4:
        return 0, ""
    error = -s32(message.payload)
    if not message.flags & NLM_F_ACK_TLVS:
        return error, ""
    found = attributes(message.payload, _extended_offset(message))
    return error, text(found.get(_NLMSGERR_ATTR_MSG, b""))


def _extended_offset(message: Message) -> int:
    """Find where the attributes of an acknowledgement begin: behind the request, unless that was left out."""
    if message.kind == NLMSG_DONE:
        return 4
    if message.flags & NLM_F_CAPPED:
        return 4 + HEADER.size
    return 4 + ((u32(message.payload[4:8]) + 3) & ~3)


def _number(form: struct.Struct, value: bytes) -> int:
    if len(value) < form.size:
        raise KernelFormatError(f"parse netlink number: expected {form.size} bytes, got {len(value)}")
    number: int = form.unpack_from(value)[0]
    return number


def _bad_message(length: int, room: int) -> KernelFormatError:
    return KernelFormatError(f"parse netlink message: expected at most {room} bytes, got {length}")


def _bad_attribute(length: int, room: int) -> KernelFormatError:
    return KernelFormatError(f"parse netlink attribute: expected at most {room} bytes, got {length}")
