"""Claims about traffic control: buckets and detours are read back as they were made, and packets obey them."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_interface

import pytest

from reconciler.errors import KernelError
from reconciler.host.shaping import bucket
from reconciler.kernel import address, link, netns, tc
from reconciler.kernel.rtnlsocket import RtnlSocket

pytestmark = pytest.mark.kernel

PAIR = link.VethPair(
    host_name="vx0",
    host_mac="02:76:00:00:01:01",
    peer_name="eth0",
    peer_mac="02:76:00:00:01:02",
    mtu=1500,
    alias="vectl:u1",
)
NEAR, FAR = "10.191.30.1", "10.191.30.2"
RATE = 1_600_000
BYTES = RATE // 8


@dataclass(frozen=True, slots=True)
class Wire:
    """Two namespaces and the link between them; ``near`` is the index of its end in the first."""

    namespaces: tuple[int, int]
    sock: RtnlSocket
    near: int

    def run(self, command: str) -> None:
        """Run a command in the first namespace."""
        enter = ["nsenter", f"--net=/proc/self/fd/{self.namespaces[0]}", "--", *command.split()]
        subprocess.run(enter, pass_fds=self.namespaces, check=True, timeout=20)

    def seconds(self, *, sender: int) -> float:
        """Send `BYTES` over a connection from one side, and wait until all came."""
        receiver, to = 1 - sender, (NEAR, FAR)[1 - sender]
        server = netns.call_in(self.namespaces[receiver], lambda: socket.create_server((to, 0)))
        port = server.getsockname()[1]
        out = netns.call_in(self.namespaces[sender], lambda: socket.create_connection((to, port), 20))
        begun = time.monotonic()
        with server, out, server.accept()[0] as into:
            into.settimeout(60)
            out.setblocking(False)
            left, came = BYTES, 0
            while came < BYTES:
                with suppress(BlockingIOError):
                    left -= out.send(bytes(min(left, 1 << 14))) if left else 0
                came += len(into.recv(1 << 14))
        return time.monotonic() - begun


@pytest.fixture
def wire() -> Iterator[Wire]:
    near_place, far_place = netns.create(), netns.create()
    try:
        with RtnlSocket.open_in(near_place) as near, RtnlSocket.open_in(far_place) as far:
            near.assign_nsid(far_place)
            ends = link.create_veth(near, far, far_place, PAIR)
            for sock, index, own in ((near, ends[0], NEAR), (far, ends[1], FAR)):
                address.add_address(sock, index, ip_interface(f"{own}/24"))
                link.set_up(sock, index)
            yield Wire((near_place, far_place), near, ends[0])
    finally:
        os.close(near_place)
        os.close(far_place)


def shaper(wire: Wire) -> int:
    made = link.create_ifb(wire.sock, "vi0", mac="02:76:00:00:01:03", alias="vectl:u1")
    link.set_up(wire.sock, made.index)
    return made.index


@pytest.mark.parametrize("rate", [8000, 1_000_000, 999_999_992, 10**10, 10**11, 10**12])
@pytest.mark.parametrize("mtu", [1500, 65_535])
def test_a_bucket_is_read_back_as_it_was_made(wire: Wire, rate: int, mtu: int) -> None:
    wanted = bucket(rate, mtu)
    assert wanted.burst > mtu
    for _ in range(2):
        tc.set_bucket(wire.sock, wire.near, wanted)
        seen = tc.dump_buckets(wire.sock)[wire.near]
        assert seen.resembles(wanted)
        assert not seen.resembles(bucket(rate * 2, mtu))
    found = wire.sock.link("vx0")
    assert found is not None
    assert found.queue == "tbf"


def test_a_queue_is_removed_once_and_again(wire: Wire) -> None:
    tc.set_bucket(wire.sock, wire.near, bucket(RATE, 1500))
    for _ in range(2):
        tc.remove_queue(wire.sock, wire.near)
        assert tc.dump_buckets(wire.sock) == {}


def test_a_detour_is_made_moved_and_removed(wire: Wire) -> None:
    first = shaper(wire)
    assert tc.redirected_to(wire.sock, wire.near) is None
    for _ in range(2):
        tc.redirect_ingress(wire.sock, wire.near, first)
        assert tc.redirected_to(wire.sock, wire.near) == first
    second = link.create_ifb(wire.sock, "vi1", mac="02:76:00:00:01:04", alias="vectl:u1").index
    tc.redirect_ingress(wire.sock, wire.near, second)
    assert tc.redirected_to(wire.sock, wire.near) == second
    for _ in range(2):
        tc.release_ingress(wire.sock, wire.near)
        assert tc.redirected_to(wire.sock, wire.near) is None


def test_a_link_that_a_crash_left_without_its_mark_is_completed_and_anothers_is_left_alone(wire: Wire) -> None:
    wire.run("ip link add name vi0 address 02:76:00:00:01:03 type ifb")
    assert shaper(wire) == shaper(wire)
    made = wire.sock.link("vi0")
    assert made is not None
    assert made.alias == "vectl:u1"
    wire.run("ip link add name vi1 type ifb")
    with pytest.raises(KernelError):
        link.create_ifb(wire.sock, "vi1", mac="02:76:00:00:01:04", alias="vectl:u1")


def test_a_detour_of_some_packets_is_none_and_is_replaced(wire: Wire) -> None:
    over = shaper(wire)
    wire.run("tc qdisc add dev vx0 clsact")
    some = "u32 match ip dst 192.0.2.0/24 action mirred egress redirect dev vi0"
    wire.run(f"tc filter add dev vx0 ingress pref 1 protocol all {some}")
    assert tc.redirected_to(wire.sock, wire.near) is None
    tc.redirect_ingress(wire.sock, wire.near, over)
    assert tc.redirected_to(wire.sock, wire.near) == over


def test_what_comes_in_over_a_detour_arrives_at_the_rate_of_its_bucket(wire: Wire) -> None:
    over = shaper(wire)
    tc.set_bucket(wire.sock, over, bucket(RATE, 1500))
    tc.redirect_ingress(wire.sock, wire.near, over)
    assert wire.seconds(sender=1) > 0.7
    tc.release_ingress(wire.sock, wire.near)
    assert wire.seconds(sender=1) < 0.7


def test_what_goes_out_goes_at_the_rate_of_its_bucket(wire: Wire) -> None:
    tc.set_bucket(wire.sock, wire.near, bucket(RATE, 1500))
    assert wire.seconds(sender=0) > 0.7
    tc.remove_queue(wire.sock, wire.near)
    assert wire.seconds(sender=0) < 0.7
