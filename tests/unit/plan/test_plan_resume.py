"""The order in which a suspended VE comes back: limits, what its sockets need, its processes, and then the rest."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from reconciler.model.action import Operation
from reconciler.model.compute import CreateCgroup, Limit
from reconciler.model.effects import Effect
from reconciler.model.network import (
    AddAddress,
    AddHostRoute,
    AnnounceAddress,
    AttachInterface,
    RemoveAddress,
    SetInterfaceUp,
)
from reconciler.model.power import CreateRuntime, StartRuntime
from reconciler.model.settings import SetSetting
from tests.support.rig import Rig, fleet_of, on_lan, scratch_state, ve

ROUTED = "kind: Network\nmetadata: {name: lan}\nspec: {mode: routed, subnets: [10.20.0.0/24, 'fd00:20::/64']}\n"
SPEC = f"{on_lan(11)}, sysctls: {{net.ipv4.ip_forward: '1'}}, memory: {{limit: 64Mi}}"


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        made = Rig(state=state)
        made.converge(fleet_of(ROUTED, ve("a", SPEC), revision="up"))
        made.converge(fleet_of(ROUTED, ve("a", f"{SPEC}, power: suspended"), revision="down"))
        yield made


def effects_of(rig: Rig, spec: str) -> list[Effect]:
    plan = rig.plan(fleet_of(ROUTED, ve("a", spec)))
    return [effect for action in plan.actions if action.path == "power" for effect in action.effects]


def places(effects: list[Effect], kind: type) -> list[int]:
    found = [number for number, effect in enumerate(effects) if isinstance(effect, kind)]
    assert found, kind
    return found


def test_addresses_are_there_before_the_sockets_and_nothing_reaches_the_ve_before_it_runs(rig: Rig) -> None:
    effects = effects_of(rig, SPEC)
    [created], [started] = places(effects, CreateRuntime), places(effects, StartRuntime)
    for early in (AddAddress, SetInterfaceUp):
        assert created < min(places(effects, early)) <= max(places(effects, early)) < started
    for late in (AttachInterface, AddHostRoute, AnnounceAddress, SetSetting):
        assert min(places(effects, late)) > started


def test_an_address_that_went_is_there_for_the_sockets_and_gone_before_anybody_reaches_the_ve(rig: Rig) -> None:
    effects = effects_of(rig, SPEC.replace("0.11/", "0.12/"))
    old = ip_address("10.20.0.11")
    [started] = places(effects, StartRuntime)
    [added] = [n for n, effect in enumerate(effects) if isinstance(effect, AddAddress) and effect.address.ip == old]
    [removed] = places(effects, RemoveAddress)
    gone = effects[removed]
    assert isinstance(gone, RemoveAddress)
    assert gone.address.ip == old
    assert added < started < removed < min(places(effects, AttachInterface))


def test_addresses_of_a_ve_that_has_no_interface_any_more_are_put_nowhere(rig: Rig) -> None:
    assert not any(isinstance(effect, AddAddress) for effect in effects_of(rig, ""))


def test_limits_that_changed_hold_before_the_first_instruction(rig: Rig) -> None:
    effects = effects_of(rig, f"{SPEC}, processes: 99")
    [cgroup], [created] = places(effects, CreateCgroup), places(effects, CreateRuntime)
    assert cgroup < created
    made = effects[cgroup]
    assert isinstance(made, CreateCgroup)
    assert made.limits[Limit.PROCESSES] == 99


def test_a_memory_is_taken_up_with_what_it_was_launched_with(rig: Rig) -> None:
    plan = rig.plan(fleet_of(ROUTED, ve("a", f"{SPEC}, rlimits: {{nofile: 99}}")))
    resumed, restarted = (
        next(effect for effect in action.effects if isinstance(effect, CreateRuntime))
        for action in plan.actions
        if action.path == "power" or action.op is Operation.RESTART
    )
    assert (resumed.resume, dict(resumed.launch.rlimits)) == (True, {})
    assert (restarted.resume, dict(restarted.launch.rlimits)) == (False, {"nofile": 99})


def test_a_ve_is_shut_down_by_all_that_it_takes_to_resume_it_and_then_to_stop_it(rig: Rig) -> None:
    names = [type(effect).__name__ for effect in effects_of(rig, f"{SPEC}, power: stopped")]
    assert names[-3:] == ["StopRuntime", "DeleteRuntime", "RemoveCgroup"]
    assert names[:-3] == [type(effect).__name__ for effect in effects_of(rig, SPEC)]


def test_a_ve_waits_with_its_resume_for_those_that_it_depends_on(rig: Rig) -> None:
    plan = rig.plan(fleet_of(ROUTED, ve("a", f"{SPEC}, boot: {{dependsOn: [db]}}"), ve("db", "power: stopped")))
    assert plan.waiting == {"a": "waits for db to run"}
    assert not any(action.path == "power" for action in plan.actions if action.ve == "a")
