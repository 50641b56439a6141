"""The random sequences of the contract: deterministic, lively, and rich enough to prove something."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from reconciler.model.effects import EFFECT_TYPES, Effect, effect_name
from reconciler.model.facts import Unknown
from reconciler.model.identity import NetworkName
from reconciler.model.observation import Capabilities, HostObservation
from reconciler.model.power import StopRuntime
from reconciler.model.volume import RestoreVe, TrashEntry, TrashVe
from reconciler.twin.host import ALL_CAPABILITIES
from reconciler.twin.world import World
from tests.support import contract, effect_blind
from tests.support.effect_choices import Setting
from tests.support.effect_sequences import new_twin, outcomes, sequences
from tests.support.twins import SETTING, A, data, look, perform, running, twin_after

WITH_TAKEN = replace(SETTING, taken=NetworkName("taken"))
V1 = replace(
    SETTING,
    capabilities=Capabilities(
        cgroup="v1",
        enforceable=ALL_CAPABILITIES.enforceable - {limit for limit in ALL_CAPABILITIES.enforceable if "er" in limit},
        cpus=frozenset({0, 1}),
    ),
)


def drawn(setting: Setting, *, seed: int = 0, count: int = 100, length: int = 80) -> list[list[Effect]]:
    return list(sequences(setting, seed=seed, count=count, length=length))


def test_equal_seeds_give_equal_sequences_and_others_do_not() -> None:
    assert drawn(SETTING, count=5) == drawn(SETTING, count=5)
    assert drawn(SETTING, count=5) != drawn(SETTING, seed=1, count=5)


def test_every_effect_occurs_where_it_must_succeed_and_where_it_must_fail() -> None:
    done: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for effects in drawn(WITH_TAKEN, count=200):
        for effect, error in outcomes(WITH_TAKEN, effects):
            (done if error is None else failed)[effect_name(effect)] += 1
    names = {kind.__name__ for kind in EFFECT_TYPES if kind not in effect_blind.NOT_DRAWN}
    assert names == {name for name, times in done.items() if times >= 3}
    assert names == {name for name, times in failed.items() if times >= 3}


def test_most_sequences_boot_a_ve_connect_it_and_many_throw_one_away() -> None:
    lives: Counter[str] = Counter()
    for effects in drawn(SETTING):
        done = {effect_name(effect) for effect, error in outcomes(SETTING, effects) if error is None}
        lives.update(done)
    assert lives["StartRuntime"] > 80
    assert lives["AttachInterface"] > 50
    assert lives["StopRuntime"] > 30
    assert lives["TrashVe"] > 50


def test_sequences_exist_for_a_host_that_cannot_enforce_everything() -> None:
    assert all(len(effects) == 40 for effects in drawn(V1, count=10, length=40))


@pytest.mark.parametrize("setting", [SETTING, WITH_TAKEN, V1], ids=["plain", "taken-name", "v1"])
def test_two_twins_never_disagree_and_can_be_cleared(setting: Setting) -> None:
    async def compare() -> None:
        kept = new_twin(setting)
        for effects in drawn(setting, count=20):
            disagreement = await contract.first_disagreement(new_twin(setting), kept, effects)
            assert disagreement is None, disagreement.what
            left = await contract.left_by_clearing(kept, new_twin(setting))
            assert left is None, left.what

    asyncio.run(compare())


def test_what_two_equal_hosts_need_not_share_makes_no_difference() -> None:
    one, other = twin_after(*running(A)), twin_after(*running(A))
    other.machine.next_pid += 99
    for twin in (one, other):
        perform(twin, StopRuntime(uid=A, timeout_s=1))
    perform(other, *data(A))
    World(other).set_use(A, disk=1)
    assert contract.normalise(look(one)) == contract.normalise(look(other))


def test_unknown_facts_are_equal_whatever_the_reason_but_never_equal_to_facts() -> None:
    one, other, third = (twin_after(*data(A)) for _ in range(3))
    World(one).damage_record(A)
    World(other).damage_record(A)
    other.machine.records[A] = Unknown("another reason")
    assert contract.normalise(look(one)) == contract.normalise(look(other))
    assert contract.normalise(look(one)) != contract.normalise(look(third))


def test_trash_ids_are_compared_and_translated_by_their_order() -> None:
    early, late = twin_after(*data(A), TrashVe(uid=A), *data(A)), twin_after(*data(A))
    perform(early, TrashVe(uid=A))
    late.machine.clock.advance(5)  # type: ignore[attr-defined]  # a twin's own clock can be turned
    perform(late, TrashVe(uid=A), *data(A), TrashVe(uid=A))
    assert contract.normalise(look(early)) == contract.normalise(look(late))
    real = [entry.id for entry in trash_of(look(late))]
    restore = RestoreVe(uid=A, trash_id=f"{A}.1")
    assert contract.with_real_trash_id(restore, look(late).trash) == replace(restore, trash_id=real[1])
    unknown = RestoreVe(uid=A, trash_id=f"{A}.7")
    assert contract.with_real_trash_id(unknown, look(late).trash) == unknown


def trash_of(seen: HostObservation) -> tuple[TrashEntry, ...]:
    assert not isinstance(seen.trash, Unknown)
    return seen.trash
