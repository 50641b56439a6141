"""A kept netlink socket: requests and dumps that end within a bounded time, whatever the other side does.

The socket may live in a namespace whose root is hostile: that root can send datagrams to it, fill its buffer, and
grow the tables that are dumped. So every datagram's sender is checked, and every loop has a limit.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from types import TracebackType
from typing import Self

from reconciler.errors import KernelError, KernelFormatError
from reconciler.kernel import netlink

SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
RECEIVE_BYTES = 64 * 1024  # the kernel fills at most 32 KiB, unless one message alone is larger

_SO_RCVBUFFORCE = 33
_MSG_TRUNC = int(socket.MSG_TRUNC)  # an enum's & takes as long as the system call
_TIMEOUT_S = 5
_FOREIGN_LIMIT = 1000
_DUMP_LIMIT = 100_000
_DUMP_TRIES = 10
"""Some milliseconds each: where many VEs start and end at once, a link comes or goes in most of them."""


class NetlinkSocket:
    """One request at a time on one socket; closed by `close` or at the end of a ``with`` block.

    A message that fails leaves the socket usable, except where the error says that it was closed.
    """

    def __init__(self, sock: socket.socket, *, dump_limit: int = _DUMP_LIMIT) -> None:
        self._socket = sock
        self._dump_limit = dump_limit
        self._sequence = 0
        sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        sock.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        # A receive time-out of the kernel costs nothing; Python's own would add a poll(2) to each call.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _TIMEOUT_S, 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", _TIMEOUT_S, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; closing twice is allowed."""
        self._socket.close()

    def fileno(self) -> int:
        """Give the descriptor, -1 if closed."""
        return self._socket.fileno()

    def request(self, kind: int, payload: bytes, *, doing: str, flags: int = 0) -> list[bytes]:
        """Send one request, wait for its acknowledgement, and give back the payloads that came before it.

        Raises: KernelError with the kernel's words if it refused or did not answer; ``doing`` opens the message.
        """
        flags |= netlink.NLM_F_REQUEST | netlink.NLM_F_ACK
        sequence = self._send(kind, flags, payload, doing=doing)
        answers: list[bytes] = []
        while True:
            for message in self._receive(sequence, doing=doing):
                if message.kind == netlink.NLMSG_ERROR:
                    _raise_refusal(message, doing)
                    return answers
                answers.append(message.payload)

    def ask(self, kind: int, payload: bytes, *, doing: str) -> bytes:
        """Send a request that is answered by one message, and give its payload.

        Raises: KernelError.
        """
        answers = self.request(kind, payload, doing=doing)
        if not answers:
            raise KernelFormatError(f"{doing}: the kernel acknowledged and gave no answer")
        return answers[0]

    def dump(self, kind: int, payload: bytes, *, doing: str) -> list[bytes]:
        """List a table of the kernel; a listing that changed while it was read is read again.

        Raises: InterruptedDumpError, if it changed each time; KernelError, also (and then the socket is closed) for a
            table with more entries than the limit given at creation.
        """
        for _ in range(_DUMP_TRIES):
            entries, interrupted = self._dump_once(kind, payload, doing=doing)
            if not interrupted:
                return entries
        raise netlink.InterruptedDumpError(f"{doing}: the table kept changing while it was read", errno=errno.EINTR)

    def _dump_once(self, kind: int, payload: bytes, *, doing: str) -> tuple[list[bytes], bool]:
        sequence = self._send(kind, netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP, payload, doing=doing)
        entries: list[bytes] = []
        interrupted = 0
        while len(entries) <= self._dump_limit:
            part, flags, end = netlink.dump_part(receive(self._socket, doing=doing)[0], sequence)
            interrupted |= flags & netlink.NLM_F_DUMP_INTR
            entries += part
            if end is not None:
                _raise_refusal(end, doing)
                return entries, bool(interrupted)
        self.close()  # the rest of the dump would be read as the answer to the next request
        raise KernelError(f"{doing}: more than {self._dump_limit} entries; the socket is closed", errno=errno.E2BIG)

    def _send(self, kind: int, flags: int, payload: bytes, *, doing: str) -> int:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        datagram = netlink.encode_message(kind, flags, sequence=self._sequence, payload=payload)
        try:
            self._socket.send(datagram)
        except OSError as err:
            raise socket_error(err, doing) from err
        return self._sequence

    def _receive(self, sequence: int, *, doing: str) -> list[netlink.Message]:
        """Wait for the next datagram and keep what answers our request: an earlier one may have timed out."""
        found = netlink.messages(receive(self._socket, doing=doing)[0])
        return [message for message in found if message.sequence == sequence]


def open_here(protocol: int) -> socket.socket:
    """Open a netlink socket in the network namespace of the calling thread.

    Raises: KernelError.
    """
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except OSError as err:
        raise socket_error(err, f"open netlink socket of protocol {protocol}") from err


def receive(sock: socket.socket, *, doing: str) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    """Read one datagram of the kernel's, with its control messages; what others sent to the socket is dropped.

    Raises: OverrunError, if messages were lost; KernelError with EAGAIN if there is none.
    """
    for _ in range(_FOREIGN_LIMIT):
        try:
            datagram, control, flags, sender = sock.recvmsg(RECEIVE_BYTES, 64)
        except OSError as err:
            raise socket_error(err, doing) from err
        if sender[0] != 0:
            continue
        if flags & _MSG_TRUNC:
            raise KernelFormatError(f"{doing}: the kernel sent a message of more than {RECEIVE_BYTES} bytes")
        return datagram, control
    raise KernelError(f"{doing}: the socket is flooded with messages that are not the kernel's", errno=errno.EBADMSG)


def enlarge_buffer(sock: socket.socket, size: int) -> None:
    """Give the socket a receive buffer beyond the system's limit, or the limit where that is not allowed.

    Units: bytes.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def socket_error(err: OSError, doing: str) -> KernelError:
    """Build the exception for a failed call on a netlink socket."""
    match err.errno:
        case errno.ENOBUFS:
            return netlink.OverrunError(f"{doing}: the socket's buffer overran, messages are lost", errno=errno.ENOBUFS)
        case errno.EAGAIN:
            return KernelError(f"{doing}: no answer within {_TIMEOUT_S} s", errno=errno.EAGAIN)
        case code:
            return KernelError(f"{doing}: {err.strerror or err}", errno=code or 0)


def _raise_refusal(message: netlink.Message, doing: str) -> None:
    error, words = netlink.error_of(message)
    if error:
        reason = os.strerror(error)
        raise KernelError(f"{doing}: {f'{words} ({reason})' if words else reason}", errno=error)
