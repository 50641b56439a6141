"""Claims about changes that could cut off the host: what nobody confirms is taken back, whoever is killed meanwhile.

The host is a network namespace. It is looked after from another one, over a switch with two cables; a third cable leads
nowhere.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.kernel import netns
from reconciler.model.condition import ConditionType
from reconciler.model.identity import NetworkName, bridge_name
from tests.support.fleet import Fleet, network, until, ve
from tests.support.fleet import fleet as made_fleet

pytestmark = pytest.mark.xdist_group("host-risk")

HOST, ADMIN = "192.0.2.11", "192.0.2.1"
SUBJECT, TARGET = "network.lan", "network/lan"
GOOD, SPARE, DEAD = "up0", "up1", "up2"
RISK = {"confirm": "4s", "hold": "1s", "check": [f"ping {ADMIN}"]}
_APPROVE = re.compile(r"`vectl approve ([0-9a-f]{64})`")


@dataclass(frozen=True, slots=True)
class Site:
    """A fleet, and the namespace from which it is looked after."""

    fleet: Fleet
    admin: int

    @property
    def bridge(self) -> str:
        """The link that holds the address by which the host is reached."""
        return bridge_name(self.fleet.instance.name, NetworkName("lan"))

    def is_reached(self) -> bool:
        """Say whether the administrator reaches the host."""
        probe = ("busybox", "ping", "-c", "1", "-W", "1", HOST)
        return "1 packets received" in self.fleet.in_namespace(self.admin, *probe, check=False)

    def uplink(self) -> str:
        """Name the port of the bridge that is a cable."""
        ports = self.fleet.host_json("ip", "-j", "link", "show", "master", self.bridge)
        return " ".join(port["ifname"] for port in ports if port["ifname"].startswith("up"))

    def ways(self) -> list[str]:
        """Give the next hops of the host's default routes."""
        return [route["gateway"] for route in self.fleet.host_json("ip", "-j", "route", "show", "default")]

    def write(self, uplink: str, *addresses: str) -> None:
        """Write the network as it should be."""
        lan = network("lan", "192.0.2.0/24", gateway=list(addresses), uplink=uplink)
        self.fleet.put("all.yaml", lan, ve("one", "192.0.2.50/24"))

    def want(self, uplink: str, *addresses: str) -> None:
        """Write the network as it should be, and consent to what is planned for that."""
        self.write(uplink, *addresses)
        revision = self.fleet.revision()

        def asked() -> str:
            found = self.fleet.conditions(SUBJECT)[ConditionType.STALLED]
            match = _APPROVE.search(found.message)
            return match[1] if match and found.revision == revision else ""

        self.fleet.vectl("approve", until(asked, "the network to wait for consent"))

    def await_reason(self, reason: str) -> None:
        """Wait until the network stands so."""
        self.fleet.await_reason(SUBJECT, reason)

    def told(self, reason: str) -> int:
        """Count the events of a reason about the network."""
        return sum(event.reason == reason for event in self.fleet.events() if event.ve == TARGET)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    admin = netns.create()
    try:
        with made_fleet(tmp_path_factory.getbasetemp(), hostRisk=RISK) as made:
            _lay_cables(made, admin)
            made.start_agent()
            found = Site(made, admin)
            found.want(GOOD, HOST)
            found.await_reason("Converged")
            made.host("ip", "route", "add", "default", "via", ADMIN)
            assert found.is_reached()
            yield found
    finally:
        os.close(admin)


def _lay_cables(fleet: Fleet, admin: int) -> None:
    def there(*argv: str) -> None:
        fleet.in_namespace(admin, "ip", *argv)

    there("link", "add", "switch", "type", "bridge", "forward_delay", "0")
    there("address", "add", f"{ADMIN}/24", "dev", "switch")
    there("link", "set", "switch", "up")
    for namespace in (admin, fleet.namespace):  # or a host answers on every cable for what it has on any
        fleet.in_namespace(namespace, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore")
    for name in (GOOD, SPARE, DEAD):
        fleet.host("ip", "link", "add", name, "type", "veth", "peer", f"far-{name}")
        _hand_over(fleet, f"far-{name}", admin)
        if name != DEAD:
            there("link", "set", f"far-{name}", "master", "switch")
        there("link", "set", f"far-{name}", "up")
        fleet.host("ip", "link", "set", name, "up")


def _hand_over(fleet: Fleet, name: str, admin: int) -> None:
    """Move a link of the host to the administrator."""
    fleet_pid_path = f"/proc/{os.getpid()}/fd/{admin}"
    fleet.host("ip", "link", "set", name, "netns", fleet_pid_path)


def dead_man(fleet: Fleet) -> int:
    """Find the one who stands by to take a change of this instance back; 0, if there is none."""
    mark = f'"{fleet.instance.name}"'.encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes()
            if b"reconciler.agent.deadman" in words and mark in words:
                return int(path.parent.name)
    return 0


def await_taken_back(site: Site, before: int) -> None:
    """Wait until a change was taken back, and look that the host is as it was."""
    until(lambda: site.told("HostRiskReverted") == before + 1, "the change to be taken back")
    site.await_reason("HostRiskReverted")
    assert site.uplink() == GOOD
    assert site.ways() == [ADMIN]
    assert site.is_reached()


def test_a_change_that_costs_the_address_is_taken_back_with_the_way_out(site: Site) -> None:
    before = site.told("HostRiskReverted")
    site.want(GOOD)
    until(lambda: not site.ways(), "the change to be made")
    await_taken_back(site, before)
    assert site.told("AwaitsConfirmation") == 2
    site.fleet.settle()
    assert site.told("AwaitsConfirmation") == 2  # it is not tried again by itself


@pytest.mark.parametrize("victim", ["agent", "dead-man"])
def test_a_change_is_taken_back_whoever_is_killed_meanwhile(site: Site, victim: str) -> None:
    before = site.told("HostRiskReverted")
    site.want(DEAD, HOST)
    until(lambda: site.uplink() == DEAD, "the change to be made")
    if victim == "agent":
        site.fleet.end_agent(signal.SIGKILL)
        until(lambda: site.uplink() == GOOD, "the change to be taken back without an agent")
        assert site.is_reached()
        site.fleet.start_agent()
        site.await_reason("HostRiskReverted")
        assert site.uplink() == GOOD
    else:
        os.kill(until(lambda: dead_man(site.fleet), "somebody to stand by"), signal.SIGKILL)
        await_taken_back(site, before)
        assert site.told("DeadManGone") == 1


def test_a_good_change_stays_by_itself(site: Site) -> None:
    before = site.told("HostRiskConfirmed")
    site.want(SPARE, HOST)
    until(lambda: site.uplink() == SPARE, "the change to be made")
    site.await_reason("Converged")
    assert site.told("HostRiskConfirmed") == before + 1
    assert site.uplink() == SPARE
    assert site.is_reached()


def give_a_person_time(fleet: Fleet) -> None:
    """Let the agent wait longer for a word: a person has to type it, and a slow machine to start the command."""
    fleet.end_agent()
    known = json.loads(fleet.config.read_text())
    fleet.config.write_text(json.dumps({**known, "hostRisk": {**RISK, "confirm": "1h"}}))
    fleet.start_agent()


def test_a_persons_word_keeps_a_change_that_no_check_confirms(site: Site) -> None:
    give_a_person_time(site.fleet)
    site.want(DEAD, HOST)
    until(lambda: site.uplink() == DEAD, "the change to be made")
    [waits] = re.findall(r"vectl confirm ([0-9a-f]+)", until(lambda: pending(site), "it to wait for a word"))
    site.fleet.vectl("confirm", waits)
    site.await_reason("Converged")
    assert "no change waits" in site.fleet.complaint("confirm", waits)
    assert site.uplink() == DEAD
    site.write(SPARE, HOST)  # consented to before, for a day
    until(lambda: site.uplink() == SPARE and site.is_reached(), "the host to be reached again")
    site.await_reason("Converged")


def pending(site: Site) -> str:
    """Say what the network waits for."""
    return site.fleet.conditions(SUBJECT)[ConditionType.RECONCILING].message
