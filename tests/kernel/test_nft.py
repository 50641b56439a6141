"""Rulesets: loaded whole, listed, and told apart by a fingerprint that packets do not change."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from reconciler.errors import CommandError
from reconciler.kernel import link, netns, nftread
from reconciler.kernel.netlink import InterruptedDumpError
from reconciler.kernel.nftread import NftSocket
from reconciler.kernel.rtnlsocket import RtnlSocket
from tests.support import nftables

pytestmark = pytest.mark.kernel

TABLE = ("inet", "vx")
RULESET = """\
table inet vx
delete table inet vx
table inet vx {
    counter hits { }
    quota left { over 10 mbytes }
    set allowed { type ifname . ipv4_addr; elements = { "vxa" . 10.76.0.10, "vxb" . 10.76.0.11, "vxc" . 10.76.0.12 }; }
    set ranges { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.5-192.0.2.9 }; }
    set seen { type ipv4_addr; size 16; flags dynamic, timeout; timeout 1h; }
    map verdicts { type inet_service : verdict; elements = { 9 : jump counted }; }
    set spare { type ipv4_addr; }
    quota unused { over 1 mbytes }
    chain idle { }
    chain counted { counter name "hits"; quota name "left" accept; }
    chain input {
        type filter hook input priority 0; policy accept;
        update @seen { ip saddr }
        counter
        udp dport { 7, 9 } udp dport vmap @verdicts
        ip saddr @ranges limit rate 10/second accept
        quota over 5 mbytes drop
    }
}
"""
CHANGES = {
    "chain-flushed": "flush chain inet vx counted",
    "rule-added": "add rule inet vx input accept",
    "rule-put-first": "insert rule inet vx input counter",
    "element-added": 'add element inet vx allowed { "vxz" . 10.76.0.99 }',
    "element-removed": 'delete element inet vx allowed { "vxb" . 10.76.0.11 }',
    "range-added": "add element inet vx ranges { 172.16.0.0/12 }",
    "verdict-removed": "delete element inet vx verdicts { 9 }",
    "policy-changed": "chain inet vx input { policy drop; }",
    "chain-added": "add chain inet vx more",
    "set-added": "add set inet vx more { type ipv4_addr; }",
    "object-added": "add counter inet vx more",
    "table-dormant": "table inet vx { flags dormant; }",
}

ROUND_TRIPS = {
    "rules": 'flush chain inet vx counted\nadd rule inet vx counted counter name "hits"\n'
    'add rule inet vx counted quota name "left" accept',
    "chain": "delete chain inet vx idle\nadd chain inet vx idle",
    "set": "delete set inet vx spare\nadd set inet vx spare { type ipv4_addr; }",
    "object": "delete quota inet vx unused\nadd quota inet vx unused { over 1 mbytes; }",
    "element": 'delete element inet vx allowed { "vxb" . 10.76.0.11 }\n'
    'add element inet vx allowed { "vxb" . 10.76.0.11 }',
}


@dataclass(frozen=True)
class Host:
    """A namespace of its own, with a socket for readings."""

    namespace: int
    sock: NftSocket

    def apply(self, ruleset: str) -> None:
        netns.call_in(self.namespace, lambda: nftables.load(ruleset + "\n"))

    def listed(self, family: str, name: str) -> list[nftables.Entry] | None:
        return netns.call_in(self.namespace, lambda: nftables.list_table(family, name))

    def fingerprint(self) -> str | None:
        return self.sock.fingerprints([TABLE]).digests[TABLE]


def made_host() -> Iterator[Host]:
    namespace = netns.create()
    try:
        with RtnlSocket.open_in(namespace) as links:
            link.set_up(links, 1)
        with NftSocket.open_in(namespace) as sock:
            yield Host(namespace, sock)
    finally:
        os.close(namespace)


@pytest.fixture
def host() -> Iterator[Host]:
    yield from made_host()


@pytest.fixture
def other_host() -> Iterator[Host]:
    yield from made_host()


def send_a_packet(host: Host) -> None:
    """Send to the discard port over loopback: when this returns the packet has passed the rules."""
    with netns.open_socket_in(host.namespace, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x" * 100, ("127.0.0.1", 9))


def packets_counted(host: Host) -> int:
    entries = host.listed(*TABLE)
    assert entries is not None
    (counter,) = [entry["counter"] for entry in entries if "counter" in entry]
    packets = counter["packets"]
    assert isinstance(packets, int)
    return packets


def test_a_table_that_is_not_there_is_none(host: Host) -> None:
    assert host.listed(*TABLE) is None
    assert host.fingerprint() is None


def test_a_ruleset_is_loaded_and_listed(host: Host) -> None:
    host.apply(RULESET)
    entries = host.listed(*TABLE)
    assert entries is not None
    assert [entry["chain"]["name"] for entry in entries if "chain" in entry] == ["idle", "counted", "input"]
    assert host.listed("ip", "vx") is None


def test_json_is_loaded_as_well(host: Host) -> None:
    host.apply('{"nftables": [{"add": {"table": {"family": "ip", "name": "vxjson"}}}]}')
    assert host.listed("ip", "vxjson") is not None


def test_a_ruleset_with_an_error_changes_nothing_and_says_what_is_wrong(host: Host) -> None:
    host.apply(RULESET)
    before = host.fingerprint()
    with pytest.raises(CommandError, match=r"load nftables ruleset: .*No such file or directory"):
        host.apply(RULESET.replace("accept;", "drop;") + "add rule inet vx no_such_chain accept")
    assert host.fingerprint() == before


def test_the_same_text_has_the_same_fingerprint_loaded_again_and_elsewhere(host: Host, other_host: Host) -> None:
    host.apply(RULESET)
    first, generation = host.fingerprint(), host.sock.generation()
    host.apply(RULESET)
    other_host.apply("table inet before { chain c { }; }")
    other_host.apply(RULESET)
    assert host.sock.generation() > generation
    assert first is not None
    assert host.fingerprint() == first == other_host.fingerprint()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_any_change_of_the_table_changes_its_fingerprint(host: Host, change: str) -> None:
    host.apply(RULESET)
    before = host.fingerprint()
    host.apply(change)
    assert host.fingerprint() != before
    host.apply(RULESET)
    assert host.fingerprint() == before


@pytest.mark.parametrize("there_and_back", ROUND_TRIPS.values(), ids=ROUND_TRIPS.keys())
def test_what_was_taken_away_and_put_back_leaves_the_fingerprint_as_it_was(host: Host, there_and_back: str) -> None:
    """It has other handles now, and its neighbours other use counts."""
    host.apply(RULESET)
    before = host.fingerprint()
    for step in there_and_back.splitlines():
        host.apply(step)
    assert host.fingerprint() == before


def test_packets_change_neither_fingerprint_nor_generation(host: Host) -> None:
    host.apply(RULESET)
    before = host.sock.fingerprints([TABLE])
    send_a_packet(host)
    assert packets_counted(host) == 1
    assert host.sock.fingerprints([TABLE]) == before


def test_reading_changes_no_generation_and_a_foreign_table_changes_no_fingerprint(host: Host) -> None:
    host.apply(RULESET)
    before = host.sock.fingerprints([TABLE])
    assert host.sock.generation() == before.generation
    host.apply("table inet foreign { chain c { accept; }; }")
    after = host.sock.fingerprints([TABLE])
    assert after.generation == before.generation + 1
    assert after.digests == before.digests


class Overtaken(NftSocket):
    """A socket whose host changes the ruleset just before the second reading of the generation."""

    def __init__(self, sock: socket.socket, change: Callable[[], None], *, times: int) -> None:
        super().__init__(sock)
        self._change, self._changes = change, [False, True] * times

    def generation(self) -> int:
        if self._changes and self._changes.pop(0):
            self._change()
        return super().generation()


def overtaken(host: Host, *, times: int) -> Overtaken:
    sock = netns.open_socket_in(host.namespace, socket.AF_NETLINK, socket.SOCK_RAW, nftread.NETLINK_NETFILTER)
    return Overtaken(sock, lambda: host.apply("add rule inet vx idle accept"), times=times)


def test_a_reading_that_was_overtaken_is_done_again(host: Host) -> None:
    host.apply(RULESET)
    with overtaken(host, times=1) as reader:
        assert reader.fingerprints([TABLE]) == host.sock.fingerprints([TABLE])


def test_a_reading_that_is_overtaken_each_time_is_an_error(host: Host) -> None:
    host.apply(RULESET)
    with overtaken(host, times=3) as reader, pytest.raises(InterruptedDumpError, match="kept changing"):
        reader.fingerprints([TABLE])


def test_tables_of_one_name_in_two_families_are_two(host: Host) -> None:
    host.apply(RULESET)
    host.apply("table bridge vx { chain c { drop; }; }")
    digests = host.sock.fingerprints([TABLE, ("bridge", "vx"), ("ip", "vx")]).digests
    assert digests["ip", "vx"] is None
    assert len(set(digests.values())) == 3


def test_a_large_set_is_read_whole(host: Host) -> None:
    """Its listing takes several datagrams, and the kernel lists it in an order that differs from load to load."""
    elements = ", ".join(f'"vx{number}" . 10.{number // 250}.0.{number % 250}' for number in range(3000))
    large = "table inet vx { set s { type ifname . ipv4_addr; elements = { %s }; }; }"
    host.apply(large % elements)
    before = host.fingerprint()
    host.apply("delete table inet vx")
    host.apply(large % elements)
    assert host.fingerprint() == before
    host.apply('delete element inet vx s { "vx2999" . 10.11.0.249 }')
    assert host.fingerprint() != before
