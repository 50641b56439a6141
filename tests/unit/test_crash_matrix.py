"""Every scenario, cut short at every effect: a new process on the same host and the same state puts it right.

A process is killed before an effect, in the middle of it or after it; or an effect fails before it is done or after,
which nobody can tell apart. Promises: I1 convergence within three passes, I2 nothing more to do then, I3 nothing that
is not ours is touched, I4 no data is lost and no memory before it is spent, I5 no memory is spent twice, I7 nothing is
done that no plan says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from random import Random

import pytest

from reconciler.agent.reconciler import Reconciler, Result
from reconciler.apply.seam import FailpointEffects, parse_failpoints
from reconciler.model.condition import broken_invariants
from reconciler.model.effects import Effect, effect_name
from reconciler.model.identity import Uid
from reconciler.model.observation import ALL_FACETS, EVERYTHING
from reconciler.model.power import PowerObservation
from reconciler.model.seam import Effects
from reconciler.model.volume import WriteRecord
from reconciler.state.inventory import Entry, Inventory, Phase
from reconciler.state.layout import inventory_dir
from reconciler.twin import host
from reconciler.twin.host import crash
from reconciler.twin.machine import Machine
from reconciler.twin.world import World
from tests.support.memories import assert_memories_kept
from tests.support.rig import RecordingEffects, Rig, run, scratch_state
from tests.support.scenarios import NOT_OURS, SCENARIOS, STRANGER, Scenario
from tests.support.simulation import is_crash
from tests.support.stored import stored

MOMENTS = ("before", "middle", "after")
PAIRS_PER_SCENARIO = 12
PASSES = 3


class InterruptedEffects:
    """Dies in the middle of the effect of a number."""

    def __init__(self, inner: Effects, world: World, number: int) -> None:
        self._inner, self._world, self._number = inner, world, number

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect, unless it is the one."""
        self._number -= 1
        if self._number == -1 and not isinstance(effect, WriteRecord):  # that one is a rename: there is no middle
            self._world.interrupt(effect)
        if self._number < 0:
            crash()
        await self._inner.perform(effect)


class Matrix:
    """One scenario, with the host as it begins and as it ends if nothing goes wrong."""

    def __init__(self, scenario: Scenario, directory: Path) -> None:
        self.scenario, self._directory = scenario, directory
        self._numbers = count()
        self.start = Rig(state=directory / "start", capabilities=scenario.capabilities)
        scenario.prepare(self.start)
        undisturbed = self.begin()
        effects = RecordingEffects(undisturbed.twin)
        results = self.converge(undisturbed, effects)
        assert_done(results)
        self.effects = effects.performed
        self.end = compared(undisturbed)
        self.files = {uid: files_in_force(undisturbed, uid) for uid in undisturbed.machine.volumes}

    def begin(self) -> Rig:
        """Give a host where the scenario begins."""
        return self.start.copy(self._directory / str(next(self._numbers)))

    def converge(self, rig: Rig, effects: Effects | None = None) -> list[Result]:
        """Do what a process does that starts on a host."""

        async def start() -> list[Result]:
            reconciler = rig.reconciler(self.scenario.wanted(), effects)
            reconciler.desk.recover()
            if self.scenario.consent:
                await consent_to_all(reconciler)
            return await reconciler.converge(passes=PASSES)

        return run(start())

    def crash(self, rig: Rig, moment: str, number: int) -> bool:
        """Converge, and die at an effect; tells whether it came to that."""
        dying: Effects
        if moment == "middle":
            dying = InterruptedEffects(rig.twin, rig.world, number)
        else:
            points = parse_failpoints(f"*:{moment}={number}*off->kill")
            dying = FailpointEffects(rig.twin, points, random=Random(0), kill=crash)
        try:
            self.converge(rig, dying)
        except BaseException as err:
            if not is_crash(err):
                raise
            return True
        return False

    def recover(self, rig: Rig) -> None:
        """Let a new process find the host as it is now, and check every promise."""
        found = rig.machine.copy()
        assert_no_data_lost(self.start.machine, found)
        assert_memories_kept(self.start.machine, found)
        self.assert_whole(rig)
        recording = RecordingEffects(rig.twin)
        results = self.converge(rig, recording)
        assert_done(results)
        assert_truthful(results, recording.performed)
        assert compared(rig) == self.end
        assert_no_data_lost(self.start.machine, rig.machine)
        assert_memories_kept(found, rig.machine)
        assert_not_ours_untouched(self.start.machine, rig.machine)
        assert_books_agree(rig)
        self.assert_idle(rig)

    def assert_whole(self, rig: Rig) -> None:
        """The data in force is that of before or that of afterwards, and nothing between the two."""
        for uid in rig.machine.volumes:
            before, after = files_in_force(self.start, uid), self.files.get(uid, ())
            assert files_in_force(rig, uid) in (before, after)

    def assert_idle(self, rig: Rig) -> None:
        effects = RecordingEffects(rig.twin)
        [result] = self.converge(rig, effects)
        assert (result.plan.actions, effects.performed) == ((), [])


async def consent_to_all(reconciler: Reconciler) -> None:
    """Approve whatever the plan is now, as a person would who sees it."""
    _, plan = await reconciler.plan(await reconciler.look())
    now = reconciler.desk.clock.now()
    for hash_ in {plan.action_hash, *plan.ve_hashes.values()}:
        reconciler.desk.approvals.approve(hash_, by="somebody", now=now)


def assert_done(results: list[Result]) -> None:
    """I1: within three passes nothing is left to do, and nothing failed on the way."""
    problems = [str(outcome.error) for result in results for outcome in result.outcomes if outcome.error]
    assert problems == []
    assert results[-1].converged, results[-1].plan
    assert len(results) <= PASSES + 1


def assert_truthful(results: list[Result], performed: list[Effect]) -> None:
    """I7: what was performed is what the plans say."""
    planned = [effect for result in results for action in result.plan.actions for effect in action.effects]
    for effect in performed:
        planned.remove(effect)
    assert planned == []


def compared(rig: Rig) -> object:
    """Give what of a host does not change with every start of an init, and whether that goes on from a memory."""
    seen = host.observe(rig.machine, EVERYTHING, ALL_FACETS)
    ves = {
        uid: (ve.record, ve.compute, ve.volume, ve.network, power_of(ve.power), ve.snapshots, files_in_force(rig, uid))
        for uid, ve in seen.ves.items()
    }
    assert isinstance(seen.trash, tuple)
    trash = {entry.record.uid: entry.record for entry in seen.trash}
    resumed = {uid: runtime.resumed for uid, runtime in rig.machine.runtimes.items()}
    memories = {uid: (memory.launch, memory.volume) for uid, memory in rig.machine.memories.items()}
    return ves, seen.networks, seen.filter, trash, seen.templates, resumed, memories


def power_of(power: object) -> object:
    assert isinstance(power, PowerObservation)
    return power.state, power.launch, power.holdings, power.memory


def files_in_force(rig: Rig, uid: Uid) -> tuple[str, ...]:
    volume = rig.machine.volumes.get(uid)
    return volume.content if volume is not None else ()


def assert_no_data_lost(before: Machine, now: Machine) -> None:
    """I4: what a VE stored is in force, in a snapshot or in the trash, unless its time in the trash was over."""
    expired = {e.record.uid for e in before.trash.values() if before.clock.now() - e.trashed_at >= 7 * 86_400.0}
    here = stored(now)
    lost = {uid: data - here.get(uid, set()) for uid, data in stored(before).items() if uid not in expired}
    assert {uid: data for uid, data in lost.items() if data} == {}


def assert_not_ours_untouched(before: Machine, now: Machine) -> None:
    """I3: another source's VE and the links of the host are as they were; only a declared uplink may be a port."""
    for table in ("records", "volumes", "cgroups", "runtimes", "endings"):
        assert getattr(now, table).get(STRANGER) == getattr(before, table).get(STRANGER)
    assert now.host_links.keys() == before.host_links.keys()
    assert now.host_links["tw-foreign"] == ""
    assert set(NOT_OURS) == now.host_links.keys()


def assert_books_agree(rig: Rig) -> None:
    """Every VE that we made is in the inventory, and nothing else; nothing is under way."""
    entries = Inventory(inventory_dir(rig.instance)).read()
    ours = rig.machine.records.keys() - {STRANGER}
    assert {uid: isinstance(entry, Entry) and entry.phase for uid, entry in entries.items()} == dict.fromkeys(
        ours, Phase.PRESENT
    )
    assert rig.desk().journal.unfinished() == ()
    for subject, conditions in rig.desk().conditions.read_all().items():
        assert broken_invariants(conditions) == (), subject


@contextmanager
def matrix_of(scenario: Scenario) -> Iterator[Matrix]:
    with scratch_state() as directory:
        yield Matrix(scenario, directory)


every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


@every_scenario
def test_a_crash_at_any_effect_is_recovered_from(scenario: Scenario) -> None:
    with matrix_of(scenario) as matrix:
        assert matrix.effects
        for number in range(len(matrix.effects)):
            for moment in MOMENTS:
                rig = matrix.begin()
                assert matrix.crash(rig, moment, number), f"{moment} effect {number} nothing happened"
                with told(matrix, f"crash {moment}", number):
                    matrix.recover(rig)


@every_scenario
def test_a_failure_of_any_effect_is_recovered_from(scenario: Scenario) -> None:
    """An error after the effect is the ambiguous one: it was done, and nobody said so."""
    with matrix_of(scenario) as matrix:
        for number in range(len(matrix.effects)):
            for moment in ("before", "after"):
                rig = matrix.begin()
                points = parse_failpoints(f"*:{moment}={number}*off->1*error(EIO)")
                failing = FailpointEffects(rig.twin, points, random=Random(0), kill=crash)
                with told(matrix, f"error {moment}", number):
                    results = matrix.converge(rig, failing)
                    assert any(outcome.error for result in results for outcome in result.outcomes)
                    matrix.recover(rig)


@every_scenario
def test_a_crash_during_the_recovery_from_a_crash_is_recovered_from(scenario: Scenario) -> None:
    random = Random(scenario.name)
    with matrix_of(scenario) as matrix:
        for _ in range(PAIRS_PER_SCENARIO):
            first, second = random.randrange(len(matrix.effects)), random.randrange(len(matrix.effects))
            moments = random.choice(MOMENTS), random.choice(MOMENTS)
            rig = matrix.begin()
            matrix.crash(rig, moments[0], first)
            matrix.crash(rig, moments[1], second)
            with told(matrix, f"crash {moments[0]}", first, f" and {moments[1]} {second} of the recovery"):
                matrix.recover(rig)


@contextmanager
def told(matrix: Matrix, what: str, number: int, more: str = "") -> Iterator[None]:
    """Add to a failure where in the matrix it is."""
    try:
        yield
    except (AssertionError, BaseExceptionGroup) as err:
        name = effect_name(matrix.effects[number])
        raise AssertionError(f"{matrix.scenario.name}: {what} effect {number} ({name}){more}: {err}") from err
