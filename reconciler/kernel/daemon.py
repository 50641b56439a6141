"""Becoming a process that outlives the one that started it, and that adopts orphans.

Source: daemon(7), "SysV Daemons"; prctl(2), PR_SET_CHILD_SUBREAPER.
"""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import suppress
from typing import NoReturn

from reconciler.kernel.syscalls import checked, file_errors, libc, translated

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_OOM_SCORE = -900  # below all that a user starts, above what must never be killed


def try_lock(path: str) -> int | None:
    """Lock a file for as long as the descriptor, or a copy of it in a child, is open; None if another has it.

    Raises: KernelError, NoSpaceError.
    Source: flock(2).
    """
    with file_errors("lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
    return descriptor


def detach(log: str) -> int:
    """Go on in a grandchild that has no terminal and no directory busy; the caller itself never returns.

    The process that was called ends once `report_ready` says that all is well, with status 0, or else with status 1.
    What is written to stderr from now on goes to the end of ``log``. Gives the descriptor for `report_ready`.
    Raises: KernelError, NoSpaceError.
    """
    with translated("fork", "the daemon"):
        ready, readier = os.pipe()
        if os.fork():
            os.close(readier)
            _wait_and_leave(ready)
        os.setsid()
        if os.fork():
            os._exit(0)
    os.close(ready)
    os.chdir("/")
    os.umask(0o066)  # directories may be passed through: the VE's root has to reach its root directory
    _replace_stdio(log)
    return readier


def report_ready(descriptor: int) -> None:
    """Let the process that was called end with success."""
    os.write(descriptor, b"1")
    os.close(descriptor)


def _wait_and_leave(ready: int) -> NoReturn:
    os._exit(0 if os.read(ready, 1) else 1)


def _replace_stdio(log: str) -> None:
    with file_errors("open", log):
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    sys.stdout.flush()
    sys.stderr.flush()
    for target, source in ((0, null), (1, null), (2, out)):
        os.dup2(source, target, inheritable=True)
    os.close(null)
    os.close(out)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends.

    Raises: KernelError.
    """
    checked(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "become", "child subreaper")


def set_name(name: str) -> None:
    """Name this process as ``ps -o comm`` shows it, in 15 characters.

    Raises: KernelError.
    """
    checked(libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0), "name", "this process")


def protect_from_oom() -> None:
    """Make this process a late victim of the OOM killer, where that is allowed.

    Source: proc_pid_oom_score_adj(5).
    """
    with suppress(PermissionError), open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(b"%d" % _OOM_SCORE)
