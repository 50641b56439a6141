"""Power: whether a VE's processes run, and what happens when its init ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.model.decode import Fields
from reconciler.model.facts import Json
from reconciler.model.identity import Uid, VeName
from reconciler.model.network import Interface
from reconciler.model.placement import Held

SUSPENSION = "power.suspended"
"""Under which a host says, among its capabilities, why it can neither suspend VEs nor resume them."""


class Power(StrEnum):
    """Desired power."""

    RUNNING = "running"
    STOPPED = "stopped"
    SUSPENDED = "suspended"


class RestartPolicy(StrEnum):
    """What to do when init ends without being asked to."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


class PowerState(StrEnum):
    """Observed power. `CREATED`: the namespaces exist but init was not released, the trace of a crash. `SUSPENDED`:
    nothing runs, and the memory is on disk."""

    STOPPED = "stopped"
    SUSPENDED = "suspended"
    CREATED = "created"
    RUNNING = "running"


class EndCause(StrEnum):
    """Why an init ended, as its parent saw it.

    Source: reboot(2), "Behavior inside PID namespaces": SIGHUP for a restart, SIGINT for a halt or power-off.
    """

    REBOOT = "reboot"
    HALT = "halt"
    KILLED = "killed"
    EXITED = "exited"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSpec:
    """Shape: ``stop_timeout_s`` in seconds; ``order`` ascending at boot; ``depends_on`` names of VEs."""

    state: Power = Power.RUNNING
    restart: RestartPolicy = RestartPolicy.ON_FAILURE
    stop_timeout_s: float = 30.0
    order: int = 0
    depends_on: tuple[VeName, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of an init. ``value``: exit status or signal number, None where nobody saw it."""

    cause: EndCause
    value: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything that is fixed when the runtime creates a VE; a change of it needs a restart.

    Units: ``id_base`` first id of the VE's range on the host; ``rlimits`` soft and hard by name.
    """

    id_base: int
    init: tuple[str, ...] = ("/sbin/init",)
    nesting: bool = False
    rlimits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryObservation:
    """The memory of a VE, whole, on disk. ``addresses``: those that its sockets may be bound to.

    Units: ``suspended_at`` seconds since the epoch; ``size`` bytes.
    """

    suspended_at: float = field(compare=False)
    size: int | None = field(default=None, compare=False)
    addresses: frozenset[Interface] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerObservation:
    """``pid`` and ``start_time`` (clock ticks since boot) name init while there is one.

    ``launch``: what the present runtime was made with, or that which was suspended. ``last_end``: the newest end of an
    init of this VE since the host booted, None if none was. ``stop_requested``: that end was our own doing.
    ``holdings``: pieces of the runtime (a runtime record) that exist without an init, to be cleaned before the next
    create. ``memory``: what a suspended VE goes on from. Beside `PowerState.CREATED` it is where that init comes from;
    beside `PowerState.RUNNING` it is of that very init, whose suspension was written down and not brought to its end.
    ``held``: it stands still on behalf of a move, beside `PowerState.RUNNING` to leave, beside `PowerState.CREATED`
    having arrived; nobody lets it go but whoever knows what has become of the move.
    """

    state: PowerState
    pid: int | None = None
    start_time: int | None = None
    started_at: float | None = None
    launch: Launch | None = None
    last_end: End | None = None
    stop_requested: bool = False
    holdings: tuple[str, ...] = ()
    memory: MemoryObservation | None = None
    held: Held | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRuntime:
    """Make the namespaces and the root file system, with init held back before its first instruction.

    ``resume``: from the memory of a suspended VE, with its processes held back where they were stopped.
    """

    uid: Uid
    name: VeName
    hostname: str
    launch: Launch
    resume: bool = False
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRuntime:
    """Let init of a created VE go; one that comes from memory takes up all its processes, and that memory is spent.

    ``closed``: all processes are made, and none takes a step until `OpenRuntime`; the memory is not spent before.
    """

    uid: Uid
    closed: bool = False
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRuntime:
    """Ask init to shut down, and kill what is left after ``timeout_s`` seconds; the end is recorded as ours."""

    uid: Uid
    timeout_s: float
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspendRuntime:
    """Write the memory of a running VE to disk, with the state of its data at that instant, and end its processes."""

    uid: Uid
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardMemory:
    """Delete the memory of a suspended VE, which is merely stopped afterwards; its data stays as it is."""

    uid: Uid
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRuntime:
    """Remove what the runtime keeps of a VE whose init is gone; kills an init that was never released."""

    uid: Uid
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetEnd:
    """Drop the memory of the last end, so that a halted VE counts as merely stopped."""

    uid: Uid
    serves: str = field(default="", compare=False)


def launch_to_json(launch: Launch) -> dict[str, Json]:
    """Give the JSON form that is kept beside a running VE."""
    return {
        "id_base": launch.id_base,
        "init": list(launch.init),
        "nesting": launch.nesting,
        "rlimits": dict(sorted(launch.rlimits.items())),
    }


def launch_from_json(data: Json, *, where: str) -> Launch:
    """Take apart what `launch_to_json` gave; ``where`` is the file, for the error.

    Raises: StateError.
    """
    fields = Fields(data, where=where)
    launch = Launch(
        id_base=fields.integer("id_base"),
        init=fields.texts("init"),
        nesting=fields.flag("nesting"),
        rlimits=fields.integers("rlimits"),
    )
    fields.end()
    return launch
