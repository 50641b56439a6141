"""Claims about drift: what is changed by hand is put right by the event of the change, and nothing else is touched."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import pytest

from reconciler.kernel import cgroup_layout
from reconciler.model.identity import NetworkName, bridge_name
from tests.support.fleet import Fleet, network, reaches, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve

pytestmark = pytest.mark.xdist_group("agent-drift")

GATEWAYS = ["10.191.1.1", "fd91:1::1"]
ADDRESSES = {"10.191.1.11/24", "fd91:1::11/64"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    documents = (
        network("lan", "10.191.1.0/24", "fd91:1::/64", gateway=GATEWAYS, nat=True),
        ve("a", *sorted(ADDRESSES), cpu={"limit": 0.5}, processes=200),
        ve("b", "10.191.1.12/24", "fd91:1::12/64"),
    )
    with made_fleet(tmp_path_factory.getbasetemp(), *documents) as made:
        made.start_agent()
        made.await_ready("a", "b")
        yield made


@pytest.fixture
def a(fleet: Fleet) -> Ve:
    fleet.await_ready("a")
    return fleet.ve("a")


def bridge(fleet: Fleet) -> str:
    return bridge_name(fleet.instance.name, NetworkName("lan"))


Break: TypeAlias = Callable[[Fleet, Ve], object]
Right: TypeAlias = Callable[[Fleet, Ve], object]

INSIDE: dict[str, tuple[str, Break, Right]] = {
    "memory-limit": (
        "memory.limit",
        lambda _, a: a.memory_limit_file.write_text(str(32 << 20)),
        lambda _, a: a.limit("memory.limit") == 64 << 20,
    ),
    "process-limit": (
        "processes",
        lambda _, a: a.limit_file("pids.max", "pids.max", controller="pids").write_text("max"),
        lambda _, a: a.limit("processes") == 200,
    ),
    "cpu-limit": (
        "cpu.limit",
        lambda _, a: a.limit_file("cpu.cfs_quota_us", "cpu.max", controller="cpu").write_text("90000"),
        lambda _, a: a.limit("cpu.limit") == 50_000,
    ),
    "address-added": (
        "interfaces.eth0.addresses",
        lambda _, a: a.net("ip", "addr", "add", "10.191.1.99/24", "dev", "eth0"),
        lambda _, a: a.addresses() == ADDRESSES,
    ),
    "address-removed": (
        "interfaces.eth0.addresses",
        lambda _, a: a.net("ip", "addr", "del", "10.191.1.11/24", "dev", "eth0"),
        lambda _, a: a.addresses() == ADDRESSES and default_routes(a) == GATEWAYS,
    ),
    "link-down-inside": (
        "interfaces.eth0.up",
        lambda _, a: a.run("ip", "link", "set", "eth0", "down"),
        lambda _, a: a.addresses() == ADDRESSES and default_routes(a) == GATEWAYS,
    ),
    "link-down-outside": (
        "interfaces.eth0.up",
        lambda fleet, a: fleet.host("ip", "link", "set", a.link(), "down"),
        lambda fleet, a: "UP" in link_of(fleet, a)["flags"],
    ),
    "mtu": (
        "interfaces.eth0.mtu",
        lambda _, a: a.run("ip", "link", "set", "eth0", "mtu", "1400"),
        lambda _, a: a.net_json("ip", "-j", "link", "show", "eth0")[0]["mtu"] == 1500,
    ),
    "port-released": (
        "interfaces.eth0.network",
        lambda fleet, a: fleet.host("ip", "link", "set", a.link(), "nomaster"),
        lambda fleet, a: link_of(fleet, a)["master"] == bridge(fleet),
    ),
    "route-removed": (
        "interfaces.eth0.routes",
        lambda _, a: a.run("ip", "route", "del", "default"),
        lambda _, a: default_routes(a) == GATEWAYS,
    ),
    "interface-deleted": (
        "interfaces.eth0",
        lambda _, a: a.run("ip", "link", "del", "eth0"),
        lambda _, a: a.addresses() == ADDRESSES and default_routes(a) == GATEWAYS,
    ),
    "interface-moved-away": (
        "interfaces.eth0",
        lambda fleet, a: move_away(fleet, a, "eth0"),
        lambda _, a: a.addresses() == ADDRESSES and default_routes(a) == GATEWAYS,
    ),
}


def move_away(fleet: Fleet, one: Ve, name: str) -> None:
    """Move the VE's end of an interface to where the VE cannot see it; the host's end stays."""
    with fleet.in_one_moment():
        for words in (f"set {name} down", f"set {name} name moved", f"set moved netns {fleet.ve('b').pid}"):
            one.net("ip", "link", *words.split())


def link_of(fleet: Fleet, one: Ve) -> dict[str, str]:
    found: list[dict[str, str]] = fleet.host_json("ip", "-j", "link", "show", "dev", one.link())
    return found[0]


def default_routes(one: Ve) -> list[str]:
    return [r["gateway"] for v in ("-4", "-6") for r in one.net_json("ip", "-j", v, "route", "show", "default")]


@pytest.mark.parametrize("case", INSIDE)
def test_what_is_changed_in_a_ve_is_put_right_without_a_restart(fleet: Fleet, a: Ve, case: str) -> None:
    path, change, is_right = INSIDE[case]
    init = a.init
    assert is_right(fleet, a)
    with fleet.puts_right("a", path):
        change(fleet, a)
    until(lambda: is_right(fleet, a), f"{path} to be right")
    reaches(a, "10.191.1.12")
    reaches(a, "fd91:1::12")
    assert a.init == init
    fleet.await_ready("a")


def test_an_init_that_was_killed_is_started_again(fleet: Fleet, a: Ve) -> None:
    former = a.init
    with fleet.puts_right("a", "power"):
        os.kill(former.pid, signal.SIGKILL)
    until(lambda: a.init != former, "another init")
    reaches(a, "10.191.1.12")
    fleet.await_ready("a")


HOST: dict[str, tuple[str, str, Callable[[Fleet], object]]] = {
    "table-deleted": ("host/filter", "rules", lambda f: f.host("nft", "delete", "table", "bridge", f.instance.name)),
    "table-flushed": ("host/filter", "rules", lambda f: f.host("nft", "flush", "table", "inet", f.instance.name)),
    "rule-added": (
        "host/filter",
        "rules",
        lambda f: f.host("nft", "insert", "rule", "bridge", f.instance.name, "prerouting", "accept"),
    ),
    "element-added": (
        "host/filter",
        "rules",
        lambda f: f.host("nft", "add", "element", "bridge", f.instance.name, "v4", "{ x . 10.191.1.99 }"),
    ),
    "gateway-removed": (
        "network/lan",
        "gateway",
        lambda f: f.host("ip", "addr", "del", "10.191.1.1/24", "dev", bridge(f)),
    ),
    "bridge-down": ("network/lan", "up", lambda f: f.host("ip", "link", "set", bridge(f), "down")),
    "bridge-mtu": ("network/lan", "mtu", lambda f: f.host("ip", "link", "set", bridge(f), "mtu", "1400")),
}


@pytest.mark.parametrize("case", HOST)
def test_what_is_changed_on_the_host_is_put_right(fleet: Fleet, a: Ve, case: str) -> None:
    name, path, change = HOST[case]
    loaded, init = ruleset(fleet), a.init
    with fleet.puts_right(name, path):
        change(fleet)
    until(lambda: ruleset(fleet) == loaded, "the rules that were loaded before")
    until(lambda: {"10.191.1.1", "fd91:1::1"} <= host_addresses(fleet), "the gateways")
    reaches(a, "10.191.1.1")
    reaches(a, "fd91:1::1")
    assert a.init == init


def ruleset(fleet: Fleet) -> str:
    """Print our tables, without the handles that each load counts on."""
    return fleet.host("nft", "--numeric", "list", "ruleset")


def host_addresses(fleet: Fleet) -> set[str]:
    shown = fleet.host_json("ip", "-j", "addr", "show", "dev", bridge(fleet))
    return {a["local"] for link in shown for a in link.get("addr_info", ())}


def test_a_bridge_that_was_deleted_is_made_again_and_its_ves_are_attached(fleet: Fleet, a: Ve) -> None:
    inits = a.init, fleet.ve("b").init
    before = link_of(fleet, a)["ifindex"], bridge(fleet)
    fleet.host("ip", "link", "del", bridge(fleet))
    until(lambda: {"10.191.1.1", "fd91:1::1"} <= host_addresses(fleet), "the bridge with its gateways")
    for one in (a, fleet.ve("b")):
        until(lambda one=one: link_of(fleet, one).get("master") == bridge(fleet), "a VE's port")  # type: ignore[misc]
    reaches(a, "10.191.1.12")
    reaches(a, "10.191.1.1")
    assert (link_of(fleet, a)["ifindex"], bridge(fleet)) == before
    assert (a.init, fleet.ve("b").init) == inits


def test_a_change_without_an_event_is_found_by_looking_at_everything(fleet: Fleet, a: Ve) -> None:
    fleet.settle()
    assert found_in(fleet, a, lambda: fleet.ask("reconcile")) == "planned"
    assert a.run("hostname") == "a\n"


def found_in(fleet: Fleet, a: Ve, begin: Callable[[], object] = lambda: None) -> object:
    """Change what tells nobody, and give why the agent passed over the VE when it put that right."""
    known = len(fleet.passes())
    with fleet.puts_right("a", "hostname"):
        a.run("hostname", "intruder")
        begin()
    (passed,) = until(lambda: [p for p in fleet.passes()[known:] if p["key"] == "a"], "the pass to be over")
    return passed["activation_reason"]


def test_the_timer_alone_looks_at_everything(fleet: Fleet, a: Ve) -> None:
    fleet.end_agent()
    known = json.loads(fleet.config.read_text())
    fleet.config.write_text(json.dumps({**known, "resync": "1s"}))
    try:
        begin = len(fleet.passes())
        fleet.start_agent()
        until(lambda: any(p["activation_reason"] == "timer" for p in fleet.passes()[begin:]), "the timer")
        assert found_in(fleet, a) == "planned"
        assert a.run("hostname") == "a\n"
    finally:
        fleet.end_agent()
        fleet.config.write_text(json.dumps(known))
        fleet.start_agent()


def test_what_carries_no_mark_of_ours_is_never_touched(fleet: Fleet, a: Ve) -> None:
    made = foreign(fleet)
    for command in (*HOST_FOREIGN, f"ip link add {fleet.instance.name}-none type bridge"):
        fleet.host(*command.split())
    for command in VE_FOREIGN:
        a.net(*command.split())
    cgroups = [Path(h.path(f"{fleet.instance.cgroup}/theirs")) for h in cgroup_layout.detect().hierarchies()]
    for path in cgroups:
        path.mkdir()
    try:
        theirs = foreign(fleet)
        assert theirs != made
        with fleet.puts_right("a", "memory.limit"):
            a.memory_limit_file.write_text(str(32 << 20))
        with fleet.puts_right("host/filter", "rules"):
            fleet.host("nft", "delete", "table", "bridge", fleet.instance.name)
        with fleet.puts_right("a", "interfaces.eth0.addresses"):
            a.net("ip", "addr", "add", "10.191.1.99/24", "dev", "eth0")
        with fleet.puts_right("a", "hostname"):
            a.run("hostname", "intruder")
            fleet.ask("reconcile")
        fleet.end_agent()
        fleet.start_agent()
        with fleet.puts_right("a", "hostname"):
            a.run("hostname", "intruder")
            fleet.ask("reconcile")
        assert foreign(fleet) == theirs
        assert all(path.is_dir() for path in cgroups)
    finally:
        for path in cgroups:
            with suppress(FileNotFoundError):
                path.rmdir()
        fleet.host("ip", "link", "del", f"{fleet.instance.name}-none")


HOST_FOREIGN = (
    "nft add table inet theirs",
    "nft add chain inet theirs input { type filter hook input priority 0 ; }",
    "nft add rule inet theirs input tcp dport 9 drop",
    "nft add table bridge theirs",
    "ip link add theirs0 type veth peer name theirs1",
    "ip link add theirs-br type bridge",
    "ip link set theirs0 master theirs-br up",
    "ip addr add 10.191.200.1/24 dev theirs-br",
    "ip link set theirs-br up",
    "ip route add 10.191.201.0/24 dev theirs-br",
)

VE_FOREIGN = (
    "ip link add theirs1 type bridge",
    "ip link set theirs1 up",
    "ip addr add 10.191.202.1/24 dev theirs1",
    "ip addr add fe80::9/64 dev eth0",
    "ip addr add 169.254.9.9/16 scope link dev eth0",
    "ip route add 10.191.203.0/24 via 10.191.1.12",
    "ip route add 10.191.204.0/24 dev theirs1",
)


def foreign(fleet: Fleet) -> dict[str, object]:
    """Give all that is on the host and in the VE and not ours: tables, links, addresses, routes."""
    one = fleet.ve("a")
    return {
        "tables": [
            fleet.host("nft", "list", "table", *words[1:])
            for line in fleet.host("nft", "list", "tables").splitlines()
            if (words := line.split())[-1] == "theirs"
        ],
        "host links": {
            link["ifname"]: (link["ifindex"], link.get("master"), addresses_of(link))
            for link in fleet.host_json("ip", "-j", "addr")
            if not link.get("ifalias", "").startswith(f"{fleet.instance.name}:") and link["ifname"] != bridge(fleet)
        },
        "host routes": [
            route for route in fleet.host_json("ip", "-j", "route") if route.get("dev", "").startswith("theirs")
        ],
        "ve links": {link["ifname"]: addresses_of(link) for link in one.net_json("ip", "-j", "addr")},
        "ve routes": sorted(map(str, one.net_json("ip", "-j", "route"))),
    }


def addresses_of(link: dict[str, list[dict[str, str]]]) -> list[str]:
    return sorted(address["local"] for address in link.get("addr_info", ()))
