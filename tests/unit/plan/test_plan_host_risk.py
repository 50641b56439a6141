"""Which changes could cut the host off: decided from what it is reached by, and never by what a hash counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from reconciler.model.action import Impact, Origin, Plan
from reconciler.model.fleet import Fleet
from reconciler.model.host_risk import Reverted, RiskState
from reconciler.model.identity import NetworkName, VeName, bridge_name
from reconciler.model.reach import HeldAddress, HostRoute, ReachObservation
from reconciler.plan import host_risk, planner
from reconciler.plan.inputs import Inputs
from tests.support.rig import Rig, fleet_of, on_lan, run, scratch_state, ve

LAN = NetworkName("lan")
TARGET = "network/lan"
MANAGED = "192.0.2.11"


def lan(gateway: str = "", **spec: object) -> str:
    """Make a manifest of a network that may hold the address by which the host is reached."""
    more = "".join(f", {key}: {value}" for key, value in spec.items())
    gateways = f", gateway: [{gateway}]" if gateway else ""
    subnets = '[10.20.0.0/24, "fd00:20::/64", 192.0.2.0/24]'
    return f"kind: Network\nmetadata: {{name: lan}}\nspec: {{subnets: {subnets}{gateways}{more}}}\n"


WEB = ve("web1", on_lan(11))


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        made = Rig(state=state)
        made.machine.host_links |= {"eno1": "", "eno2": ""}
        yield made


def bridge(rig: Rig) -> str:
    return bridge_name(rig.instance.name, LAN)


def reach(rig: Rig, link: str, address: str = f"{MANAGED}/24") -> None:
    """Let the host be reached at an address of a link, by which its default route leads."""
    if link in rig.machine.host_links:
        rig.machine.host_addresses[link] = frozenset({ip_interface(address)})
    way = HostRoute(to=ip_network("0.0.0.0/0"), link=link, via=ip_address("192.0.2.1"))
    rig.machine.host_routes = frozenset({way})


def refusals(plan: Plan) -> list[tuple[str, str]]:
    return [(refusal.ve, refusal.rule) for refusal in plan.refused]


def test_an_address_that_nobody_uses_is_changed_without_asking(rig: Rig) -> None:
    rig.converge(fleet_of(lan("10.20.0.1"), WEB))
    reach(rig, "eno1")
    [action] = [a for a in rig.plan(fleet_of(lan("10.20.0.9"), WEB)).actions if a.ve == TARGET]
    assert (action.impact, action.base) == (Impact.LIVE, None)


def test_the_address_by_which_the_host_is_reached_goes_only_with_consent(rig: Rig) -> None:
    before = fleet_of(lan(MANAGED), WEB)
    rig.converge(before)
    reach(rig, bridge(rig))
    plan = rig.plan(fleet_of(lan("192.0.2.12"), WEB))
    assert refusals(plan) == [(TARGET, "NeedsConsent")]
    assert not [action for action in plan.actions if action.ve == TARGET]


def test_an_address_at_which_somebody_is_logged_in_is_one_by_which_the_host_is_reached(rig: Rig) -> None:
    rig.converge(fleet_of(lan("10.20.0.1"), WEB))
    rig.machine.sessions = frozenset({ip_address("10.20.0.1")})
    assert refusals(rig.plan(fleet_of(lan("10.20.0.9"), WEB))) == [(TARGET, "NeedsConsent")]


def test_the_hash_is_the_same_where_nobody_knows_how_the_host_is_reached(rig: Rig) -> None:
    rig.converge(fleet_of(lan(MANAGED), WEB))
    after = fleet_of(lan("192.0.2.12"), WEB)
    elsewhere = rig.plan(after)
    reach(rig, bridge(rig))
    here = rig.plan(after)
    assert (refusals(elsewhere), refusals(here)) == ([], [(TARGET, "NeedsConsent")])
    assert elsewhere.ve_hashes == here.ve_hashes
    assert elsewhere.action_hash == here.action_hash


def test_a_link_that_becomes_a_port_is_a_risk_wherever_it_is_planned(rig: Rig) -> None:
    rig.converge(fleet_of(lan(), WEB))
    after = fleet_of(lan(uplink="eno2"), WEB)
    elsewhere = rig.plan(after)
    reach(rig, "eno1")
    assert refusals(elsewhere) == refusals(rig.plan(after)) == [(TARGET, "NeedsConsent")]


def test_a_plan_says_which_address_a_link_would_no_longer_answer_for(rig: Rig) -> None:
    after = fleet_of(lan(uplink="eno1"), WEB)
    reach(rig, "eno1")
    inputs = run(rig.reconciler(after).plan(run(rig.twin.observe())))[0]
    actions = [a for a in planner.plan_host(consenting(inputs)).actions if a.ve == TARGET]
    assert [action.impact for action in actions] == [Impact.HOST_RISK]
    assert f"eno1 holds {MANAGED}" in actions[0].danger


def consenting(inputs: Inputs) -> Inputs:
    """Give the consent that a plan asks for."""
    plan = planner.plan_host(inputs)
    return replace(inputs, consents=frozenset({plan.action_hash}))


def test_an_address_that_somebody_moved_here_by_hand_is_not_taken_from_under_him(rig: Rig) -> None:
    fleet = fleet_of(lan("10.20.0.1"), WEB)
    rig.converge(fleet)
    network = rig.machine.networks[LAN]
    by_hand = network.addresses | {ip_interface(f"{MANAGED}/24")}
    rig.machine.networks[LAN] = replace(network, addresses=by_hand)
    reach(rig, bridge(rig))
    plan = rig.plan(fleet)
    assert refusals(plan) == [(TARGET, host_risk.RULE)]
    assert MANAGED in plan.refused[0].message
    rig.machine.host_routes = frozenset()
    assert [(a.path, a.origin) for a in rig.plan(fleet).actions if a.ve == TARGET] == [("gateway", Origin.DRIFT)]


def test_an_uplink_that_was_let_go_by_hand_is_put_back_without_asking(rig: Rig) -> None:
    reach(rig, "eno1")
    fleet = fleet_of(lan(uplink="eno2"), WEB)
    approve(rig, fleet)
    rig.converge(fleet)
    rig.machine.networks[LAN] = replace(rig.machine.networks[LAN], uplink=None)
    rig.machine.host_links["eno2"] = ""
    assert [(a.path, a.origin) for a in rig.plan(fleet).actions if a.ve == TARGET] == [("uplink", Origin.DRIFT)]


def approve(rig: Rig, fleet: Fleet) -> None:
    """Let a person consent to what is planned for a fleet."""
    rig.desk().approvals.approve(rig.plan(fleet).action_hash, by="root", now=rig.clock.now())


def test_a_network_over_the_hosts_way_out_needs_consent(rig: Rig) -> None:
    reach(rig, "eno1")
    assert refusals(rig.plan(fleet_of(lan("192.0.2.1"), WEB))) == [(TARGET, "NeedsConsent")]


def test_configured_addresses_are_the_only_ones(rig: Rig) -> None:
    seen = ReachObservation(
        addresses=frozenset(
            {
                HeldAddress(link="eno1", address=ip_interface("192.0.2.11/24")),
                HeldAddress(link="eno2", address=ip_interface("198.51.100.11/24")),
            }
        ),
        routes=frozenset({HostRoute(to=ip_network("0.0.0.0/0"), link="eno1", via=ip_address("192.0.2.1"))}),
    )
    assert {h.link for h in host_risk.management_addresses(seen, frozenset())} == {"eno1"}
    configured = frozenset({ip_address("198.51.100.11")})
    assert {h.link for h in host_risk.management_addresses(seen, configured)} == {"eno2"}


def test_the_ve_that_vectl_runs_in_is_not_stopped_without_consent(rig: Rig) -> None:
    rig.converge(fleet_of(lan(), WEB))
    stopped = fleet_of(lan(), ve("web1", f"{on_lan(11)}, power: stopped"))
    assert refusals(rig.plan(stopped)) == []
    rig.machine.within = rig.uid("web1")
    assert refusals(rig.plan(stopped)) == [("web1", "NeedsConsent")]


def test_what_was_taken_back_is_not_tried_again_by_the_consent_to_it(rig: Rig) -> None:
    after = fleet_of(lan(uplink="eno2"), WEB)
    inputs = consenting(run(rig.reconciler(after).plan(run(rig.twin.observe())))[0])
    plan = planner.plan_host(inputs)
    assert refusals(plan) == []
    mark = Reverted(hash=plan.ve_hashes[TARGET], message="it was taken back")
    tried = replace(inputs, risks=RiskState(reverted={TARGET: (mark,)}))
    assert refusals(planner.plan_host(tried)) == [(TARGET, "HostRiskReverted")]
    anew = replace(mark, renewed=frozenset({plan.ve_hashes[TARGET]}))
    assert refusals(planner.plan_host(replace(inputs, risks=RiskState(reverted={TARGET: (anew,)})))) == []
    other = replace(mark, hash="0" * 64)
    assert refusals(planner.plan_host(replace(inputs, risks=RiskState(reverted={TARGET: (other,)})))) == []


def test_while_a_change_is_not_confirmed_nothing_touches_what_it_changed(rig: Rig) -> None:
    after = fleet_of(lan(uplink="eno2"), WEB)
    inputs = consenting(run(rig.reconciler(after).plan(run(rig.twin.observe())))[0])
    pending = replace(inputs, risks=RiskState(pending={"network/other": "waits"}))
    plan = planner.plan_host(pending)
    assert plan.waiting[TARGET] == "waits"
    assert not [action for action in plan.actions if action.ve == TARGET]
    assert [action.ve for action in plan.actions if action.ve == VeName("web1")]


def test_an_interface_by_which_the_host_is_reached_goes_into_no_ve(rig: Rig) -> None:
    (rig.state / "policy.yaml").write_text("nics: [eno1]\n")
    rig.converge(fleet_of(lan(), WEB))
    wanted = fleet_of(lan(), ve("web1", f"{on_lan(11)}, devices: [{{nic: eno1}}]"))
    assert "devices.eno1.nic" in [action.path for action in rig.plan(wanted).actions]
    reach(rig, "eno1")
    plan = rig.plan(wanted)
    assert refusals(plan) == [("web1", host_risk.RULE)]
    assert MANAGED in plan.refused[0].message
    assert [action for action in plan.actions if action.ve == "web1"] == []
