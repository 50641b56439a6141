"""Migration: what of a running VE cannot be saved and restored, named process by process."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.model.facts import Json


class ObstacleKind(StrEnum):
    """What stands in the way. `WAITING` is gone in a moment; every other one stays until somebody does something."""

    NAMESPACE = "Namespace"
    OUTSIDER = "Outsider"
    TRACED = "Traced"
    STOPPED = "Stopped"
    STUCK = "Stuck"
    FILE = "File"
    DEVICE = "Device"
    SOCKET = "Socket"
    WAITING = "Waiting"
    WATCH = "Watch"
    QUEUE = "Queue"
    MOUNT = "Mount"
    NETWORK = "Network"
    CRIU = "Criu"
    TEMPLATE = "Template"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process by the name that it gives itself, printable, and the pid that it has inside."""

    name: str
    pid: int

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One reason why a VE cannot be suspended now. ``process`` None: it is the VE as a whole, or the host."""

    kind: ObstacleKind
    what: str
    remedy: str
    process: Process | None = None

    def __str__(self) -> str:
        return self.what if self.process is None else f"{self.process} {self.what}"

    @property
    def passes(self) -> bool:
        """Whether waiting a moment is all that it takes."""
        return self.kind is ObstacleKind.WAITING

    def to_json(self) -> dict[str, Json]:
        """Give the stable form of `vectl describe -o json`."""
        process: Json = None if self.process is None else {"name": self.process.name, "pid": self.process.pid}
        return {"kind": self.kind.value, "process": process, "what": self.what, "remedy": self.remedy}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """An open file that is neither a pipe nor one on the VE's own mounts.

    Shape: ``name`` as /proc names it; ``protocol`` of a socket as the kernel names it; ``device`` major and minor of a
    device; ``waits`` what nobody has taken from a socket; ``unresolved`` the paths of file systems on which something
    is watched that cannot be found again; ``outside``: it lies on no mount of the VE.
    """

    name: str
    protocol: str = ""
    device: tuple[int, int] | None = None
    is_block: bool = False
    is_outside: bool = False
    waits: str = ""
    unresolved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """A process of a VE. Shape: ``state`` the letter of proc_pid_stat(5); ``nested`` kinds of namespaces that are not
    those of the VE's init, as /proc names them. ``is_outsider``: it was put in from outside, and is no child of init's.
    """

    process: Process
    state: str = "S"
    is_traced: bool = False
    is_outsider: bool = False
    nested: frozenset[str] = frozenset()
    files: tuple[OpenFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MountState:
    """A mount inside that vectl has not put there. ``is_part``: a part of a file system of which the VE has no more."""

    target: str
    fstype: str
    is_part: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningState:
    """What one look at a running VE saw, as far as it matters for saving it.

    ``links`` and ``routes``: what its root has made of them; ``nics``: interfaces of the host that are in it.
    ``filter_rules``: rules of a packet filter of its own. ``no_criu``, ``no_template``: why what a restore takes is not
    there; "" if it is.
    """

    processes: tuple[ProcessState, ...] = ()
    mounts: tuple[MountState, ...] = ()
    queues: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    nics: tuple[str, ...] = ()
    filter_rules: int = 0
    no_criu: str = ""
    no_template: str = ""
