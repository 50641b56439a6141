"""Hostnames of other UTS namespaces: read and set by entering them for a moment.

No thread of its own is needed, unlike for a network namespace: in a UTS namespace there is nothing but names to be
mistaken about, and nobody else in this process asks for those.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from reconciler.errors import KernelError
from reconciler.kernel.syscalls import checked, kernel_error, libc

_CLONE_NEWUTS = 0x04000000
HOSTNAME_BYTES = 64
"""The longest hostname. Source: sethostname(2), HOST_NAME_MAX."""


def open_of(pid: int, *, pidfd: int) -> int:
    """Open the UTS namespace of a process; the caller closes the descriptor.

    Raises: KernelError, with ESRCH if the process, which the pidfd stands for, is gone.
    """
    path = f"/proc/{pid}/ns/uts"
    descriptor = _open(path)
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except OSError as err:
        os.close(descriptor)
        raise kernel_error("open", f"{path} of a process that is gone", err.errno or 0) from err
    return descriptor


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        raise kernel_error("open", path, err.errno or 0) from err


def read_hostnames(namespaces: Iterable[int]) -> list[str]:
    """Read the hostname of each namespace, given by descriptors.

    Raises: KernelError.
    """
    names = []
    with _coming_back():
        for namespace in namespaces:
            _enter(namespace)
            names.append(_spelt_out(os.uname().nodename))
    return names


def _spelt_out(name: str) -> str:
    """Spell out the bytes of a name that are no UTF-8, so that it can be written like any other text."""
    return os.fsencode(name).decode(errors="backslashreplace")


def set_hostname(namespace: int, hostname: str) -> None:
    """Set the hostname of a namespace.

    Raises: KernelError, with EINVAL if it is too long.
    """
    data = expect_fits(hostname)
    with _coming_back():
        _enter(namespace)
        checked(libc.sethostname(data, len(data)), "set hostname", hostname)


def expect_fits(hostname: str) -> bytes:
    """Give the bytes of a hostname.

    Raises: KernelError, with EINVAL if it is too long.
    """
    data = hostname.encode()
    if not 0 < len(data) <= HOSTNAME_BYTES:
        text = f"set hostname {hostname!r}: expected 1 to {HOSTNAME_BYTES} bytes"
        raise KernelError(text, errno=errno.EINVAL)
    return data


@contextmanager
def _coming_back() -> Iterator[None]:
    home = _open("/proc/thread-self/ns/uts")
    try:
        yield
    finally:
        _enter(home)
        os.close(home)


def _enter(namespace: int) -> None:
    checked(libc.setns(namespace, _CLONE_NEWUTS), "enter", f"UTS namespace {namespace}")
