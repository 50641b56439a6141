"""Forked children of a process with one thread: what they shed of their parent, and how they tell what went wrong.

A child talks to its parent over a socket of packets that closes when it executes a program: the end of the packets
without an error is the news that the program runs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from reconciler.errors import KernelError, VectlError
from reconciler.kernel.syscalls import syscall, translated

REPORT_BYTES = 8192

_FAILED = 126
_OOM_SCORE = "/proc/self/oom_score_adj"

_SIGNALS_OF_GLIBC = (32, 33)
_SYS_RT_SIGACTION = {"x86_64": 13, "aarch64": 134}
_KERNEL_SIGACTION_BYTES = 32  # of zeros: SIG_DFL, no flags, nothing masked
_KERNEL_SIGSET_BYTES = 8


class NotExecutedError(KernelError):
    """The program is not there, or the kernel does not execute it."""


class Report:
    """The child's end of the socket; each packet is one letter and a text. `STANDS`: it waits for a word of ours."""

    PID = "p"
    TERMINAL = "t"
    STANDS = "s"
    ERROR = "e"
    NOT_EXECUTED = "x"

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        """Give the descriptor."""
        return self._socket.fileno()

    def send(self, letter: str, text: str, descriptors: Sequence[int] = ()) -> None:
        """Send one packet, with descriptors."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        self._socket.sendmsg([f"{letter}{text}".encode(errors="replace")[:REPORT_BYTES]], rights)

    def receive(self) -> bytes:
        """Wait for a packet of the parent's; empty, if there is no parent any more."""
        return self._socket.recv(REPORT_BYTES)


def fork(work: Callable[[Report], NoReturn], *, stdio: tuple[int, ...] = ()) -> tuple[int, socket.socket]:
    """Run ``work`` in a child; give its pid and our end of the socket, which never blocks.

    The child has default signals, the middle OOM score, and no descriptor of ours but 0 to 2 and its report; three
    descriptors in ``stdio``, each above 2, become 0 to 2. What ``work`` raises is reported as an error, with the
    errno before it, and ends the child.
    Raises: KernelError.
    """
    with translated("make", "socket pair"):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    try:
        with translated("fork", "a child"):
            pid = os.fork()
    except KernelError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        _run(work, Report(theirs), stdio)
    theirs.close()
    return pid, ours


def _run(work: Callable[[Report], NoReturn], report: Report, stdio: tuple[int, ...]) -> NoReturn:
    try:
        for target, source in enumerate(stdio):
            os.dup2(source, target, inheritable=True)
        close_descriptors(keep=report.fileno())
        reset_signals()
        reset_oom_score()
        work(report)
    except BaseException as err:  # noqa: BLE001 - a child must never return into its parent's loop
        number = err.errno if isinstance(err, KernelError | OSError) else 0
        text = str(err) if isinstance(err, VectlError) else repr(err)
        report.send(Report.NOT_EXECUTED if isinstance(err, NotExecutedError) else Report.ERROR, f"{number} {text}")
    finally:
        os._exit(_FAILED)


def close_descriptors(*, keep: int) -> None:
    """Close all descriptors but 0, 1, 2 and one more."""
    os.closerange(3, keep)
    os.closerange(max(3, keep + 1), os.sysconf("SC_OPEN_MAX"))


def reset_signals() -> None:
    """Let no signal be caught, ignored or blocked: execve(2) would hand ignored and blocked ones on.

    Python ignores SIGPIPE and SIGXFSZ by itself. The two that glibc keeps to itself are ignored in whatever was
    started by posix_spawn(3), by make for one, and glibc refuses to hear of them: so they are set by the system call.
    """
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    for internal in _SIGNALS_OF_GLIBC:
        default = ctypes.create_string_buffer(_KERNEL_SIGACTION_BYTES)
        action = _SYS_RT_SIGACTION[os.uname().machine]
        syscall(action, "reset", f"signal {internal}", internal, default, None, _KERNEL_SIGSET_BYTES)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def reset_oom_score() -> None:
    """Leave the protection from the OOM killer behind that the parent may have; a VE must not inherit it.

    Source: proc_pid_oom_score_adj(5).
    """
    with translated("write", _OOM_SCORE), open(_OOM_SCORE, "wb", buffering=0) as file:
        file.write(b"0")


def replace_stdio(*, output: str | None) -> None:
    """Connect 0 to ``/dev/null``, 1 and 2 to the same or to the end of a file.

    Raises: KernelError.
    """
    with translated("open", output or os.devnull):
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        out = null if output is None else os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for target, source in ((0, null), (1, out), (2, out)):
        os.dup2(source, target, inheritable=True)


def execute(args: tuple[str, ...], env: Mapping[str, str]) -> NoReturn:
    """Replace this process by a program, looked for in the PATH of ``env`` if it is named without a slash.

    Nothing is imported on the way: the caller may be in a mount namespace whose files are not to be trusted.
    Raises: NotExecutedError, with ENOENT if there is no such program.
    """
    name = args[0]
    places = [name] if "/" in name else [f"{place}/{name}" for place in env.get("PATH", "").split(":") if place]
    seen = errno.ENOENT
    for path in places:
        try:
            os.execve(path, args, env)  # noqa: S606 - no shell is wanted
        except OSError as err:
            if err.errno not in (errno.ENOENT, errno.ENOTDIR):
                seen = err.errno or errno.EACCES
    raise NotExecutedError(f"execute {name!r}: {os.strerror(seen)}", errno=seen)
