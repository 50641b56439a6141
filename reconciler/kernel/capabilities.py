"""Capabilities: which ones a VE's processes may have in their own user namespace, and dropping the others.

Source: capabilities(7).
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterable

from reconciler.errors import KernelError
from reconciler.kernel.syscalls import checked, kernel_error, libc

# In the order of linux/capability.h: the place is the number.
_KNOWN = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_HOST_ONLY = """
AUDIT_CONTROL AUDIT_READ BLOCK_SUSPEND BPF CHECKPOINT_RESTORE MAC_ADMIN MAC_OVERRIDE PERFMON SYSLOG SYS_MODULE
SYS_RAWIO SYS_TIME WAKE_ALARM
"""

NUMBERS = {f"CAP_{name}": number for number, name in enumerate(_KNOWN.split())}

SYSTEM = tuple(name for name in NUMBERS if name.removeprefix("CAP_") not in _HOST_ONLY.split())
"""For a VE that boots an init: what it may do to its own namespaces. The rest has no namespace, or reaches the host.

SYS_BOOT stays: in its PID namespace reboot(2) ends the VE, and tells us how.
"""


_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def limit_to(names: Iterable[str]) -> None:
    """Drop everything but these from the calling process's bounding set, and empty its inheritable and ambient sets.

    What it has now it keeps until execve(2), which then gives root these and any other user none.
    Raises: KernelError.
    """
    kept = {NUMBERS[name] for name in names}
    for number in NUMBERS.values():
        if number not in kept and libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            _unless_unknown(number)
    checked(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clear", "ambient capabilities")
    _clear_inheritable()


def _unless_unknown(number: int) -> None:
    error = ctypes.get_errno()
    if error != errno.EINVAL:  # EINVAL: newer than this kernel, so nobody has it
        raise kernel_error("drop capability", str(number), error)


def _clear_inheritable() -> None:
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    checked(libc.capget(ctypes.byref(header), data), "read", "capabilities")
    for part in data:
        part.inheritable = 0
    checked(libc.capset(ctypes.byref(header), data), "set", "capabilities")


def parse_status(text: str) -> dict[str, int]:
    """Read the capability sets out of ``/proc/PID/status``.

    Shape: ``CapInh CapPrm CapEff CapBnd CapAmb`` to a bit mask each.
    Raises: KernelError, if one is missing.
    """
    sets = dict(line.split(":\t", 1) for line in text.splitlines() if line.startswith("Cap"))
    try:
        return {name: int(sets[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    except (KeyError, ValueError) as err:
        raise KernelError("parse capabilities: expected five sets in /proc/PID/status") from err


def mask(names: Iterable[str]) -> int:
    """Give the bit mask of capabilities, as ``/proc/PID/status`` shows it."""
    return sum(1 << NUMBERS[name] for name in set(names))
