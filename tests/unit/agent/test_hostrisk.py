"""Changes that could cut the host off: who decides, when one is taken back, and that nothing is risked alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from reconciler.agent import hostrisk
from reconciler.agent.deadman import BY_BOOT, BY_DEADLINE, DeadMan, take_back
from reconciler.agent.hostrisk import Guard
from reconciler.agent.reconciler import Reconciler, Result
from reconciler.apply.seam import FailpointEffects, parse_failpoints
from reconciler.errors import KernelError, StateError
from reconciler.model.fleet import Fleet
from reconciler.model.host_risk import RiskSettings, RiskyChange, Standing, Undone, Verdict
from reconciler.model.identity import HostName, NetworkName, bridge_name
from reconciler.model.network import HostNetworkObservation, NetworkMode
from reconciler.model.reach import HostRoute, ReachObservation
from reconciler.state.host_risks import HostRisks
from tests.support.rig import Rig, fleet_of, on_lan, run, scratch_state, ve

LAN = NetworkName("lan")
TARGET = "network/lan"
WEB = ve("web1", on_lan(11))
WAY = HostRoute(to=ip_network("0.0.0.0/0"), link="", via=ip_address("10.20.0.254"))


def lan(uplink: str = "", gateway: str = "10.20.0.1") -> str:
    """Make a manifest of a network."""
    more = f", uplink: {uplink}" if uplink else ""
    gateways = f", gateway: [{gateway}]" if gateway else ""
    return (
        f'kind: Network\nmetadata: {{name: lan}}\nspec: {{subnets: [10.20.0.0/24, "fd00:20::/64"]{gateways}{more}}}\n'
    )


class Starting:
    """Stands for the processes that take changes back: notes for whom one was started, or cannot start any."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails, self.started = fails, list[str]()

    async def __call__(self, id_: str) -> None:
        """Start one."""
        if self.fails:
            raise KernelError("start the dead man's switch: no memory")
        self.started.append(id_)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        made = Rig(state=state)
        made.machine.host_links |= {"eno1": "", "eno2": ""}
        made.converge(fleet_of(lan(), WEB))
        made.machine.host_routes = frozenset({replace(WAY, link=bridge_name(made.instance.name, LAN))})
        yield made


def guarded(rig: Rig, fleet: Fleet, start: Starting, failpoints: str = "") -> Reconciler:
    """Give a reconciler that somebody stands by."""
    chance = rig._chance
    effects = FailpointEffects(rig.twin, parse_failpoints(failpoints), random=chance) if failpoints else None
    made = rig.reconciler(fleet, effects)
    made.guard = Guard(desk=made.desk, host=rig.twin, settings=RiskSettings(), start=start, boot="this")
    return made


def consent(rig: Rig, fleet: Fleet) -> None:
    rig.desk().approvals.approve(rig.plan(fleet).action_hash, by="root", now=rig.clock.now())


def change(rig: Rig, fleet: Fleet, start: Starting, failpoints: str = "") -> Result:
    """Consent to what is planned for a fleet, and have it made."""
    consent(rig, fleet)
    return run(guarded(rig, fleet, start, failpoints).pass_all())


def risks(rig: Rig) -> HostRisks:
    return HostRisks(str(rig.state))


def watch(rig: Rig, *, boot: str = "this") -> Standing:
    """Let somebody watch the one change there is to its end."""
    [standing] = risks(rig).all()
    watcher = DeadMan(risks=risks(rig), host=rig.twin, clock=rig.clock, boot=boot)
    run(watcher.watch(standing.change.id))
    [after] = risks(rig).all()
    return after


def test_nothing_is_risked_while_nobody_stands_by(rig: Rig) -> None:
    result = change(rig, fleet_of(lan("eno1"), WEB), Starting(fails=True))
    [outcome] = [outcome for outcome in result.outcomes if outcome.action.ve == TARGET]
    assert isinstance(outcome.error, KernelError)
    assert rig.machine.networks[LAN].uplink is None
    assert risks(rig).all() == ()


def test_one_stands_by_before_the_change_and_it_waits_for_a_word(rig: Rig) -> None:
    start, fleet = Starting(), fleet_of(lan("eno1"), WEB)
    change(rig, fleet, start)
    [standing] = risks(rig).all()
    assert start.started == [standing.change.id]
    assert rig.machine.networks[LAN].uplink == "eno1"
    assert standing.is_pending
    assert standing.deadline == rig.clock.monotonic() + 60
    assert "vectl confirm" in hostrisk.state_of(rig.desk()).pending[TARGET]
    assert rig.desk().networks.read()[LAN]["uplink"] is None  # it is not yet what was carried out


def test_a_confirmed_change_is_what_was_carried_out(rig: Rig) -> None:
    fleet = fleet_of(lan("eno1"), WEB)
    change(rig, fleet, Starting())
    found = risks(rig).find(rig.desk().risks.all()[0].change.whole[:8])
    risks(rig).rule(found.change.id, Verdict.CONFIRMED, by="root", at=1.0)
    assert watch(rig).undone is None
    run(guarded(rig, fleet, Starting()).pass_all())
    assert rig.desk().networks.read()[LAN]["uplink"] == "eno1"
    with pytest.raises(StateError, match="no change waits"):
        risks(rig).find(found.change.whole[:8])


def test_what_is_decided_is_decided_once(rig: Rig) -> None:
    change(rig, fleet_of(lan("eno1"), WEB), Starting())
    [standing] = risks(rig).all()
    risks(rig).rule(standing.change.id, Verdict.UNDO, by=BY_DEADLINE, at=1.0)
    late = risks(rig).rule(standing.change.id, Verdict.CONFIRMED, by="root", at=2.0)
    assert (late.verdict, late.by) == (Verdict.UNDO, BY_DEADLINE)


def test_a_change_is_taken_back_and_not_tried_again(rig: Rig) -> None:
    fleet = fleet_of(lan("eno1", gateway=""), WEB)
    before = rig.machine.networks[LAN], rig.machine.host_routes
    change(rig, fleet, Starting())
    assert rig.machine.host_routes == frozenset()
    [standing] = risks(rig).all()
    risks(rig).rule(standing.change.id, Verdict.UNDO, by=BY_DEADLINE, at=1.0)
    assert watch(rig).undone == Undone(problem="", at=rig.clock.now())
    assert (rig.machine.networks[LAN], rig.machine.host_routes) == before
    start = Starting()
    result = run(guarded(rig, fleet, start).pass_all())
    assert [(r.ve, r.rule) for r in result.plan.refused] == [(TARGET, "HostRiskReverted")]
    assert start.started == []


def test_a_consent_is_used_up_by_what_was_taken_back_whatever_was_made_since(rig: Rig) -> None:
    bad, good = fleet_of(lan("eno1"), WEB), fleet_of(lan("eno2"), WEB)
    for fleet, verdict in ((bad, Verdict.UNDO), (good, Verdict.CONFIRMED)):
        change(rig, fleet, Starting())
        [standing] = [standing for standing in risks(rig).all() if standing.is_pending]
        risks(rig).rule(standing.change.id, verdict, by="a test", at=1.0)
        run(DeadMan(risks=risks(rig), host=rig.twin, clock=rig.clock, boot="this").watch(standing.change.id))
    assert rig.machine.networks[LAN].uplink == "eno2"
    result = run(guarded(rig, bad, Starting()).pass_all())
    assert [(r.ve, r.rule) for r in result.plan.refused] == [(TARGET, "HostRiskReverted")]
    assert rig.machine.networks[LAN].uplink == "eno2"


def test_a_change_is_taken_back_if_the_host_was_booted_meanwhile(rig: Rig) -> None:
    change(rig, fleet_of(lan("eno1"), WEB), Starting())
    rig.machine.networks.clear()
    rig.machine.host_links["eno1"] = ""
    rig.machine.host_routes = frozenset()
    after = watch(rig, boot="another")
    assert after.ruling is not None
    assert after.ruling.by == BY_BOOT
    assert rig.machine.networks[LAN].uplink is None
    assert rig.machine.networks[LAN].addresses == {ip_interface("10.20.0.1/24")}


def test_a_change_that_fails_half_way_is_taken_back(rig: Rig) -> None:
    change(rig, fleet_of(lan("eno1", gateway=""), WEB), Starting(), "SetUplink:before=error(EIO)")
    assert rig.machine.networks[LAN].addresses == frozenset()
    [standing] = risks(rig).all()
    assert standing.ruling is not None
    assert standing.ruling.by.startswith(hostrisk.BY_FAILURE)
    assert standing.deadline is None
    watch(rig)
    assert rig.machine.networks[LAN].addresses == {ip_interface("10.20.0.1/24")}


def test_a_network_that_is_removed_comes_back_with_its_link(rig: Rig) -> None:
    with_link = fleet_of(lan("eno1"), WEB)
    change(rig, with_link, Starting())
    [standing] = risks(rig).all()
    risks(rig).rule(standing.change.id, Verdict.CONFIRMED, by="root", at=1.0)
    rig.converge(with_link)
    before = rig.machine.networks[LAN]
    bare = fleet_of(lan("eno1"), ve("web1"))
    run(rig.reconciler(bare).converge())
    assert LAN in rig.machine.networks  # nobody is on it any more; without consent it stays
    change(rig, bare, Starting())
    assert LAN not in rig.machine.networks
    assert watch(rig, boot="another").undone == Undone(problem="", at=rig.clock.now())
    assert rig.machine.networks[LAN] == before


def test_one_risk_at_a_time(rig: Rig) -> None:
    change(rig, fleet_of(lan("eno1"), WEB), Starting())
    start, other = Starting(), fleet_of(lan("eno2"), WEB)
    result = change(rig, other, start)
    assert "vectl confirm" in result.plan.waiting[TARGET]
    assert start.started == []
    assert rig.machine.networks[LAN].uplink == "eno1"


def test_an_agent_stands_by_himself_where_nobody_else_can(rig: Rig) -> None:
    change(rig, fleet_of(lan("eno1"), WEB), Starting())
    reconciler = guarded(rig, fleet_of(lan("eno1"), WEB), Starting(fails=True))
    asked: list[str] = []

    async def run_until_settled() -> None:
        assert reconciler.guard is not None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reconciler.guard.run(lambda: asked.append("a pass")), 5.0)

    run(run_until_settled())
    assert rig.machine.networks[LAN].uplink is None
    assert asked == ["a pass"]
    assert "HostRiskReverted" in [event.reason for event in rig.desk().events.read()]
    assert "HostRiskReverted" in [link.entry["request"] for link in rig.desk().recorder.audit.read()]


def test_nothing_is_taken_back_from_an_instance_that_is_taken_down(rig: Rig) -> None:
    change(rig, fleet_of(lan("eno1"), WEB), Starting())
    guard = guarded(rig, fleet_of(lan("eno1"), WEB), Starting()).guard
    assert guard is not None
    guard.stand_down()
    assert watch(rig, boot="another").undone is None
    assert rig.machine.networks[LAN].uplink == "eno1"


def test_two_networks_that_exchanged_their_links_get_them_back(rig: Rig) -> None:
    dmz = NetworkName("dmz")
    bridged = HostNetworkObservation(mode=NetworkMode.BRIDGED)
    before = {LAN: replace(bridged, uplink="eno1"), dmz: replace(bridged, uplink="eno2")}
    rig.machine.networks.clear()
    rig.machine.networks |= {LAN: before[dmz], dmz: before[LAN]}
    rig.machine.host_links |= {"eno2": bridge_name("tw", LAN), "eno1": bridge_name("tw", dmz)}
    made = RiskyChange(
        id="0" * 16,
        host=HostName("here"),
        revision="r",
        before=before,
        reach=ReachObservation(),
        hashes={},
        whole="",
        at=0.0,
        boot="this",
        confirm_s=60.0,
        hold_s=1.0,
    )
    assert run(take_back(rig.twin, made)) == ""
    assert {name: seen.uplink for name, seen in rig.machine.networks.items()} == {LAN: "eno1", dmz: "eno2"}


def test_what_cannot_be_taken_back_is_said(rig: Rig) -> None:
    change(rig, fleet_of(lan("eno1"), WEB), Starting())
    rig.machine.host_links["eno1"] = ""
    rig.machine.networks[LAN] = replace(rig.machine.networks[LAN], uplink=None)
    [standing] = risks(rig).all()
    gone = replace(standing.change, before={LAN: HostNetworkObservation(mode=NetworkMode.BRIDGED, uplink="eno9")})
    assert "there is no link eno9" in run(take_back(rig.twin, gone))
