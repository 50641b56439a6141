"""Capacity: what VEs are promised of a host, what there is, and who gets in when it is not enough for all.

Guarantees are kept under any load, so their sum and the host's reserve never exceed the machine. Limits may be promised
several times over; their sum is bounded where the host declares by how much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from reconciler.model.compute import CPU_PERIOD_US, CPU_PROMISED_MOST_US
from reconciler.model.facts import Json
from reconciler.model.fleet import HostSpec, VeSpec
from reconciler.model.identity import HostName, VeName
from reconciler.model.observation import HostObservation, PoolObservation
from reconciler.model.power import Power
from reconciler.model.units import format_size
from reconciler.model.volume import pool_bytes

SHOWN_MAX = 6
"""Of the VEs that a shortage names; of more than that the others are counted."""


class Resource(StrEnum):
    """What a host has so much of and no more. Units: bytes; CPU time in microseconds per `CPU_PERIOD_US`."""

    MEMORY = "memory"
    CPU = "cpu"
    DISK = "disk"


class Kind(StrEnum):
    """How much is promised: so much always, or so much at most."""

    GUARANTEE = "guarantee"
    LIMIT = "limit"


FIELDS: Mapping[tuple[Resource, Kind], str] = {
    (Resource.MEMORY, Kind.GUARANTEE): "memory.guarantee",
    (Resource.MEMORY, Kind.LIMIT): "memory.limit",
    (Resource.CPU, Kind.GUARANTEE): "cpu.guarantee",
    (Resource.CPU, Kind.LIMIT): "cpu.limit",
    (Resource.DISK, Kind.GUARANTEE): "disk.size",
    (Resource.DISK, Kind.LIMIT): "disk.size",
}
"""The field of a VE that asks for it, by its path in the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one VE is promised. A limit of None is all that the host has. One that does not run claims disk alone."""

    memory_guarantee: int = 0
    memory_limit: int | None = 0
    cpu_guarantee: int = 0
    cpu_limit: int | None = 0
    disk_guarantee: int = 0
    disk_limit: int | None = 0

    def of(self, resource: Resource, kind: Kind) -> int | None:
        """Give how much of a resource it is promised; None for all."""
        match resource, kind:
            case Resource.MEMORY, Kind.GUARANTEE:
                return self.memory_guarantee
            case Resource.MEMORY, _:
                return self.memory_limit
            case Resource.CPU, Kind.GUARANTEE:
                return self.cpu_guarantee
            case Resource.CPU, _:
                return self.cpu_limit
            case Resource.DISK, Kind.GUARANTEE:
                return self.disk_guarantee
            case _:
                return self.disk_limit


NO_CLAIM = Claim()

CLAIMING = frozenset({Power.RUNNING, Power.SUSPENDED})
"""Who claims memory and CPUs: a suspended VE may be resumed at any moment, and then needs what it was promised."""


def claim(spec: VeSpec) -> Claim:
    """Give what a spec asks for. An image takes all of its place at once: its file system counts on every block, also
    on those that are written anew while a snapshot keeps them."""
    compute, disk = spec.compute, pool_bytes(spec.volume, snapshots=spec.snapshots.most)
    allocated = disk or 0 if spec.volume.is_image else 0
    if spec.power.state not in CLAIMING:
        return Claim(disk_guarantee=allocated, disk_limit=disk)
    return Claim(
        memory_guarantee=compute.memory_guarantee,
        memory_limit=compute.memory_limit,
        cpu_guarantee=compute.cpu_guarantee_us,
        cpu_limit=compute.cpu_limit_us,
        disk_guarantee=allocated,
        disk_limit=disk,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What a host has of a resource. ``machine`` None: not known; ``overcommit`` None: limits are not bounded.

    ``reserve``: what the host keeps for itself; of its CPUs a tenth at least.
    """

    machine: int | None = None
    reserve: int = 0
    overcommit: float | None = None

    def room(self, kind: Kind) -> int | None:
        """Give how much may be promised; None for any amount."""
        if self.machine is None or (kind is Kind.LIMIT and self.overcommit is None):
            return None
        free = max(0, self.machine - self.reserve)
        return free if kind is Kind.GUARANTEE or self.overcommit is None else int(free * self.overcommit)


def supplies(host: HostSpec | None, machine: Mapping[Resource, int]) -> dict[Resource, Supply]:
    """Give what a host has: what its manifest declares, but no more than the machine, as far as that is known."""
    declared = host or HostSpec(name=HostName(""))
    have = {resource: lesser(declared.capacity.get(resource), machine.get(resource)) for resource in Resource}
    never_promised = (have[Resource.CPU] or 0) * (CPU_PERIOD_US - CPU_PROMISED_MOST_US) // CPU_PERIOD_US
    reserve = {
        Resource.MEMORY: declared.reserve_memory,
        Resource.CPU: max(round(declared.reserve_cpu * CPU_PERIOD_US), never_promised),
        Resource.DISK: declared.reserve_disk,
    }
    return {
        resource: Supply(
            machine=have[resource], reserve=reserve[resource], overcommit=declared.overcommit.get(resource)
        )
        for resource in Resource
    }


Bounded: TypeAlias = "tuple[tuple[Resource, Kind], ...]"


def bounded(supply: Mapping[Resource, Supply]) -> Bounded:
    """Name what may not be promised without end."""
    return tuple((resource, kind) for resource in Resource for kind in Kind if supply[resource].room(kind) is not None)


def is_more(one: int | None, other: int | None) -> bool:
    """Say whether an amount is more than another; None is all that there is."""
    return other is not None and (one is None or one > other)


def lesser(*sizes: int | None) -> int | None:
    """Give the smallest size of those that have an end; None, if none has."""
    return min((size for size in sizes if size is not None), default=None)


def machine_of(observed: HostObservation) -> dict[Resource, int]:
    """Give what the machine was seen to have; what was not looked at is left out."""
    seen, pool = observed.capabilities, observed.pool
    sizes = {
        Resource.MEMORY: seen.memory,
        Resource.CPU: len(seen.cpus) * CPU_PERIOD_US,
        Resource.DISK: pool.size if isinstance(pool, PoolObservation) else 0,
    }
    return {resource: size for resource, size in sizes.items() if size}


def shortfalls(host: HostSpec | None, machine: Mapping[Resource, int]) -> Iterator[str]:
    """Say where a host's manifest declares more than its machine has."""
    if host is None:
        return
    for resource in Resource:
        declared, there = host.capacity.get(resource, 0), machine.get(resource)
        if there is not None and declared > there:
            has = amount_text(resource, there)
            yield f"{host.name} declares {amount_text(resource, declared)} of {resource} and has {has}, which counts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A VE that is promised something, and where that is written, for people."""

    name: str
    claim: Claim
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """More of a resource of ``host`` is asked for than may be promised. ``asked``: by whom how much, most first."""

    host: str
    resource: Resource
    kind: Kind
    supply: Supply
    asked: Sequence[tuple[Promise, int]]

    @property
    def field(self) -> str:
        """The path of the field to lower."""
        return FIELDS[self.resource, self.kind]

    def __str__(self) -> str:
        """Give the arithmetic in words, e.g. ``guarantees of memory 3Gi + reserve 1Gi > 2Gi of node-a: a 3Gi``."""
        total = sum(amount for _, amount in self.asked)
        have = self.supply
        assert have.machine is not None  # else nothing is short
        shown = [amount_text(self.resource, size) for size in (total, have.reserve, have.machine)]
        who = [
            f"{one.name} {amount_text(self.resource, amount)}{one.place and f' ({one.place})'}"
            for one, amount in self.asked[:SHOWN_MAX]
        ]
        more = len(self.asked) - SHOWN_MAX
        names = ", ".join([*who, *([f"and {more} more"] if more > 0 else [])])
        if self.kind is Kind.GUARANTEE:
            return f"guarantees of {self.resource} {shown[0]} + reserve {shown[1]} > {shown[2]} of {self.host}: {names}"
        bound = f"overcommit {have.overcommit:g} x ({shown[2]} - reserve {shown[1]})"
        return f"limits of {self.resource} {shown[0]} > {bound} of {self.host}: {names}"


def amount_text(resource: Resource, amount: int) -> str:
    """Give an amount as people read it."""
    if resource is not Resource.CPU:
        return format_size(amount)
    return f"{amount / CPU_PERIOD_US:g} {'CPU' if amount == CPU_PERIOD_US else 'CPUs'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """A VE that asks for something. ``held``: what it has, None if it is not here yet.

    ``order``: who comes first, after those that are here.
    """

    name: VeName
    order: int
    wanted: Claim
    held: Claim | None = None


class Books:
    """Adds up what is promised of one host."""

    def __init__(self, host: str, supply: Mapping[Resource, Supply]) -> None:
        self._host = host
        rooms = ((resource, kind, supply[resource].room(kind)) for resource, kind in bounded(supply))
        self._rooms = {(resource, kind): room for resource, kind, room in rooms if room is not None}
        self._supply = supply
        self._promises: dict[str, Promise] = {}
        self._totals = dict.fromkeys(self._rooms, 0)

    def promise(self, promise: Promise) -> None:
        """Write a promise down, in place of the one to the same VE before."""
        before = self._promises.get(promise.name)
        for resource, kind in self._rooms:
            old = self._size(before.claim, resource, kind) if before else 0
            self._totals[resource, kind] += self._size(promise.claim, resource, kind) - old
        self._promises[promise.name] = promise

    def shortages(self) -> Iterator[Shortage]:
        """Name what is promised beyond what there is."""
        for (resource, kind), total in self._totals.items():
            if total > self._rooms[resource, kind]:
                yield self._shortage(resource, kind, self._promises)

    def refuse(self, promise: Promise) -> Shortage | None:
        """Say why a VE cannot have more than it has by now; None, if it can, or if it wants no more."""
        short = self._short_of(promise)
        return None if short is None else self._shortage(*short, {**self._promises, promise.name: promise})

    def fits(self, promise: Promise) -> bool:
        """Say whether `refuse` would not, without saying why."""
        return self._short_of(promise) is None

    def fullness(self) -> float:
        """Give the share that is promised of what has an end, of whatever most is promised of; 1 is all."""
        return max((share(total, self._rooms[key]) for key, total in self._totals.items()), default=0.0)

    def _short_of(self, promise: Promise) -> tuple[Resource, Kind] | None:
        before = self._promises.get(promise.name)
        for (resource, kind), room in self._rooms.items():
            old = self._size(before.claim, resource, kind) if before else 0
            more = self._size(promise.claim, resource, kind) - old
            if more > 0 and self._totals[resource, kind] + more > room:
                return resource, kind
        return None

    def _size(self, asked: Claim, resource: Resource, kind: Kind) -> int:
        """Give a promise in numbers: nobody can use more than there is."""
        amount, machine = asked.of(resource, kind), self._supply[resource].machine
        assert machine is not None  # there is no room to count for otherwise
        if amount is None:
            return machine
        return amount if kind is Kind.GUARANTEE else min(amount, machine)

    def _shortage(self, resource: Resource, kind: Kind, promises: Mapping[str, Promise]) -> Shortage:
        sizes = [(one, self._size(one.claim, resource, kind)) for one in promises.values()]
        asked = sorted(((one, size) for one, size in sizes if size), key=lambda pair: (-pair[1], pair[0].name))
        have = self._supply[resource]
        return Shortage(host=self._host, resource=resource, kind=kind, supply=have, asked=tuple(asked))


def share(amount: int, room: int) -> float:
    """Give an amount as a share of what there is room for; of no room, anything is without end."""
    return amount / room if room else float("inf") if amount else 0.0


def admit(applicants: Iterable[Applicant], host: str, supply: Mapping[Resource, Supply]) -> dict[VeName, Shortage]:
    """Name those that cannot have what they ask for: who is here keeps what it has, and comes before newcomers.

    Shape: of one that is here and refused, what it gives back is given back, and the rest stays as it is.
    """
    asking = sorted(applicants, key=lambda one: (one.held is None, one.order, one.name))
    books = Books(host, supply)
    for one in asking:
        if one.held is not None:
            books.promise(Promise(name=one.name, claim=least(one.held, one.wanted)))
    short: dict[VeName, Shortage] = {}
    for one in asking:
        promise = Promise(name=one.name, claim=one.wanted)
        shortage = books.refuse(promise)
        if shortage is None:
            books.promise(promise)
        else:
            short[one.name] = shortage
    return short


def least(one: Claim, other: Claim) -> Claim:
    """Give the smaller of two claims, field by field."""
    return Claim(
        memory_guarantee=min(one.memory_guarantee, other.memory_guarantee),
        memory_limit=lesser(one.memory_limit, other.memory_limit),
        cpu_guarantee=min(one.cpu_guarantee, other.cpu_guarantee),
        cpu_limit=lesser(one.cpu_limit, other.cpu_limit),
        disk_guarantee=min(one.disk_guarantee, other.disk_guarantee),
        disk_limit=lesser(one.disk_limit, other.disk_limit),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What is promised and used of one resource. ``limits`` None: more than can be told, ``used`` None: not known."""

    resource: Resource
    supply: Supply
    guaranteed: int
    limits: int | None
    used: int | None = None

    def free(self, kind: Kind) -> int | None:
        """Give how much more may be promised, none of it where too much is; None for any amount."""
        room, promised = self.supply.room(kind), self.guaranteed if kind is Kind.GUARANTEE else self.limits
        return None if room is None or promised is None else max(0, room - promised)

    def to_json(self) -> dict[str, Json]:
        """Give the stable form of `vectl capacity -o json`. Units: bytes, or CPUs."""
        have = self.supply
        sizes = {
            "capacity": have.machine,
            "reserve": have.reserve,
            "guaranteed": self.guaranteed,
            "guaranteed_free": self.free(Kind.GUARANTEE),
            "limits": self.limits,
            "limits_free": self.free(Kind.LIMIT),
            "used": self.used,
        }
        shown = {name: self._in_units(size) for name, size in sizes.items()}
        return {"resource": self.resource.value, "overcommit": have.overcommit, **shown}

    def _in_units(self, size: int | None) -> Json:
        return size / CPU_PERIOD_US if size is not None and self.resource is Resource.CPU else size


def balances(
    claims: Iterable[Claim], supply: Mapping[Resource, Supply], used: Mapping[Resource, int]
) -> tuple[Balance, ...]:
    """Add up what is promised of each resource of a host."""
    promised = tuple(claims)
    return tuple(_balance(resource, promised, supply[resource], used.get(resource)) for resource in Resource)


def _balance(resource: Resource, claims: Sequence[Claim], supply: Supply, used: int | None) -> Balance:
    limits = [lesser(claim.of(resource, Kind.LIMIT), supply.machine) for claim in claims]
    return Balance(
        resource=resource,
        supply=supply,
        guaranteed=sum(claim.of(resource, Kind.GUARANTEE) or 0 for claim in claims),
        limits=None if None in limits else sum(limit or 0 for limit in limits),
        used=used,
    )
