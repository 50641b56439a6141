"""Counters: what bounds each resource, and what holds it there."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.model.compute import Limit, LimitValue
from reconciler.model.counters import Bound, Enforcement, Resource
from reconciler.model.facts import Json

_NOTHING: Mapping[str, Json] = {}


def bounds(applied: Mapping[str, Json], limits: Mapping[Limit, LimitValue]) -> dict[Resource, Bound]:
    """Give barrier and limit of every resource that has one.

    ``applied``: the fields that were carried out last, by path; ``limits``: what the cgroup holds.
    """
    found = {resource: _declared(resource, applied) for resource in Resource}
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


def _declared(resource: Resource, applied: Mapping[str, Json]) -> Bound:
    barrier, limit = (_number(applied.get(f"beancounters.{resource.value}.{edge}")) for edge in ("barrier", "limit"))
    return Bound(barrier=barrier, limit=limit)


def _enforced(is_so: bool) -> Enforcement:
    return Enforcement.ENFORCED if is_so else Enforcement.OBSERVED


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
