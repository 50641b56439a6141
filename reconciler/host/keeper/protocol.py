"""What a client and the keeper say to each other: one JSON object in each packet of a Unix socket.

A request has a number of the client's; every answer to it carries the number, and several requests are under way at
once. A packet without a number is an event. A running keeper may be older than its clients: fields may be added, with
defaults; a change of meaning needs a new `VERSION`.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from reconciler.errors import KeeperError
from reconciler.host.keeper.codec import from_json, to_json
from reconciler.kernel import dumping, restoring
from reconciler.kernel.execute import ExecSpec
from reconciler.kernel.launch import LaunchSpec
from reconciler.kernel.pidfd import Exit, ProcessId
from reconciler.kernel.views import ShowSpec

VERSION = 3
MESSAGE_BYTES = 128 * 1024
"""The longest packet; below the default size of a socket's send buffer, which bounds a packet."""

SOCKET_NAME = "keeper.sock"
LOCK_NAME = "keeper.lock"
LOG_NAME = "keeper.log"

Socket = socket.socket
FailureKind: TypeAlias = Literal["refused", "failed", "timeout", "not-executed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Run what makes or restores the init of a VE, and adopt that init.

    Shape: ``pid_file`` is what the command writes the pid to.
    Units: seconds, for the command to end.
    """

    uid: str
    spec: LaunchSpec
    pid_file: str
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec:
    """Run a program in a VE, with three descriptors beside the packet, or none if it gets a terminal.

    The descriptors should be pipes: a file or a terminal of the host would be in the hands of the VE's root.
    Units: seconds, for the program to start; it may then run as long as the client stays connected.
    """

    spec: ExecSpec
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Signal the program of an earlier `Exec` request, by that request's number."""

    target: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """Show files of the host inside a VE, or take them away.

    Units: seconds, for all of it.
    """

    spec: ShowSpec
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """Start a program of the host that outlives the client, as the keeper's child; it is answered by `Started`.

    Shape: ``output`` is the file for what it prints.
    Units: seconds, for it to be executed.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    output: str
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """Write a VE to disk, and end it or let it go on; it is answered by `Done`, and goes on without the client."""

    uid: str
    spec: dumping.Dump


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Write a VE to disk and hold it; it is answered by `Done` once it stands still for good."""

    uid: str
    spec: dumping.Dump


@dataclass(frozen=True, slots=True, kw_only=True)
class Decide:
    """End a VE that is held, or let it go on; it is answered by `Done` once that is so."""

    uid: str
    resume: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """Restore a VE from disk and adopt its init; it is answered by `Launched` once it is held back."""

    uid: str
    spec: restoring.Restore


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Let a VE go on that is held back in its restore; it is answered by `Done` once its processes run."""

    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseClosed:
    """Have all of a VE made that is held back in its restore; it is answered by `Done` while nothing of it runs."""

    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Let a VE run that was released closed; it is answered by `Done` once its processes run."""

    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Ask for an `InitEnded` for every init that ends from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Ask whether the keeper is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shutdown:
    """Ask the keeper to end: refused while it is anybody's parent, unless forced; then VEs live on unwatched."""

    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The keeper's first packet."""

    version: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """The command ended well, and this is the VE's init."""

    init: ProcessId


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The program runs; its terminal's other end is beside the packet if it has one."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The program has ended; the last answer to its request."""

    exit: Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The request failed, and nothing more follows.

    ``status``: what a command ended with, negative for a signal. ``not-executed``: the program itself is not there.
    """

    kind: FailureKind
    message: str
    errno: int = 0
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The request was carried out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """How many the keeper is the parent of, and who it is."""

    version: int
    pid: int
    inits: int
    programs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InitEnded:
    """The init of a VE ended, after its record was written."""

    uid: str
    init: ProcessId
    exit: Exit


MemoryRequest: TypeAlias = Dump | Hold | Decide | Restore | Release | ReleaseClosed | Open
Request: TypeAlias = Launch | Exec | Signal | Show | Serve | MemoryRequest | Watch | Ping | Shutdown
Answer: TypeAlias = Hello | Launched | Started | Ended | Failed | Done | Pong | InitEnded

_REQUESTS: dict[str, type[Request]] = {kind.__name__: kind for kind in get_args(Request)}
_ANSWERS: dict[str, type[Answer]] = {kind.__name__: kind for kind in get_args(Answer)}


def encode(number: int | None, message: Request | Answer) -> bytes:
    """Print one packet.

    Raises: KeeperError, if it is longer than a packet may be.
    """
    packet = json.dumps({"id": number, "type": type(message).__name__, "body": to_json(message)}).encode()
    if len(packet) > MESSAGE_BYTES:
        raise KeeperError(f"send to keeper: {len(packet)} bytes are more than the {MESSAGE_BYTES} of a packet")
    return packet


def decode_request(packet: bytes) -> tuple[int, Request]:
    """Parse a packet of a client.

    Raises: KeeperError.
    """
    number, name, body = _open(packet)
    if number is None or name not in _REQUESTS:
        raise KeeperError(f"read message: expected a numbered request, got {name!r:.100}")
    return number, from_json(_REQUESTS[name], body)


def decode_answer(packet: bytes) -> tuple[int | None, Answer]:
    """Parse a packet of the keeper.

    Raises: KeeperError.
    """
    number, name, body = _open(packet)
    if name not in _ANSWERS:
        raise KeeperError(f"read message: expected an answer, got {name!r:.100}")
    return number, from_json(_ANSWERS[name], body)


def _open(packet: bytes) -> tuple[int | None, str, object]:
    try:
        content = json.loads(packet)
    except ValueError as err:
        raise KeeperError(f"read message: expected JSON, got {packet[:100]!r}") from err
    if not isinstance(content, dict):
        raise KeeperError(f"read message: expected an object, got {packet[:100]!r}")
    number, name = content.get("id"), content.get("type")
    if not isinstance(name, str) or not (number is None or type(number) is int):
        raise KeeperError(f"read message: expected 'id' and 'type', got {packet[:100]!r}")
    return number, name, content.get("body")


def new_socket() -> socket.socket:
    """Make a socket of the kind that both sides speak over; it never blocks."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)


def socket_address(directory: int) -> str:
    """Give the address of the socket in an open run directory: a path of its own may be too long for one."""
    return f"/proc/self/fd/{directory}/{SOCKET_NAME}"


def open_run_dir(run_dir: str) -> int:
    """Open the run directory, for `socket_address`."""
    return os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
