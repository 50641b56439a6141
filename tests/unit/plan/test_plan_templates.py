"""Images that nothing uses are let go after a while, and only on positive evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from reconciler.model.action import Impact, Operation, Origin, Plan
from reconciler.model.facts import Unknown
from reconciler.model.fleet import Fleet
from reconciler.model.observation import Facet, HostObservation
from reconciler.model.volume import RemoveTemplate
from reconciler.plan import planner
from reconciler.plan.actions import TRASH_KEEP_S
from reconciler.twin.clock import StoppedClock
from tests.support.rig import Rig, fleet_of, run, scratch_state, ve

DEBIAN = "kind: Template\nmetadata: {name: deb}\nspec: {source: {debootstrap: {suite: trixie}}}\n"
WEEK = TRASH_KEEP_S + 1


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        made = Rig(state=state)
        made.converge(fleet_of(DEBIAN, ve("a", "template: deb"), ve("b")))
        yield made


def later(rig: Rig, seconds: float = WEEK) -> None:
    assert isinstance(rig.clock, StoppedClock)
    rig.clock.advance(seconds)


def removed(plan: Plan) -> list[str]:
    """Name the templates whose images a plan removes."""
    found = [action for action in plan.actions if action.ve.startswith("template/")]
    for action in found:
        assert (action.op, action.impact, action.origin) == (Operation.DESTROY, Impact.NONE, Origin.POLICY)
        assert action.uid is None
        assert all(isinstance(effect, RemoveTemplate) for effect in action.effects)
    return [action.ve.removeprefix("template/").partition("@")[0] for action in found]


def without_debian(rig: Rig) -> Fleet:
    """Remove the VE that uses the image, and the template; the VE's data is in the trash then."""
    fleet = fleet_of(ve("b"), revision="r2")
    rig.converge(fleet)
    return fleet


def test_an_image_goes_when_it_was_of_no_use_for_a_while(rig: Rig) -> None:
    fleet = without_debian(rig)
    later(rig)
    rig.converge(fleet)  # the trash is emptied, and with it goes the last that needed the image
    assert not rig.machine.trash
    assert removed(rig.plan(fleet)) == []
    later(rig)
    assert removed(rig.plan(fleet)) == ["deb"]
    rig.converge(fleet)
    assert [image.name for image in rig.machine.images.values()] == ["busybox"]
    assert rig.plan(fleet).actions == ()


def test_an_image_that_the_trash_needs_stays(rig: Rig) -> None:
    fleet = without_debian(rig)
    later(rig, WEEK - 2)
    assert removed(rig.plan(fleet)) == []


def test_an_image_that_a_ve_needs_stays_whatever_the_manifests_say(rig: Rig) -> None:
    fleet = fleet_of(ve("a", "template: busybox"), ve("b"), revision="r2")
    later(rig)
    assert removed(rig.plan(fleet)) == []


def test_an_image_of_a_declared_template_stays_without_a_ve(rig: Rig) -> None:
    fleet = fleet_of(DEBIAN, ve("b"), revision="r2")
    rig.converge(fleet)
    for _ in range(3):
        later(rig)
        rig.converge(fleet)
    assert len(rig.machine.templates) == 2


def test_an_image_that_cannot_be_built_anew_stays(rig: Rig) -> None:
    fleet = orphaned(rig)
    for digest, image in rig.machine.images.items():
        rig.machine.images[digest] = replace(image, is_original=True)
    assert removed(rig.plan(fleet)) == []


def orphaned(rig: Rig) -> Fleet:
    """Come to a state in which the image would be removed."""
    fleet = without_debian(rig)
    later(rig)
    rig.converge(fleet)
    later(rig)
    assert removed(rig.plan(fleet)) == ["deb"]
    return fleet


@pytest.mark.parametrize("facet", [Facet.SNAPSHOTS, Facet.VOLUME])
def test_nothing_is_removed_while_something_is_not_known(rig: Rig, facet: Facet) -> None:
    fleet = orphaned(rig)
    for uid in (None, rig.uid("b")):
        rig.machine.unreadable[uid, facet] = "I/O error"
    assert removed(rig.plan(fleet)) == []


def seen_otherwise(rig: Rig, fleet: Fleet, **changes: object) -> Plan:
    """Plan with an observation in which something is different."""
    inputs = run(rig.reconciler(fleet).plan(run(rig.twin.observe())))[0]
    observed: HostObservation = replace(inputs.observed, **changes)  # type: ignore[arg-type]  # the test names fields
    return planner.plan_host(replace(inputs, observed=observed))


def test_nothing_is_removed_unless_all_of_the_host_was_seen(rig: Rig) -> None:
    fleet = orphaned(rig)
    assert removed(seen_otherwise(rig, fleet)) == ["deb"]
    assert removed(seen_otherwise(rig, fleet, complete=False)) == []
    assert removed(seen_otherwise(rig, fleet, trash=Unknown("x"))) == []
    assert removed(seen_otherwise(rig, fleet, templates=Unknown("x"))) == []


def test_nothing_is_removed_where_nobody_asked_to_prune(rig: Rig) -> None:
    fleet = orphaned(rig)
    reconciler = rig.reconciler(fleet)
    reconciler.prune = False
    _, plan = run(reconciler.plan(run(rig.twin.observe())))
    assert removed(plan) == []
