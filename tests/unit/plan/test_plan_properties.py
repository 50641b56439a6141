"""What holds for any fleet and any change of it: purity, convergence, truth of the printed plan, isolation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_interface
from random import Random
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from reconciler.agent.reconciler import Result
from reconciler.model.action import Action, Plan
from reconciler.model.compute import Limit
from reconciler.model.condition import broken_invariants
from reconciler.model.effects import Effect
from reconciler.model.facts import Unknown
from reconciler.model.fleet import DriftSpec, Fleet
from reconciler.model.identity import Uid
from reconciler.model.observation import ALL_FACETS, EVERYTHING, HostObservation
from reconciler.model.power import EndCause
from reconciler.plan import planner
from reconciler.plan.inputs import Inputs
from reconciler.twin import host
from reconciler.twin.host import ALL_CAPABILITIES
from tests.support.fleets import edits, fleets
from tests.support.rig import V1, RecordingEffects, Rig, run, scratch_state

pytestmark = pytest.mark.timeout(600)  # many small cases, on a machine that may be busy

K = TypeVar("K")
T = TypeVar("T")
PATIENT = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    phases=[Phase.generate],  # a case that fails is small as it is, and shrinking it would take minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class Pass:
    """One pass: what was planned, what was performed, and what came of it."""

    plan: Plan
    performed: list[Effect]
    result: Result


def passes(rig: Rig, fleet: Fleet) -> Iterator[Pass]:
    """Make passes over a host as `apply` does, all removals being consented to, until one finds nothing to do."""
    for _ in range(5):
        made = run(one_pass(rig, fleet))
        yield made
        if not made.plan.actions:
            return


async def one_pass(rig: Rig, fleet: Fleet) -> Pass:
    effects = RecordingEffects(rig.twin)
    reconciler = rig.reconciler(fleet, effects)
    inputs, plan = await reconciler.plan(await reconciler.look())
    inputs = replace(inputs, consents=frozenset({plan.action_hash}))
    plan = planner.plan_host(inputs)
    result = await reconciler.carry_out(inputs, plan)
    return Pass(plan, effects.performed, result)


def shuffled(mapping: Mapping[K, T], seed: int) -> dict[K, T]:
    items = list(mapping.items())
    Random(seed).shuffle(items)
    return dict(items)


def look(rig: Rig) -> HostObservation:
    return host.observe(rig.machine, EVERYTHING, ALL_FACETS)


@PATIENT
@given(edits(), st.booleans())
def test_any_fleet_and_any_change_of_it_converges_and_then_needs_nothing(
    edit: tuple[Fleet, Fleet], old_kernel: bool
) -> None:
    """I1, I2, I7, and the invariants of conditions."""
    with scratch_state() as state:
        rig = Rig(state=state, capabilities=V1 if old_kernel else ALL_CAPABILITIES)
        for wanted in edit:
            made = list(passes(rig, wanted))
            assert not made[-1].plan.actions, made[-1].plan.actions
            assert len(made) <= 4
            for one in made:
                assert_truthful(one)
            assert_as_wanted(rig, wanted, made[-1].plan)
            assert_conditions_hold(rig, wanted)


def assert_truthful(one: Pass) -> None:
    """I7: nothing is done that was not printed, nothing fails, and every effect says what it serves."""
    printed = [effect for action in one.plan.actions for effect in action.effects]
    assert [str(outcome.error) for outcome in one.result.outcomes if outcome.error] == []
    assert all(effect in printed for effect in one.performed)
    assert len(one.performed) == len(printed)
    assert {effect.serves for effect in one.performed} <= {action.id for action in one.plan.actions}


def assert_as_wanted(rig: Rig, wanted: Fleet, plan: Plan) -> None:
    kept = {refusal.ve for refusal in plan.refused}
    assert rig.names() - kept == wanted.ves.keys() - kept
    assert {str(network) for network in rig.machine.networks} >= {
        str(link.network)
        for name, spec in wanted.ves.items()
        if name not in kept
        for link in spec.network.interfaces.values()
    }


def assert_conditions_hold(rig: Rig, wanted: Fleet) -> None:
    for name in wanted.ves:
        conditions = rig.desk().conditions.read(name)
        assert conditions
        assert broken_invariants(conditions) == ()


@PATIENT
@given(edits(), st.integers(0, 9))
def test_a_plan_depends_on_its_inputs_and_not_on_their_order(edit: tuple[Fleet, Fleet], seed: int) -> None:
    fleet, wanted = edit
    with scratch_state() as state:
        rig = Rig(state=state)
        list(passes(rig, fleet))
        inputs, plan = run(gathered(rig, wanted))
        mixed = replace(
            inputs,
            fleet=replace(wanted, ves=shuffled(wanted.ves, seed)),
            observed=replace(inputs.observed, ves=shuffled(inputs.observed.ves, seed)),
        )
        before = repr(inputs)
        assert planner.plan_host(mixed) == plan
        assert planner.plan_host(inputs) == plan
        assert repr(inputs) == before


async def gathered(rig: Rig, fleet: Fleet) -> tuple[Inputs, Plan]:
    reconciler = rig.reconciler(fleet)
    return await reconciler.plan(await reconciler.observe())


@PATIENT
@given(edits())
def test_the_plan_of_one_ve_is_its_part_of_the_whole(edit: tuple[Fleet, Fleet]) -> None:
    fleet, wanted = edit
    with scratch_state() as state:
        rig = Rig(state=state)
        list(passes(rig, fleet))
        inputs, whole = run(gathered(rig, wanted))
        for name in wanted.ves:
            part = planner.plan_ves(inputs, frozenset({name}))
            assert part.actions == tuple(a for a in whole.actions if a.ve == name)
            assert part.ve_hashes.get(name) == whole.ve_hashes.get(name)


@PATIENT
@given(edits())
def test_what_is_wrong_with_one_ve_changes_nothing_for_the_others(edit: tuple[Fleet, Fleet]) -> None:
    fleet, wanted = edit
    with scratch_state() as state:
        rig = Rig(state=state)
        list(passes(rig, fleet))
        inputs, whole = run(gathered(rig, wanted))
        for uid in sorted(inputs.observed.ves):
            blind = planner.plan_host(_without(inputs, uid))
            assert of_others(blind, name_of(inputs, uid)) == of_others(whole, name_of(inputs, uid))


def _without(inputs: Inputs, uid: Uid) -> Inputs:
    """Give the same inputs with a VE of which one facet cannot be read."""
    seen = replace(inputs.observed.ves[uid], compute=Unknown("input/output error"))
    return replace(inputs, observed=replace(inputs.observed, ves={**inputs.observed.ves, uid: seen}))


def name_of(inputs: Inputs, uid: Uid) -> str:
    record = inputs.observed.ves[uid].record
    assert not isinstance(record, Unknown)
    return record.name


def of_others(plan: Plan, name: str) -> list[Action]:
    """Give what is planned for other VEs, but their removals: of those there is none while anything is unknown."""
    return [
        action for action in plan.actions if action.uid is not None and action.ve != name and action.after is not None
    ]


DRIFTS = (
    "limit",
    "address",
    "link-down",
    "link-gone",
    "hostname",
    "kill",
    "network-gone",
    "network-down",
    "filter",
    "reboot",
    "volume",
)


@PATIENT
@given(fleets(), st.lists(st.tuples(st.sampled_from(DRIFTS), st.integers(0, 3)), max_size=6))
def test_whatever_happens_to_a_host_is_put_right(fleet: Fleet, happenings: list[tuple[str, int]]) -> None:
    """I1 after drift; what the policy leaves alone is told."""
    with scratch_state() as state:
        rig = Rig(state=state)
        correcting = replace(fleet, ves={n: replace(spec, drift=DriftSpec()) for n, spec in fleet.ves.items()})
        list(passes(rig, correcting))
        before = compared(look(rig))
        for word, number in happenings:
            happen(rig, word, number)
        made = list(passes(rig, correcting))
        assert not made[-1].plan.actions
        held = {refusal.ve for refusal in made[-1].plan.refused}
        if not held:
            assert compared(look(rig)) == before


def compared(seen: HostObservation) -> object:
    """Give what of an observation does not change with every boot."""
    return (
        {
            uid: (ve.record, ve.compute, ve.volume, ve.network, getattr(ve.power, "state", None))
            for uid, ve in seen.ves.items()
        },
        seen.networks,
        seen.filter,
    )


def happen(rig: Rig, word: str, number: int) -> None:
    """Let something happen to the VE or network of a number, if it can."""
    machine, world = rig.machine, rig.world
    uid = (machine.uids() or [Uid("none")])[number % max(1, len(machine.uids()))]
    runtime = machine.runtimes.get(uid)
    link = next(iter(runtime.network.interfaces), None) if runtime else None
    networks = sorted(machine.networks)
    match word:
        case "limit" if uid in machine.cgroups:
            world.set_limit(uid, Limit.PROCESSES, 7)
        case "address" if link:
            world.add_address(uid, link, ip_interface("192.0.2.7/24"))
        case "link-down" if link:
            world.set_link_down(uid, link)
        case "link-gone" if link:
            world.delete_link(uid, link)
        case "hostname" if runtime:
            world.set_hostname(uid, "strange")
        case "kill" if runtime:
            world.end_init(uid, EndCause.KILLED)
        case "network-gone" if networks:
            world.delete_network(networks[number % len(networks)])
        case "network-down" if networks:
            world.set_network_down(networks[number % len(networks)])
        case "filter":
            world.flush_filter()
        case "reboot":
            world.reboot_host()
        case "volume" if uid in machine.volumes:
            world.set_volume_size(uid, 1 << 20)
