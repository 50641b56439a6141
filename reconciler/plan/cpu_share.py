"""CPU guarantees as weights: which weight a VE needs beside the others, and all VEs beside the rest of the host.

The kernel knows weights only: under full contention a cgroup gets its part of the sum of all weights. So that every VE
gets at least what it is guaranteed, two things are seen to.

The instance as a whole gets its weight against everything else at the root (`instance_weight`): where the part U of
the CPUs is guaranteed, it gets the part S = (1 + U) / 2 of them, all that is guaranteed and half of the rest; or less,
if the host reserves more than that half for itself.

Of that, the VEs get their parts by weights of max(declared, m * guarantee), with the smallest m that is enough
(`effective_weights`): on each CPU, m * S has to be at least the sum of the weights there. That sum grows with m by U
at most, so there always is such an m while U < S. A VE is taken to spread evenly over the CPUs that it may
use, as it does when it has as many busy threads as CPUs. Who declares much keeps it; who is guaranteed nothing keeps
what he declared, in relation to his like, and only takes part in what is left.

All is counted in whole numbers, so that every host and every review comes to the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from reconciler.model.compute import CPU_PERIOD_US, CPU_PROMISED_MOST_US, ComputeSpec

MAX_WEIGHT = 10_000
"""Source: Linux include/linux/cgroup.h, CGROUP_WEIGHT_MAX."""

DEFAULT_WEIGHT = 100

MOST_US = CPU_PROMISED_MOST_US
"""Where more of a CPU is promised, all guarantees shrink alike."""

RIVALS = 4 * DEFAULT_WEIGHT
"""Weights beside the instance's that are always reckoned with: systemd's two slices and its init, and one more."""

_SCALINGS = 8

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Claim:
    """One VE on the CPUs that it may use. ``dense``: its weight times this is its weight on each of these CPUs."""

    declared: int
    guarantee_us: int
    dense: int


def effective_weights(
    specs: Mapping[_Key, ComputeSpec], cpus: frozenset[int], *, reserve_us: int = 0
) -> dict[_Key, int]:
    """Give the weights of VEs that share a host, by their keys: those declared, where nobody is guaranteed anything.

    ``cpus``: those of the host. Units: ``reserve_us`` as of `share_us`.
    """
    declared = {key: spec.cpu_weight for key, spec in specs.items()}
    if not cpus or not any(spec.cpu_guarantee_us for spec in specs.values()):
        return declared
    promised = promised_us(specs.values(), cpus)
    guarantees = {key: _fitting(spec.cpu_guarantee_us, promised) for key, spec in specs.items()}
    members = {key: _members(spec, cpus) for key, spec in specs.items()}
    for _ in range(_SCALINGS):
        weights = _raised(declared, guarantees, members, share=share_us(promised, reserve_us))
        highest = max(weights.values())
        if highest <= MAX_WEIGHT:
            return weights
        declared = {key: max(1, weight * MAX_WEIGHT // highest) for key, weight in declared.items()}
    return {key: min(weight, MAX_WEIGHT) for key, weight in weights.items()}


def promised_us(specs: Iterable[ComputeSpec], cpus: frozenset[int]) -> int:
    """Give what is guaranteed of the CPU of which most is guaranteed. Units: microseconds per `CPU_PERIOD_US`.

    It is more than `CPU_PERIOD_US` where more is promised than there is.
    """
    on_each = dict.fromkeys(cpus, 0)
    everywhere = 0
    for spec in specs:
        if not spec.cpu_guarantee_us:
            continue
        members = _members(spec, cpus)
        if members == cpus:
            everywhere += spec.cpu_guarantee_us
            continue
        for cpu in members:
            on_each[cpu] += -(-spec.cpu_guarantee_us // len(members))
    return max(on_each.values(), default=0) + -(-everywhere // max(1, len(cpus)))


def share_us(promised: int, reserve_us: int = 0) -> int:
    """Give what all VEs together get of each CPU under full contention.

    ``reserve_us``: what the host keeps of each CPU for itself; it never gets at what is guaranteed.
    Units: microseconds per `CPU_PERIOD_US`.
    """
    part = min(promised, MOST_US)
    rest = CPU_PERIOD_US - part
    return part + max(rest // 10, min(rest // 2, rest - reserve_us))


def instance_weight(promised: int, rivals: int, *, highest: int, reserve_us: int = 0) -> int:
    """Give the weight of all VEs together beside everything else, whose weights are ``rivals`` in sum.

    Where nothing is promised it is the default. The rivals are rounded up to a power of two times `RIVALS`, so that
    one that comes or goes seldom matters. Units: as of `promised_us` and `share_us`.
    """
    if not promised:
        return DEFAULT_WEIGHT
    reckoned = RIVALS
    while reckoned < rivals:
        reckoned *= 2
    share = share_us(promised, reserve_us)
    return min(highest, -(-reckoned * share // (CPU_PERIOD_US - share)))


def _members(spec: ComputeSpec, cpus: frozenset[int]) -> frozenset[int]:
    return cpus if spec.cpus is None else (spec.cpus & cpus) or cpus


def _fitting(guarantee_us: int, promised: int) -> int:
    return guarantee_us if promised <= MOST_US else guarantee_us * MOST_US // promised


def _raised(
    declared: Mapping[_Key, int],
    guarantees: Mapping[_Key, int],
    members: Mapping[_Key, frozenset[int]],
    *,
    share: int,
) -> dict[_Key, int]:
    """Raise the weights of those who are guaranteed something as far as it takes."""
    unit = math.lcm(*{len(own) for own in members.values()})
    claims = {key: _Claim(declared[key], guarantees[key], unit // len(own)) for key, own in members.items()}
    needs = [_multiplier(group, share * unit) for group in _groups(claims, members)]
    weight, per = max(needs, key=lambda need: need[0] / need[1])
    return {
        key: max(claim.declared, weight * claim.guarantee_us // per + 1) if claim.guarantee_us else claim.declared
        for key, claim in claims.items()
    }


def _groups(claims: Mapping[_Key, _Claim], members: Mapping[_Key, frozenset[int]]) -> list[list[_Claim]]:
    """Give, for all CPUs that are shared by the same VEs, the claims of these."""
    cpus: frozenset[int] = frozenset().union(*members.values())
    sets = set(members.values())
    kinds = {frozenset(own for own in sets if cpu in own) for cpu in cpus}
    return [[claim for key, claim in claims.items() if members[key] in kind] for kind in kinds]


def _multiplier(claims: list[_Claim], share: int) -> tuple[int, int]:
    """Give the smallest m, as a fraction, with m * share >= the sum of max(declared, m * guarantee + 1).

    Both sides are straight lines between the points where a guarantee begins to count, so from below it takes as many
    steps at most (Newton's method).
    """
    weight, per = 0, 1
    while True:
        fixed = slope = 0
        for claim in claims:
            if claim.guarantee_us and weight * claim.guarantee_us + per > claim.declared * per:
                fixed += claim.dense
                slope += claim.guarantee_us * claim.dense
            else:
                fixed += claim.declared * claim.dense
        now = (fixed, share - slope)
        if now[0] * per <= weight * now[1]:
            return weight, per
        weight, per = now
