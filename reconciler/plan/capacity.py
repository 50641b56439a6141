"""Capacity: who of a host's VEs may have what its manifest asks for, when it is not enough for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from reconciler.model.action import Refusal
from reconciler.model.capacity import (
    CLAIMING,
    NO_CLAIM,
    Applicant,
    Bounded,
    Claim,
    Resource,
    Shortage,
    Supply,
    admit,
    claim,
    is_more,
    least,
    lesser,
)
from reconciler.model.facts import Json
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import HostName, Uid, VeName
from reconciler.model.power import Power
from reconciler.model.volume import Record
from reconciler.plan import quota, snapshots

RULE = "NoCapacity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything that admission depends on. ``specs``: all of the host. ``records``: of all VEs that are on it.

    ``is_held_back``: whether a spec is not carried out for another reason.
    """

    host: HostName
    specs: Iterable[VeSpec]
    records: Mapping[Uid, Record]
    supply: Mapping[Resource, Supply]
    is_held_back: Callable[[VeSpec, Mapping[str, Json]], bool]


def refused(request: Request) -> dict[VeName, Refusal]:
    """Refuse the VEs that cannot have all that they ask for."""
    specs = tuple(request.specs)
    found = admit(_applicants(replace(request, specs=specs)), request.host, request.supply)
    by_name = {spec.name: spec for spec in specs}
    return {name: _refusal(by_name[name], shortage) for name, shortage in found.items()}


def _refusal(spec: VeSpec, shortage: Shortage) -> Refusal:
    remedy = f"lower {shortage.field} of one of them, or move one to another host"
    return Refusal(ve=spec.name, uid=spec.uid, rule=RULE, message=str(shortage), remedy=remedy)


def _applicants(request: Request) -> Iterator[Applicant]:
    here = Here(request.records)
    leaving = dict(request.records)
    for spec in request.specs:
        record = here.find(spec)
        applied = record.applied if record else {}
        held, wanted = (None if record is None else claimed(applied)), claim(spec)
        if record is not None:
            leaving.pop(record.uid, None)
        if held != wanted and request.is_held_back(spec, applied):
            if held is None:
                continue
            wanted = held
        yield Applicant(name=spec.name, order=spec.power.order, wanted=wanted, held=held)
    for record in leaving.values():
        held = claimed(record.applied)
        yield Applicant(name=VeName(f"{record.name} (leaving)"), order=0, wanted=held, held=held)


class Here:
    """The VEs that are on the host, to be found as `matching.match` does."""

    def __init__(self, records: Mapping[Uid, Record]) -> None:
        self._by_uid = records
        self._by_name: dict[VeName, Record] = {}
        for record in records.values():
            first = self._by_name.setdefault(record.name, record)
            if record.uid < first.uid:
                self._by_name[record.name] = record

    def find(self, spec: VeSpec) -> Record | None:
        """Find the VE that a spec speaks of."""
        if spec.uid is not None:
            return self._by_uid.get(spec.uid)
        found = self._by_name.get(spec.name)
        return found or (None if spec.renamed_from is None else self._by_name.get(spec.renamed_from))


def growing(specs: Iterable[VeSpec], records: Mapping[Uid, Record], bounded: Bounded) -> list[VeSpec]:
    """Give the VEs that ask for more than they have of what has an end. ``bounded``: as `capacity.bounded` gives it."""
    here = Here(records)
    return [spec for spec in specs if _grows(spec, here.find(spec), bounded)]


def _grows(spec: VeSpec, record: Record | None, bounded: Bounded) -> bool:
    wanted = claim(spec)
    asked = {key: amount for key in bounded if (amount := wanted.of(*key)) != 0}
    if not asked:
        return False
    held = NO_CLAIM if record is None else claimed(record.applied)
    return any(is_more(amount, held.of(*key)) for key, amount in asked.items())


def claimed(applied: Mapping[str, Json]) -> Claim:
    """Give what a VE was promised, by its record; nothing, if it was never complete."""
    if not applied:
        return NO_CLAIM
    disk = _disk(applied)
    allocated = disk or 0 if _is_image(applied) else 0
    if applied.get("power") not in CLAIMING:
        return Claim(disk_guarantee=allocated, disk_limit=disk)
    return Claim(
        memory_guarantee=_limit(applied, "memory.guarantee") or 0,
        memory_limit=_limit(applied, "memory.limit"),
        cpu_guarantee=_limit(applied, "cpu.guarantee") or 0,
        cpu_limit=_limit(applied, "cpu.limit"),
        disk_guarantee=allocated,
        disk_limit=disk,
    )


def _disk(applied: Mapping[str, Json]) -> int | None:
    """Give what the volume and its snapshots take of the pool, as `volume.pool_bytes` does of a spec."""
    size, share = _limit(applied, "disk.size"), _limit(applied, "disk.snapshots") or 0
    if size is None:
        return None
    return size + (max(share, size * snapshots.most(applied)) if _is_image(applied) else share)


def _is_image(applied: Mapping[str, Json]) -> bool:
    return any(value is not None and quota.is_of_quota(path) for path, value in applied.items())


def _limit(applied: Mapping[str, Json], path: str) -> int | None:
    value = applied.get(path)
    return value if isinstance(value, int) else None


def held_to(spec: VeSpec, applied: Mapping[str, Json]) -> VeSpec:
    """Give a spec without what it asks for beyond what its VE has by now; the rest of it is carried out."""
    held = claimed(applied)
    allowed = least(held, claim(spec))
    volume = replace(
        spec.volume,
        size=lesser(spec.volume.size, _limit(applied, "disk.size")),
        snapshots=_fewer(spec.volume.snapshots, _limit(applied, "disk.snapshots")),
    )
    if volume.is_image:
        spec = replace(spec, snapshots=snapshots.held_to(spec.snapshots, applied))
    if applied.get("power") not in CLAIMING:
        return replace(spec, volume=volume, power=replace(spec.power, state=Power.STOPPED))
    if spec.power.state not in CLAIMING:
        return replace(spec, volume=volume)
    compute = replace(
        spec.compute,
        memory_guarantee=allowed.memory_guarantee,
        memory_limit=allowed.memory_limit,
        cpu_guarantee_us=allowed.cpu_guarantee,
        cpu_limit_us=allowed.cpu_limit,
    )
    return replace(spec, volume=volume, compute=compute)


def _fewer(wanted: int | None, held: int | None) -> int | None:
    """Give the share of snapshots that claims less: one that nobody declared claims nothing."""
    return None if wanted is None or held is None else min(wanted, held)
