"""Counters: what bounds each resource, and what holds it there."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.model.compute import Limit, LimitValue
from reconciler.model.counters import Bound, Enforcement, Resource
from reconciler.model.facts import Json

_HOLDS: Mapping[Resource, tuple[Enforcement, str]] = {
    Resource.NUMTCPSOCK: (Enforcement.ENFORCED, "BPF on the cgroup"),
    Resource.NUMOTHERSOCK: (Enforcement.ENFORCED, "BPF on the cgroup"),
    Resource.NUMPTY: (Enforcement.PARTLY, "devpts"),
    Resource.SHMPAGES: (Enforcement.PARTLY, "kernel.shmall"),
    Resource.TCPSNDBUF: (Enforcement.PARTLY, "tcp_wmem of each socket"),
    Resource.TCPRCVBUF: (Enforcement.PARTLY, "tcp_rmem of each socket"),
    Resource.LOCKEDPAGES: (Enforcement.PARTLY, "RLIMIT_MEMLOCK of each process"),
    Resource.NUMSIGINFO: (Enforcement.PARTLY, "RLIMIT_SIGPENDING of each user"),
}
"""What the kernel holds where a limit is declared; of all else somebody is told only."""


def bounds(
    applied: Mapping[str, Json], limits: Mapping[Limit, LimitValue], why_not: Mapping[str, str]
) -> dict[Resource, Bound]:
    """Give barrier and limit of every resource that has one.

    ``applied``: the fields that were carried out last, by path; ``limits``: what the cgroup holds; ``why_not``: the
    paths of what this host cannot hold.
    """
    found = {resource: _declared(resource, applied, why_not) for resource in Resource}
    guarantee = _number(limits.get(Limit.MEMORY_GUARANTEE))
    found[Resource.PHYSPAGES] = Bound(
        barrier=_number(limits.get(Limit.MEMORY_BARRIER)),
        limit=_number(limits.get(Limit.MEMORY_LIMIT)),
        enforcement=Enforcement.ENFORCED,
        by="memory cgroup",
    )
    found[Resource.SWAPPAGES] = Bound(
        limit=_number(limits.get(Limit.SWAP)), enforcement=_enforced(Limit.SWAP in limits), by="memory cgroup"
    )
    found[Resource.NUMPROC] = Bound(
        limit=_number(limits.get(Limit.PROCESSES)), enforcement=Enforcement.ENFORCED, by="pids cgroup"
    )
    found[Resource.VMGUARPAGES] = Bound(
        barrier=guarantee if guarantee is not None else _number(applied.get("memory.guarantee")),
        enforcement=_enforced(guarantee is not None),
        by="memory cgroup" if guarantee is not None else "",
    )
    return found


def _declared(resource: Resource, applied: Mapping[str, Json], why_not: Mapping[str, str]) -> Bound:
    path = f"beancounters.{resource.value}"
    barrier, limit = _number(applied.get(f"{path}.barrier")), _number(applied.get(f"{path}.limit"))
    if resource is Resource.SHMPAGES and limit is None:
        limit = _number(applied.get("ipc.shmall"))
    if limit is None or resource not in _HOLDS or f"{path}.limit" in why_not:
        return Bound(barrier=barrier, limit=limit)
    enforcement, by = _HOLDS[resource]
    return Bound(barrier=barrier, limit=limit, enforcement=enforcement, by=by)


def _enforced(is_so: bool) -> Enforcement:
    return Enforcement.ENFORCED if is_so else Enforcement.OBSERVED


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
