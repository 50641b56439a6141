"""What the keeper remembers of its children until it has reaped them."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass

from reconciler.host.keeper.protocol import Failed, FailureKind
from reconciler.kernel.child import REPORT_BYTES, Report
from reconciler.kernel.dumping import Dump
from reconciler.kernel.restoring import Restore

_FAILURES: dict[str, FailureKind] = {Report.ERROR: "failed", Report.NOT_EXECUTED: "not-executed"}


@dataclass(eq=False, slots=True, kw_only=True)
class Starting:
    """A forked child and its report. ``client`` and ``request`` say whom to answer, ``answered`` that it was done.
    ``stands``: it waits for a word.

    Units: ``deadline`` in seconds of the monotonic clock.
    """

    child: int
    report: socket.socket
    client: int
    request: int
    deadline: float | None
    settled: bool = False
    answered: bool = False
    failure: Failed | None = None
    program: int | None = None
    terminal: int | None = None
    stands: bool = False

    def read_report(self) -> bool:
        """Take in what the child has said; True once it will say no more."""
        while True:
            try:
                packet, descriptors, _, _ = socket.recv_fds(self.report, REPORT_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True
            if not packet:
                return True
            self._take(packet.decode(errors="replace"), descriptors)

    def _take(self, text: str, descriptors: list[int]) -> None:
        letter, rest = text[:1], text[1:]
        if letter == Report.PID:
            self.program = int(rest)
        elif letter == Report.STANDS:
            self.stands = True
        elif letter == Report.TERMINAL and descriptors:
            self.terminal = descriptors[0]
        elif letter in _FAILURES:
            number, _, message = rest.partition(" ")
            self.failure = Failed(kind=_FAILURES[letter], message=message, errno=int(number))

    def close(self) -> None:
        """Close what is open."""
        self.report.close()
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None


@dataclass(eq=False, slots=True, kw_only=True)
class Launching(Starting):
    """A command that makes the init of a VE; ``child`` is the command itself."""

    uid: str
    pid_file: str

    def kill(self) -> None:
        """Kill the command and its process group."""
        kill_group(self.child)


@dataclass(eq=False, slots=True, kw_only=True)
class Dumping(Starting):
    """A dump of a VE; ``child`` leads it. ``held``: it was seen to stand still; ``decided``: a word was said."""

    uid: str
    spec: Dump
    held: bool = False
    decided: bool = False

    def kill(self) -> None:
        """Kill who leads it, and so criu."""
        kill_group(self.child)


@dataclass(eq=False, slots=True, kw_only=True)
class Restoring(Starting):
    """A restore of a VE; ``child`` leads it, and ``program`` is the init that it has made.

    ``held``: it was seen to be held back; ``released``: it was told to go on; ``closed``: it was seen to stand made;
    ``opened``: it was told to run.
    """

    uid: str
    spec: Restore
    held: bool = False
    released: bool = False
    closed: bool = False
    opened: bool = False

    def kill(self) -> None:
        """Kill who leads it, and so criu."""
        kill_group(self.child)


@dataclass(eq=False, slots=True, kw_only=True)
class Showing(Starting):
    """A helper that shows files inside a VE and ends."""

    def kill(self) -> None:
        """Kill the helper."""
        kill_group(self.child)


@dataclass(eq=False, slots=True, kw_only=True)
class Serving(Starting):
    """A program of the host that is not executed yet; from then on nobody waits for it."""

    def kill(self) -> None:
        """Kill what was to become the program."""
        kill_group(self.child)


@dataclass(eq=False, slots=True, kw_only=True)
class Executing(Starting):
    """A program in a VE: ``child`` is the helper that enters it and ends, ``program`` the program itself."""

    def kill(self) -> None:
        """Kill the program and its process group, or the helper that has not got that far."""
        kill_group(self.child if self.program is None else self.program)


def kill_group(pid: int) -> None:
    """Kill a child of ours and its process group; it is not reaped yet, so the number is nobody else's."""
    for send in (os.killpg, os.kill):
        try:
            send(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it has not made its own group yet, or is a zombie
