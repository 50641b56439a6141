"""Claims about network rates: packets between VEs take the time that the rates give, whatever a VE's root does."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from reconciler.model.identity import shaper_name
from tests.support.fleet import COMMAND_S, Document, Fleet, network, reaches, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve

pytestmark = pytest.mark.xdist_group("ve-rates")

EGRESS, INGRESS = 8_000_000, 16_000_000
PATHS = {
    "lan": ("held", "10.191.21.11", "free", "10.191.21.12"),
    "routed": ("rheld", "10.191.22.11", "rfree", "10.191.22.12"),
}
SECONDS, BRIEFLY = 0.8, 0.2


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp(), *documents(egress="8Mbit", ingress="16Mbit")) as made:
        made.start_agent()
        for held, at, free, address in PATHS.values():
            made.await_ready(held, free)
            reaches(made.ve(held), address)
            reaches(made.ve(free), at)
        yield made


def documents(**rate: str) -> Iterator[Document]:
    """Make two networks, one with large packets, and on each a VE of these rates and one without."""
    yield network("lan", "10.191.21.0/24", gateway=["10.191.21.1"], mtu=9000)
    yield network("routed", "10.191.22.0/24", mode="routed")
    for on, (held, at, free, address) in PATHS.items():
        limited = {"name": "eth0", "network": on, "addresses": [f"{at}/24"], "rate": rate}
        yield ve(held, interfaces=[limited])
        yield ve(free, f"{address}/24", on=on)


@pytest.fixture(autouse=True)
def _restored(fleet: Fleet) -> Iterator[None]:
    yield
    give(fleet, egress="8Mbit", ingress="16Mbit")


def give(fleet: Fleet, **rate: str) -> None:
    """Give the VEs that are held these rates, and no others, while they run."""
    names = [held for held, *_ in PATHS.values()]
    inits = [fleet.ve(name).init for name in names]
    fleet.put("all.yaml", *documents(**rate))
    fleet.await_ready(*names)
    assert [fleet.ve(name).init for name in names] == inits


def rate_between(sender: Ve, receiver: Ve, address: str, size: int) -> float:
    """Send over a connection between two VEs, and give the rate at which all of it came. Units: bytes; bit/s."""
    with receiver.in_network(lambda: socket.create_server((address, 0))) as server:
        port = server.getsockname()[1]
        out = sender.in_network(lambda: socket.create_connection((address, port), COMMAND_S))
        into, _ = server.accept()
    with into, ThreadPoolExecutor(max_workers=1) as thread:
        into.settimeout(COMMAND_S)
        begun = time.monotonic()
        sent = thread.submit(send, out, size)
        came = 0
        while part := into.recv(1 << 16):
            came += len(part)
        sent.result()
        assert came == size
        return size * 8 / (time.monotonic() - begun)


def send(out: socket.socket, size: int) -> None:
    with out:
        out.sendall(bytes(size))


def egress(fleet: Fleet, on: str = "lan", size: int = round(EGRESS / 8 * SECONDS)) -> float:
    held, _, free, address = PATHS[on]
    return rate_between(fleet.ve(held), fleet.ve(free), address, size)


def ingress(fleet: Fleet, on: str = "lan", size: int = round(INGRESS / 8 * SECONDS)) -> float:
    held, at, free, _ = PATHS[on]
    return rate_between(fleet.ve(free), fleet.ve(held), at, size)


@pytest.mark.parametrize("on", PATHS)
def test_what_a_ve_sends_and_receives_is_held_to_its_rates(fleet: Fleet, on: str) -> None:
    assert 0.5 * EGRESS < egress(fleet, on) < 1.2 * EGRESS
    assert 0.5 * INGRESS < ingress(fleet, on) < 1.2 * INGRESS


def test_rates_change_while_a_connection_goes_on_and_all_of_it_arrives(fleet: Fleet) -> None:
    with ThreadPoolExecutor(max_workers=1) as thread:
        slow = thread.submit(egress, fleet, size=3 * EGRESS // 8)
        give(fleet, egress="200Mbit", ingress="200Mbit")
        assert slow.result() > 1.2 * EGRESS
    assert egress(fleet) > 2 * EGRESS
    assert ingress(fleet) > 2 * INGRESS
    give(fleet)
    assert egress(fleet) > 2 * EGRESS
    host_end = fleet.ve("held").link()
    assert queues(fleet, host_end) == ["noqueue"]
    assert shaper_name(host_end) not in links(fleet)


def queues(fleet: Fleet, link: str) -> list[str]:
    return [queue["kind"] for queue in fleet.host_json("tc", "-j", "qdisc", "show", "dev", link)]


def links(fleet: Fleet) -> set[str]:
    return {link["ifname"] for link in fleet.host_json("ip", "-j", "link")}


def test_the_ves_root_cannot_lift_its_rates(fleet: Fleet) -> None:
    held = fleet.ve("held")
    held.net("tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", "1gbit", "burst", "1mb", "limit", "9mb")
    held.net("tc", "qdisc", "add", "dev", "eth0", "ingress")
    try:
        assert egress(fleet) < 1.2 * EGRESS
        assert ingress(fleet) < 1.2 * INGRESS
    finally:
        for place in ("root", "ingress"):
            held.net("tc", "qdisc", "del", "dev", "eth0", place)


def test_a_link_that_the_ves_root_deleted_comes_back_with_its_rates(fleet: Fleet) -> None:
    held, *_, address = PATHS["lan"]
    with fleet.puts_right(held, "interfaces.eth0"):
        fleet.ve(held).net("ip", "link", "del", "eth0")
    fleet.settle()
    reaches(fleet.ve(held), address)
    assert egress(fleet, size=round(EGRESS / 8 * BRIEFLY)) < 1.2 * EGRESS
    assert ingress(fleet, size=round(INGRESS / 8 * BRIEFLY)) < 1.2 * INGRESS


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("rate.ingress", "tc qdisc del dev {end} root"),
        ("rate.ingress", "tc qdisc change dev {end} root tbf rate 1gbit burst 1mb limit 9mb"),
        ("rate.ingress", "tc qdisc change dev {end} root tbf rate 16mbit burst 9mb limit 9mb"),
        ("rate.egress", "tc qdisc del dev {end} ingress"),
        ("rate.egress", "tc filter del dev {end} ingress"),
        ("rate.egress", "tc qdisc del dev {shaper} root"),
        ("rate.egress", "ip link set {shaper} down"),
        ("rate.egress", "ip link del {shaper}"),
    ],
)
def test_a_rate_that_somebody_changed_by_hand_is_put_right(fleet: Fleet, path: str, command: str) -> None:
    end = fleet.ve("held").link()
    with fleet.puts_right("held", f"interfaces.eth0.{path}"):
        fleet.host(*command.format(end=end, shaper=shaper_name(end)).split())
    fleet.settle()
    assert egress(fleet, size=round(EGRESS / 8 * BRIEFLY)) < 1.2 * EGRESS
    assert ingress(fleet, size=round(INGRESS / 8 * BRIEFLY)) < 1.2 * INGRESS


def test_a_rate_that_nobody_asked_for_is_taken_away(fleet: Fleet) -> None:
    end = fleet.ve("free").link()
    with fleet.puts_right("free", "interfaces.eth0.rate.ingress"):
        fleet.host(*f"tc qdisc add dev {end} root tbf rate 1mbit burst 16kb limit 64kb".split())
    assert queues(fleet, end) == ["noqueue"]


def test_what_holds_a_rate_goes_with_its_ve_and_comes_with_it(fleet: Fleet) -> None:
    held = fleet.ve("held")
    shaper, before = shaper_name(held.link()), held.init
    held.try_run("reboot")
    until(lambda: held.init != before, "the VE to be started again")
    fleet.await_ready("held")
    reaches(held, PATHS["lan"][3])
    assert 0.5 * EGRESS < egress(fleet) < 1.2 * EGRESS
    fleet.vectl("stop", "held")
    assert shaper not in links(fleet)
    fleet.vectl("start", "held")
    fleet.await_ready("held")
    assert shaper in links(fleet)


def test_a_converged_host_of_held_ves_is_left_alone(fleet: Fleet) -> None:
    fleet.settle()
    before = fleet.actions()
    fleet.ask("reconcile")
    fleet.settle()
    assert fleet.actions() == before


def test_the_mtu_changes_beside_a_rate(fleet: Fleet) -> None:
    held, at, *_ = PATHS["lan"]
    rate = {"egress": "8Mbit", "ingress": "16Mbit"}
    smaller = {"name": "eth0", "network": "lan", "addresses": [f"{at}/24"], "mtu": 1400, "rate": rate}
    others = [document for document in documents(**rate) if document["metadata"] != {"name": held}]
    before = drifts(fleet)
    fleet.put("all.yaml", *others, ve(held, interfaces=[smaller]))
    fleet.await_ready(held)
    fleet.settle()
    assert drifts(fleet) == before
    assert 0.5 * EGRESS < egress(fleet) < 1.2 * EGRESS


def drifts(fleet: Fleet) -> list[str]:
    return [event.message for event in fleet.events() if event.reason == "Drifted"]
