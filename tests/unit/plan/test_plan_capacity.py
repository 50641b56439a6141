"""Who is here keeps what it has; nobody gets what is not there; and the arithmetic is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from reconciler.model.action import Plan
from reconciler.model.capacity import (
    Applicant,
    Books,
    Claim,
    Kind,
    Promise,
    Resource,
    Supply,
    admit,
    claim,
    least,
    supplies,
)
from reconciler.model.compute import Limit
from reconciler.model.fleet import Fleet, HostSpec
from reconciler.model.identity import HostName, VeName
from reconciler.model.volume import Record
from reconciler.plan import planner
from reconciler.plan.capacity import claimed
from reconciler.plan.render import is_bookkeeping
from reconciler.plan.spec import spec_values
from tests.support.fleets import edits
from tests.support.rig import Rig, fleet_of, run, scratch_state, ve

GI = 1 << 30
QUICK = settings(deadline=None, derandomize=True, database=None)
HOST = "kind: Host\nmetadata: {{name: node-a}}\nspec: {{{spec}}}\n"

sizes = st.integers(0, 12)
limits = st.one_of(st.none(), sizes)
claims = st.builds(Claim, memory_guarantee=sizes, memory_limit=limits, cpu_guarantee=sizes, disk_limit=limits)
supply = st.builds(
    Supply,
    machine=st.one_of(st.none(), st.integers(1, 20)),
    reserve=st.integers(0, 3),
    overcommit=st.sampled_from([None, 0.5, 1.0, 2.5]),
)
supplied = st.fixed_dictionaries(dict.fromkeys(Resource, supply))


@st.composite
def applicants(draw: st.DrawFn) -> list[Applicant]:
    return [
        Applicant(
            name=VeName(name),
            order=draw(st.integers(0, 2)),
            wanted=draw(claims),
            held=draw(st.one_of(st.none(), claims)),
        )
        for name in draw(st.lists(st.sampled_from("abcdefgh"), unique=True))
    ]


def outcome(one: Applicant, short: set[VeName]) -> Claim | None:
    """Give what a VE has in the end."""
    if one.name not in short:
        return one.wanted
    return None if one.held is None else least(one.held, one.wanted)


def totals(claimed: list[Claim], have: dict[Resource, Supply]) -> dict[tuple[Resource, Kind], tuple[int, int]]:
    """Add up what is promised of what has an end, beside the end."""
    found = {}
    for resource, kind in ((resource, kind) for resource in Resource for kind in Kind):
        room, machine = have[resource].room(kind), have[resource].machine
        if room is not None and machine is not None:
            amounts = [claim.of(resource, kind) for claim in claimed]
            most = machine if kind is Kind.LIMIT else 1 << 60
            found[resource, kind] = sum(machine if a is None else min(a, most) for a in amounts), room
    return found


@QUICK
@given(applicants(), supplied)
def test_what_is_promised_never_exceeds_what_there_is_unless_it_did_before(
    asking: list[Applicant], have: dict[Resource, Supply]
) -> None:
    short = set(admit(asking, "h", have))
    before = totals([least(one.held, one.wanted) for one in asking if one.held is not None], have)
    after = totals([claim for one in asking if (claim := outcome(one, short)) is not None], have)
    for key, (total, room) in after.items():
        assert total <= max(room, before[key][0])


@QUICK
@given(applicants(), supplied)
def test_newcomers_never_change_what_those_get_that_are_here(
    asking: list[Applicant], have: dict[Resource, Supply]
) -> None:
    short = set(admit(asking, "h", have))
    alone = set(admit([one for one in asking if one.held is not None], "h", have))
    assert alone == {one.name for one in asking if one.held is not None and one.name in short}


@QUICK
@given(applicants(), supplied)
def test_who_asks_for_no_more_than_it_has_is_never_refused(
    asking: list[Applicant], have: dict[Resource, Supply]
) -> None:
    short = admit(asking, "h", have)
    assert not [one for one in asking if one.held == one.wanted and one.name in short]
    assert not [one for one in asking if one.held and least(one.held, one.wanted) == one.wanted and one.name in short]


@QUICK
@given(applicants(), supplied, st.randoms())
def test_the_order_of_the_manifests_does_not_matter(
    asking: list[Applicant], have: dict[Resource, Supply], chance: Random
) -> None:
    mixed = list(asking)
    chance.shuffle(mixed)
    assert admit(mixed, "h", have) == admit(asking, "h", have)


@QUICK
@given(applicants(), supplied)
def test_admission_is_stable_once_it_was_carried_out(asking: list[Applicant], have: dict[Resource, Supply]) -> None:
    short = admit(asking, "h", have)
    again = [replace(one, held=outcome(one, set(short))) for one in asking]
    assert admit(again, "h", have).keys() == short.keys()


def test_without_a_host_manifest_only_guarantees_are_bounded() -> None:
    have = supplies(None, {Resource.MEMORY: 4, Resource.CPU: 4, Resource.DISK: 4})
    assert (have[Resource.MEMORY].room(Kind.GUARANTEE), have[Resource.DISK].room(Kind.GUARANTEE)) == (4, 4)
    assert {resource: one.room(Kind.LIMIT) for resource, one in have.items()} == dict.fromkeys(Resource)


def test_of_each_cpu_a_tenth_is_never_promised() -> None:
    have = supplies(None, {Resource.CPU: 400_000})[Resource.CPU]
    assert have.room(Kind.GUARANTEE) == 360_000
    host = HostSpec(name=HostName("a"), reserve_cpu=1.5)
    assert supplies(host, {Resource.CPU: 400_000})[Resource.CPU].room(Kind.GUARANTEE) == 250_000


def test_a_host_promises_no_more_than_the_machine_has_whatever_its_manifest_says() -> None:
    host = HostSpec(name=HostName("a"), capacity={"memory": 8, "disk": 3}, reserve_memory=1, overcommit={"disk": 1.5})
    have = supplies(host, {Resource.MEMORY: 4, Resource.DISK: 5})
    assert (have[Resource.MEMORY].room(Kind.GUARANTEE), have[Resource.DISK].room(Kind.LIMIT)) == (3, 4)
    assert have[Resource.CPU].room(Kind.GUARANTEE) is None


def test_the_arithmetic_names_most_first_and_counts_the_rest() -> None:
    books = Books("node-a", {resource: Supply(machine=4 * GI, reserve=GI) for resource in Resource})
    for number in range(8):
        claim = Claim(memory_guarantee=GI if number else 2 * GI)
        books.promise(Promise(name=f"v{number}", claim=claim, place=f"a.yaml:{number + 1}"))
    assert [str(shortage) for shortage in books.shortages()] == [
        "guarantees of memory 9Gi + reserve 1Gi > 4Gi of node-a: v0 2Gi (a.yaml:1), v1 1Gi (a.yaml:2), "
        "v2 1Gi (a.yaml:3), v3 1Gi (a.yaml:4), v4 1Gi (a.yaml:5), v5 1Gi (a.yaml:6), and 2 more"
    ]


def test_an_unlimited_limit_is_all_that_there_is() -> None:
    books = Books("node-a", {resource: Supply(machine=4 * GI, overcommit=1.5) for resource in Resource})
    books.promise(Promise(name="a", claim=Claim(memory_limit=None)))
    assert not list(books.shortages())
    books.promise(Promise(name="b", claim=Claim(memory_limit=99 * GI)))
    assert [str(shortage) for shortage in books.shortages()] == [
        "limits of memory 8Gi > overcommit 1.5 x (4Gi - reserve 0) of node-a: a 4Gi, b 4Gi"
    ]


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Give a host of 8 GiB and four CPUs."""
    with scratch_state() as state:
        yield Rig(state=state)


def memory(guarantee: str, *, limit: str = "8Gi", more: str = "") -> str:
    return f"memory: {{guarantee: {guarantee}, limit: {limit}}}{more and ', '}{more}"


def told(plan: Plan) -> dict[str, str]:
    return {refusal.ve: f"{refusal.rule}: {refusal.message}; {refusal.remedy}" for refusal in plan.refused}


def touched(plan: Plan) -> set[str]:
    """Name the VEs of which something is to be changed."""
    return {action.ve for action in plan.actions if action.uid is not None}


def test_a_newcomer_without_room_is_refused_and_the_rest_is_made(rig: Rig) -> None:
    plan = rig.plan(fleet_of(ve("a", memory("5Gi")), ve("b", memory("4Gi")), ve("c", memory("3Gi"))))
    assert touched(plan) == {"a", "c"}
    assert told(plan) == {
        "b": "NoCapacity: guarantees of memory 9Gi + reserve 0 > 8Gi of node-a: a 5Gi, b 4Gi; "
        "lower memory.guarantee of one of them, or move one to another host"
    }


def test_who_boots_first_comes_first(rig: Rig) -> None:
    plan = rig.plan(fleet_of(ve("a", memory("5Gi")), ve("b", memory("4Gi", more="boot: {order: -1}"))))
    assert told(plan).keys() == {"a"}


def test_a_ve_that_runs_keeps_its_place_before_newcomers_of_any_order(rig: Rig) -> None:
    rig.converge(fleet_of(ve("z", memory("5Gi", more="boot: {order: 9}"))))
    plan = rig.plan(fleet_of(ve("a", memory("5Gi")), ve("z", memory("5Gi", more="boot: {order: 9}"))))
    assert told(plan).keys() == {"a"}
    assert touched(plan) == set()


def converge(rig: Rig, fleet: Fleet) -> None:
    """Make passes until nothing changes, though something is refused."""
    assert all(outcome.ok for result in run(rig.reconciler(fleet).converge()) for outcome in result.outcomes)


def test_one_that_may_not_grow_goes_on_as_it_is_and_takes_all_other_changes(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a", memory("5Gi")), ve("b", memory("1Gi", limit="2Gi"))))
    wanted = fleet_of(ve("a", memory("5Gi")), ve("b", memory("4Gi", limit="6Gi", more="processes: 50")), revision="r2")
    converge(rig, wanted)
    applied = rig.record("b").applied
    assert (applied["memory.guarantee"], applied["memory.limit"], applied["processes"]) == (GI, 2 * GI, 50)
    plan = rig.plan(wanted)
    assert not touched(plan)
    assert told(plan).keys() == {"b"}
    rig.world.set_limit(rig.uid("b"), Limit.MEMORY_LIMIT, 3 * GI)
    drifted = rig.plan(wanted)
    assert [(a.path, a.before, a.after, a.origin.value) for a in drifted.actions] == [
        ("memory.limit", 3 * GI, 2 * GI, "drift")
    ]


def test_room_that_one_gives_back_is_anothers_in_the_same_plan(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a", memory("5Gi")), ve("b", memory("3Gi"))))
    wanted = fleet_of(ve("a", memory("3Gi")), ve("b", memory("5Gi")), revision="r2")
    assert not rig.plan(wanted).refused
    rig.converge(wanted)
    assert rig.record("b").applied["memory.guarantee"] == 5 * GI


def test_what_a_paused_ve_would_give_back_is_nobodys(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a", memory("5Gi")), ve("b", memory("3Gi"))))
    wanted = fleet_of(ve("a", memory("3Gi")), ve("b", memory("5Gi")), revision="r2")

    async def plan_paused() -> Plan:
        reconciler = rig.reconciler(wanted)
        inputs, _ = await reconciler.plan(await reconciler.look())
        return planner.plan_host(replace(inputs, paused={"a": "work"}))

    assert told(run(plan_paused())).keys() == {"b"}


def test_one_that_leaves_counts_until_it_is_gone(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a", memory("5Gi")), ve("z", memory("1Gi"))))
    plan = rig.plan(fleet_of(ve("b", memory("4Gi")), ve("z", memory("1Gi")), revision="r2"))
    assert "a (leaving) 5Gi" in told(plan)["b"]


def test_a_stopped_ve_reserves_its_disk_alone(rig: Rig) -> None:
    stopped = ve("a", memory("8Gi", more="power: stopped"))
    rig.converge(fleet_of(stopped, ve("b", memory("8Gi"))))
    converge(rig, fleet_of(ve("a", memory("8Gi")), ve("b", memory("8Gi")), revision="r2"))
    assert rig.see("a").compute is None
    host = HOST.format(spec="overcommit: {disk: 1}, capacity: {disk: 10Gi}")
    assert told(rig.plan(fleet_of(host, stopped, ve("c")))).keys() == {"c"}


def test_limits_are_bounded_where_the_host_says_by_how_much(rig: Rig) -> None:
    host = HOST.format(spec="reserve: {memory: 2Gi, cpu: 1}, overcommit: {memory: 1.5, cpu: 1}")
    plan = rig.plan(
        fleet_of(host, ve("a", "cpu: {limit: 2}, memory: {limit: 6Gi}"), ve("b", "cpu: {limit: 2}"), ve("c"))
    )
    assert told(plan) == {
        "b": "NoCapacity: limits of cpu 4 CPUs > overcommit 1 x (4 CPUs - reserve 1 CPU) of node-a: "
        "a 2 CPUs, b 2 CPUs; "
        "lower cpu.limit of one of them, or move one to another host",
        "c": "NoCapacity: limits of cpu 6 CPUs > overcommit 1 x (4 CPUs - reserve 1 CPU) of node-a: "
        "c 4 CPUs, a 2 CPUs; "
        "lower cpu.limit of one of them, or move one to another host",
    }


def test_a_look_at_one_ve_knows_what_the_others_have(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a", memory("5Gi")), ve("b", memory("1Gi"))))
    wanted = fleet_of(ve("a", memory("5Gi")), ve("b", memory("4Gi")), revision="r2")

    async def turns() -> Plan:
        reconciler = rig.reconciler(wanted)
        await reconciler.look()
        return (await reconciler.pass_ve(VeName("b"))).plan

    assert told(run(turns())).keys() == {"b"}


def test_an_image_takes_its_place_in_the_pool_at_once(rig: Rig) -> None:
    host = HOST.format(spec="capacity: {disk: 10Gi}, reserve: {disk: 1Gi}")
    image, plain = ve("a", "disk: {size: 6Gi, inodes: 1000}"), ve("b", "disk: {size: 99Gi}")
    rig.converge(fleet_of(host, image, plain))
    plan = rig.plan(fleet_of(host, image, plain, ve("c", "disk: {size: 4Gi, inodes: 1000}"), revision="r2"))
    assert told(plan) == {
        "c": "NoCapacity: guarantees of disk 10Gi + reserve 1Gi > 10Gi of node-a: a 6Gi, c 4Gi; "
        "lower disk.size of one of them, or move one to another host"
    }


def test_each_snapshot_of_an_image_takes_its_place_in_the_pool_and_one_more_what_a_rollback_puts_aside(
    rig: Rig,
) -> None:
    host, image = HOST.format(spec="capacity: {disk: 20Gi}"), "disk: {size: 6Gi, inodes: 1000}"
    rig.converge(fleet_of(host, ve("a", image)))
    rig.converge(fleet_of(host, ve("a", f"{image}, snapshots: [{{name: one}}]"), revision="r2"))
    assert claimed(rig.record("a").applied).disk_guarantee == 18 * GI
    more = f"{image}, snapshots: [{{name: one}}, {{name: two}}], processes: 99"
    plan = rig.plan(fleet_of(host, ve("a", more), revision="r3"))
    assert told(plan)["a"].startswith("NoCapacity: guarantees of disk 24Gi + reserve 0 > 20Gi of node-a")
    assert [action.path for action in plan.actions if action.effects and not is_bookkeeping(action)] == ["processes"]


def test_a_schedule_of_an_image_claims_what_it_keeps(rig: Rig) -> None:
    image = "disk: {size: 1Gi, inodes: 1000}, snapshotSchedule: {every: 1h, keep: 3}"
    rig.converge(fleet_of(ve("a", image)))
    [spec] = fleet_of(ve("a", image)).ves.values()
    assert claim(spec).disk_guarantee == claimed(rig.record("a").applied).disk_guarantee == 5 * GI


@settings(QUICK, max_examples=25, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(edits())
def test_no_change_of_any_fleet_makes_a_host_promise_more_than_it_has(edit: tuple[Fleet, Fleet]) -> None:
    with scratch_state() as state:
        rig = Rig(state=state)
        for wanted in edit:
            converge(rig, wanted)
            applied = [claimed(record.applied) for record in rig.machine.records.values() if isinstance(record, Record)]
            assert sum(claim.cpu_guarantee for claim in applied) <= 360_000
            refused = {refusal.ve for refusal in rig.plan(wanted).refused if refusal.rule == "NoCapacity"}
            asked = sum(spec.compute.cpu_guarantee_us for spec in wanted.ves.values())
            assert not refused or asked > 360_000


def test_a_machine_with_less_than_its_manifest_declares_is_told_once(rig: Rig) -> None:
    wanted = fleet_of(HOST.format(spec="capacity: {memory: 16Gi, cpu: 2, disk: 1Gi}"), ve("a"))

    async def two_passes() -> list[str]:
        reconciler = rig.reconciler(wanted)
        await reconciler.pass_all()
        await reconciler.pass_all()
        return [event.message for event in reconciler.desk.events.read() if event.ve == "host"]

    assert run(two_passes()) == ["node-a declares 16Gi of memory and has 8Gi, which counts"]


def test_a_suspended_ve_keeps_its_claim_as_it_may_be_resumed_at_any_moment() -> None:
    needs = "memory: {limit: 1Gi, guarantee: 1Gi}, cpu: {guarantee: 0.5}"
    running, suspended, stopped = (
        claim(fleet_of(ve("a", f"{needs}, power: {state}")).ves[VeName("a")])
        for state in ("running", "suspended", "stopped")
    )
    assert suspended == running
    assert (stopped.memory_guarantee, stopped.cpu_guarantee) == (0, 0)


def test_the_record_of_a_suspended_ve_claims_what_its_manifest_does() -> None:
    spec = fleet_of(ve("a", "memory: {limit: 1Gi, guarantee: 1Gi}, power: suspended")).ves[VeName("a")]
    assert claimed(spec_values(spec)) == claim(spec)
