"""Hostnames of other UTS namespaces: read and set by a thread that enters them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

from reconciler.errors import KernelError
from reconciler.kernel.netns import in_own_thread
from reconciler.kernel.syscalls import checked, kernel_error, libc

_CLONE_NEWUTS = 0x04000000
HOSTNAME_BYTES = 64
"""The longest hostname. Source: sethostname(2), HOST_NAME_MAX."""


def open_of(pid: int, *, pidfd: int) -> int:
    """Open the UTS namespace of a process; the caller closes the descriptor.

    Raises: KernelError, with ESRCH if the process, which the pidfd stands for, is gone.
    """
    path = f"/proc/{pid}/ns/uts"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            signal.pidfd_send_signal(pidfd, 0)
        except OSError:
            os.close(descriptor)
            raise
    except OSError as err:
        raise kernel_error("open", path, err.errno or 0) from err
    return descriptor


def read_hostnames(namespaces: Iterable[int]) -> list[str]:
    """Read the hostname of each namespace, given by descriptors.

    Raises: KernelError.
    """
    wanted = list(namespaces)

    def visit() -> list[str]:
        names = []
        for namespace in wanted:
            checked(libc.setns(namespace, _CLONE_NEWUTS), "enter", f"UTS namespace {namespace}")
            names.append(os.uname().nodename)
        return names

    return in_own_thread(visit) if wanted else []


def set_hostname(namespace: int, hostname: str) -> None:
    """Set the hostname of a namespace.

    Raises: KernelError, with EINVAL if it is too long.
    """
    data = hostname.encode()
    if not 0 < len(data) <= HOSTNAME_BYTES:
        raise KernelError(f"set hostname {hostname!r}: expected 1 to {HOSTNAME_BYTES} bytes", errno=22)

    def visit() -> None:
        checked(libc.setns(namespace, _CLONE_NEWUTS), "enter", f"UTS namespace {namespace}")
        checked(libc.sethostname(data, len(data)), "set hostname", hostname)

    in_own_thread(visit)
