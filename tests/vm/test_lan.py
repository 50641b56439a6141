"""Claims about several hosts from one saved state, on one LAN."""

import json
from collections.abc import Iterator

import pytest

from tests.vm import lan, prepared, saved

COMMAND_SECONDS = 120.0
HOSTS = 3

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[lan.Member, ...]]:
    """Run three hosts."""
    with lan.hosts(saved.saved_state(), HOSTS) as members:
        yield members


def test_every_host_reaches_every_other_by_name(hosts: tuple[lan.Member, ...]) -> None:
    for member in hosts:
        names = [other.name for other in hosts if other is not member]
        member.guest.check(" && ".join(f"ping -c1 -W5 {name}" for name in names), COMMAND_SECONDS)


def test_no_two_hosts_share_what_tells_hosts_apart(hosts: tuple[lan.Member, ...]) -> None:
    for asked in (
        "hostname",
        "cat /etc/machine-id",
        "cat /sys/class/net/eth0/address",
        "head -c16 /dev/urandom | base64",
    ):
        told = [member.guest.check(asked, COMMAND_SECONDS) for member in hosts]
        assert len(set(told)) == HOSTS, asked


def test_links_of_one_name_have_a_mac_of_their_own_on_each_host(hosts: tuple[lan.Member, ...]) -> None:
    make = "ip link add br0 type bridge && ip link add ve0 type veth peer name ve1 && udevadm settle"
    macs = []
    for member in hosts:
        member.guest.check(make, COMMAND_SECONDS)
        links = json.loads(member.guest.check("ip -j link show", COMMAND_SECONDS))
        macs += [link["address"] for link in links if link["ifname"] != "lo"]
    assert len(macs) == len(set(macs)) == HOSTS * len(("eth0", "br0", "ve0", "ve1"))


def test_every_host_runs_the_working_tree(hosts: tuple[lan.Member, ...]) -> None:
    for member in hosts:
        said = member.guest.check(f"{prepared.ENTER}; vectl version && vectl doctor", COMMAND_SECONDS)
        assert said.startswith("vectl ")
