"""Claims about a plan on paper: it is carried out as it was read, or refused, VE by VE."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import StateError
from reconciler.model.action import Plan
from reconciler.model.compute import Limit, SetLimit
from reconciler.model.fleet import Fleet
from reconciler.plan import saved
from reconciler.plan.saved import Saved
from tests.support.rig import SOURCE, Rig, fleet_of, run, scratch_state, ve
from tests.support.twins import perform

BEFORE = fleet_of(ve("a"), ve("b"))
AFTER = fleet_of(ve("a", "memory: {limit: 1Gi}"), ve("b", "memory: {limit: 1Gi}"), ve("c"), revision="r2")


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        made = Rig(state=Path(state))
        made.converge(BEFORE)
        yield made


def paper(rig: Rig, fleet: Fleet = AFTER) -> Saved:
    """Write a plan down and read it again."""
    text = saved.encode(rig.plan(fleet), source=SOURCE, prune=True, files={"a.yaml": b"caf\xe9"})
    return saved.decode(text, where="plan.json")


def left(made: Plan) -> list[tuple[str, str]]:
    return [(action.ve, action.path) for action in made.actions if action.path != "record"]


def test_what_was_saved_is_read_again(rig: Rig) -> None:
    found = paper(rig)
    assert (found.host, found.revision, found.source, found.prune) == ("node-a", "r2", SOURCE, True)
    assert found.files == {"a.yaml": b"caf\xe9"}
    assert set(found.fingerprints) == {"a", "b", "c"}


def test_a_plan_of_the_same_host_is_carried_out_whole(rig: Rig) -> None:
    made = rig.plan(AFTER)
    assert saved.restrict(made, paper(rig)) == made


def test_a_ve_whose_values_changed_is_refused_and_the_others_are_not(rig: Rig) -> None:
    found = paper(rig)
    perform(rig.twin, SetLimit(uid=rig.uid("a"), limit=Limit.MEMORY_LIMIT, value=64 << 20))
    made = saved.restrict(rig.plan(AFTER), found)
    assert [(refusal.ve, refusal.rule) for refusal in made.refused] == [("a", "StalePlan")]
    assert left(made) == [("c", ""), ("b", "memory.limit")] or left(made) == [("b", "memory.limit"), ("c", "")]


def test_a_value_that_the_plan_does_not_touch_may_change_and_is_left_alone(rig: Rig) -> None:
    found = paper(rig)
    perform(rig.twin, SetLimit(uid=rig.uid("a"), limit=Limit.PROCESSES, value=7))
    made = saved.restrict(rig.plan(AFTER), found)
    assert made.refused == ()
    assert ("a", "memory.limit") in left(made)
    assert ("a", "processes") not in left(made)


def test_a_plan_is_carried_out_once(rig: Rig) -> None:
    found = paper(rig)
    rig.converge(AFTER)
    made = saved.restrict(rig.plan(AFTER), found)
    assert made.actions == ()
    assert {refusal.ve for refusal in made.refused} == {"a", "b", "c"}


def test_what_is_not_on_paper_is_not_done(rig: Rig) -> None:
    found = paper(rig, BEFORE)
    assert saved.restrict(rig.plan(AFTER), found).actions == ()


def test_what_waited_for_consent_is_done_once_that_is_given(rig: Rig) -> None:
    fewer = fleet_of(revision="r3")
    found = paper(rig, fewer)
    assert found.held
    assert saved.restrict(rig.plan(fewer), found).actions == ()
    made = rig.plan(fewer)
    run(_approve(rig, made.action_hash))
    allowed = saved.restrict(rig.plan(fewer), found)
    assert {action.ve for action in allowed.actions} == {"a", "b"}
    assert allowed.refused == ()


async def _approve(rig: Rig, hash_: str) -> None:
    rig.desk().approvals.approve(hash_, by="test", now=rig.clock.now())


@pytest.mark.parametrize("text", [b"", b"{}", b'{"format": 1, "host": "a"}', b'{"format": 99}', b"[]"])
def test_what_is_no_saved_plan_is_refused(text: bytes) -> None:
    with pytest.raises(StateError, match=r"read plan\.json: "):
        saved.decode(text, where="plan.json")
