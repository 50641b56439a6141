"""Rules that hold a hostile VE to its own addresses, and that lead its traffic out: with packets, on real links.

The rulesets are what the renderer's output has to look like; `BRIDGED` and `ROUTED` are complete as they stand.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from reconciler.kernel import address, link, netns, route, rtnl, sysctl
from reconciler.kernel.rtnlsocket import RtnlSocket
from tests.support import announcements, nftables

pytestmark = pytest.mark.kernel

PROTOCOL = 199
DEADLINE_S = 10.0

# A link-layer address, an ARP sender and a source address must be those of the port. Neighbour discovery is looked
# into, since an advertisement for somebody else's address is how IPv6 traffic is stolen: the target stands 8 bytes
# into the ICMPv6 message, and the set of it is `typeof` the raw bytes, as nft before 1.0.7 has no word for it.
BRIDGED = """\
table bridge vx
delete table bridge vx
table bridge vx {
    set ports { type ifname; elements = { "vxa", "vxb" }; }
    set macs { type ifname . ether_addr; elements = { "vxa" . 02:76:00:00:00:0a, "vxb" . 02:76:00:00:00:0b }; }
    set v4 { type ifname . ipv4_addr; elements = { "vxa" . 10.76.0.10, "vxb" . 10.76.0.11 }; }
    set v6 { type ifname . ipv6_addr; elements = { "vxa" . fd76::a, "vxb" . fd76::b }; }
    set nd { typeof iifname . @th,64,128; elements = {
        "vxa" . 0xfd76000000000000000000000000000a, "vxb" . 0xfd76000000000000000000000000000b }; }

    chain prerouting {
        type filter hook prerouting priority -300; policy accept;
        iifname @ports jump from_ve
    }
    chain from_ve {
        iifname . ether saddr != @macs drop
        ether type vmap { arp : goto arp_from_ve, ip : goto ip_from_ve, ip6 : goto ip6_from_ve }
        drop
    }
    chain arp_from_ve {
        iifname . arp saddr ether != @macs drop
        arp operation != { request, reply } drop
        arp saddr ip 0.0.0.0 accept
        iifname . arp saddr ip @v4 accept
        drop
    }
    chain ip_from_ve {
        udp sport 67 drop
        iifname . ip saddr @v4 accept
        drop
    }
    chain ip6_from_ve {
        icmpv6 type { nd-router-advert, nd-redirect } drop
        udp sport 547 drop
        icmpv6 type nd-neighbor-advert goto nd_from_ve
        icmpv6 type nd-neighbor-solicit ip6 saddr :: goto nd_from_ve
        ip6 saddr fe80::/10 accept
        icmpv6 type { nd-router-solicit, mld-listener-report, mld2-listener-report } ip6 saddr :: accept
        iifname . ip6 saddr @v6 accept
        drop
    }
    chain nd_from_ve {
        @th,64,10 0x3fa accept
        iifname . @th,64,128 @nd accept
        drop
    }
}
"""

# For routed VEs the same question is asked where packets enter the host. Masquerading leaves out what stays in the
# subnet; a forward must be seen from the uplink, from the host itself and from the VEs, whose answers would else go
# straight back under an address that nobody asked.
ROUTED = """\
table inet vx
delete table inet vx
table inet vx {
    set ports { type ifname; elements = { "vxa", "vxb" }; }
    set v4 { type ifname . ipv4_addr; elements = { "vxa" . 10.77.0.10, "vxb" . 10.77.0.11 }; }
    set v6 { type ifname . ipv6_addr; elements = { "vxa" . fd77::a, "vxb" . fd77::b }; }
    map forwards_tcp { type inet_service : ipv4_addr . inet_service; elements = { 8080 : 10.77.0.10 . 80 }; }
    map forwards_udp { type inet_service : ipv4_addr . inet_service; elements = { 8080 : 10.77.0.10 . 80 }; }

    chain guard {
        type filter hook prerouting priority -300; policy accept;
        iifname @ports jump from_ve
    }
    chain from_ve {
        ip6 saddr fe80::/10 accept
        ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld2-listener-report } accept
        iifname . ip saddr @v4 accept
        iifname . ip6 saddr @v6 accept
        drop
    }
    chain forwards {
        fib daddr type local dnat ip to tcp dport map @forwards_tcp
        fib daddr type local dnat ip to udp dport map @forwards_udp
    }
    chain dstnat {
        type nat hook prerouting priority dstnat; policy accept;
        jump forwards
    }
    chain dstnat_local {
        type nat hook output priority -100; policy accept;
        jump forwards
    }
    chain srcnat {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 10.77.0.0/24 ip daddr 10.77.0.0/24 ct status dnat masquerade
        ip saddr 10.77.0.0/24 ip daddr != 10.77.0.0/24 masquerade
    }
}
"""


@dataclass(frozen=True)
class Node:
    """A namespace with a socket for its links; ``index`` is its ``eth0``."""

    namespace: int
    sock: RtnlSocket
    index: int = 0
    mac: str = ""

    def write(self, parameter: str, value: str) -> None:
        netns.call_in(self.namespace, lambda: sysctl.write(parameter, value))

    def udp(self, bound: str, port: int = 0) -> socket.socket:
        family = socket.AF_INET6 if ":" in bound else socket.AF_INET
        sock = netns.open_socket_in(self.namespace, family, socket.SOCK_DGRAM)
        sock.settimeout(DEADLINE_S)
        sock.bind((bound, port))
        return sock


@dataclass(frozen=True)
class Lan:
    """A host and the two VEs that hang on it."""

    host: Node
    a: Node
    b: Node


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def made_node(stack: ExitStack) -> Node:
    namespace = netns.create()
    stack.callback(os.close, namespace)
    sock = stack.enter_context(RtnlSocket.open_in(namespace))
    link.set_up(sock, sock.dump_links()[0].index)
    return Node(namespace, sock)


def attached(stack: ExitStack, host: Node, name: str, mac: str) -> tuple[Node, int]:
    """Make a node with an ``eth0``, up, and give it with the index of the host's end."""
    node = made_node(stack)
    host.sock.assign_nsid(node.namespace)
    pair = link.VethPair(
        host_name=name, host_mac="02:76:ff" + mac[8:], peer_name="eth0", peer_mac=mac, mtu=1500, alias="vectl:x"
    )
    near, far = link.create_veth(host.sock, node.sock, node.namespace, pair)
    link.set_up(host.sock, near)
    link.set_up(node.sock, far)
    wait_until_running(host.sock, name)
    wait_until_running(node.sock, "eth0")
    return Node(node.namespace, node.sock, far, mac), near


def wait_until_running(sock: RtnlSocket, name: str) -> None:
    """Wait for the link watch: before it has seen the link, frames are dropped."""
    deadline = time.monotonic() + DEADLINE_S
    while not ((found := sock.link(name)) and found.running):
        assert time.monotonic() < deadline, f"{name} does not run"
        time.sleep(0.005)


def addresses_of(node: Node, *texts: str) -> None:
    for one in texts:
        address.add_address(node.sock, node.index, ipaddress.ip_interface(one))


@pytest.fixture
def bridged(stack: ExitStack) -> Lan:
    host = made_node(stack)
    bridge = link.create_bridge(host.sock, "br0", mac="02:76:00:00:00:01", mtu=1500, alias="vectl:lan")
    link.set_up(host.sock, bridge)
    nodes = []
    for letter in "ab":
        node, near = attached(stack, host, f"vx{letter}", f"02:76:00:00:00:0{letter}")
        link.set_master(host.sock, near, bridge)
        nodes.append(node)
    addresses_of(nodes[0], "10.76.0.10/24", "fd76::a/64")
    addresses_of(nodes[1], "10.76.0.11/24", "fd76::b/64")
    netns.call_in(host.namespace, lambda: nftables.load(BRIDGED))
    return Lan(host, *nodes)


A, B, STRANGER = (bytes.fromhex(f"02760000000{digit}") for digit in "abc")
ALL = b"\xff" * 6
FREE_V4, FREE_V6 = "10.76.0.99", "fd76::99"


def ethernet(kind: int, body: bytes, *, source: bytes = A) -> bytes:
    return ALL + source + struct.pack("!H", kind) + body


def ipv4(source: str, *, ports: tuple[int, int] = (5000, 5001), mac: bytes = A) -> bytes:
    udp = struct.pack("!HHHH", *ports, 12, 0) + b"test"
    addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address("10.76.0.11").packed
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(udp), 1, 0, 9, 17)
    # Where bridged packets are shown to the IP hooks as well, one with a wrong checksum gets nowhere.
    total = sum(struct.unpack("!5H", head) + struct.unpack("!4H", addresses))
    checksum = struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
    return ethernet(0x0800, head + checksum + addresses + udp, source=mac)


def arp(sender: str, *, hardware: bytes = A, operation: int = 1) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    body = hardware + ipaddress.IPv4Address(sender).packed + bytes(6) + ipaddress.IPv4Address("10.76.0.11").packed
    return ethernet(0x0806, head + body)


def ipv6(source: str, protocol: int, body: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 255) + ipaddress.IPv6Address(source).packed
    return ethernet(0x86DD, head + ipaddress.IPv6Address("ff02::1").packed + body)


def udp6(source: str, sport: int = 5000) -> bytes:
    return ipv6(source, 17, struct.pack("!HHHH", sport, 5001, 12, 0) + b"test")


def icmp6(source: str, kind: int, target: str = "::") -> bytes:
    return ipv6(source, 58, struct.pack("!BBHI", kind, 0, 0, 0) + ipaddress.IPv6Address(target).packed)


def behind_hop_by_hop(frame: bytes) -> bytes:
    """Hide an IPv6 packet's protocol behind an extension header."""
    ether, head, body = frame[:14], frame[14:54], frame[54:]
    options = bytes((head[6], 0, 1, 4, 0, 0, 0, 0))
    return ether + head[:4] + struct.pack("!HB", len(body) + 8, 0) + head[7:] + options + body


RS, RA, NS, NA, REDIRECT = 133, 134, 135, 136, 137
PASSING = {
    "ipv4": ipv4("10.76.0.10"),
    "ipv6": udp6("fd76::a"),
    "ipv6-link-local": udp6("fe80::1234"),
    "arp": arp("10.76.0.10"),
    "arp-probe": arp("0.0.0.0"),
    "arp-announcement": announcements.frame_for("02:76:00:00:00:0a", ipaddress.ip_address("10.76.0.10")),
    "advertisement": announcements.frame_for("02:76:00:00:00:0a", ipaddress.ip_address("fd76::a")),
    "advertisement-link-local": icmp6("fe80::1234", NA, "fe80::1234"),
    "solicitation": icmp6("fd76::a", NS, FREE_V6),
    "duplicate-detection": icmp6("::", NS, "fd76::a"),
    "router-solicitation": icmp6("::", RS),
}
STOPPED = {
    "mac": ipv4("10.76.0.10", mac=STRANGER),
    "mac-of-another": ipv4("10.76.0.11", mac=B),
    "ipv4": ipv4(FREE_V4),
    "ipv4-of-another": ipv4("10.76.0.11"),
    "ipv4-unset": ipv4("0.0.0.0"),
    "dhcp-server": ipv4("10.76.0.10", ports=(67, 68)),
    "ipv6": udp6(FREE_V6),
    "ipv6-of-another": udp6("fd76::b"),
    "ipv6-unset": udp6("::"),
    "dhcpv6-server": udp6("fe80::1234", sport=547),
    "arp-address": arp("10.76.0.11"),
    "arp-reply-address": arp("10.76.0.11", operation=2),
    "arp-mac": arp("10.76.0.10", hardware=STRANGER),
    "arp-probe-mac": arp("0.0.0.0", hardware=STRANGER),
    "arp-reverse": arp("10.76.0.10", operation=3),
    "advertisement": icmp6("fd76::a", NA, "fd76::b"),
    "advertisement-from-link-local": icmp6("fe80::1234", NA, "fd76::b"),
    "advertisement-behind-a-header": behind_hop_by_hop(icmp6("fe80::1234", NA, "fd76::b")),
    "duplicate-detection": icmp6("::", NS, "fd76::b"),
    "router-advertisement": icmp6("fe80::1234", RA),
    "redirect": icmp6("fe80::1234", REDIRECT),
    "loopback-protocol": ethernet(0x9000, bytes(46)),
}


def packet_socket(node: Node, name: str = "eth0") -> socket.socket:
    sock = netns.open_socket_in(node.namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sock.settimeout(DEADLINE_S)
    sock.bind((name, 3))
    return sock


def received_up_to(sock: socket.socket, last: bytes) -> list[bytes]:
    """Collect what is received until a frame comes that begins like the one given."""
    seen: list[bytes] = []
    while not any(one.startswith(last) for one in seen):
        seen.append(sock.recv(2048))
    return seen


def assert_passes(lan: Lan, frame: bytes) -> None:
    with packet_socket(lan.a) as sender, packet_socket(lan.b) as receiver:
        sender.send(frame)
        received_up_to(receiver, frame)


@pytest.mark.parametrize("frame", PASSING.values(), ids=PASSING.keys())
def test_what_a_ve_may_send_passes(bridged: Lan, frame: bytes) -> None:
    assert_passes(bridged, frame)


@pytest.mark.parametrize("frame", STOPPED.values(), ids=STOPPED.keys())
def test_what_a_ve_may_not_send_is_stopped(bridged: Lan, frame: bytes) -> None:
    passing = ipv4("10.76.0.10", ports=(4242, 4243))
    with packet_socket(bridged.a) as sender, packet_socket(bridged.b) as receiver:
        sender.send(frame)
        sender.send(passing)
        assert not any(one.startswith(frame) for one in received_up_to(receiver, passing))


@pytest.mark.parametrize("frame", STOPPED.values(), ids=STOPPED.keys())
def test_each_of_these_would_pass_without_the_rules(bridged: Lan, frame: bytes) -> None:
    netns.call_in(bridged.host.namespace, lambda: nftables.load("delete table bridge vx"))
    assert_passes(bridged, frame)


def test_a_tag_hides_no_packet_from_the_rules(bridged: Lan) -> None:
    """The kernel takes the tag off before it shows the frame to a packet socket."""
    frame, passing = ipv4("10.76.0.10"), ipv4("10.76.0.10", ports=(4242, 4243))
    tagged = frame[:12] + b"\x81\x00\x00\x05" + frame[12:]
    with packet_socket(bridged.a) as sender, packet_socket(bridged.b) as receiver:
        sender.send(tagged)
        sender.send(passing)
        assert not any(one.startswith(frame) for one in received_up_to(receiver, passing))
        netns.call_in(bridged.host.namespace, lambda: nftables.load("delete table bridge vx"))
        sender.send(tagged)
        received_up_to(receiver, frame)


@pytest.mark.parametrize(("source", "target"), [("10.76.0.10", "10.76.0.11"), ("fd76::a", "fd76::b")], ids=["v4", "v6"])
def test_guarded_ves_find_and_reach_each_other(bridged: Lan, source: str, target: str) -> None:
    assert_answered(bridged.a, source, bridged.b, target)


def test_isolated_ports_reach_the_host_and_not_each_other(bridged: Lan) -> None:
    frame, from_host = ipv4("10.76.0.10"), ethernet(0x88B5, bytes(46), source=B)
    port = rtnl.BridgePort(isolated=True, hairpin=False, learning=True, flood=True)
    for index in [found.index for found in bridged.host.sock.dump_links() if found.kind == "veth"]:
        link.set_port(bridged.host.sock, index, port)
    with (
        packet_socket(bridged.a) as sender,
        packet_socket(bridged.b) as receiver,
        packet_socket(bridged.host, "br0") as on_host,
    ):
        sender.send(frame)
        received_up_to(on_host, frame)
        on_host.send(from_host)
        assert not any(one.startswith(frame) for one in received_up_to(receiver, from_host))


def assert_answered(client: Node, source: str, server: Node, target: str, *, port: int = 7000) -> str:
    """Let a client ask a server by UDP, and give the address that the server saw."""
    with client.udp(source) as asking, server.udp(target, port) as answering:
        asking.sendto(b"ping", (target, port))
        said, peer = answering.recvfrom(100)
        answering.sendto(b"pong", peer)
        assert (said, asking.recv(100)) == (b"ping", b"pong")
        return str(peer[0])


@dataclass(frozen=True)
class Routed:
    """A host that routes for two VEs and has an uplink to somebody outside."""

    host: Node
    a: Node
    b: Node
    outside: Node


@pytest.fixture
def routed(stack: ExitStack) -> Routed:
    host = made_node(stack)
    for parameter in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        host.write(parameter, "1")
    a = routed_ve(stack, host, "vxa", "02:76:00:00:00:0a", ("10.77.0.10/32", "fd77::a/128"))
    b = routed_ve(stack, host, "vxb", "02:76:00:00:00:0b", ("10.77.0.11/32", "fd77::b/128"))
    outside, near = attached(stack, host, "up0", "02:76:00:00:00:0c")
    address.add_address(host.sock, near, ipaddress.ip_interface("192.0.2.1/24"))
    addresses_of(outside, "192.0.2.2/24")
    netns.call_in(host.namespace, lambda: nftables.load(ROUTED))
    return Routed(host, a, b, outside)


def routed_ve(stack: ExitStack, host: Node, name: str, mac: str, texts: tuple[str, str]) -> Node:
    """Attach a VE as OpenVZ's venet does: single addresses, and gateways that only its link knows."""
    node, near = attached(stack, host, name, mac)
    addresses_of(node, *texts)
    for text, gateway in zip(texts, ("169.254.0.1", "fe80::1")):
        interface, hop = ipaddress.ip_interface(text), ipaddress.ip_address(gateway)
        length = 32 if hop.version == 4 else 64
        address.add_address(host.sock, near, ipaddress.ip_interface(f"{gateway}/{length}"))
        route.replace_route(host.sock, route.direct(interface.network, index=near, protocol=PROTOCOL))
        everywhere = ipaddress.ip_network("0.0.0.0/0" if hop.version == 4 else "::/0")
        default = route.via(everywhere, hop, index=node.index, protocol=PROTOCOL, on_link=True)
        route.replace_route(node.sock, default)
    return node


@pytest.mark.parametrize(("source", "target"), [("10.77.0.10", "10.77.0.11"), ("fd77::a", "fd77::b")], ids=["v4", "v6"])
def test_routed_ves_reach_each_other_under_their_own_addresses(routed: Routed, source: str, target: str) -> None:
    assert assert_answered(routed.a, source, routed.b, target) == source


@pytest.mark.parametrize(
    ("true", "false", "target"),
    [("10.77.0.10", "10.77.0.99", "10.77.0.11"), ("fd77::a", "fd77::99", "fd77::b")],
    ids=["v4", "v6"],
)
def test_a_routed_ve_cannot_send_from_another_address(routed: Routed, true: str, false: str, target: str) -> None:
    addresses_of(routed.a, false)
    with routed.a.udp(false) as liar, routed.a.udp(true) as honest, routed.b.udp(target, 7000) as server:
        liar.sendto(b"lie", (target, 7000))
        honest.sendto(b"truth", (target, 7000))
        assert server.recv(100) == b"truth"
        netns.call_in(routed.host.namespace, lambda: nftables.load("flush chain inet vx guard"))
        liar.sendto(b"lie", (target, 7000))
        assert server.recv(100) == b"lie"


def test_the_outside_sees_the_hosts_address(routed: Routed) -> None:
    assert assert_answered(routed.a, "10.77.0.10", routed.outside, "192.0.2.2") == "192.0.2.1"


@pytest.mark.parametrize("asking", ["outside", "host", "b"])
def test_a_forward_leads_to_the_ve(routed: Routed, asking: str) -> None:
    node: Node = getattr(routed, asking)
    source = {"outside": "192.0.2.2", "host": "192.0.2.1", "b": "10.77.0.11"}[asking]
    with node.udp(source) as client, routed.a.udp("10.77.0.10", 80) as server:
        client.sendto(b"ping", ("192.0.2.1", 8080))
        said, peer = server.recvfrom(100)
        server.sendto(b"pong", peer)
        answer, sender = client.recvfrom(100)
    assert (said, answer, sender) == (b"ping", b"pong", ("192.0.2.1", 8080))
