"""The policy of the host bounds what manifests may ask for; a broken one takes nothing from those that are there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from reconciler.model.action import Plan
from reconciler.model.fleet import Fleet
from reconciler.model.policy import (
    DEFAULT_POLICY,
    DeviceRule,
    MountRule,
    Policy,
    device_violation,
    mount_violation,
    nic_violation,
    nothing_allowed,
)
from reconciler.plan import planner
from tests.support.rig import LAN, Rig, fleet_of, on_lan, run, scratch_state, ve

POOL = Policy(
    addresses=(ip_network("10.20.0.0/28"), ip_network("fd00:20::/64")),
    file="/p.yaml",
    lines={"addresses": 7, "maxVEs": 9},
)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        yield Rig(state=state)


def refusals(rig: Rig, fleet: Fleet, policy: Policy) -> dict[str, str]:
    async def plan_by(policy: Policy) -> Plan:
        reconciler = rig.reconciler(fleet)
        inputs, _ = await reconciler.plan(await reconciler.look())
        return planner.plan_host(replace(inputs, policy=policy))

    plan = run(plan_by(policy))
    return {refusal.ve: f"{refusal.rule}: {refusal.message}; {refusal.remedy}" for refusal in plan.refused}


@pytest.mark.parametrize(
    ("source", "read_only", "allowed"),
    [
        ("/srv/data", False, True),
        ("/srv/data/web1", False, True),
        ("/srv/database", True, False),
        ("/srv", True, False),
        ("/srv/data/../../etc", True, False),
        ("/srv/iso/x", False, False),
        ("/srv/iso/x", True, True),
    ],
)
def test_mounts_lie_below_what_is_allowed(source: str, read_only: bool, allowed: bool) -> None:
    policy = Policy(mounts=(MountRule(source="/srv/data"), MountRule(source="/srv/iso", read_only=True)))
    assert policy.allows_mount(source, read_only=read_only) is allowed
    assert (mount_violation(policy, "mounts./x", source, read_only=read_only) is None) is allowed


@pytest.mark.parametrize(
    ("path", "access", "allowed"),
    [
        ("/dev/net/tun", "rw", True),
        ("/dev/net/tun", "rwm", False),
        ("/dev/fuse", "r", True),
        ("/dev/sda", "r", False),
        ("/dev/dri/card0", "r", True),
        ("/dev/dri/by-path/x", "r", False),
    ],
)
def test_devices_are_those_that_are_allowed(path: str, access: str, allowed: bool) -> None:
    policy = Policy(devices=(*DEFAULT_POLICY.devices, DeviceRule(path="/dev/dri/*", access="r")))
    assert policy.allows_device(path, access) is allowed
    assert (device_violation(policy, f"devices.{path}", path, access) is None) is allowed


def test_interfaces_of_the_host_are_moved_by_word_of_its_root_only() -> None:
    assert nic_violation(DEFAULT_POLICY, "devices.eth1", "eth1") is not None
    assert nic_violation(Policy(nics=("enp5s*",)), "devices.enp5s0", "enp5s0") is None


def test_an_address_outside_of_the_pools_is_refused_with_the_line_of_the_policy(rig: Rig) -> None:
    found = refusals(rig, fleet_of(LAN, ve("in", on_lan(5)), ve("out", on_lan(99))), POOL)
    assert found == {
        "out": "Policy: interfaces.eth0.addresses: address 10.20.0.99 is in none of 10.20.0.0/28, fd00:20::/64 "
        "(/p.yaml:7); "
        "remove it, or let root of the host allow it under 'addresses' in /p.yaml"
    }


def test_a_feature_that_is_not_allowed_is_refused(rig: Rig) -> None:
    found = refusals(rig, fleet_of(ve("a", "features: {nesting: true}")), Policy(features=frozenset()))
    assert "features.nesting: nesting is none of (nothing)" in found["a"]


def test_beyond_the_number_of_ves_newcomers_are_refused_and_never_who_is_here(rig: Rig) -> None:
    rig.converge(fleet_of(ve("m")))
    policy = replace(POOL, addresses=None, ves_max=2)
    found = refusals(rig, fleet_of(ve("a"), ve("b"), ve("m")), policy)
    assert list(found) == ["b"]
    assert "2 VEs are allowed on this host and 1 are here (/p.yaml:9)" in found["b"]
    assert not refusals(rig, fleet_of(ve("m")), replace(policy, ves_max=0))


def test_a_broken_policy_takes_nothing_from_those_that_are_here_and_gives_nothing_new(rig: Rig) -> None:
    rig.converge(fleet_of(LAN, ve("a", on_lan(5))))
    broken = nothing_allowed("p.yaml:1: a mistake", file="p.yaml")
    assert refusals(rig, fleet_of(LAN, ve("a", on_lan(5))), broken) == {}
    found = refusals(rig, fleet_of(LAN, ve("a", f"{on_lan(5)}, features: {{nesting: true}}"), ve("new")), broken)
    assert found.keys() == {"a", "new"}
    assert "policy not usable: p.yaml:1: a mistake" in found["a"]


def test_fuse_is_judged_as_a_feature_and_not_once_more_as_a_device(rig: Rig) -> None:
    fleet = fleet_of(ve("web1", "features: {fuse: true}"))
    assert refusals(rig, fleet, Policy(devices=())) == {}
    assert (
        "features.fuse: fuse is none of nesting"
        in refusals(rig, fleet, Policy(features=frozenset({"nesting"})))["web1"]
    )
