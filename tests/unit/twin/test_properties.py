"""Properties of all effects on the twin, over seeded random sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from reconciler.errors import VectlError
from reconciler.model.compute import RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.identity import Uid
from reconciler.model.network import (
    AddHostRoute,
    LoadFilter,
    RemoveAddress,
    RemoveGateway,
    RemoveHostRoute,
    RemoveInterface,
    RemoveNetwork,
    RemoveRoute,
)
from reconciler.model.observation import ALL_FACETS, EVERYTHING, HostObservation
from reconciler.model.power import DeleteRuntime, ForgetEnd
from reconciler.model.volume import PurgeTrash, RemoveTemplate, RestoreVe, TrashVe, WriteRecord
from reconciler.twin import host, volume
from reconciler.twin.machine import Machine
from tests.support.contract import with_real_trash_id
from tests.support.effect_choices import NIC
from tests.support.effect_sequences import new_twin, sequences
from tests.support.twins import SETTING

SEEDS = range(8)
REMOVALS = (
    RemoveTemplate,
    TrashVe,
    PurgeTrash,
    RemoveCgroup,
    DeleteRuntime,
    ForgetEnd,
    RemoveNetwork,
    RemoveGateway,
    RemoveInterface,
    RemoveAddress,
    RemoveRoute,
    RemoveHostRoute,
)


def look(machine: Machine) -> HostObservation:
    return host.observe(machine, EVERYTHING, ALL_FACETS)


def steps(seed: int) -> Iterator[tuple[Machine, Effect]]:
    """Yield a machine before each effect of some sequences; whoever iterates may not change it."""
    for effects in sequences(SETTING, seed=seed, count=12, length=80):
        machine = new_twin(SETTING).machine
        for drawn in effects:
            effect = with_real_trash_id(drawn, volume.observe_trash(machine))
            yield machine, effect
            succeeds(machine, effect)


def succeeds(machine: Machine, effect: Effect) -> bool:
    try:
        host.perform(machine, effect)
    except VectlError:
        return False
    return True


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_succeeds_succeeds_again_and_changes_nothing_more(seed: int) -> None:
    for machine, effect in steps(seed):
        twin = machine.copy()
        if succeeds(twin, effect):
            once = look(twin)
            assert succeeds(twin, effect), effect
            assert look(twin) == once, effect


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_fails_changes_nothing(seed: int) -> None:
    for machine, effect in steps(seed):
        twin = machine.copy()
        if not succeeds(twin, effect):
            assert look(twin) == look(machine), effect


@pytest.mark.parametrize("seed", SEEDS)
def test_a_removal_that_succeeds_leaves_nothing_to_remove(seed: int) -> None:
    for machine, effect in steps(seed):
        if isinstance(effect, REMOVALS):
            twin = machine.copy()
            if succeeds(twin, effect):
                assert succeeds(twin, effect)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_effect_on_one_ve_changes_what_is_seen_of_another(seed: int) -> None:
    for machine, effect in steps(seed):
        uid = ve_of(effect)
        if uid is None or isinstance(effect, AddHostRoute):  # an address leads to one link: the last one wins
            continue
        before, twin = look(machine).ves, machine.copy()
        succeeds(twin, effect)
        after = look(twin).ves
        others = (before.keys() | after.keys()) - {uid}
        assert all(before.get(other) == after.get(other) for other in others), effect


def ve_of(effect: Effect) -> Uid | None:
    if isinstance(effect, WriteRecord):
        return effect.record.uid
    uid: Uid | None = getattr(effect, "uid", None)
    return uid


@pytest.mark.parametrize("seed", SEEDS)
def test_no_effect_changes_the_machine_it_was_copied_from(seed: int) -> None:
    for machine, effect in steps(seed):
        before = repr(look(machine))
        succeeds(machine.copy(), effect)
        assert repr(look(machine)) == before, effect


@pytest.mark.parametrize("seed", SEEDS)
def test_the_data_of_a_ve_goes_only_where_it_is_meant_to_go(seed: int) -> None:
    for machine, effect in steps(seed):
        if isinstance(effect, PurgeTrash | RestoreVe | TrashVe):
            continue
        twin = machine.copy()
        succeeds(twin, effect)
        assert twin.trash == machine.trash, effect
        assert twin.volumes.keys() >= machine.volumes.keys(), effect


@pytest.mark.parametrize("seed", SEEDS)
def test_no_effect_makes_or_removes_a_foreign_link(seed: int) -> None:
    for machine, effect in steps(seed):
        machine.host_links.setdefault("eno1", "")
        twin = machine.copy()
        succeeds(twin, effect)
        assert twin.host_links.keys() ^ machine.host_links.keys() <= {NIC}, effect
        assert twin.host_links["eno1"] == machine.host_links["eno1"], effect


def test_loading_a_filter_leaves_everything_else() -> None:
    for machine, effect in steps(0):
        if isinstance(effect, LoadFilter):
            twin = machine.copy()
            succeeds(twin, effect)
            assert replace(look(twin), filter=look(machine).filter) == look(machine)
