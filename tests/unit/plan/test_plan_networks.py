"""Networks and the filter: who is let through, what is made first, and what is never taken from anybody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from reconciler.manifests.load import load_fleet
from reconciler.model.action import Action, Impact, Operation, Origin, Phase
from reconciler.model.facts import JsonMap
from reconciler.model.fleet import Fleet
from reconciler.model.identity import HostName, NetworkName, VeName, derived_mac, host_link_name
from reconciler.model.network import (
    CreateNetwork,
    FilterRules,
    Forward,
    HostNetworkObservation,
    Masquerade,
    NetworkMode,
    NetworkSpec,
    Port,
    PortForward,
    RemoveNetwork,
    SetForwarding,
    SetUplink,
)
from reconciler.model.observation import Facet
from reconciler.plan import host_network
from reconciler.state.pause import Pause
from tests.support.rig import LAN, Rig, fleet_of, on_lan, run, scratch_state, text_of, ve

NAME, HERE = NetworkName("lan"), HostName("node-a")
SPEC = NetworkSpec(name=NAME, gateways=frozenset({ip_interface("10.20.0.1/24")}), mtu=1400)
SEEN = HostNetworkObservation(mode=NetworkMode.BRIDGED, mtu=1400, addresses=SPEC.gateways, forwarding=False)
APPLIED: dict[NetworkName, JsonMap] = {NAME: host_network.record_values(SPEC)}
ROUTED = "kind: Network\nmetadata: {name: lan}\nspec: {mode: routed, subnets: [10.20.0.0/24]}\n"


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        yield Rig(state=state)


def plan(spec: NetworkSpec | None, seen: HostNetworkObservation | None) -> list[Action]:
    wanted = {} if spec is None else {NAME: spec}
    return list(host_network.plan_networks(wanted, {} if seen is None else {NAME: seen}, APPLIED, HERE))


def test_a_network_as_wanted_needs_nothing() -> None:
    assert plan(SPEC, SEEN) == []


def test_a_network_is_made_with_its_addresses_before_it_is_up() -> None:
    [action] = plan(SPEC, None)
    assert [type(effect).__name__ for effect in action.effects] == ["CreateNetwork", "AddGateway", "SetNetworkUp"]
    assert action.phase is Phase.HOST


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"mtu": 1500}, "mtu"),
        ({"addresses": frozenset()}, "gateway"),
        ({"addresses": SEEN.addresses | {ip_interface("10.20.0.9/24")}}, "gateway"),
        ({"up": False}, "up"),
        ({"mode": NetworkMode.ROUTED}, "mode"),
        ({"uplink": "eno1"}, "uplink"),
    ],
)
def test_what_was_changed_by_hand_is_one_action_of_drift(changed: dict[str, object], path: str) -> None:
    seen = replace(SEEN, **changed)  # type: ignore[arg-type]  # names and values belong together above
    assert [(action.path, action.origin) for action in plan(SPEC, seen)] == [(path, Origin.DRIFT)]


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"mtu": 1500}, "mtu"),
        ({"gateways": frozenset({ip_interface("10.20.0.9/24")})}, "gateway"),
        ({"mode": NetworkMode.ROUTED}, "mode"),
        ({"uplink": "eno1"}, "uplink"),
        ({"nat": True}, "nat"),
        ({"forwards": (Forward(listen=80, ve="web1", port=8080),)}, "forwards"),
    ],
)
def test_what_the_manifests_change_is_one_action_of_intent(changed: dict[str, object], path: str) -> None:
    spec = replace(SPEC, **changed)  # type: ignore[arg-type]  # names and values belong together above
    intent = [action for action in plan(spec, SEEN) if action.origin is not Origin.POLICY]
    assert [(action.path, action.origin) for action in intent] == [(path, Origin.GIT)]


def test_a_gateway_is_added_before_the_old_one_goes() -> None:
    spec = replace(SPEC, gateways=frozenset({ip_interface("10.21.0.9/24")}))
    [action] = plan(spec, SEEN)
    assert [type(effect).__name__ for effect in action.effects] == ["AddGateway", "RemoveGateway"]


def test_a_gateway_that_goes_with_the_old_one_of_its_subnet_is_added_again() -> None:
    spec = replace(SPEC, gateways=frozenset({ip_interface("10.20.0.9/24")}))
    [action] = plan(spec, SEEN)
    assert [type(effect).__name__ for effect in action.effects] == ["AddGateway", "RemoveGateway", "AddGateway"]


def test_only_what_needs_it_is_forwarded() -> None:
    [made] = plan(replace(SPEC, nat=True), None)
    assert SetForwarding(network=NAME) in made.effects
    assert SetForwarding(network=NAME) not in plan(SPEC, None)[0].effects
    assert plan(SPEC, replace(SEEN, forwarding=True)) == []


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        (replace(SPEC, uplink="eno1"), None),
        (replace(SPEC, uplink="eno1"), SEEN),
        (SPEC, replace(SEEN, uplink="eno1")),
        (None, replace(SEEN, uplink="eno1")),
        (replace(SPEC, mode=NetworkMode.ROUTED), replace(SEEN, uplink="eno1")),
    ],
    ids=["made-with", "set", "released", "removed-with", "remade-with"],
)
def test_whatever_moves_a_link_of_the_host_could_cut_it_off(
    spec: NetworkSpec | None, seen: HostNetworkObservation | None
) -> None:
    [action] = plan(spec, seen)
    assert action.impact is Impact.HOST_RISK
    assert "could cut off the host" in action.danger


def test_an_uplink_that_was_consented_to_needs_no_consent_after_a_reboot() -> None:
    spec = replace(SPEC, uplink="eno1")
    [again] = host_network.plan_networks({NAME: spec}, {}, {NAME: host_network.record_values(spec)}, HERE)
    assert (again.origin, SetUplink(network=NAME, uplink="eno1") in again.effects) == (Origin.DRIFT, True)


def test_a_network_of_another_mode_is_removed_before_it_is_made() -> None:
    [action] = plan(replace(SPEC, mode=NetworkMode.ROUTED), SEEN)
    assert [type(effect) for effect in action.effects[:2]] == [RemoveNetwork, CreateNetwork]
    assert action.impact is Impact.NETWORK


def rules_of(rig: Rig, fleet: Fleet) -> FilterRules:
    rig.converge(fleet)
    assert rig.machine.filter_intact
    return rig.machine.filter


def test_a_ve_may_speak_with_its_own_addresses_only(rig: Rig) -> None:
    rules = rules_of(rig, fleet_of(LAN, ve("web1", on_lan(11)), ve("free")))
    uid = rig.uid("web1")
    assert rules.ports == {
        Port(
            link=host_link_name("tw", uid, "eth0"),
            mac=derived_mac(uid, "eth0"),
            addresses=frozenset({ip_address("10.20.0.11"), ip_address("fd00:20::11")}),
        )
    }
    assert rules.masquerades == {
        Masquerade(subnet=ip_network(subnet), bridge="tw-lan") for subnet in ("10.20.0.0/24", "fd00:20::/64")
    }


def test_a_forward_leads_to_the_first_address_of_each_family(rig: Rig) -> None:
    forwarding = LAN.replace("nat: true", "nat: true, forwards: [{listen: 8080, to: 'web1:80'}]")
    rules = rules_of(rig, fleet_of(forwarding, ve("web1", on_lan(11).replace("[10", "[10.20.0.9/24, 10")), ve("b")))
    assert rules.forwards == {
        PortForward(listen=8080, protocol="tcp", to=ip_address(to), port=80) for to in ("10.20.0.11", "fd00:20::11")
    }


def test_a_routed_ve_is_led_to_by_host_routes(rig: Rig) -> None:
    rules = rules_of(
        rig, fleet_of(ROUTED, ve("web1", "interfaces: [{name: eth0, network: lan, addresses: [10.20.0.11/32]}]"))
    )
    assert {port.mode for port in rules.ports} == {NetworkMode.ROUTED}
    link = rig.machine.runtimes[rig.uid("web1")].network.interfaces["eth0"]
    assert link.bridge is None
    assert link.host_routes == {ip_address("10.20.0.11")}


@pytest.mark.parametrize("why", ["paused", "unsupported", "unreadable"])
def test_a_ve_that_is_left_alone_keeps_its_way_through_the_filter(rig: Rig, why: str) -> None:
    before = rules_of(rig, fleet_of(LAN, ve("web1", on_lan(11))))
    spec = on_lan(12) + (", security: {profile: app, command: [/bin/sh]}" if why == "unsupported" else "")
    moved = fleet_of(LAN, ve("web1", spec), revision="r2")
    if why == "unreadable":
        rig.world.hide(Facet.COMPUTE, rig.uid("web1"))
    if why == "paused":
        rig.desk().pauses.put(Pause(ve=VeName("web1"), reason="under repair", since=0.0))
    assert rig.plan(moved).actions == ()
    assert rig.machine.filter == before


def test_a_ve_whose_record_is_damaged_keeps_its_network_and_its_way_through_the_filter(rig: Rig) -> None:
    fleet = fleet_of(LAN, ve("web1", on_lan(11)), ve("web2"))
    rules_of(rig, fleet)
    rig.world.damage_record(rig.uid("web1"))
    without = fleet_of(LAN, ve("web2"), revision="r2")
    assert rig.plan(without).actions == ()


def test_new_members_join_a_filter_that_keeps_strangers() -> None:
    old, new = (Port(link=link, mac="02:00:00:00:00:01", addresses=frozenset()) for link in ("ve1", "ve2"))
    here, gone = (PortForward(listen=n, protocol="tcp", to=ip_address("10.0.0.1"), port=1) for n in (1, 2))
    joined = host_network.with_strangers(
        FilterRules(ports=frozenset({new}), forwards=frozenset({here})),
        FilterRules(ports=frozenset({old, replace(new, mac="02:00:00:00:00:02")}), forwards=frozenset({here, gone})),
    )
    assert joined == FilterRules(ports=frozenset({old, new}), forwards=frozenset({here, gone}))
    assert host_network.with_strangers(FilterRules(), None) == FilterRules()


def test_a_suspected_rename_is_not_let_through_the_filter(rig: Rig) -> None:
    rules_of(rig, fleet_of(LAN, ve("old", on_lan(11))))
    assert rig.plan(fleet_of(LAN, ve("new", on_lan(11)), revision="r2")).actions == ()


def test_a_network_goes_after_the_last_ve_on_it_has_left(rig: Rig) -> None:
    rig.converge(fleet_of(LAN, ve("web1", on_lan(11)), ve("other")))
    gone = fleet_of(LAN, ve("other"), revision="r2")
    assert [(action.ve, action.op) for action in rig.plan(gone).actions] == [("web1", Operation.DESTROY)]
    rig.converge(gone)
    assert (rig.machine.networks, rig.machine.filter, rig.desk().networks.read()) == ({}, FilterRules(), {})


def test_a_foreign_link_of_a_networks_name_is_never_taken(rig: Rig) -> None:
    rig.world.add_host_link("tw-lan")
    results = run_all(rig, fleet_of(LAN, ve("web1", on_lan(11)), ve("other")))
    assert any("tw-lan" in text for text in results)
    assert rig.machine.host_links == {"tw-lan": ""}
    assert rig.uid("other") in rig.machine.runtimes


def run_all(rig: Rig, fleet: Fleet) -> list[str]:
    """Make passes, whatever comes of them; give the errors."""
    results = run(rig.reconciler(fleet).converge())
    return [str(outcome.error) for result in results for outcome in result.outcomes if outcome.error]


def test_what_a_ve_named_filter_waits_for_does_not_hold_up_the_filter(rig: Rig) -> None:
    rig.converge(fleet_of(LAN, ve("filter", on_lan(11))))
    rig.world.flush_filter()
    other = "kind: Template\nmetadata: {name: other}\nspec: {source: {builtin: busybox}}\n"
    plan = rig.plan(fleet_of(LAN, other, ve("filter", f"{on_lan(11)}, template: other")))
    assert [(refusal.ve, refusal.rule) for refusal in plan.refused] == [("filter", "NeedsConsent")]
    assert [(action.ve, action.path) for action in plan.actions] == [("host/filter", "rules")]


@pytest.mark.parametrize("target", [host_network.FILTER_TARGET, host_network.network_target(NAME)])
def test_no_ve_can_have_the_name_of_what_the_host_has(target: str) -> None:
    loaded = load_fleet({"fleet.yaml": text_of(ve(f'"{target}"'))}, revision="r1")
    assert [finding.path for finding in loaded.findings] == ["metadata.name"]


def test_where_a_forward_leads_no_more_connections_drop() -> None:
    one, other = Forward(listen=80, ve="web1", port=80), Forward(listen=443, ve="web1", port=443)
    fewer, more = replace(SPEC, forwards=(one,)), replace(SPEC, forwards=(one, other))
    seen = replace(SEEN, forwarding=True)
    for before, after, impact in ((fewer, more, Impact.LIVE), (more, fewer, Impact.NETWORK)):
        [action] = host_network.plan_networks(
            {NAME: after}, {NAME: seen}, {NAME: host_network.record_values(before)}, HERE
        )
        assert (action.path, action.impact, action.effects) == ("forwards", impact, ())


def test_what_nobody_wrote_down_is_not_known_to_change() -> None:
    spec = replace(SPEC, nat=True)
    older = {path: value for path, value in host_network.record_values(SPEC).items() if path not in ("nat", "forwards")}
    assert (
        list(host_network.plan_networks({NAME: spec}, {NAME: replace(SEEN, forwarding=True)}, {NAME: older}, HERE))
        == []
    )
