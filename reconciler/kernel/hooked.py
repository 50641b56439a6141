"""A criu under way that asks us at its hooks: started, listened to, answered and killed by a process with one thread.

It dies with whoever started it, and then its hooks hear nobody, so that what it was at is given up.

Light on imports: the keeper holds this module.
"""

from __future__ import annotations

import math
import os
import select
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from reconciler.errors import KernelError, TimeLimitError
from reconciler.kernel import child
from reconciler.kernel.criu import ANSWER, ASK
from reconciler.kernel.syscalls import checked, file_errors, libc, translated

NOT_EXECUTED = 127
_PR_SET_PDEATHSIG = 1
_ASK_BYTES = 4096  # what a FIFO takes whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """criu stands still at an action. ``pid``: of the init that it restores, on the host; 0 where there is none."""

    action: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """criu has ended. ``status``: as of a command, negative for a signal."""

    status: int


class HookedCriu:
    """One run of criu."""

    def __init__(self, argv: tuple[str, ...], env: Mapping[str, str], *, work: str) -> None:
        self._ask, self._answer = _make_fifo(f"{work}/{ASK}"), _make_fifo(f"{work}/{ANSWER}")
        parent = os.getpid()
        with translated("fork", "criu"):
            self.pid = os.fork()
        if self.pid == 0:
            _become(argv, env, work=work, parent=parent)
        with translated("open process", str(self.pid)):
            self._process = os.pidfd_open(self.pid)

    def wait(self, *, deadline: float, beside: tuple[int, ...] = ()) -> Asked | Finished | None:
        """Wait for a question or the end; None, if one of the descriptors ``beside`` can be read first.

        Units: seconds of the monotonic clock.
        Raises: TimeLimitError; KernelError.
        """
        poll = select.poll()
        for descriptor in (self._ask, self._process, *beside):
            poll.register(descriptor, select.POLLIN)
        patience = None if math.isinf(deadline) else max(0.0, deadline - time.monotonic()) * 1000
        ready = {descriptor for descriptor, _ in poll.poll(patience)}
        if not ready:
            raise TimeLimitError("run criu: it did not end within its time, and was killed")
        if self._ask in ready:
            return self._read_question()
        return self._look_how_it_ended() if self._process in ready else None

    def _read_question(self) -> Asked:
        with translated("read", "question of criu"):
            action, _, pid = os.read(self._ask, _ASK_BYTES).decode().partition(" ")
        return Asked(action=action, pid=int(pid))

    def _look_how_it_ended(self) -> Finished:
        """Leave it a zombie: so long its number is nobody else's, and its helpers can be killed by it."""
        with translated("wait for", "criu"):
            seen = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert seen is not None, "waitid gives nothing only if it does not wait"
        return Finished(status=seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status)

    def answer(self, *, go_on: bool) -> None:
        """Let criu go on, or have it give up.

        Raises: KernelError.
        """
        with translated("answer", "criu"):
            os.write(self._answer, b"0\n" if go_on else b"1\n")

    def kill(self) -> None:
        """Kill criu and its helpers, and wait for its end; already ended is success."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _make_fifo(path: str) -> int:
    """Make a FIFO and hold both its ends, so that neither opening nor reading it ever ends by itself."""
    with file_errors("make", path):
        with suppress(FileNotFoundError):
            os.unlink(path)
        os.mkfifo(path, 0o600)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def _become(argv: tuple[str, ...], env: Mapping[str, str], *, work: str, parent: int) -> None:
    try:
        checked(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "die with", "the parent")
        os.setpgid(0, 0)
        if os.getppid() != parent:
            os._exit(NOT_EXECUTED)
        os.chdir(work)
        child.execute(argv, env)
    except (KernelError, OSError):
        os._exit(NOT_EXECUTED)
    finally:
        os._exit(NOT_EXECUTED)
