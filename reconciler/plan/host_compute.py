"""What bounds all VEs of the instance together: its weight beside the rest of the host, and the memory kept for VEs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from reconciler.model.action import Action, Impact, Operation, Origin, Phase, Reason
from reconciler.model.compute import CPU_PERIOD_US, ComputeSpec, HostComputeObservation, Limit, SetInstanceLimit
from reconciler.model.facts import Json, Unknown
from reconciler.model.fleet import HostSpec
from reconciler.model.observation import Capabilities, VeObservation
from reconciler.plan import cpu_share
from reconciler.plan.compute import PAGE

TARGET = "host/cgroup"

_MOST_SHARES = 262_144 * cpu_share.DEFAULT_WEIGHT // 1024
"""cgroup v1's MAX_SHARES as a weight; the instance's own is no VE's, so more than `cpu_share.MAX_WEIGHT` is legal."""


def as_applied(ves: Iterable[VeObservation]) -> Iterator[ComputeSpec]:
    """Yield what VEs were guaranteed last, of those that were guaranteed something."""
    for seen in ves:
        applied = {} if isinstance(seen.record, Unknown) else seen.record.applied
        cpu, memory = _number(applied, "cpu.guarantee"), _number(applied, "memory.guarantee")
        if cpu or memory:
            yield ComputeSpec(cpu_guarantee_us=cpu, memory_guarantee=memory, cpus=_numbers(applied, "cpu.cpus"))


def _number(applied: Mapping[str, Json], path: str) -> int:
    value = applied.get(path)
    return value if isinstance(value, int) else 0


def _numbers(applied: Mapping[str, Json], path: str) -> frozenset[int] | None:
    value = applied.get(path)
    return frozenset(number for number in value if isinstance(number, int)) if isinstance(value, list) else None


def reserve_us(host: HostSpec | None, capabilities: Capabilities) -> int:
    """Give what a host keeps of each of its CPUs for itself. Units: microseconds per `CPU_PERIOD_US`."""
    return 0 if host is None else round(host.reserve_cpu * CPU_PERIOD_US) // max(1, len(capabilities.cpus))


def desired_limits(
    specs: Iterable[ComputeSpec], observed: HostComputeObservation, capabilities: Capabilities, reserve: int
) -> dict[Limit, int]:
    """Give what the instance's cgroup should hold for VEs of these specs, as far as this host can hold it.

    Units: ``reserve`` as of `reserve_us`.
    """
    promised = list(specs)
    wanted = {
        Limit.CPU_WEIGHT: _weight(promised, observed, capabilities, reserve),
        Limit.MEMORY_GUARANTEE: sum(spec.memory_guarantee // PAGE * PAGE for spec in promised),
    }
    return {limit: value for limit, value in wanted.items() if limit in capabilities.enforceable}


def _weight(
    specs: Iterable[ComputeSpec], observed: HostComputeObservation, capabilities: Capabilities, reserve: int
) -> int:
    """Weigh the instance against what is beside it.

    On cgroup v1 any process may be in the root itself, where each weighs as much as a cgroup: one that is busy on
    every CPU is reckoned with. On v2 nobody is there but the kernel's own threads.
    """
    promised = cpu_share.promised_us(specs, capabilities.cpus)
    if capabilities.cgroup == "v2":
        most = cpu_share.MAX_WEIGHT
        return cpu_share.instance_weight(promised, observed.rivals, highest=most, reserve_us=reserve)
    rivals = observed.rivals + cpu_share.DEFAULT_WEIGHT * len(capabilities.cpus)
    return cpu_share.instance_weight(promised, rivals, highest=_MOST_SHARES, reserve_us=reserve)


def plan_instance(
    specs: Iterable[ComputeSpec],
    before: Iterable[ComputeSpec],
    observed: HostComputeObservation,
    capabilities: Capabilities,
    *,
    reserve: int,
) -> Iterator[Action]:
    """Yield what makes the instance's cgroup right. ``before``: what all VEs on the host were guaranteed so far.

    What differs though it follows from that has drifted; the rest follows from the VEs, who have their own actions.
    """
    then = desired_limits(before, observed, capabilities, reserve)
    for limit, value in desired_limits(specs, observed, capabilities, reserve).items():
        seen = observed.limits.get(limit)
        if seen == value:
            continue
        drifted = then[limit] == value
        assert not isinstance(seen, frozenset)
        yield Action(
            ve=TARGET,
            uid=None,
            op=Operation.UPDATE,
            path=limit.value,
            before=seen,
            after=value,
            reason=Reason.DRIFTED if drifted else Reason.GUARANTEES_CHANGED,
            impact=Impact.LIVE,
            origin=Origin.DRIFT if drifted else Origin.POLICY,
            phase=Phase.HOST,
            effects=(SetInstanceLimit(limit=limit, value=value),),
        )
