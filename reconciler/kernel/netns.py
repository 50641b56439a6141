"""Network namespaces: their descriptors, and work done inside one by a thread that is made for it and ends.

A namespace is held as a descriptor of its ``ns/net`` file. setns(2) changes the calling thread only, so a thread
that enters a namespace never comes back from it: it would be one wrong turn from changing the host.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import TypeVar

from reconciler.kernel import own_thread
from reconciler.kernel.syscalls import checked, kernel_error, libc

CLONE_NEWNET = 0x40000000

_Result = TypeVar("_Result")


def open_of(pid: int, *, pidfd: int) -> int:
    """Open the network namespace of a process; the caller closes the descriptor.

    The pidfd, opened while the pid was known to be right, proves that the pid was not given to another process.
    Raises: KernelError, with ESRCH if the process is gone.
    """
    path = f"/proc/{pid}/ns/net"
    descriptor = _open(path)
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except OSError as err:
        os.close(descriptor)
        raise kernel_error("open", f"{path} of a process that is gone", err.errno or 0) from err
    return descriptor


def open_own() -> int:
    """Open the network namespace of the calling thread; the caller closes the descriptor.

    Raises: KernelError.
    """
    return _open("/proc/thread-self/ns/net")


def create() -> int:
    """Make an empty network namespace that lives as long as its descriptor, which the caller closes.

    Raises: KernelError.
    """

    def unshare() -> int:
        checked(libc.unshare(CLONE_NEWNET), "create", "network namespace")
        return _open("/proc/thread-self/ns/net")

    return own_thread.call(unshare, name="netns")


def call_in(descriptor: int, function: Callable[[], _Result]) -> _Result:
    """Call a function in a network namespace and give back what it returns.

    The caller waits, so the function must be one that cannot hang. Commands that it runs, the sockets that it opens
    and the files of ``/proc/sys/net`` that it reads are those of the namespace.
    Raises: KernelError, if the namespace cannot be entered; whatever the function raises.
    """

    def enter_and_call() -> _Result:
        checked(libc.setns(descriptor, CLONE_NEWNET), "enter", f"network namespace {descriptor}")
        return function()

    return own_thread.call(enter_and_call, name="netns")


def open_socket_in(descriptor: int, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """Open a socket that belongs to a network namespace and can be used from anywhere.

    Raises: KernelError.
    """

    def open_socket() -> socket.socket:
        try:
            return socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
        except OSError as err:
            what = f"socket of family {family} in network namespace {descriptor}"
            raise kernel_error("open", what, err.errno or 0) from err

    return call_in(descriptor, open_socket)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        raise kernel_error("open", path, err.errno or 0) from err
