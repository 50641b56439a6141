"""Claims about VEs that are as they should be: which of them are planned anew, and which need not be.

That an answer from memory is the one that planning anew would give is checked wherever a rig is planned for
(`tests.support.doubting`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from reconciler.model.compute import Limit
from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.identity import Digest, SnapshotName, TemplateName, VeName
from reconciler.model.observation import HostObservation, VeObservation
from reconciler.model.snapshots import SnapshotKind, SnapshotObservation, SnapshotSchedule, SnapshotsObservation
from reconciler.plan import planner
from reconciler.plan import ve as plan_ve
from reconciler.plan.actions import Context
from reconciler.plan.inputs import Inputs
from reconciler.plan.settled import Settled
from reconciler.plan.ve import VePlan
from tests.support.rig import V1, Rig, fleet_of, run, scratch_state, ve

WEB, SHOP = VeName("web"), VeName("shop")
FLEET = fleet_of(ve("web"), ve("shop", "boot: {dependsOn: [web]}"))
KEPT = SnapshotObservation(
    kind=SnapshotKind.SAFETY, taken_at=0.0, template=TemplateName("busybox"), template_digest=Digest("0")
)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        made = Rig(state=state)
        made.converge(FLEET)
        yield made


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> list[VeName]:
    """Name the VEs that were planned anew since this list was emptied."""
    asked: list[VeName] = []
    plan = plan_ve.plan_existing

    def told(spec: VeSpec, observed: VeObservation, context: Context) -> VePlan:
        asked.append(spec.name)
        return plan(spec, observed, context)

    monkeypatch.setattr(plan_ve, "plan_existing", told)
    return asked


def inputs_of(rig: Rig, fleet: Fleet, settled: Settled) -> Inputs:
    async def gathered() -> Inputs:
        reconciler = rig.reconciler(fleet)
        return reconciler.inputs(await reconciler.look())

    return replace(run(gathered()), settled=settled)


def each_seen(observed: HostObservation, **changes: object) -> HostObservation:
    """Give what was seen, with the same changed of each VE."""
    ves = {uid: replace(seen, **changes) for uid, seen in observed.ves.items()}  # type: ignore[arg-type]
    return replace(observed, ves=ves)


def test_a_ve_of_which_nothing_changed_is_not_planned_again_whatever_the_time(rig: Rig, anew: list[VeName]) -> None:
    settled = Settled()
    first = planner.plan_host(inputs_of(rig, FLEET, settled))
    assert sorted(anew) == [SHOP, WEB]
    anew.clear()
    inputs = inputs_of(rig, FLEET, settled)
    assert planner.plan_host(replace(inputs, now=inputs.now + 1e6)) == first
    assert anew == [SHOP]  # which may have to wait for another one, and so depends on more than itself


def test_a_change_by_hand_is_found_and_its_mending_seen(rig: Rig, anew: list[VeName]) -> None:
    settled, uid = Settled(), rig.uid("web")
    planner.plan_host(inputs_of(rig, FLEET, settled))
    rig.world.set_limit(uid, Limit.PROCESSES, 7)
    for _ in range(2):
        found = planner.plan_host(inputs_of(rig, FLEET, settled))
        assert [(action.ve, action.path) for action in found.actions] == [(WEB, "processes")]
    rig.world.set_limit(uid, Limit.PROCESSES, FLEET.ves[WEB].compute.processes)
    anew.clear()
    assert not planner.plan_host(inputs_of(rig, FLEET, settled)).actions
    assert WEB in anew


def test_another_spec_or_another_host_is_planned_for(rig: Rig, anew: list[VeName]) -> None:
    settled = Settled()
    planner.plan_host(inputs_of(rig, FLEET, settled))
    other = fleet_of(ve("web", "processes: 99"), ve("shop", "boot: {dependsOn: [web]}"))
    assert [action.path for action in planner.plan_host(inputs_of(rig, other, settled)).actions][:1] == ["processes"]
    planner.plan_host(inputs_of(rig, FLEET, settled))
    anew.clear()
    inputs = inputs_of(rig, FLEET, settled)
    planner.plan_host(replace(inputs, observed=replace(inputs.observed, capabilities=V1)))
    assert WEB in anew


def test_what_the_clock_alone_can_bring_about_is_asked_for_each_time(rig: Rig, anew: list[VeName]) -> None:
    settled = Settled()
    scheduled = replace(FLEET.ves[WEB].snapshots, schedule=SnapshotSchedule(every_s=60.0, keep=2))
    by_the_clock = replace(FLEET, ves={**FLEET.ves, WEB: replace(FLEET.ves[WEB], snapshots=scheduled)})
    for _ in range(2):
        anew.clear()
        planner.plan_host(inputs_of(rig, by_the_clock, settled))
        assert WEB in anew
    inputs = inputs_of(rig, FLEET, settled)
    there = SnapshotsObservation(snapshots={SnapshotName("before-x"): KEPT})
    for _ in range(2):
        anew.clear()
        planner.plan_host(replace(inputs, observed=each_seen(inputs.observed, snapshots=there)))
        assert WEB in anew


def test_a_ve_whose_snapshots_only_its_manifest_ends_is_not_planned_again(rig: Rig, anew: list[VeName]) -> None:
    settled, kept = Settled(), fleet_of(ve("web", "snapshots: [{name: golden}]"), revision="r2")
    rig.converge(kept)
    planner.plan_host(inputs_of(rig, kept, settled))
    anew.clear()
    planner.plan_host(inputs_of(rig, kept, settled))
    assert WEB not in anew
    rig.world.lose_snapshot(rig.uid("web"), SnapshotName("golden"))
    found = planner.plan_host(inputs_of(rig, kept, settled))
    assert [refusal.rule for refusal in found.refused if refusal.ve == WEB] == ["SnapshotLost"]


def test_a_ve_that_is_gone_is_forgotten(rig: Rig, anew: list[VeName]) -> None:
    settled = Settled()
    planner.plan_host(inputs_of(rig, FLEET, settled))
    settled.keep_only(())
    anew.clear()
    planner.plan_host(inputs_of(rig, FLEET, settled))
    assert WEB in anew
