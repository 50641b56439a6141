"""Claims about what VEs are to see of themselves when lxcfs ends, cannot be, and comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.kernel.mount import Mount
from reconciler.kernel.views import stack_at
from reconciler.model.identity import VeName
from reconciler.model.views import PATH, ShowViews, Views
from reconciler.plan.spec import unenforceable
from tests.support.rig import Rig, fleet_of, scratch_state, ve

FLEET = fleet_of(ve("web1"), ve("web2"), ve("off", "power: stopped"))


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        made = Rig(state=state)
        made.converge(FLEET)
        yield made


def shown(rig: Rig) -> set[tuple[str, Views]]:
    """Give what is planned for whom."""
    effects = [(action.ve, effect) for action in rig.plan(FLEET).actions for effect in action.effects]
    assert all(isinstance(effect, ShowViews) for _, effect in effects)
    return {(name, effect.views) for name, effect in effects if isinstance(effect, ShowViews)}


def test_a_ve_is_born_seeing_itself(rig: Rig) -> None:
    assert rig.see("web1").views is Views.OWN
    assert rig.see("off").views is None


def test_an_end_of_lxcfs_is_mended_in_each_ve_that_runs(rig: Rig) -> None:
    rig.world.end_lxcfs()
    assert shown(rig) == {("web1", Views.OWN), ("web2", Views.OWN)}
    rig.converge(FLEET)
    assert rig.see("web2").views is Views.OWN


def test_where_there_can_be_none_ves_see_the_host_and_are_told_why(rig: Rig) -> None:
    rig.world.forbid_lxcfs("none today")
    assert shown(rig) == {("web1", Views.HOST), ("web2", Views.HOST)}
    rig.converge(FLEET)
    told = {name: unenforceable(FLEET.ves[VeName(name)], rig.machine.capabilities) for name in ("web1", "off")}
    assert told == {"web1": {PATH: "none today"}, "off": {}}
    rig.world.allow_lxcfs()
    assert shown(rig) == {("web1", Views.OWN), ("web2", Views.OWN)}


def mounted(*kinds: str) -> list[Mount]:
    return [
        Mount(
            mount_id=number,
            parent_id=number - 1,
            device="0:1",
            root="/",
            target="/proc/stat",
            options=(),
            fstype=kind,
            source="",
            super_options=(),
        )
        for number, kind in enumerate(kinds, start=10)
    ]


@pytest.mark.parametrize(
    ("kinds", "depth"),
    [((), 0), (("ours",), 1), (("theirs", "ours", "ours"), 2), (("theirs",), None), (("ours", "theirs"), None)],
)
def test_only_what_is_ours_and_on_top_is_replaced(kinds: tuple[str, ...], depth: int | None) -> None:
    assert stack_at(mounted(*kinds), "/proc/stat", "ours") == depth
