"""Compute: CPU, memory and processes, as the cgroup of a VE holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from reconciler.model.identity import Uid

CPU_PERIOD_US = 100_000
"""CPU time is counted as microseconds per period of this length.

Source: Linux Documentation/admin-guide/cgroup-v2.rst, "cpu.max" (its default period).
"""

CPU_PROMISED_MOST_US = CPU_PERIOD_US * 9 // 10
"""What of a CPU can be guaranteed to VEs: the host's own work has the same kind of weights, and they end somewhere.

Units: microseconds per `CPU_PERIOD_US`.
"""

LimitValue: TypeAlias = "int | frozenset[int] | None"
"""A number, a set of CPU or node numbers, or None for unlimited."""


class Limit(StrEnum):
    """A limit by the path of its field in the manifest."""

    __hash__ = str.__hash__  # an enum's own is a function of Python's, and every look hashes thousands

    CPU_WEIGHT = "cpu.weight"
    CPU_LIMIT = "cpu.limit"
    CPUS = "cpu.cpus"
    NODES = "cpu.nodes"
    MEMORY_LIMIT = "memory.limit"
    MEMORY_BARRIER = "memory.barrier"
    MEMORY_GUARANTEE = "memory.guarantee"
    SWAP = "memory.swap"
    PROCESSES = "processes"
    IO_WEIGHT = "io.weight"
    IO_READ = "io.read"
    IO_WRITE = "io.write"
    IO_READ_OPS = "io.readOps"
    IO_WRITE_OPS = "io.writeOps"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeSpec:
    """Units: CPU weight 1..10000; CPU time in microseconds per `CPU_PERIOD_US`; memory in bytes; I/O weight 1..1000,
    I/O in bytes or operations per second on each disk of the pool; None is unlimited.

    ``cpu_guarantee_us`` is admission and weight, no kernel file of its own. ``cpus`` and ``nodes`` None: all.
    """

    cpu_weight: int = 100
    cpu_limit_us: int | None = None
    cpu_guarantee_us: int = 0
    cpus: frozenset[int] | None = None
    nodes: frozenset[int] | None = None
    memory_limit: int | None = 512 << 20
    memory_barrier: int | None = None
    memory_guarantee: int = 0
    swap: int | None = 0
    processes: int | None = 4096
    io_weight: int = 100
    io_read: int | None = None
    io_write: int | None = None
    io_read_ops: int | None = None
    io_write_ops: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeUse:
    """What a VE uses now. Units: bytes; microseconds of CPU since the cgroup was made; tasks."""

    memory: int | None = None
    cpu_us: int | None = None
    processes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeObservation:
    """The limits read from the cgroup, in the units of `ComputeSpec`.

    A limit that this host cannot enforce is absent from ``limits``. ``use`` does not take part in comparisons: it
    changes all the time.
    """

    limits: Mapping[Limit, LimitValue]
    use: ComputeUse = field(default_factory=ComputeUse, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostComputeObservation:
    """What bounds all VEs of the instance together: its cgroup at the root, which is as the kernel makes one if none
    is there.

    ``limits``: its weight, and the memory that is kept for all VEs, where this host can hold them. ``rivals``: the sum
    of the weights of what is beside it; it takes no part in comparisons.
    Units: those of `ComputeSpec`.
    """

    limits: Mapping[Limit, LimitValue]
    rivals: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateCgroup:
    """Make the VE's cgroup with its limits, before anything runs in it."""

    uid: Uid
    limits: Mapping[Limit, LimitValue]
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLimit:
    """Write one limit of an existing cgroup and read it back.

    Units: those of `ComputeSpec`; None is unlimited.
    """

    uid: Uid
    limit: Limit
    value: LimitValue
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetInstanceLimit:
    """Write the weight or the memory guarantee of all VEs together, which is made if it is not there; read it back.

    Units: those of `ComputeSpec`.
    """

    limit: Limit
    value: int
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveCgroup:
    """Remove the VE's cgroup, which must be empty of processes."""

    uid: Uid
    serves: str = field(default="", compare=False)
