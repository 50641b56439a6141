"""Kernel parameters of somebody's IPC and network namespaces, read and written by a thread that is made for it.

The parameters of an IPC namespace may be written by the root of its user namespace only, and not by the host's root:
the thread takes that one's ids. Nothing of it reaches the other threads, and it ends with the call.

Source: Linux ipc/ipc_sysctl.c, ipc_permissions; net/sysctl_net.c, net_ctl_permissions; setresuid(2), C library/kernel
differences.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from reconciler.kernel import sysctl
from reconciler.kernel.netns import CLONE_NEWNET
from reconciler.kernel.syscalls import checked, libc, syscall, translated

_CLONE_NEWIPC = 0x08000000
_SYS_SETRESUID = {"x86_64": 117, "aarch64": 147}

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """Descriptors of the namespaces of one process, and the host's id of the root of its user namespace."""

    net: int
    ipc: int
    owner: int


def open_ipc_of(pid: int) -> int:
    """Open the IPC namespace of a process, which the caller knows to be the right one; the caller closes it.

    Raises: KernelError.
    """
    path = f"/proc/{pid}/ns/ipc"
    with translated("open", path):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def read_all(into: Namespaces, names: Sequence[str]) -> Mapping[str, str]:
    """Read parameters; numbers in a value are joined by single spaces.

    Raises: KernelError, with ENOENT if the kernel has no such parameter.
    """

    def read() -> Mapping[str, str]:
        return {name: " ".join(sysctl.read(name).split()) for name in names}

    return _inside(into, read)


def write(into: Namespaces, name: str, value: str) -> None:
    """Set a parameter.

    Raises: KernelError, with EINVAL if the kernel does not take the value.
    """

    def write_as_root() -> None:
        if not name.startswith("net."):
            number = _SYS_SETRESUID[os.uname().machine]
            syscall(number, "become", f"user {into.owner}", into.owner, into.owner, into.owner)
        sysctl.write(name, value)

    _inside(into, write_as_root)


def _inside(into: Namespaces, function: Callable[[], _Result]) -> _Result:
    def enter_and_call() -> _Result:
        checked(libc.setns(into.net, CLONE_NEWNET), "enter", f"network namespace {into.net}")
        checked(libc.setns(into.ipc, _CLONE_NEWIPC), "enter", f"IPC namespace {into.ipc}")
        return function()

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="namespaces") as once:
        return once.submit(enter_and_call).result()
