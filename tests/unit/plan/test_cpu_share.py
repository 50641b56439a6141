"""CPU guarantees as weights: whoever is guaranteed something has the weight for it, and nobody else is touched."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.compute import CPU_PERIOD_US, ComputeSpec
from reconciler.plan.cpu_share import (
    DEFAULT_WEIGHT,
    MAX_WEIGHT,
    MOST_US,
    RIVALS,
    effective_weights,
    instance_weight,
    promised_us,
    share_us,
)

CPUS = frozenset(range(4))
Specs = dict[str, ComputeSpec]

_sets = st.none() | st.frozensets(st.sampled_from(sorted(CPUS)), min_size=1)
_specs = st.builds(
    ComputeSpec,
    cpu_weight=st.sampled_from([1, 7, 100, 1000, 10_000]),
    cpu_guarantee_us=st.sampled_from([0, 0, 1000, 25_000, 90_000, 150_000]),
    cpus=_sets,
)
fleets = st.lists(_specs, max_size=12).map(lambda specs: {str(number): spec for number, spec in enumerate(specs)})


def spec(guarantee: float = 0.0, *, weight: int = 100, cpus: set[int] | None = None) -> ComputeSpec:
    own = None if cpus is None else frozenset(cpus)
    return ComputeSpec(cpu_weight=weight, cpu_guarantee_us=round(guarantee * CPU_PERIOD_US), cpus=own)


def got(specs: Specs, weights: dict[str, int], name: str, cpus: frozenset[int], part: Fraction) -> Fraction:
    """Give the CPUs that a VE gets where all VEs together get a part of each CPU and all of them burn."""

    def density(other: str) -> Fraction:
        return Fraction(weights[other], len(specs[other].cpus or cpus))

    def total(cpu: int) -> Fraction:
        return sum((density(other) for other in specs if cpu in (specs[other].cpus or cpus)), Fraction(0))

    return sum((part * density(name) / total(cpu) for cpu in specs[name].cpus or cpus), Fraction(0))


@settings(deadline=None)
@given(fleets, st.sampled_from([0, 30_000, 200_000]))
def test_everybody_gets_what_he_is_guaranteed_while_everybody_burns(specs: Specs, reserve: int) -> None:
    weights = effective_weights(specs, CPUS, reserve_us=reserve)
    promised = promised_us(specs.values(), CPUS)
    part = Fraction(share_us(promised, reserve), CPU_PERIOD_US)
    shrunk = min(Fraction(1), Fraction(MOST_US, promised)) if promised else Fraction(1)
    for name, one in specs.items():
        if one.cpu_guarantee_us:
            guaranteed = Fraction(one.cpu_guarantee_us, CPU_PERIOD_US) * shrunk
            # A weight is a whole number of at least one, which counts where others have to shrink towards it.
            assert got(specs, weights, name, CPUS, part) >= guaranteed * Fraction(97, 100)


@settings(deadline=None)
@given(fleets)
def test_a_weight_is_legal_and_only_raised_unless_that_leads_too_high(specs: Specs) -> None:
    weights = effective_weights(specs, CPUS)
    assert weights.keys() == specs.keys()
    assert all(1 <= weight <= MAX_WEIGHT for weight in weights.values())
    if weights and max(weights.values()) < MAX_WEIGHT * 9 // 10:
        assert all(weights[name] >= one.cpu_weight for name, one in specs.items())
        assert all(weights[name] == one.cpu_weight for name, one in specs.items() if not one.cpu_guarantee_us)


@settings(deadline=None)
@given(fleets, st.randoms())
def test_the_order_of_manifests_does_not_matter(specs: Specs, random: st.DataObject) -> None:
    names = list(specs)
    random.shuffle(names)  # type: ignore[attr-defined]  # hypothesis' own Random
    assert effective_weights({name: specs[name] for name in names}, CPUS) == effective_weights(specs, CPUS)


def test_without_guarantees_the_declared_weights_stand() -> None:
    specs = {"a": spec(weight=1), "b": spec(weight=10_000)}
    assert effective_weights(specs, CPUS) == {"a": 1, "b": 10_000}


def test_a_guarantee_that_its_weight_is_worth_anyway_changes_nothing() -> None:
    specs = {"a": spec(0.5, weight=1000), "b": spec(), "c": spec()}
    assert effective_weights(specs, CPUS) == {"a": 1000, "b": 100, "c": 100}


def test_the_heaviest_neighbour_does_not_push_a_guarantee_aside() -> None:
    specs = {"a": spec(1.0, weight=1), "b": spec(weight=10_000)}
    weights = effective_weights(specs, CPUS)
    assert Fraction(weights["a"], sum(weights.values())) * Fraction(5, 2) >= 1
    assert weights["a"] < weights["b"] <= MAX_WEIGHT


def test_declared_weights_keep_their_proportions_when_all_have_to_shrink() -> None:
    specs = {"a": spec(3.0), "b": spec(weight=8000), "c": spec(weight=4000)}
    weights = effective_weights(specs, CPUS)
    assert weights["a"] > 9000
    assert weights["b"] == pytest.approx(2 * weights["c"], rel=0.01)


def test_those_who_share_no_cpu_do_not_raise_each_other() -> None:
    pinned = {"a": spec(0.8, cpus={0}), "b": spec(0.8, cpus={1})}
    assert effective_weights(pinned, CPUS) == {"a": 100, "b": 100}
    rivals = {**pinned, "c": spec(cpus={0}, weight=1000)}
    weights = effective_weights(rivals, CPUS)
    assert weights["a"] > 5000
    assert promised_us(pinned.values(), CPUS) == 80_000


def test_more_than_can_be_guaranteed_shrinks_everybody_alike() -> None:
    specs = {"a": spec(4.0), "b": spec(2.0), "c": spec()}
    weights = effective_weights(specs, CPUS)
    assert weights["a"] == pytest.approx(2 * weights["b"], rel=0.01)
    assert weights["b"] > 5 * weights["c"]


@pytest.mark.parametrize(
    ("promised", "rivals", "weight"),
    [
        (0, 0, DEFAULT_WEIGHT),
        (0, 100_000, DEFAULT_WEIGHT),
        (50_000, 0, 3 * RIVALS),
        (50_000, RIVALS, 3 * RIVALS),
        (50_000, RIVALS + 1, 6 * RIVALS),
        (90_000, RIVALS, 19 * RIVALS),
        (400_000, RIVALS, 19 * RIVALS),
        (90_000, 100_000, MAX_WEIGHT),
    ],
)
def test_all_ves_together_get_what_is_guaranteed_and_half_of_the_rest(promised: int, rivals: int, weight: int) -> None:
    assert instance_weight(promised, rivals, highest=MAX_WEIGHT) == weight


def test_a_host_keeps_what_it_reserves_unless_that_is_guaranteed() -> None:
    assert share_us(50_000, 10_000) == 75_000
    assert share_us(50_000, 40_000) == 60_000
    assert share_us(50_000, 60_000) == 55_000
    assert instance_weight(50_000, RIVALS, highest=MAX_WEIGHT, reserve_us=40_000) == RIVALS * 3 // 2
