"""The options of cgroup v2, which belong to the one hierarchy and not to a mount: whoever mounts it anew resets them.

lxcfs does so at each start, and leaves memory guarantees that no longer reach below a VE.

Source: Linux Documentation/admin-guide/cgroup-v2.rst, "Mounting"; fspick(2); fsconfig(2).
"""

from __future__ import annotations

import os

from reconciler.kernel import mount
from reconciler.kernel.syscalls import AT_FDCWD, syscall

_SYS_FSCONFIG = 431
_SYS_FSPICK = 433
_CLOEXEC = 1
_SET_FLAG = 0
_RECONFIGURE = 7

_FLAGS = frozenset(
    {
        "nsdelegate",
        "favordynmods",
        "memory_localevents",
        "memory_recursiveprot",
        "memory_hugetlb_accounting",
        "pids_localevents",
    }
)


def read_flags() -> tuple[str, frozenset[str]] | None:
    """Read where cgroup v2 is mounted and with which options; None, where it is not.

    Raises: KernelError.
    """
    for found in mount.read_mounts():
        if found.fstype == "cgroup2":
            return found.target, _FLAGS & frozenset(found.super_options)
    return None


def restore_flags(before: tuple[str, frozenset[str]] | None) -> None:
    """Give cgroup v2 the options again that it had, if it has others now.

    Raises: KernelError.
    """
    if before is None or read_flags() == before:
        return
    target, flags = before
    context = syscall(_SYS_FSPICK, "pick", target, AT_FDCWD, os.fsencode(target), _CLOEXEC)
    try:
        for flag in sorted(flags):
            syscall(_SYS_FSCONFIG, f"set {flag} of", target, context, _SET_FLAG, flag.encode(), None, 0)
        syscall(_SYS_FSCONFIG, "reconfigure", target, context, _RECONFIGURE, None, None, 0)
    finally:
        os.close(context)
