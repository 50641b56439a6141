"""What a person reads of a plan that has something of everything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.model.action import Plan
from reconciler.model.compute import ComputeUse, Limit
from reconciler.model.identity import VeName
from reconciler.plan.render import plan_to_json, render_text
from reconciler.state.pause import Pause
from tests.support.rig import LAN, Rig, fleet_of, on_lan, scratch_state, ve

TEXT = """\
Dangers:
  x keeper: refused (Protected): its manifest is gone, but it is protected; `vectl unprotect keeper` lets it go, \
putting the manifest back keeps it
  ! tight: memory.limit goes below what is in use now
  ! gone: stopped and moved to the trash, where its data is kept for a while

Changes:
  ~ change host/filter rules: ports=1, nat=2, forwards=0 -> ports=2, nat=2, forwards=0
  + create fresh
  ! restart busy rlimits: none -> nofile=100 [restart] (downtime unknown)
  ~ change tight memory.limit: 512Mi -> 64Mi [live-risk]
  ~ change told description: none -> new words
  - destroy gone [restart] (downtime unknown)

Changed by hand, to be put right:
  ~ change busy2 processes: 7 -> 4096

Changed by hand, left alone:
  lax cpu.weight: 7

Waiting:
  halted: paused: under repair

Plan: 1 to create, 3 to change, 1 to restart, 1 to destroy, 1 drifted. Hash HASH"""


@pytest.fixture
def plan() -> Iterator[Plan]:
    names = ("busy", "busy2", "told", "tight", "gone", "halted")
    lax, keeper = ve("lax", "drift: {default: warn}"), ve("keeper", "protect: true")
    more = [ve(f"v{number}") for number in range(12)]
    with scratch_state() as state:
        rig = Rig(state=state)
        rig.converge(fleet_of(LAN, *(ve(name) for name in names), lax, keeper, ve("net", on_lan(9)), *more))
        rig.world.set_use(rig.uid("tight"), use=ComputeUse(memory=300 << 20))
        rig.world.set_limit(rig.uid("busy2"), Limit.PROCESSES, 7)
        rig.world.set_limit(rig.uid("lax"), Limit.CPU_WEIGHT, 7)
        rig.desk().pauses.put(Pause(ve=VeName("halted"), reason="under repair", since=0.0))
        yield rig.plan(
            fleet_of(
                LAN,
                ve("busy", "rlimits: {nofile: 100}"),
                ve("busy2"),
                ve("told", "description: new words"),
                ve("tight", "memory: {limit: 64Mi}"),
                ve("halted", "processes: 9"),
                lax,
                ve("net", on_lan(9)),
                ve("fresh", on_lan(11)),
                *more,
            )
        )


def test_dangers_come_first_and_drift_stands_apart(plan: Plan) -> None:
    text = render_text(plan, paint=lambda text, style: text)
    assert text == TEXT.replace("HASH", plan.action_hash[:16])


def test_the_stable_json_holds_the_same(plan: Plan) -> None:
    document = plan_to_json(plan)
    assert document["summary"] == {
        "create": 1,
        "update": 3,
        "restart": 1,
        "recreate": 0,
        "destroy": 1,
        "restore": 0,
        "drift": 1,
    }
    assert document["waiting"] == {"halted": "paused: under repair"}
    assert document["action_hash"] == plan.action_hash


def test_a_host_as_wanted_has_one_line() -> None:
    with scratch_state() as state:
        rig = Rig(state=state)
        rig.converge(fleet_of(ve("web1")))
        assert render_text(rig.plan(fleet_of(ve("web1"))), paint=lambda text, style: text) == "No changes."
