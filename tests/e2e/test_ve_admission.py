"""Claims about what a host does not give: it says why, in numbers or by the line of its policy; nobody else suffers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.model.condition import Condition, ConditionType, Status
from reconciler.state.conditions import SOURCE
from tests.support.fleet import Document, Fleet, Value, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.outputs import misfits

pytestmark = pytest.mark.xdist_group("ve-admission")

MIB = 1 << 20
HOST: Document = {
    "apiVersion": "ve/v1",
    "kind": "Host",
    "metadata": {"name": "here"},
    "spec": {"capacity": {"memory": "512Mi"}, "reserve": {"memory": "100Mi"}},
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "admission-policy.yaml"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, policy: Path) -> Iterator[Fleet]:
    allow(policy, "features: [nesting, fuse]\n")
    with made_fleet(tmp_path_factory.getbasetemp(), HOST, needs("a", 300), policy=str(policy), relist="1s") as made:
        made.start_agent()
        made.await_ready("a")
        yield made


def allow(policy: Path, text: str) -> None:
    policy.write_text(text)
    policy.chmod(0o600)


def needs(name: str, guarantee: int, **spec: Value) -> Document:
    """Make a manifest of a VE that is guaranteed so many MiB."""
    return ve(name, memory={"limit": f"{max(guarantee, 400)}Mi", "guarantee": f"{guarantee}Mi"}, **spec)


def ready(fleet: Fleet, name: str) -> Condition:
    return fleet.conditions(name)[ConditionType.READY]


def test_a_ve_without_room_is_refused_with_the_arithmetic_and_the_others_run_on(fleet: Fleet) -> None:
    init = fleet.ve("a").init
    fleet.put("all.yaml", HOST, needs("a", 300), needs("b", 200), ve("c"))
    arithmetic = "guarantees of memory 500Mi + reserve 100Mi > 512Mi of here: a 300Mi"
    said = fleet.complaint("validate", str(fleet.manifests))
    assert arithmetic in said
    assert "b 200Mi (all.yaml:" in said
    stalled = fleet.await_reason("b", "NoCapacity", ConditionType.STALLED)
    assert f"{arithmetic}, b 200Mi; lower memory.guarantee of one of them" in stalled.message
    fleet.await_ready("a", "c")
    assert fleet.conditions(SOURCE)[ConditionType.VALID].status is Status.TRUE
    assert set(fleet.records()) == {"a", "c"}
    assert fleet.ve("a").init == init
    assert arithmetic in fleet.vectl("plan", str(fleet.manifests), code=4)
    found = json.loads(fleet.vectl("capacity", "-o", "json"))
    assert misfits("capacity", found) == []
    memory = found["hosts"][0]["resources"][0]
    assert (memory["capacity"], memory["guaranteed"], memory["guaranteed_free"]) == (512 * MIB, 300 * MIB, 112 * MIB)
    assert memory["used"] > 0


def test_room_that_is_given_back_goes_to_who_waits_for_it(fleet: Fleet) -> None:
    init = fleet.ve("a").init
    fleet.put("all.yaml", HOST, needs("a", 100), needs("b", 200), ve("c"))
    fleet.await_ready("a", "b")
    assert fleet.ve("a").init == init


def test_one_that_may_not_grow_keeps_what_it_has_and_is_held_to_it(fleet: Fleet) -> None:
    init, limit = fleet.ve("a").init, fleet.ve("a").limit("memory.limit")
    fleet.put("all.yaml", HOST, needs("a", 500, processes=77), needs("b", 200), ve("c"))
    fleet.await_reason("a", "NoCapacity", ConditionType.STALLED)
    until(lambda: fleet.ve("a").limit("processes") == 77, "the rest of its manifest to be carried out")
    with fleet.puts_right("a", "memory.limit"):
        fleet.ve("a").memory_limit_file.write_text(str(390 * MIB))
    assert (fleet.ve("a").init, fleet.ve("a").limit("memory.limit")) == (init, limit)
    fleet.put("all.yaml", HOST, needs("a", 100), needs("b", 200), ve("c"))
    fleet.await_ready("a", "b", "c")


def test_what_the_policy_does_not_allow_is_refused_until_it_does(fleet: Fleet, policy: Path) -> None:
    init = fleet.ve("a").init
    allow(policy, "# the host's own words\nfeatures: []\n")
    fleet.put("more.yaml", ve("n", features={"nesting": True}))
    stalled = fleet.await_reason("n", "Policy", ConditionType.STALLED)
    assert f"features.nesting: nesting is none of (nothing) ({policy}:2)" in stalled.message
    assert f"let root of the host allow it under 'features' in {policy}" in stalled.message
    assert "n" not in fleet.records()
    allow(policy, "features: [nesting]\n")
    fleet.await_ready("n")
    assert fleet.ve("a").init == init


def test_a_policy_that_breaks_changes_nothing_but_is_told(fleet: Fleet, policy: Path) -> None:
    allow(policy, "features: [nesting\n")
    until(lambda: "PolicyNotUsable" in fleet.told("host"), "the mistake to be told")
    fleet.put("more.yaml", ve("n", features={"nesting": True}, processes=88))
    fleet.await_ready("n")
    assert f"read {policy}:" in fleet.vectl("doctor")
    fleet.end_agent()
    fleet.start_agent()
    fleet.await_ready("a", "n")
    fleet.put("more.yaml", ve("n", features={"nesting": True}, processes=88), ve("late"))
    stalled = fleet.await_reason("late", "Policy", ConditionType.STALLED)
    assert "policy not usable" in stalled.message
    fleet.await_ready("n")
    allow(policy, "features: [nesting]\n")
    fleet.await_ready("late")
