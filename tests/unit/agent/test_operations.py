"""What a person asks for beside the manifests is done once, written down, and undone by nobody."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from reconciler.agent.operations import Operations
from reconciler.errors import CommandError, RefusedError, StateError
from reconciler.model.compute import CreateCgroup
from reconciler.model.fleet import Fleet
from reconciler.model.identity import VeName
from reconciler.model.power import CreateRuntime, EndCause
from tests.support.rig import SOURCE, Rig, fleet_of, run, scratch_state, ve
from tests.support.twins import perform

T = TypeVar("T")
A, B = VeName("a"), VeName("b")
BOTH = fleet_of(ve("a"), ve("b"))
SUSPENDED = fleet_of(ve("a", "power: suspended"), ve("b"), revision="asleep")
ONLY_B = fleet_of(ve("b"), revision="r2")


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        made = Rig(state=state)
        made.converge(BOTH)
        yield made


def ask(rig: Rig, what: Callable[[Operations], Coroutine[Any, Any, T]], fleet: Fleet = BOTH) -> T:
    return run(what(Operations(reconciler=rig.reconciler(fleet))))


def is_up(rig: Rig, name: str) -> bool:
    return rig.uid(name) in rig.machine.runtimes


def told(rig: Rig, name: str) -> list[str]:
    return [event.reason for event in rig.desk().events.read(ve=name)]


def test_a_stop_lasts_until_the_start(rig: Rig) -> None:
    ask(rig, lambda operations: operations.stop(A, by="me"))
    assert not is_up(rig, "a")
    assert rig.uid("a") not in rig.machine.cgroups
    assert run(rig.reconciler(BOTH).converge())[-1].plan.waiting == {A: "paused: stopped by hand"}
    assert not is_up(rig, "a")
    ask(rig, lambda operations: operations.start(A, by="me"))
    assert is_up(rig, "a")
    assert rig.plan(BOTH).waiting == {}
    assert {"Stopped", "Started"} <= set(told(rig, "a"))


def test_a_start_does_not_lift_a_pause_that_was_asked_for(rig: Rig) -> None:
    ask(rig, lambda operations: operations.pause(A, by="me", reason="under repair"))
    rig.world.end_init(rig.uid("a"), EndCause.KILLED)
    with pytest.raises(RefusedError, match=r"it is paused \(under repair\)"):
        ask(rig, lambda operations: operations.start(A, by="me"))
    assert not is_up(rig, "a")
    assert rig.plan(BOTH).waiting == {A: "paused: under repair"}


def test_a_start_answers_a_halt_from_inside(rig: Rig) -> None:
    rig.world.end_init(rig.uid("a"), EndCause.HALT)
    assert [refusal.rule for refusal in rig.plan(BOTH).refused] == ["HaltedInside"]
    ask(rig, lambda operations: operations.start(A, by="me"))
    assert is_up(rig, "a")


def test_a_restart_is_a_new_init(rig: Rig) -> None:
    before = rig.machine.runtimes[rig.uid("a")].pid
    ask(rig, lambda operations: operations.restart(A, by="me"))
    assert rig.machine.runtimes[rig.uid("a")].pid != before


@pytest.fixture
def asleep(rig: Rig) -> Rig:
    rig.converge(SUSPENDED)
    assert rig.uid("a") in rig.machine.memories
    return rig


def test_a_suspended_ve_is_not_stopped_by_losing_its_memory(asleep: Rig) -> None:
    with pytest.raises(RefusedError, match=r"it is suspended; `power: stopped` .* `vectl stop a --cold` gives up"):
        ask(asleep, lambda operations: operations.stop(A, by="me"), SUSPENDED)
    with pytest.raises(RefusedError, match=r"restart a: it is suspended; .* `vectl start a --cold` gives up"):
        ask(asleep, lambda operations: operations.restart(A, by="me"))
    assert asleep.uid("a") in asleep.machine.memories
    assert asleep.plan(SUSPENDED).waiting == {}


def test_a_cold_stop_gives_up_the_memory_and_tells_so(asleep: Rig) -> None:
    ask(asleep, lambda operations: operations.stop(A, by="me", cold=True), SUSPENDED)
    assert asleep.uid("a") not in asleep.machine.memories
    assert not is_up(asleep, "a")
    assert "MemoryDiscarded" in told(asleep, "a")


def test_a_cold_start_boots_without_the_memory(asleep: Rig) -> None:
    ask(asleep, lambda operations: operations.start(A, by="me", cold=True))
    assert not asleep.machine.runtimes[asleep.uid("a")].resumed
    assert asleep.machine.spent == ()
    assert "MemoryDiscarded" in told(asleep, "a")


def test_a_cold_start_clears_away_the_init_that_waits_to_take_up_the_memory(asleep: Rig) -> None:
    uid = asleep.uid("a")
    launch = asleep.machine.memories[uid].launch
    perform(asleep.twin, CreateCgroup(uid=uid, limits={}))
    perform(asleep.twin, CreateRuntime(uid=uid, name=A, hostname="a", launch=launch, resume=True))
    ask(asleep, lambda operations: operations.start(A, by="me", cold=True))
    assert not asleep.machine.runtimes[uid].resumed


def test_a_start_resumes_what_should_run(asleep: Rig) -> None:
    ask(asleep, lambda operations: operations.start(A, by="me"))
    assert asleep.machine.runtimes[asleep.uid("a")].resumed


def test_a_start_is_refused_where_the_manifest_suspends(asleep: Rig) -> None:
    with pytest.raises(RefusedError, match=r"its manifest says `power: suspended`"):
        ask(asleep, lambda operations: operations.start(A, by="me", cold=True), SUSPENDED)
    assert asleep.uid("a") in asleep.machine.memories


def test_a_failed_resume_is_the_answer_to_a_start(asleep: Rig) -> None:
    asleep.world.corrupt_memory(asleep.uid("a"))
    with pytest.raises(CommandError, match="its memory cannot be read"):
        ask(asleep, lambda operations: operations.start(A, by="me"))
    assert asleep.uid("a") in asleep.machine.memories


def test_a_cold_start_of_a_ve_that_runs_changes_nothing(rig: Rig) -> None:
    before = rig.machine.runtimes[rig.uid("a")]
    ask(rig, lambda operations: operations.start(A, by="me", cold=True))
    assert rig.machine.runtimes[rig.uid("a")] == before
    assert "MemoryDiscarded" not in told(rig, "a")


def test_a_ve_that_is_not_here_is_named_with_those_that_are(rig: Rig) -> None:
    with pytest.raises(StateError, match=r"find VE c: .* it has a, b"):
        ask(rig, lambda operations: operations.stop(VeName("c"), by="me"))


def test_a_pause_of_all_is_lifted_as_it_was_set(rig: Rig) -> None:
    ask(rig, lambda operations: operations.pause(None, by="me", reason="maintenance"))
    with pytest.raises(StateError, match="it is not paused"):
        ask(rig, lambda operations: operations.unpause(A, by="me"))
    ask(rig, lambda operations: operations.unpause(None, by="me"))
    with pytest.raises(StateError, match="unpause all"):
        ask(rig, lambda operations: operations.unpause(None, by="me"))


def test_protection_is_set_and_lifted_in_the_record(rig: Rig) -> None:
    ask(rig, lambda operations: operations.set_protection(A, protect=True, by="me"))
    assert rig.record("a").protect
    assert [refusal.rule for refusal in rig.plan(ONLY_B).refused] == ["Protected"]
    assert rig.plan(BOTH).actions == ()
    ask(rig, lambda operations: operations.set_protection(A, protect=False, by="me"))
    assert not rig.record("a").protect


def test_protection_that_the_manifest_would_undo_is_refused(rig: Rig) -> None:
    fleet = fleet_of(ve("a", "protect: true"), ve("b"))
    rig.converge(fleet)
    with pytest.raises(RefusedError, match="its manifest says `protect: true`"):
        ask(rig, lambda operations: operations.set_protection(A, protect=False, by="me"), fleet)


def test_what_is_forgotten_runs_on_and_is_nobodys(rig: Rig) -> None:
    ask(rig, lambda operations: operations.forget(A, by="me"), ONLY_B)
    assert is_up(rig, "a")
    assert rig.plan(ONLY_B).actions == ()
    assert rig.uid("a") not in rig.desk().inventory.read()


def test_what_a_manifest_names_cannot_be_forgotten(rig: Rig) -> None:
    with pytest.raises(RefusedError, match="a manifest names it"):
        ask(rig, lambda operations: operations.forget(A, by="me"))


def test_a_ve_restored_without_a_manifest_is_kept_from_being_removed_again(rig: Rig) -> None:
    uid = rig.uid("a")
    rig.converge(ONLY_B)
    [entry] = ask(rig, lambda operations: operations.trash(), ONLY_B)
    ask(rig, lambda operations: operations.restore(entry.id, by="me"), ONLY_B)
    assert rig.uid("a") == uid
    assert rig.plan(ONLY_B).actions == ()
    assert rig.desk().inventory.read().keys() == {uid, rig.uid("b")}
    assert rig.record("a").source == SOURCE


def test_an_entry_that_is_not_in_the_trash_is_not_restored(rig: Rig) -> None:
    with pytest.raises(StateError, match="the trash has no such entry"):
        ask(rig, lambda operations: operations.restore("x.1", by="me"))


def test_a_purge_is_for_good(rig: Rig) -> None:
    rig.converge(ONLY_B)
    [entry] = ask(rig, lambda operations: operations.trash(), ONLY_B)
    ask(rig, lambda operations: operations.purge(entry.id, by="me"), ONLY_B)
    assert rig.machine.trash == {}
    assert told(rig, "trash") == ["Purged"]
