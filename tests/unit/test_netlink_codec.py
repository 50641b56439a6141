"""The netlink codec, without a kernel."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import KernelError, KernelFormatError
from reconciler.kernel import netevents, netlink, nftdigest, nlsocket, rtnl, rtnlencode, sysctl
from reconciler.kernel.netlink import encode_attribute, encode_message

if TYPE_CHECKING:
    from typing_extensions import Buffer

KINDS = st.integers(min_value=0, max_value=0x3FFF)


@given(st.lists(st.tuples(KINDS, st.binary(max_size=40))))
def test_attributes_come_back_in_their_order(pairs: list[tuple[int, bytes]]) -> None:
    encoded = b"".join(encode_attribute(kind, value) for kind, value in pairs)
    assert netlink.attribute_list(encoded) == pairs
    assert netlink.attributes(encoded) == dict(pairs)
    assert len(encoded) % 4 == 0


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=5))
def test_messages_come_back_in_their_order(sent: list[tuple[int, bytes]]) -> None:
    datagram = b""
    for kind, payload in sent:
        datagram += encode_message(kind, 0, sequence=7, payload=payload) + bytes(-len(payload) % 4)
    assert [(m.kind, m.sequence, m.payload) for m in netlink.messages(datagram)] == [(k, 7, p) for k, p in sent]


def test_a_part_of_a_dump_holds_what_answers_it_up_to_the_end_of_it() -> None:
    part = b"".join(
        encode_message(kind, flags, sequence=sequence, payload=payload)
        for kind, flags, sequence, payload in (
            (16, 0, 7, b"aaaa"),
            (16, netlink.NLM_F_DUMP_INTR, 7, b"bbbb"),
            (16, 0, 6, b"late"),
            (netlink.NLMSG_DONE, 2, 7, bytes(4)),
            (16, 0, 7, b"cccc"),
        )
    )
    entries, flags, end = netlink.dump_part(part, 7)
    assert entries == [b"aaaa", b"bbbb"]
    assert flags == netlink.NLM_F_DUMP_INTR | 2
    assert end is not None
    assert (end.kind, netlink.error_of(end)) == (netlink.NLMSG_DONE, (0, ""))


def test_flag_bits_of_an_attribute_are_not_part_of_its_kind() -> None:
    nested_flag = 0x8000
    assert netlink.attributes(encode_attribute(18 | nested_flag, b"abcd")) == {18: b"abcd"}


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_an_attribute_that_leads_out_of_the_message_is_refused(length: int) -> None:
    with pytest.raises(KernelFormatError, match="expected at most 8 bytes"):
        netlink.attributes(struct.pack("=HH4s", length, 1, b"abcd"))


@pytest.mark.parametrize("length", [0, 15, 21])
def test_a_message_that_leads_out_of_the_datagram_is_refused(length: int) -> None:
    with pytest.raises(KernelFormatError, match="expected at most 20 bytes"):
        list(netlink.messages(struct.pack("=IHHII4s", length, 1, 0, 0, 0, b"abcd")))
    with pytest.raises(KernelFormatError, match="expected at most 20 bytes"):
        netlink.dump_part(struct.pack("=IHHII4s", length, 1, 0, 0, 0, b"abcd"), 0)


def test_the_kernels_words_are_read_behind_a_capped_request() -> None:
    payload = struct.pack("=i", -22) + bytes(16) + encode_attribute(1, b"Invalid prefix\0")
    flags = netlink.NLM_F_CAPPED | netlink.NLM_F_ACK_TLVS
    assert netlink.error_of(netlink.Message(netlink.NLMSG_ERROR, flags, 1, payload)) == (22, "Invalid prefix")


def test_the_kernels_words_are_read_behind_a_repeated_request() -> None:
    request = encode_message(16, 0, sequence=1, payload=b"abcde") + bytes(3)
    payload = struct.pack("=i", -22) + request + encode_attribute(1, b"Invalid prefix\0")
    message = netlink.Message(netlink.NLMSG_ERROR, netlink.NLM_F_ACK_TLVS, 1, payload)
    assert netlink.error_of(message) == (22, "Invalid prefix")


def test_the_kernels_words_are_read_at_the_end_of_a_dump() -> None:
    payload = struct.pack("=i", -22) + encode_attribute(1, b"no such table\0")
    message = netlink.Message(netlink.NLMSG_DONE, netlink.NLM_F_ACK_TLVS, 1, payload)
    assert netlink.error_of(message) == (22, "no such table")


@pytest.mark.parametrize(
    "parse", [rtnl.parse_link, rtnl.parse_address, rtnl.parse_route, rtnl.parse_neighbour], ids=lambda f: f.__name__
)
@given(payload=st.binary(max_size=120))
def test_parsing_any_bytes_gives_a_value_or_our_error(parse: Callable[[bytes], object], payload: bytes) -> None:
    with suppress(KernelFormatError):
        parse(payload)


@given(kind=st.sampled_from([kind.value for kind in netevents.EventKind]), payload=st.binary(max_size=120))
def test_parsing_any_event_gives_a_value_or_our_error(kind: int, payload: bytes) -> None:
    with suppress(KernelFormatError):
        netevents.parse_route_event(netlink.Message(kind, 0, 0, payload), None)


def test_an_event_of_a_kind_nobody_asked_for_is_passed_over() -> None:
    assert netevents.parse_route_event(netlink.Message(28, 0, 0, b""), None) is None


def test_the_local_address_counts_where_the_far_end_has_another() -> None:
    payload = rtnl.IFADDRMSG.pack(2, 32, 0x80, 0, 5)
    payload += encode_attribute(1, bytes((10, 0, 0, 9))) + encode_attribute(2, bytes((10, 0, 0, 1)))
    assert rtnl.parse_address(payload).interface == ipaddress.ip_interface("10.0.0.1/32")


def test_a_route_with_several_next_hops_says_so() -> None:
    payload = rtnl.RTMSG.pack(2, 24, 0, 0, 254, 4, 0, 1, 0)
    payload += encode_attribute(1, bytes((10, 0, 0, 0))) + encode_attribute(9, bytes(16))
    route = rtnl.parse_route(payload)
    assert (route.multipath, route.gateway, route.index) == (True, None, None)


def test_an_attribute_that_pyroute2_would_drop_is_an_error() -> None:
    with pytest.raises(KernelError, match="IFLA_NO_SUCH"):
        rtnlencode.link([("IFLA_NO_SUCH", 1)])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        pytest.param("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward", id="plain"),
        pytest.param(
            "net.ipv4.conf.eth0/100.rp_filter", "/proc/sys/net/ipv4/conf/eth0.100/rp_filter", id="dot-in-part"
        ),
        pytest.param(
            sysctl.of_interface("ipv6", "eth0.100", "proxy_ndp"),
            "/proc/sys/net/ipv6/conf/eth0.100/proxy_ndp",
            id="interface",
        ),
    ],
)
def test_a_parameters_name_becomes_its_path(name: str, path: str) -> None:
    assert sysctl.path_of(name) == path


@pytest.mark.parametrize("name", ["", ".", "net.//.//.passwd", "net..ipv4", "kernel.\0"])
def test_a_parameters_name_cannot_leave_the_tree(name: str) -> None:
    with pytest.raises(KernelError, match="find kernel parameter"):
        sysctl.path_of(name)


def _listing(*, rules: tuple[bytes, ...] = (), chains: tuple[bytes, ...] = ()) -> nftdigest.TableListing:
    table = bytes(4) + encode_attribute(1, b"t\0")
    return nftdigest.TableListing(table=table, chains=chains, rules=rules, sets=())


def _rule(chain: bytes, handle: int, body: bytes) -> bytes:
    number = encode_attribute(3, struct.pack("!Q", handle))
    return bytes(4) + encode_attribute(1, b"t\0") + encode_attribute(2, chain) + number + encode_attribute(4, body)


def _expression(name: bytes, data: bytes) -> bytes:
    return encode_attribute(1, encode_attribute(1, name) + encode_attribute(2, data))


def test_a_fingerprint_ignores_handles_and_counters() -> None:
    one = _rule(b"c\0", 4, _expression(b"counter\0", encode_attribute(1, bytes(8))))
    other = _rule(b"c\0", 9, _expression(b"counter\0", encode_attribute(1, b"\xff" * 8)))
    assert nftdigest.digest(_listing(rules=(one,))) == nftdigest.digest(_listing(rules=(other,)))


def test_a_fingerprint_sees_the_order_of_rules_and_not_that_of_chains() -> None:
    first, second = (_rule(b"c\0", 1, _expression(name, b"")) for name in (b"drop\0", b"log\0"))
    other = _rule(b"d\0", 1, _expression(b"log\0", b""))
    assert nftdigest.digest(_listing(rules=(first, second))) != nftdigest.digest(_listing(rules=(second, first)))
    assert nftdigest.digest(_listing(rules=(first, other))) == nftdigest.digest(_listing(rules=(other, first)))


class ScriptedSocket(socket.socket):
    """A netlink socket that says what it is told to; a number instead of a datagram is an errno."""

    def __init__(self, *script: Sequence[tuple[int, int]] | int) -> None:
        super().__init__(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._script, self._sent = list(script), b""

    def send(self, data: Buffer, flags: int = 0) -> int:
        self._sent = bytes(data)
        return len(self._sent)

    def recvmsg(self, *_: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, tuple[int, int]]:
        step = self._script.pop(0)
        if isinstance(step, int):
            raise OSError(step, os.strerror(step))
        sequence = netlink.HEADER.unpack_from(self._sent)[3]
        parts = (encode_message(kind, flags, sequence=sequence, payload=bytes(4)) for kind, flags in step)
        return b"".join(parts), [], socket.MSG_TRUNC if not step else 0, (0, 0)


ENTRY, LAST_OF_CHANGED, DONE = (16, 0), (16, netlink.NLM_F_DUMP_INTR), (netlink.NLMSG_DONE, 0)


def dumped(*script: Sequence[tuple[int, int]] | int) -> list[bytes]:
    with nlsocket.NetlinkSocket(ScriptedSocket(*script)) as sock:
        return sock.dump(18, b"", doing="list links")


def test_a_listing_that_comes_in_parts_is_read_whole() -> None:
    assert len(dumped([ENTRY, ENTRY], [ENTRY], [DONE])) == 3


def test_a_listing_that_changed_while_it_was_read_is_read_again() -> None:
    assert len(dumped([ENTRY, LAST_OF_CHANGED], [DONE], [ENTRY, DONE])) == 1


def test_a_listing_that_changes_whenever_it_is_read_is_an_error() -> None:
    changed = [LAST_OF_CHANGED, DONE]
    assert len(dumped(*[changed] * 9, [ENTRY, DONE])) == 1
    with pytest.raises(netlink.InterruptedDumpError, match="list links: the table kept changing"):
        dumped(*[changed] * 10, [ENTRY, DONE])


def test_lost_messages_are_an_error_of_their_own() -> None:
    with pytest.raises(netlink.OverrunError, match=r"list links: .* messages are lost"):
        dumped([ENTRY], errno.ENOBUFS)


def test_a_kernel_that_does_not_answer_in_time_is_an_error() -> None:
    with pytest.raises(KernelError, match=r"list links: no answer within \d+ s"):
        dumped(errno.EAGAIN)


def test_a_message_that_was_cut_off_is_an_error() -> None:
    with pytest.raises(KernelFormatError, match="more than"):
        dumped([])


def test_an_acknowledgement_without_the_answer_is_an_error() -> None:
    scripted = ScriptedSocket([(netlink.NLMSG_ERROR, 0)])
    with nlsocket.NetlinkSocket(scripted) as sock, pytest.raises(KernelFormatError, match="gave no answer"):
        sock.ask(18, b"", doing="read link x")


def test_encoding_brings_no_more_of_pyroute2_than_its_messages_and_takes_nothing_from_who_wants_the_rest() -> None:
    program = """
import sys
from reconciler.kernel import rtnlencode
rtnlencode.link([("IFLA_MASTER", 3)], index=5)
assert "sqlite3" not in sys.modules
import pyroute2
rtnlencode.route([], {})
print(pyroute2.IPRoute.__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("IPRoute\n", "")
