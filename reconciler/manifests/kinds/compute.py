"""Compute as manifests write it: CPU, memory, and the limits that come from beancounters."""

from __future__ import annotations

from pydantic import Field

from reconciler.manifests.fields import CountLimit, CpuLimit, Cpus, NumberSet, Size, SizeLimit
from reconciler.manifests.kinds.base import Section, shared
from reconciler.model import compute

_DEFAULT = compute.ComputeSpec()


class Cpu(Section):
    """CPU time and the CPUs it is spent on."""

    weight: int = Field(
        _DEFAULT.cpu_weight,
        ge=1,
        le=10000,
        description="Share of the CPU time when it is scarce, in relation to the weights of the other VEs.",
    )
    limit: CpuLimit = Field(
        _DEFAULT.cpu_limit_us, description="Most CPU time, in CPUs: 1.5 is one and a half CPUs. At least 0.01."
    )
    guarantee: Cpus = Field(
        _DEFAULT.cpu_guarantee_us,
        description="CPU time that is there whatever the other VEs do, in CPUs; counted when VEs are admitted.",
    )
    cpus: NumberSet | None = Field(
        _DEFAULT.cpus, description='Numbers of the CPUs it may run on, such as "0-1,3". All, if left out.'
    )
    nodes: NumberSet | None = Field(
        _DEFAULT.nodes, description='Numbers of the memory nodes it may use, such as "0". All, if left out.'
    )


class Memory(Section):
    """Memory and swap. Sizes are counted in whole pages of 4 KiB."""

    limit: SizeLimit = Field(
        _DEFAULT.memory_limit, description="Most memory, in bytes. Beyond it the kernel ends processes of the VE."
    )
    barrier: SizeLimit = Field(
        _DEFAULT.memory_barrier,
        description="Memory, in bytes, beyond which the VE is slowed down and its memory is reclaimed.",
    )
    guarantee: Size = Field(
        _DEFAULT.memory_guarantee,
        description="Memory, in bytes, that is not reclaimed for others; counted when VEs are admitted.",
    )
    swap: SizeLimit = Field(_DEFAULT.swap, description="Most swap space beside the memory, in bytes.")


class CountBeancounter(Section):
    """A counter of things."""

    barrier: CountLimit = Field(None, description="Number from which on the counter is told as exceeded.")
    limit: CountLimit = Field(None, description="Most of it.")


class SizeBeancounter(Section):
    """A counter of bytes."""

    barrier: SizeLimit = Field(None, description="Size, in bytes, from which on the counter is told as exceeded.")
    limit: SizeLimit = Field(None, description="Most of it, in bytes.")


def _count(what: str) -> CountBeancounter:
    counter: CountBeancounter = Field(default_factory=shared(CountBeancounter), description=f"{what}, a number.")
    return counter


def _bytes(what: str) -> SizeBeancounter:
    counter: SizeBeancounter = Field(default_factory=shared(SizeBeancounter), description=f"{what}, in bytes.")
    return counter


class Beancounters(Section):
    """OpenVZ's user beancounters that no other field stands for; enforced where the kernel can, else watched.

    ``numproc`` is `processes`, ``physpages`` is `memory.limit`, ``vmguarpages`` is `memory.guarantee`, ``swappages``
    is `memory.swap`. What OpenVZ counts in pages is in bytes here.
    """

    kmemsize: SizeBeancounter = _bytes("Kernel memory")
    lockedpages: SizeBeancounter = _bytes("Memory locked by mlock(2)")
    privvmpages: SizeBeancounter = _bytes("Private memory that was asked for, used or not")
    shmpages: SizeBeancounter = _bytes("Shared memory")
    oomguarpages: SizeBeancounter = _bytes("Memory within which no process is ended when the host runs out")
    numtcpsock: CountBeancounter = _count("TCP sockets")
    numflock: CountBeancounter = _count("File locks")
    numpty: CountBeancounter = _count("Pseudo terminals")
    numsiginfo: CountBeancounter = _count("Queued signals")
    tcpsndbuf: SizeBeancounter = _bytes("Send buffers of TCP sockets")
    tcprcvbuf: SizeBeancounter = _bytes("Receive buffers of TCP sockets")
    othersockbuf: SizeBeancounter = _bytes("Send buffers of other sockets")
    dgramrcvbuf: SizeBeancounter = _bytes("Receive buffers of datagram sockets")
    numothersock: CountBeancounter = _count("Sockets other than TCP")
    dcachesize: SizeBeancounter = _bytes("Cached directory entries and inodes that are in use")
    numfile: CountBeancounter = _count("Open files of all processes together")
    numiptent: CountBeancounter = _count("Packet filter rules")


class Rlimits(Section):
    """Resource limits of each process, soft and hard alike. See setrlimit(2). A change needs a restart."""

    address_space: SizeLimit | None = Field(None, alias="as", description="Address space of a process, in bytes.")
    core: SizeLimit | None = Field(None, description="Size of a core dump, in bytes.")
    cpu: CountLimit | None = Field(None, description="CPU time of a process, in seconds.")
    data: SizeLimit | None = Field(None, description="Data segment of a process, in bytes.")
    fsize: SizeLimit | None = Field(None, description="Size of a file that a process may write, in bytes.")
    locks: CountLimit | None = Field(None, description="Number of file locks of a process.")
    memlock: SizeLimit | None = Field(None, description="Memory that a process may lock, in bytes.")
    msgqueue: SizeLimit | None = Field(None, description="POSIX message queues of a user, in bytes.")
    nice: CountLimit | None = Field(None, description="Ceiling of a process's nice value: 20 minus the value.")
    nofile: CountLimit | None = Field(None, description="Number of open files of a process.")
    nproc: CountLimit | None = Field(None, description="Number of processes of a user.")
    rss: SizeLimit | None = Field(
        None, description="Resident memory of a process, in bytes; no effect since Linux 2.6."
    )
    rtprio: CountLimit | None = Field(None, description="Ceiling of a process's real-time priority.")
    rttime: CountLimit | None = Field(None, description="Real-time CPU time between blocking calls, in microseconds.")
    sigpending: CountLimit | None = Field(None, description="Number of queued signals of a user.")
    stack: SizeLimit | None = Field(None, description="Stack of a process, in bytes.")


class Ipc(Section):
    """Limits of System V and POSIX IPC in the VE. See sysvipc(7) and mq_overview(7)."""

    shmall: SizeLimit | None = Field(None, description="All shared memory segments together, in bytes.")
    shmmax: SizeLimit | None = Field(None, description="A single shared memory segment, in bytes.")
    shmmni: CountLimit | None = Field(None, description="Number of shared memory segments.")
    msgmax: Size | None = Field(None, description="A single message, in bytes.")
    msgmnb: Size | None = Field(None, description="All messages of a queue, in bytes.")
    msgmni: CountLimit | None = Field(None, description="Number of message queues.")
    semmsl: CountLimit | None = Field(None, description="Semaphores of a set.")
    semmni: CountLimit | None = Field(None, description="Number of semaphore sets.")
