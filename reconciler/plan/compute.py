"""Compute: limits that are written into the cgroup while the VE runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.model.action import Impact
from reconciler.model.compute import ComputeObservation, ComputeSpec, CreateCgroup, Limit, LimitValue, SetLimit
from reconciler.model.identity import Uid
from reconciler.model.observation import Capabilities, Facet
from reconciler.model.volume import Record
from reconciler.plan.field import Difference, Field, Value

PAGE = 4096
"""The kernel counts memory in pages. Units: bytes; the size on every architecture that is supported."""

FIELDS = (
    Field(path="cpu.weight", facet=Facet.COMPUTE, impact=Impact.LIVE, default=100, effect="share under contention"),
    Field(path="cpu.limit", facet=Facet.COMPUTE, impact=Impact.LIVE, default=None, effect="hard limit"),
    Field(path="cpu.guarantee", facet=None, impact=Impact.NONE, default=0, effect="admission, weight"),
    Field(path="cpu.cpus", facet=Facet.COMPUTE, impact=Impact.LIVE, default=None, effect="pinning"),
    Field(path="cpu.nodes", facet=Facet.COMPUTE, impact=Impact.LIVE, default=None, effect="memory nodes"),
    Field(path="memory.limit", facet=Facet.COMPUTE, impact=Impact.LIVE, default=512 << 20, effect="hard limit"),
    Field(path="memory.barrier", facet=Facet.COMPUTE, impact=Impact.LIVE, default=None, effect="reclaim above"),
    Field(path="memory.guarantee", facet=Facet.COMPUTE, impact=Impact.LIVE, default=0, effect="kept from reclaim"),
    Field(path="memory.swap", facet=Facet.COMPUTE, impact=Impact.LIVE, default=0, effect="hard limit"),
    Field(path="processes", facet=Facet.COMPUTE, impact=Impact.LIVE, default=4096, effect="hard limit"),
    Field(path="io.weight", facet=Facet.COMPUTE, impact=Impact.LIVE, default=100, effect="share of a busy disk"),
    Field(path="io.read", facet=Facet.COMPUTE, impact=Impact.LIVE, default=None, effect="hard limit, each disk"),
    Field(path="io.write", facet=Facet.COMPUTE, impact=Impact.LIVE, default=None, effect="hard limit, each disk"),
    Field(path="io.readOps", facet=Facet.COMPUTE, impact=Impact.LIVE, default=None, effect="hard limit, each disk"),
    Field(path="io.writeOps", facet=Facet.COMPUTE, impact=Impact.LIVE, default=None, effect="hard limit, each disk"),
)


def limits(spec: ComputeSpec, cpu_weight: int | None = None) -> dict[Limit, LimitValue]:
    """Give the limits that a spec asks the kernel for, as the kernel can hold them: memory in whole pages.

    ``cpu_weight``: the one that is worth what is guaranteed beside the other VEs (`cpu_share`), if not the declared.
    What may be refused while it is in use comes last, so that it holds nothing else up.
    """
    return {
        Limit.CPU_WEIGHT: cpu_weight or spec.cpu_weight,
        Limit.CPU_LIMIT: spec.cpu_limit_us,
        Limit.CPUS: spec.cpus,
        Limit.NODES: spec.nodes,
        Limit.MEMORY_BARRIER: _whole_pages(spec.memory_barrier),
        Limit.MEMORY_GUARANTEE: _whole_pages(spec.memory_guarantee),
        Limit.PROCESSES: spec.processes,
        Limit.MEMORY_LIMIT: _whole_pages(spec.memory_limit),
        Limit.SWAP: _whole_pages(spec.swap),
        Limit.IO_WEIGHT: spec.io_weight,
        Limit.IO_READ: spec.io_read,
        Limit.IO_WRITE: spec.io_write,
        Limit.IO_READ_OPS: spec.io_read_ops,
        Limit.IO_WRITE_OPS: spec.io_write_ops,
    }


def _whole_pages(size: int | None) -> int | None:
    return None if size is None else size // PAGE * PAGE


_DEFAULTS = limits(ComputeSpec())


def enforceable_limits(
    spec: ComputeSpec, capabilities: Capabilities, cpu_weight: int | None = None
) -> dict[Limit, LimitValue]:
    """Give the limits that this host can hold; naming every CPU or node there is means all of them."""
    wanted = limits(spec, cpu_weight)
    for limit, everything in _everything(capabilities).items():
        if wanted[limit] == everything:
            wanted[limit] = None
    if capabilities.cgroup != "v2" and wanted[Limit.MEMORY_LIMIT] is None:
        del wanted[Limit.SWAP]  # cgroup v1 limits the sum of memory and swap, which has no limit then
    return {limit: value for limit, value in wanted.items() if limit in capabilities.enforceable}


def _everything(capabilities: Capabilities) -> dict[Limit, frozenset[int]]:
    return {Limit.CPUS: capabilities.cpus, Limit.NODES: capabilities.nodes}


def unenforceable(spec: ComputeSpec, capabilities: Capabilities) -> dict[str, str]:
    """Name the limits that were asked for and that this host cannot hold, with the reason by path."""
    if len(capabilities.enforceable) == len(Limit):
        return {}
    asked = limits(spec)
    return {
        limit.value: capabilities.why_not.get(limit, "not in this kernel")
        for limit, default in _DEFAULTS.items()
        if limit not in capabilities.enforceable and asked[limit] != default
    }


def missing(spec: ComputeSpec, capabilities: Capabilities) -> Iterator[str]:
    """Say which CPUs and memory nodes are asked for and not there."""
    for path, wanted, there in (
        ("cpu.cpus", spec.cpus, capabilities.cpus),
        ("cpu.nodes", spec.nodes, capabilities.nodes),
    ):
        if there and wanted is not None and not wanted <= there:
            yield f"{path}: this host has {_shown(there)} and not {_shown(wanted - there)}"


def _shown(numbers: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def desired_values(spec: ComputeSpec, capabilities: Capabilities, cpu_weight: int | None = None) -> dict[str, Value]:
    """Give what the cgroup should hold, by path."""
    return {limit.value: value for limit, value in enforceable_limits(spec, capabilities, cpu_weight).items()}


def recorded_as(path: str) -> tuple[str, ...]:
    """Name the paths of the record on which a limit rests: v1 sums memory and swap.

    What a guarantee makes of a weight is no manifest's wish: it depends on the CPUs of the host and on its other VEs.
    """
    return (path, *_RESTS_ON.get(path, ()))


_RESTS_ON = {Limit.SWAP.value: (Limit.MEMORY_LIMIT.value,)}


def recorded_weight(spec: ComputeSpec, cpu_weight: int) -> int | None:
    """Give what the record keeps of a weight: nothing, where it is the declared one."""
    return None if cpu_weight == spec.cpu_weight else cpu_weight


def follows_from_others(difference: Difference, record: Record) -> bool:
    """Say whether a weight differs because another VE's guarantee now asks for it, and not because somebody set it."""
    if difference.path != Limit.CPU_WEIGHT:
        return False
    carried_out = record.applied.get(difference.path) if record.cpu_weight is None else record.cpu_weight
    return carried_out != difference.desired


def record_values(spec: ComputeSpec) -> dict[str, Value]:
    """Give what is kept in the record only."""
    return {"cpu.guarantee": spec.cpu_guarantee_us}


def observed_values(observed: ComputeObservation) -> dict[str, Value]:
    """Give what the cgroup holds, by path."""
    return {limit.value: value for limit, value in observed.limits.items()}


def compared_values(observed: ComputeObservation, capabilities: Capabilities) -> dict[str, Value]:
    """Give what the cgroup holds as it is compared: on cgroup v1 no limit shows as every CPU or node there is."""
    everything = {limit.value: numbers for limit, numbers in _everything(capabilities).items()}
    return {path: None if value == everything.get(path) else value for path, value in observed_values(observed).items()}


def impact(difference: Difference, observed: ComputeObservation) -> Impact:
    """Judge a change: a memory or process limit under the present use may cost processes."""
    use = {"memory.limit": observed.use.memory, "processes": observed.use.processes}.get(difference.path)
    limit = difference.desired
    if isinstance(limit, int) and use is not None and limit < use:
        return Impact.LIVE_RISK
    return difference.field.impact


def is_shrinking(difference: Difference) -> bool:
    """Say whether a change gives less than there was; growth comes first in a plan."""
    desired, observed = difference.desired, difference.observed
    if isinstance(desired, int) and isinstance(observed, int):
        return desired < observed
    return observed is None and isinstance(desired, int)


def set_effects(uid: Uid, difference: Difference) -> tuple[SetLimit, ...]:
    """Carry out one difference."""
    value = difference.desired
    assert value is None or isinstance(value, int | frozenset)
    return (SetLimit(uid=uid, limit=Limit(difference.path), value=value),)


def boot_effects(
    uid: Uid, spec: ComputeSpec, capabilities: Capabilities, cpu_weight: int | None = None
) -> tuple[CreateCgroup, ...]:
    """Make the cgroup with all limits before anything runs in it."""
    wanted: Mapping[Limit, LimitValue] = enforceable_limits(spec, capabilities, cpu_weight)
    return (CreateCgroup(uid=uid, limits=wanted),)
