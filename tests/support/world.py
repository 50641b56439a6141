"""What lies outside of a fleet's host: a network namespace at the other end of its uplink, which knows no way back."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from reconciler.kernel import netns
from tests.support.fleet import Fleet
from tests.support.inside import Ve

UPLINK = "up0"
HOST_V4, WORLD_V4 = "203.0.113.1", "203.0.113.2"
HOST_V6, WORLD_V6 = "2001:db8::1", "2001:db8::2"
_ANSWER_S = 20.0


@dataclass(frozen=True, slots=True)
class World:
    """The namespace, by its descriptor."""

    namespace: int

    def fetch(self, address: str, port: int) -> str:
        """Fetch a page from an address."""
        with self._socket(address) as sock:
            sock.connect((address, port))
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: sock.recv(4096), b"")).decode()

    def _socket(self, address: str) -> socket.socket:
        family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
        sock = netns.open_socket_in(self.namespace, family, socket.SOCK_STREAM)
        sock.settimeout(_ANSWER_S)
        return sock

    def called_by(self, one: Ve, address: str) -> str:
        """Let a VE call the world at one of its addresses, and give the address that it seems to have there."""
        with self._socket(address) as listener:
            listener.bind((address, 0))
            listener.listen()
            script = f"echo hello | nc -w 5 {address} {listener.getsockname()[1]}"
            caller = one.begin("sh", "-c", script)
            with closing(listener.accept()[0]) as call:
                call.settimeout(_ANSWER_S)
                assert call.recv(100) == b"hello\n"
                peer: str = call.getpeername()[0]
        caller.result()
        return peer


@contextmanager
def world(fleet: Fleet) -> Iterator[World]:
    """Make the world of a fleet that has no agent yet, and make it the host's default route."""
    namespace = netns.create()
    try:
        made = World(namespace)
        _connect(fleet, namespace)
        yield made
    finally:
        os.close(namespace)


def _connect(fleet: Fleet, namespace: int) -> None:
    host = fleet.namespace
    fleet.host("ip", "link", "add", UPLINK, "type", "veth", "peer", "name", "w0")
    outside = f"/proc/{os.getpid()}/fd/{namespace}"
    fleet.host("ip", "link", "set", "w0", "netns", outside)
    for held, link, addresses in ((host, UPLINK, (HOST_V4, HOST_V6)), (namespace, "w0", (WORLD_V4, WORLD_V6))):
        for address in addresses:
            length = "64" if ":" in address else "24"
            fleet.in_namespace(held, "ip", "addr", "add", f"{address}/{length}", "dev", link, *_nodad(address))
        fleet.in_namespace(held, "ip", "link", "set", link, "up")
    fleet.host("ip", "route", "add", "default", "via", WORLD_V4)
    fleet.host("ip", "-6", "route", "add", "default", "via", WORLD_V6)


def _nodad(address: str) -> tuple[str, ...]:
    return ("nodad",) if ":" in address else ()
