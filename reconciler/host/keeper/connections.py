"""The keeper's clients: who may connect, packets in and out; nobody who does not read can hold the keeper up."""

from __future__ import annotations

import os
import selectors
import socket
import struct
from collections.abc import Callable, Sequence
from functools import partial

from reconciler.errors import KeeperError
from reconciler.host.keeper import protocol
from reconciler.host.keeper.protocol import Answer, Failed, Hello, Request

_CREDENTIALS = struct.Struct("3i")
_MOST_CLIENTS = 256  # with an exec for each the usual 1024 descriptors suffice
_MOST_DESCRIPTORS = 3

OnRequest = Callable[[int, int, Request, list[int]], None]
"""Takes the client's number, the request's, the request, and descriptors that are closed afterwards."""


class Connections:
    """All clients, by a number of ours."""

    def __init__(
        self,
        listener: socket.socket,
        selector: selectors.BaseSelector,
        *,
        on_request: OnRequest,
        on_gone: Callable[[int], None],
    ) -> None:
        self._listener = listener
        self._selector = selector
        self._on_request = on_request
        self._on_gone = on_gone
        self._clients: dict[int, socket.socket] = {}
        self._watching: set[int] = set()
        self._last = 0
        selector.register(listener, selectors.EVENT_READ, self._accept)

    def send(self, client: int, number: int | None, answer: Answer, descriptors: Sequence[int] = ()) -> None:
        """Send a packet; a client that is gone hears nothing, one that does not read is dropped."""
        sock = self._clients.get(client)
        if sock is None:
            return
        packet = protocol.encode(number, answer)
        try:
            socket.send_fds(sock, [packet], list(descriptors))
        except OSError:
            self._drop(client)

    def watch(self, client: int) -> None:
        """Send every later event to a client."""
        self._watching.add(client)

    def publish(self, event: Answer) -> None:
        """Send an event to all that watch."""
        for client in sorted(self._watching):
            self.send(client, None, event)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # it went away before we came to it
        sock.setblocking(False)
        if _user(sock) != os.geteuid() or len(self._clients) >= _MOST_CLIENTS:
            sock.close()
            return
        self._last += 1
        self._clients[self._last] = sock
        self._selector.register(sock, selectors.EVENT_READ, partial(self._receive, self._last))
        self.send(self._last, None, Hello(version=protocol.VERSION, pid=os.getpid()))

    def _receive(self, client: int) -> None:
        """Take one packet; the selector calls again for the next one, so that no client keeps the others waiting."""
        sock = self._clients.get(client)
        if sock is None:
            return  # dropped while the selector's list was worked off
        flags = socket.MSG_CMSG_CLOEXEC
        try:
            packet, descriptors, seen, _ = socket.recv_fds(sock, protocol.MESSAGE_BYTES, _MOST_DESCRIPTORS, flags)
        except BlockingIOError:
            return
        except OSError:
            packet, descriptors, seen = b"", [], 0
        try:
            self._take(client, packet, descriptors, whole=not seen & (socket.MSG_TRUNC | socket.MSG_CTRUNC))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _take(self, client: int, packet: bytes, descriptors: list[int], *, whole: bool) -> None:
        if not packet:
            self._drop(client)
            return
        try:
            if not whole:
                raise KeeperError("read message: it is longer than a packet may be, or has too many descriptors")
            number, request = protocol.decode_request(packet)
        except KeeperError as err:
            self.send(client, None, Failed(kind="refused", message=str(err)))
            self._drop(client)
        else:
            self._on_request(client, number, request, descriptors)

    def _drop(self, client: int) -> None:
        sock = self._clients.pop(client, None)
        if sock is not None:
            self._watching.discard(client)
            self._selector.unregister(sock)
            sock.close()
            self._on_gone(client)


def _user(sock: socket.socket) -> int:
    """Ask the kernel who connected.

    Source: unix(7), SO_PEERCRED.
    """
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)
