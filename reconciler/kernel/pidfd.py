"""Processes by descriptor: a pid may be used again, a pidfd never means another process.

A process is named across time by its pid and its start time; a descriptor is opened, then the name is checked.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from dataclasses import dataclass
from typing import Literal, TypeAlias

from reconciler.errors import KernelError, KernelFormatError
from reconciler.kernel.syscalls import kernel_error

ExitKind: TypeAlias = Literal["exited", "signaled"]
NamespaceKind: TypeAlias = Literal["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]

_START_TIME_FIELD = 22 - 3  # counted from the state, which follows the command's closing parenthesis


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """A process, for as long as the machine is up.

    Units: ``start_time`` in clock ticks since boot.
    Source: proc_pid_stat(5), field 22.
    """

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended; ``value`` is its exit status or the number of the signal."""

    kind: ExitKind
    value: int


def read_start_time(pid: int) -> int | None:
    """Read when a process started; None if there is no such process. A zombie still has its time.

    Units: clock ticks since boot.
    Raises: KernelError.
    """
    path = f"/proc/{pid}/stat"
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return parse_start_time(file.read())
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as err:
        raise kernel_error("read", path, err.errno or 0) from err


def parse_start_time(text: str) -> int:
    """Parse the start time out of ``/proc/PID/stat``, whose second field may hold spaces and parentheses.

    Raises: KernelFormatError.
    """
    fields = text.rpartition(")")[2].split()
    if len(fields) <= _START_TIME_FIELD or not fields[_START_TIME_FIELD].isdecimal():
        raise KernelFormatError(f"parse /proc/PID/stat: expected a number in field 22, got {text!r}")
    return int(fields[_START_TIME_FIELD])


def identify(pid: int) -> ProcessId | None:
    """Name a process of which only the pid is known; None if there is none.

    Raises: KernelError.
    """
    start_time = read_start_time(pid)
    return None if start_time is None else ProcessId(pid=pid, start_time=start_time)


def open_process(process: ProcessId) -> int | None:
    """Open a descriptor of a process, close-on-exec; None if it is gone, also if its pid is used again.

    Raises: KernelError.
    Source: pidfd_open(2).
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    except OSError as err:
        raise kernel_error("open process", str(process.pid), err.errno or 0) from err
    try:
        same = read_start_time(process.pid) == process.start_time
    except KernelError:
        os.close(descriptor)
        raise
    if same:
        return descriptor
    os.close(descriptor)
    return None


def send_signal(descriptor: int, number: int) -> bool:
    """Send a signal, which may be a real-time one; False if the process has ended.

    Raises: KernelError.
    Source: pidfd_send_signal(2).
    """
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    except OSError as err:
        raise kernel_error(f"send signal {number} to", "a process", err.errno or 0) from err
    return True


def has_ended(descriptor: int, *, timeout_s: float = 0) -> bool:
    """Wait until a process has ended, by anybody's child, or the time is over.

    Source: pidfd_open(2), "poll".
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0, timeout_s) * 1000))


def exit_of(result: os.waitid_result) -> Exit:
    """Read how a process ended from what waitid(2) gave."""
    return Exit(kind="exited" if result.si_code == os.CLD_EXITED else "signaled", value=result.si_status)


def namespace_inode(pid: int, kind: NamespaceKind) -> int | None:
    """Give the number that names a process's namespace; None if there is no such process.

    Raises: KernelError.
    Source: namespaces(7), "The /proc/pid/ns/ directory".
    """
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError as err:
        if err.errno in (errno.ENOENT, errno.ESRCH):
            return None
        raise kernel_error(f"read {kind} namespace of process", str(pid), err.errno or 0) from err
