"""A removal is carried out only on positive evidence, and never many at once without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from reconciler.agent.operations import Operations
from reconciler.errors import StateError
from reconciler.model.action import Impact, Operation, Origin
from reconciler.model.identity import Allocation, Uid, VeName
from reconciler.model.observation import Facet
from reconciler.model.volume import PurgeTrash, RestoreVe
from reconciler.plan.actions import TRASH_KEEP_S
from reconciler.plan.prune import Stock
from reconciler.twin.clock import StoppedClock
from tests.support.rig import Rig, fleet_of, run, scratch_state, ve


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        yield Rig(state=state)


def clock_of(rig: Rig) -> StoppedClock:
    assert isinstance(rig.clock, StoppedClock)
    return rig.clock


@pytest.mark.parametrize(
    ("present", "removed", "count", "too_many"),
    [
        (1, 0, 1, False),
        (2, 0, 1, False),
        (2, 0, 2, True),
        (10, 0, 1, False),
        (10, 0, 2, True),
        (9, 1, 1, True),
        (20, 0, 2, False),
        (20, 0, 3, True),
        (18, 2, 1, True),
        (100, 0, 10, False),
        (100, 0, 11, True),
        (91, 9, 1, False),
        (90, 10, 1, True),
        (0, 5, 0, True),
    ],
)
def test_one_of_ten_may_go_within_a_day(present: int, removed: int, count: int, too_many: bool) -> None:
    assert Stock(present=present, removed=removed).loses_too_many(count) is too_many


def test_a_removal_ends_in_the_trash_and_leaves_nothing_running(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a"), ve("b")))
    uid = rig.uid("b")
    rig.world.set_use(uid, disk=777)
    rig.converge(fleet_of(ve("a"), revision="r2"))
    [entry] = rig.machine.trash.values()
    assert (entry.record.uid, entry.volume and entry.volume.used) == (uid, 777)
    assert uid not in {*rig.machine.records, *rig.machine.cgroups, *rig.machine.runtimes, *rig.machine.volumes}
    assert uid not in rig.desk().inventory.read()


def test_a_second_removal_within_a_day_asks(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a"), ve("b"), ve("c"), ve("d")))
    rig.converge(fleet_of(ve("a"), ve("b"), ve("c"), revision="r2"))
    plan = rig.plan(fleet_of(ve("a"), ve("b"), revision="r3"))
    assert [refusal.rule for refusal in plan.refused] == ["MassRemoval"]
    clock_of(rig).advance(86_401)
    assert rig.plan(fleet_of(ve("a"), ve("b"), revision="r3")).refused == ()


def test_a_revert_restores_the_data_by_name(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a"), ve("b")))
    uid = rig.uid("b")
    rig.world.set_use(uid, disk=777)
    rig.converge(fleet_of(ve("a"), revision="r2"))
    clock_of(rig).advance(3600)
    [action] = rig.plan(fleet_of(ve("a"), ve("b"), revision="r3")).actions
    assert (action.op, action.before, action.uid) == (Operation.RESTORE, {"trashedSecondsAgo": 3600}, uid)
    rig.converge(fleet_of(ve("a"), ve("b"), revision="r3"))
    assert (rig.uid("b"), rig.machine.volumes[uid].used, rig.machine.trash) == (uid, 777, {})
    assert uid in rig.machine.runtimes
    assert uid in rig.desk().inventory.read()


def test_what_was_restored_may_be_removed_again(rig: Rig) -> None:
    both, one = fleet_of(ve("a"), ve("b"), revision="r1"), fleet_of(ve("a"), revision="r2")
    for fleet in (both, one, both):
        rig.converge(fleet)
        clock_of(rig).advance(90_000)
    rig.converge(one)
    assert rig.names() == {VeName("a")}


def test_a_uid_brings_back_exactly_its_own_data(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a"), ve("b")))
    uid = rig.uid("b")
    rig.converge(fleet_of(ve("a"), revision="r2"))
    other = fleet_of(ve("a"), ve("b", metadata="uid: 00000000-0000-4000-8000-00000000000f"), revision="r3")
    assert [action.op for action in rig.plan(other).actions if action.path == ""] == [Operation.CREATE]
    same = fleet_of(ve("a"), ve("renamed", metadata=f"uid: {uid}"), revision="r3")
    assert [effect for action in rig.plan(same).actions for effect in action.effects] == [
        RestoreVe(uid=uid, trash_id=next(iter(rig.machine.trash)))
    ]


def test_of_two_entries_of_a_name_the_newer_one_comes_back(rig: Rig) -> None:
    for number in range(2):
        rig.converge(fleet_of(ve("a"), ve("b", metadata=f"uid: 00000000-0000-4000-8000-00000000000{number}")))
        rig.converge(fleet_of(ve("a"), revision="r2"))
        clock_of(rig).advance(90_000)
    [action] = rig.plan(fleet_of(ve("a"), ve("b"), revision="r3")).actions
    assert action.uid == "00000000-0000-4000-8000-000000000001"


def test_the_trash_lets_go_after_its_time_and_not_before(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a"), ve("b")))
    one = fleet_of(ve("a"), revision="r2")
    rig.converge(one)
    clock_of(rig).advance(TRASH_KEEP_S - 1)
    assert rig.plan(one).actions == ()
    clock_of(rig).advance(1)
    [action] = rig.plan(one).actions
    assert (action.impact, action.origin) == (Impact.DATA_LOSS, Origin.POLICY)
    assert [type(effect) for effect in action.effects] == [PurgeTrash]
    rig.converge(one)
    assert rig.machine.trash == {}


def test_nothing_is_purged_while_everything_is_paused(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a"), ve("b")))
    one = fleet_of(ve("a"), revision="r2")
    rig.converge(one)
    clock_of(rig).advance(TRASH_KEEP_S)
    run(_pause_all(rig))
    assert rig.plan(one).actions == ()


async def _pause_all(rig: Rig) -> None:
    operations = Operations(reconciler=rig.reconciler(fleet_of(ve("a"))))
    await operations.pause(None, by="me", reason="maintenance")


def test_a_new_ve_waits_while_the_trash_cannot_be_read(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a"), ve("b")))
    rig.converge(fleet_of(ve("a"), revision="r2"))
    rig.world.hide(Facet.VOLUME)
    plan = rig.plan(fleet_of(ve("a"), ve("b"), revision="r3"))
    assert plan.actions == ()
    assert any(str(fact).startswith("b: it may be in the trash") for fact in plan.unknown)


def test_a_ve_cannot_escape_its_removal_by_a_network_that_cannot_be_read(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a"), ve("b")))
    rig.world.hide(Facet.NETWORK, rig.uid("b"))
    rig.converge(fleet_of(ve("a"), revision="r2"))
    assert rig.names() == {"a"}


def test_a_ve_cannot_escape_its_limits_by_a_network_that_cannot_be_read(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a")))
    rig.world.hide(Facet.NETWORK, rig.uid("a"))
    plan = rig.plan(narrowed := fleet_of(ve("a", spec="processes: 99"), revision="r2"))
    assert [action.path for action in plan.actions] == ["processes"]
    assert [str(fact) for fact in plan.unknown] == ["a.network: input/output error"]
    changed, *_ = run(rig.reconciler(narrowed).converge())
    assert [outcome.error for outcome in changed.outcomes] == [None]
    rig.world.reveal()
    assert [action.path for action in rig.plan(narrowed).actions if action.effects] == ["record"]
    rig.converge(narrowed)
    assert rig.record("a").applied["processes"] == 99


def test_who_waits_for_certainty_gets_no_identity(rig: Rig) -> None:
    rig.converge(fleet_of(ve("a")))
    before = rig.desk().inventory.read()
    rig.world.hide_listing()
    rig.plan(fleet_of(ve("a"), ve("b"), revision="r2"))
    assert rig.desk().inventory.read() == before


def test_a_ve_without_an_identity_does_not_keep_others_from_theirs(rig: Rig) -> None:
    async def plan_two() -> tuple[str, ...]:
        reconciler = rig.reconciler(fleet_of(ve("a"), ve("b")))
        reconciler.desk = replace(reconciler.desk, coordinator=_Stingy())
        _, plan = await reconciler.plan(await reconciler.observe())
        assert {action.ve for action in plan.actions} == {"b"}
        return tuple(map(str, plan.unknown))

    assert run(plan_two()) == ("a: no range is left",)


class _Stingy:
    async def allocate(self, wanted: Mapping[VeName, Uid | None]) -> Mapping[VeName, Allocation | StateError]:
        one = Allocation(uid=Uid("00000000-0000-4000-8000-000000000001"), id_base=1 << 20)
        return {name: StateError("no range is left") if name == "a" else one for name in wanted}

    async def release(self, name: VeName) -> None:
        raise AssertionError(name)
