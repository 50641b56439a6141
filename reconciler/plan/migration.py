"""Migration: judging whether a running VE can be saved and restored, by what CRIU 4.2 is known to refuse or to lose.

Each rule was seen to hold: criu refuses to dump a VE in that state, hangs at it, or restores it without what is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from reconciler.model.condition import Condition, ConditionType, Status
from reconciler.model.migration import MountState, Obstacle, ObstacleKind, OpenFile, Process, ProcessState, RunningState

_SOCKETS = frozenset(
    {"TCP", "TCPv6", "UDP", "UDPv6", "UDP-Lite", "UDPLITEv6", "RAW", "RAWv6", "PING", "PINGv6"}
    | {"UNIX", "UNIX-STREAM", "NETLINK", "PACKET"}
)
_ANONYMOUS = frozenset({"eventfd", "eventpoll", "signalfd", "timerfd", "pidfd", "inotify", "fanotify"})
_MEMORY_DEVICES = 1  # null, zero, full, random and their like
_TERMINALS = frozenset({4, 5, *range(136, 144)})
_TUN = (10, 200)
_FILE_SYSTEMS = frozenset(
    {"proc", "sysfs", "devtmpfs", "binfmt_misc", "tmpfs", "devpts", "pstore", "mqueue", "securityfs", "fusectl"}
    | {"debugfs", "tracefs", "cgroup", "cgroup2", "autofs"}
)
"""What criu makes anew. An overlay it dumps as well, and then may not mount in the VE's user namespace."""

_PARTS_ANYWAY = frozenset({"cgroup", "cgroup2"})  # their roots are those of the VE's cgroup namespace

_NAMESPACES = {"net": "network", "uts": "hostname", "ipc": "IPC", "pid": "process", "user": "user", "mnt": "mount"}
_SETTINGS = {
    "net": "PrivateNetwork=no",
    "uts": "ProtectHostname=no",
    "ipc": "PrivateIPC=no",
    "user": "PrivateUsers=no",
    "cgroup": "ProtectControlGroups=no",
}
"""What of systemd makes a service such a namespace."""

_END_IT = "end it"
SHOWN = 5
"""How many obstacles a message names."""


def judge(seen: RunningState) -> tuple[Obstacle, ...]:
    """Name what keeps a VE from being suspended; empty, if nothing is known to."""
    found = [
        *_of_host(seen),
        *(obstacle for process in seen.processes for obstacle in _of_process(process)),
        *(obstacle for mount in seen.mounts for obstacle in _of_mount(mount)),
        *(_queue(name) for name in seen.queues),
        *_of_network(seen),
    ]
    return tuple(_counted(found))


def _counted(found: Iterable[Obstacle]) -> Iterator[Obstacle]:
    """Name each obstacle once."""
    for obstacle, number in Counter(found).items():
        if number == 1:
            yield obstacle
        else:
            yield Obstacle(
                kind=obstacle.kind,
                what=f"{obstacle.what} ({number} times)",
                remedy=obstacle.remedy,
                process=obstacle.process,
            )


def _of_host(seen: RunningState) -> Iterator[Obstacle]:
    for kind, reason in ((ObstacleKind.CRIU, seen.no_criu), (ObstacleKind.TEMPLATE, seen.no_template)):
        if reason:
            what, _, remedy = reason.partition("; ")
            yield Obstacle(kind=kind, what=what, remedy=remedy)


def _of_process(seen: ProcessState) -> Iterator[Obstacle]:
    if seen.is_outsider:
        yield Obstacle(
            kind=ObstacleKind.OUTSIDER,
            what="was put in from outside and would be killed, as by `vectl exec`",
            remedy="leave it, or wait for its end",
            process=seen.process,
        )
    else:  # what it holds is not saved either way
        yield from _of_state(seen)
        yield from (_namespace(seen.process, kind) for kind in sorted(seen.nested))
        for file in seen.files:
            yield from _of_file(seen.process, file)


_OF_STATE: Mapping[str, tuple[ObstacleKind, str, str]] = {
    "t": (ObstacleKind.TRACED, "is traced by a debugger", "end the debugger (strace, gdb)"),
    "T": (ObstacleKind.STOPPED, "is stopped by a signal", "continue it (kill -CONT, fg)"),
    "D": (
        ObstacleKind.STUCK,
        "waits in the kernel and cannot be stopped",
        "see to what it waits for: a device, a file system, a child of vfork",
    ),
}
"""What a process does that cannot be stopped, by the letter of its state. Source: proc_pid_stat(5)."""


def _of_state(seen: ProcessState) -> Iterator[Obstacle]:
    found = _OF_STATE.get("t" if seen.is_traced else seen.state)
    if found is not None:
        kind, what, remedy = found
        yield Obstacle(kind=kind, what=what, remedy=remedy, process=seen.process)


def _namespace(process: Process, kind: str) -> Obstacle:
    plain = kind.removesuffix("_for_children")
    setting = _SETTINGS.get(plain)
    service = f", or give its service {setting} if systemd started it" if setting else ""
    return Obstacle(
        kind=ObstacleKind.NAMESPACE,
        what=f"has a {_NAMESPACES.get(plain, plain)} namespace of its own",
        remedy=f"{_END_IT}{service}",
        process=process,
    )


def _of_file(process: Process, file: OpenFile) -> Iterator[Obstacle]:
    for path in file.unresolved:
        yield Obstacle(
            kind=ObstacleKind.WATCH,
            what=f"watches files on {path}, which cannot be found again",
            remedy=_END_IT,
            process=process,
        )
    if file.waits:
        yield Obstacle(kind=ObstacleKind.WAITING, what=file.waits, remedy="wait a moment", process=process)
    if file.protocol:
        yield from _of_socket(process, file.protocol)
    elif file.device is not None:
        yield from _of_device(process, file)
    elif not _is_known(file):
        yield Obstacle(kind=ObstacleKind.FILE, what=f"has open {file.name}", remedy=_END_IT, process=process)


def _is_known(file: OpenFile) -> bool:
    if file.name.startswith("anon_inode:"):
        return file.name.removeprefix("anon_inode:").strip("[]") in _ANONYMOUS
    return not file.is_outside


def _of_socket(process: Process, protocol: str) -> Iterator[Obstacle]:
    if protocol in _SOCKETS:
        return
    remedy = "GODEBUG=multipathtcp=0 for programs in Go" if protocol.startswith("MPTCP") else _END_IT
    what = f"has a socket of {protocol.removeprefix('AF_')}"
    yield Obstacle(kind=ObstacleKind.SOCKET, what=what, remedy=remedy, process=process)


def _of_device(process: Process, file: OpenFile) -> Iterator[Obstacle]:
    assert file.device is not None
    is_saved = file.device[0] == _MEMORY_DEVICES or file.device[0] in _TERMINALS or file.device == _TUN
    if file.is_block or not is_saved:
        what = f"has the device {file.name} open"
        yield Obstacle(kind=ObstacleKind.DEVICE, what=what, remedy="let it close the device", process=process)


def _of_mount(mount: MountState) -> Iterator[Obstacle]:
    if mount.fstype not in _FILE_SYSTEMS:
        what = f"a file system of kind {mount.fstype} is mounted at {mount.target}"
    elif mount.is_part and mount.fstype not in _PARTS_ANYWAY:
        what = f"a part of a {mount.fstype} is mounted at {mount.target}, of which nothing else is to be seen"
    else:
        return
    yield Obstacle(kind=ObstacleKind.MOUNT, what=what, remedy="unmount it")


def _queue(name: str) -> Obstacle:
    return Obstacle(
        kind=ObstacleKind.QUEUE,
        what=f"there is a POSIX message queue /{name}",
        remedy=f"end what uses it, then remove /dev/mqueue/{name}",
    )


def _of_network(seen: RunningState) -> Iterator[Obstacle]:
    for name in seen.links:
        what = f"the interface {name}, which was made inside, would be lost"
        yield Obstacle(kind=ObstacleKind.NETWORK, what=what, remedy=f"remove it (ip link del {name})")
    for route in seen.routes:
        what = f"the route to {route}, which was made inside, would be lost"
        yield Obstacle(kind=ObstacleKind.NETWORK, what=what, remedy="declare it in the manifest's interface")
    for name in seen.nics:
        what = f"the host's interface {name} is in it, and what was set on it inside would be lost"
        yield Obstacle(kind=ObstacleKind.NETWORK, what=what, remedy="take it out of the manifest's devices")
    if seen.filter_rules:
        yield Obstacle(
            kind=ObstacleKind.NETWORK,
            what=f"{seen.filter_rules} rules of a packet filter of its own would be lost",
            remedy="declare them as the interfaces' firewall, and remove them inside (nft flush ruleset)",
        )


def ready_condition(obstacles: tuple[Obstacle, ...]) -> Condition:
    """Give the condition `MigrationReady` that follows from the obstacles; what passes by itself is none."""
    lasting = tuple(obstacle for obstacle in obstacles if not obstacle.passes)
    if not lasting:
        message = "it can be suspended and resumed"
        return Condition(type=ConditionType.MIGRATION_READY, status=Status.TRUE, reason="NoObstacles", message=message)
    message = _joined(str(obstacle) for obstacle in lasting)
    return Condition(type=ConditionType.MIGRATION_READY, status=Status.FALSE, reason=lasting[0].kind, message=message)


def sentence(obstacles: tuple[Obstacle, ...]) -> str:
    """Name obstacles with their remedies, for an error."""
    return _joined(f"{obstacle}; {obstacle.remedy}" for obstacle in obstacles)


def _joined(words: Iterable[str]) -> str:
    named = tuple(words)
    shown = ". ".join(named[:SHOWN])
    return f"{shown}. And {len(named) - SHOWN} more" if len(named) > SHOWN else shown


def unknown_condition(reason: str) -> Condition:
    """Give the condition of a VE that could not be looked at."""
    return Condition(
        type=ConditionType.MIGRATION_READY, status=Status.UNKNOWN, reason="ObservationUnknown", message=reason
    )
