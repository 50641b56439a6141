"""Claims about several hosts from one saved state, on one LAN."""

import json

import pytest

from tests.vm import lan, prepared
from tests.vm.conftest import Hosts

COMMAND_SECONDS = 120.0
HOSTS = 3

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def members(hosts: Hosts) -> tuple[lan.Member, ...]:
    """Run three hosts."""
    return hosts(HOSTS)


def test_every_host_reaches_every_other_by_name(members: tuple[lan.Member, ...]) -> None:
    for member in members:
        names = [other.name for other in members if other is not member]
        member.guest.check(" && ".join(f"ping -c1 -W5 {name}" for name in names), COMMAND_SECONDS)


def test_no_two_hosts_share_what_tells_hosts_apart(members: tuple[lan.Member, ...]) -> None:
    for asked in (
        "hostname",
        "cat /etc/machine-id",
        "cat /sys/class/net/eth0/address",
        "head -c16 /dev/urandom | base64",
    ):
        told = [member.guest.check(asked, COMMAND_SECONDS) for member in members]
        assert len(set(told)) == HOSTS, asked


def test_links_of_one_name_have_a_mac_of_their_own_on_each_host(members: tuple[lan.Member, ...]) -> None:
    make = "ip link add br0 type bridge && ip link add ve0 type veth peer name ve1 && udevadm settle"
    macs = []
    for member in members:
        member.guest.check(make, COMMAND_SECONDS)
        links = json.loads(member.guest.check("ip -j link show", COMMAND_SECONDS))
        macs += [link["address"] for link in links if link["ifname"] != "lo"]
    assert len(macs) == len(set(macs)) == HOSTS * len(("eth0", "br0", "ve0", "ve1"))


def test_every_host_runs_the_working_tree(members: tuple[lan.Member, ...]) -> None:
    for member in members:
        said = member.guest.check(f"{prepared.ENTER}; vectl version && vectl doctor", COMMAND_SECONDS)
        assert said.startswith("vectl ")
