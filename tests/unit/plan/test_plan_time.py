"""What people read, and consent to, of plans that keep, replace and delete data; and that none of it is done twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pytest

from reconciler.apply.seam import FailpointEffects, parse_failpoints
from reconciler.model.action import Plan
from reconciler.model.fleet import Fleet
from reconciler.model.snapshots import SnapshotKind
from reconciler.plan.markdown import render_markdown
from reconciler.plan.render import plan_to_json, render_text
from reconciler.twin.clock import StoppedClock
from reconciler.twin.host import crash
from tests.support.rig import Rig, fleet_of, run, scratch_state, ve
from tests.support.simulation import is_crash

GOLDEN = "snapshots: [{name: golden}]"
BACK = f"{GOLDEN}, rollback: {{to: golden, request: again}}"
OTHER = "kind: Template\nmetadata: {name: other}\nspec: {source: {builtin: busybox}}\n"
HOURLY = "snapshotSchedule: {every: 1h, keep: 3}"

TEXT = """\
Dangers:
  x lost: refused (SnapshotLost): snapshot golden, taken 2023-11-14 22:13 UTC, is not there any more; \
take 'golden' out of the manifest; a snapshot of now needs another name, to be none of then
  x anew: refused (NeedsConsent): template has impact recreate (made anew from other; \
of its data /home and nothing else is carried over, and all of it is kept for 7d as snapshot before-recreate-...); \
`vectl approve HASH`
  x gone: refused (NeedsConsent): snapshots.golden has impact data-loss (snapshot golden of 2023-11-14 22:13 UTC is \
deleted for good); `vectl approve HASH`
  ! back: goes back to golden of 2023-11-14 22:13 UTC; what was written since is put aside as snapshot \
before-golden-20231114T221320Z, kept until 2023-11-21 22:13 UTC

Changes:
  ~ change new snapshots.golden: none -> memory=false
  ~ change new snapshots.warm: none -> memory=true [pause] (downtime unknown)
  + create copy
  ! restart back rollback: none -> to=golden, request=again [restart] (downtime unknown)

Plan: 1 to create, 2 to change, 1 to restart, 0 to destroy. Hash HASH"""


def wanted(revision: str = "r2") -> Fleet:
    return fleet_of(
        OTHER,
        ve("new", "snapshots: [{name: golden}, {name: warm, memory: true}]"),
        ve("gone"),
        ve("back", BACK),
        ve("anew", "template: other, keep: [/home]"),
        ve("lost", GOLDEN),
        ve("copy", "source: {clone: back, snapshot: golden}"),
        revision=revision,
    )


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        made = Rig(state=state)
        names = {"new": "", "gone": GOLDEN, "back": GOLDEN, "anew": "keep: [/home]", "lost": GOLDEN}
        made.converge(fleet_of(*(ve(name, spec) for name, spec in names.items())))
        made.world.write_file(made.uid("back"), "/late")
        made.world.lose_snapshot(made.uid("lost"), next(iter(made.machine.snapshots[made.uid("lost")])))
        yield made


def without_hashes(plan: Plan, text: str) -> str:
    for found in (plan.action_hash, *plan.ve_hashes.values()):
        text = text.replace(found, "HASH").replace(found[:16], "HASH")
    return text


def test_the_text_says_what_is_lost_where_it_is_kept_and_until_when(rig: Rig) -> None:
    plan = rig.plan(wanted())
    assert without_hashes(plan, render_text(plan, paint=lambda text, _: text)) == TEXT


def test_the_comment_never_folds_what_is_lost(rig: Rig) -> None:
    text = render_markdown(rig.plan(wanted())).partition("<details>")[0]
    for words in ("goes back to golden", "deleted for good", "made anew from other", "SnapshotLost"):
        assert words in text


def test_the_stable_form_names_requests_and_no_names_that_were_made_up(rig: Rig) -> None:
    actions = {f"{a['ve']} {a['path']}": a for a in plan_to_json(rig.plan(wanted()))["actions"]}  # type: ignore[union-attr, index, call-overload]  # JSON
    back = actions["back rollback"]
    assert (back["op"], back["impact"], back["reversible"]) == ("restart", "restart", "with-snapshot")  # type: ignore[index, call-overload]  # JSON
    assert back["after"] == {"rollback": {"to": "golden", "request": "again"}}  # type: ignore[index, call-overload]  # JSON
    assert "before-" not in str(actions)


def test_what_was_reviewed_is_what_is_consented_to_whenever_that_is(rig: Rig) -> None:
    before = rig.plan(wanted())
    advance(rig, 12_345.0)
    assert rig.plan(wanted()).ve_hashes == before.ve_hashes


def test_which_snapshots_a_schedule_took_makes_no_other_plan_of_its_removal() -> None:
    hashes = []
    for looks in (1, 3):
        with scratch_state() as state:
            rig = Rig(state=state)
            for _ in range(looks):
                rig.converge(fleet_of(ve("a", HOURLY)))
                advance(rig, 3600.0)
            assert len(rig.machine.snapshots[rig.uid("a")]) == looks
            hashes.append(rig.plan(fleet_of(ve("a"), revision="r2")).ve_hashes["a"])
    assert hashes[0] == hashes[1]


def advance(rig: Rig, seconds: float) -> None:
    assert isinstance(rig.clock, StoppedClock)
    rig.clock.advance(seconds)


@dataclass(frozen=True)
class Torn:
    """A rollback that was cut short after an effect."""

    rig: Rig
    is_switched: bool


def torn_after(rig: Rig, number: int) -> Torn | None:
    """Cut a rollback short after an effect, and write something as tenants do; None if there is no such effect."""
    points = parse_failpoints(f"*:after={number}*off->kill")
    effects = FailpointEffects(rig.twin, points, random=Random(0), kill=crash)
    try:
        run(rig.reconciler(fleet_of(ve("back", BACK), revision="r2"), effects).converge())
    except BaseException as err:
        if not is_crash(err):
            raise
        switched = "/late" not in rig.machine.volumes[rig.uid("back")].content
        rig.world.write_file(rig.uid("back"), "/written-in-between")
        return Torn(rig, switched)
    return None


def test_a_rollback_is_never_repeated_over_what_was_written_after_it() -> None:
    number, switched = 0, 0
    while True:
        with scratch_state() as state:
            rig = Rig(state=state)
            rig.converge(fleet_of(ve("back", GOLDEN)))
            rig.world.write_file(rig.uid("back"), "/late")
            torn = torn_after(rig, number)
            if torn is None:
                break
            rig.converge(fleet_of(ve("back", BACK), revision="r2"))
            in_force = rig.machine.volumes[rig.uid("back")].content
            aside = [k for k in rig.machine.snapshots[rig.uid("back")].values() if k.kind is SnapshotKind.SAFETY]
            assert in_force == (("/written-in-between",) if torn.is_switched else ()), number
            assert [kept.volume.content for kept in aside] == [
                ("/late",) if torn.is_switched else ("/late", "/written-in-between")
            ]
        number, switched = number + 1, switched + torn.is_switched
    assert 0 < switched < number


def test_a_restored_ve_never_repeats_a_rollback_that_came_while_it_was_away() -> None:
    with scratch_state() as state:
        rig = Rig(state=state)
        rig.converge(fleet_of(ve("back", GOLDEN), ve("b")))
        rig.world.write_file(rig.uid("back"), "/late")
        rig.converge(fleet_of(ve("b"), revision="r2"))
        rig.converge(fleet_of(ve("back", BACK), ve("b"), revision="r3"))
        assert rig.machine.volumes[rig.uid("back")].content == ("/late",)
        assert rig.record("back").requests_done == ("golden: again",)


def test_two_ways_back_in_one_second_put_two_things_aside() -> None:
    with scratch_state() as state:
        rig = Rig(state=state)
        rig.converge(fleet_of(ve("back", GOLDEN)))
        for request in ("one", "two", "three"):
            rig.world.write_file(rig.uid("back"), f"/{request}")
            rig.converge(fleet_of(ve("back", BACK.replace("again", request)), revision=request))
        aside = [
            k.volume.content for k in rig.machine.snapshots[rig.uid("back")].values() if k.kind is SnapshotKind.SAFETY
        ]
        assert aside == [("/one",), ("/two",), ("/three",)]


def test_a_long_name_of_a_snapshot_leaves_room_for_that_of_what_is_put_aside() -> None:
    name = "g" * 63
    with scratch_state() as state:
        rig = Rig(state=state)
        rig.converge(fleet_of(ve("back", GOLDEN.replace("golden", name))))
        rig.converge(fleet_of(ve("back", BACK.replace("golden", name)), revision="r2"))
        assert max(map(len, rig.machine.snapshots[rig.uid("back")])) <= 63
