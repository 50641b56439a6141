"""Networks that span hosts: what each host makes of one, what changes cost, and where one cannot be had."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from reconciler.agent import between
from reconciler.model.action import Action, Impact, Origin
from reconciler.model.facts import JsonMap
from reconciler.model.identity import HostName, NetworkName, tunnel_name
from reconciler.model.network import HostNetworkObservation, NetworkMode, NetworkSpec, TunnelGuard
from reconciler.model.vxlan import (
    RemoveTunnel,
    SetTunnel,
    Tunnel,
    TunnelObservation,
    Vxlan,
    VxlanHost,
    gateway_mac,
)
from reconciler.plan import host_network
from tests.support.rig import Rig, fleet_of, scratch_state

NAME, HERE = NetworkName("blue"), HostName("node-a")
A = VxlanHost(name=HERE, address=ip_address("192.0.2.1"))
B = VxlanHost(name=HostName("node-b"), address=ip_address("198.51.100.2"))
C = VxlanHost(name=HostName("node-c"), address=ip_address("203.0.113.3"))
SPEC = NetworkSpec(name=NAME, mtu=1450, vxlan=Vxlan(id=42, hosts=frozenset({A, B})))
TUNNEL = Tunnel(id=42, port=4789, local=A.address, remotes=frozenset({B.address}))
SEEN = HostNetworkObservation(
    mode=NetworkMode.BRIDGED, mtu=1450, forwarding=False, tunnel=TunnelObservation(tunnel=TUNNEL)
)
APPLIED: dict[NetworkName, JsonMap] = {NAME: host_network.record_values(SPEC)}
LOCAL = "kind: Host\nmetadata: {name: %s}\nspec: {address: %s}\n"
BLUE = "kind: Network\nmetadata: {name: blue}\nspec: {vxlan: {id: 42}}\n"
WEB = "kind: VirtualEnvironment\nmetadata: {name: web}\nspec: {host: %s, interfaces: [{name: eth0, network: blue}]}\n"


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        yield Rig(state=state)


def plan(spec: NetworkSpec, seen: HostNetworkObservation | None) -> list[Action]:
    return list(host_network.plan_networks({NAME: spec}, {} if seen is None else {NAME: seen}, APPLIED, HERE))


def spanning(*hosts: VxlanHost) -> NetworkSpec:
    return replace(SPEC, vxlan=Vxlan(id=42, hosts=frozenset(hosts)))


def test_a_spanning_network_as_wanted_needs_nothing() -> None:
    assert plan(SPEC, SEEN) == []


def test_a_spanning_network_is_connected_before_it_is_up() -> None:
    [action] = plan(SPEC, None)
    assert [type(effect).__name__ for effect in action.effects] == ["CreateNetwork", "SetTunnel", "SetNetworkUp"]
    assert action.effects[1] == SetTunnel(network=NAME, tunnel=TUNNEL)


def test_hosts_that_come_and_go_change_a_network_live_and_by_the_manifests() -> None:
    for spec in (spanning(A, B, C), spanning(A)):
        [action] = plan(spec, SEEN)
        assert (action.path, action.impact, action.origin) == ("vxlan.hosts", Impact.LIVE, Origin.GIT)


def test_what_somebody_did_to_the_link_is_drift() -> None:
    lost = TunnelObservation(tunnel=replace(TUNNEL, remotes=frozenset()))
    for seen, path in ((replace(SEEN.tunnel, intact=False), "vxlan.link"), (lost, "vxlan.hosts"), (None, "vxlan")):  # type: ignore[type-var]  # it has one
        [action] = plan(SPEC, replace(SEEN, tunnel=seen))
        assert (action.path, action.impact, action.origin) == (path, Impact.LIVE, Origin.DRIFT)
        assert action.effects == (SetTunnel(network=NAME, tunnel=TUNNEL),)


def test_another_id_or_address_and_the_end_of_spanning_cut_the_ves_of_other_hosts() -> None:
    moved = replace(A, address=ip_address("192.0.2.9"))
    other = replace(SPEC, vxlan=Vxlan(id=43, hosts=frozenset({A, B})))
    for spec in (spanning(moved, B), other, replace(SPEC, vxlan=None)):
        [action] = plan(spec, SEEN)
        assert (action.path, action.impact, action.origin) == ("vxlan", Impact.NETWORK, Origin.GIT)
    assert action.effects == (RemoveTunnel(network=NAME),)


def test_the_filter_knows_who_else_is_on_a_network_also_where_no_ve_is_on_it(rig: Rig) -> None:
    lone = f"kind: VirtualEnvironment\nmetadata: {{name: lone}}\nspec: {{host: {rig.instance.host}}}\n"
    rig.converge(fleet_of(BLUE, lone, LOCAL % (rig.instance.host, A.address), LOCAL % ("node-b", B.address)))
    assert NAME not in rig.machine.networks
    name = rig.instance.name
    guard = TunnelGuard(
        link=tunnel_name(name, NAME), mac=gateway_mac(42), id=42, port=4789, remotes=frozenset({B.address})
    )
    assert rig.machine.filter.tunnels == {guard}


def test_an_isolated_network_is_isolated_towards_other_hosts() -> None:
    [action] = plan(replace(SPEC, isolated=True), SEEN)
    assert (action.path, action.origin) == ("isolated", Origin.GIT)
    assert action.effects == (SetTunnel(network=NAME, tunnel=replace(TUNNEL, isolated=True)),)


def test_a_ve_is_refused_where_its_network_has_no_way_to_other_hosts(rig: Rig) -> None:
    here = rig.instance.host
    web, other = WEB % here, LOCAL % ("elsewhere", "192.0.2.2")
    plan = rig.plan(fleet_of(BLUE, web, other, f"kind: Host\nmetadata: {{name: {here}}}\n"))
    [refusal] = plan.refused
    assert (refusal.ve, refusal.rule) == ("web", "NotOnThisHost")
    assert "network blue spans hosts" in refusal.message
    assert "address" in refusal.remedy
    assert plan.actions == ()


def test_a_network_that_loses_its_way_to_other_hosts_is_left_as_it_is(rig: Rig) -> None:
    here = rig.instance.host
    rig.machine.host_addresses["eth0"] = frozenset()
    rig.converge(fleet_of(BLUE, WEB % here, LOCAL % (here, "127.0.0.1"), LOCAL % ("elsewhere", "192.0.2.2")))
    assert rig.machine.networks[NAME].tunnel is not None
    nowhere = f"kind: Host\nmetadata: {{name: {here}}}\n"
    plan = rig.plan(fleet_of(BLUE, WEB % here, nowhere, LOCAL % ("elsewhere", "192.0.2.2")))
    assert [refusal.ve for refusal in plan.refused] == ["web"]
    assert plan.actions == ()


def test_a_plan_between_revisions_tells_what_becomes_of_a_spanning_network() -> None:
    own, other = LOCAL % (HERE, "192.0.2.1"), LOCAL % ("node-b", "198.51.100.2")
    base = fleet_of(BLUE, WEB % HERE, own, other)
    joined = fleet_of(BLUE, WEB % HERE, own, other, LOCAL % ("node-c", "203.0.113.3"))
    moved = fleet_of(BLUE, WEB % HERE, LOCAL % (HERE, "192.0.2.9"), other)
    made = between.plan_between(fleet_of(), base, HERE)
    assert "network/blue" in {action.ve for action in made.actions}
    for head, path in ((joined, "vxlan.hosts"), (moved, "vxlan"), (base, None)):
        plan = between.plan_between(base, head, HERE)
        assert [(action.ve, action.path) for action in plan.actions] == ([("network/blue", path)] if path else [])
