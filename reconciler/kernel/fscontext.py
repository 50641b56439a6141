"""File systems by the new mount calls: configured value by value, and mounted without a place in any mount table.

Light on imports: the keeper holds this module.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import TypeAlias

from reconciler.errors import KernelError
from reconciler.kernel.syscalls import syscall

_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_CLOEXEC = 1
_SET_FLAG = 0
_SET_STRING = 1
_CREATE = 6

Setting: TypeAlias = tuple[str, str | None]
"""A mount option and its value; None for one that has none."""


def mount_detached(fstype: str, settings: Iterable[Setting], *, what: str, attributes: int) -> int:
    """Mount a file system and give the descriptor of the mount, which ends with it unless it is attached somewhere.

    Raises: KernelError, with what the kernel noted down about the failure.
    Source: fsopen(2), fsconfig(2), fsmount(2).
    """
    context = syscall(_SYS_FSOPEN, "open", f"{fstype} file system", fstype.encode(), _CLOEXEC)
    try:
        for key, value in settings:
            _set(context, key, value, what)
        _create(context, what)
        return syscall(_SYS_FSMOUNT, "mount", what, context, _CLOEXEC, attributes)
    finally:
        os.close(context)


def _set(context: int, key: str, value: str | None, what: str) -> None:
    command, data = (_SET_FLAG, None) if value is None else (_SET_STRING, value.encode())
    shown = key if value is None else f"{key}={value}"
    try:
        syscall(_SYS_FSCONFIG, "set", f"{shown} for {what}", context, command, key.encode(), data, 0)
    except KernelError as err:
        raise KernelError(f"{err}{_said(context)}", errno=err.errno) from err


def _create(context: int, what: str) -> None:
    try:
        syscall(_SYS_FSCONFIG, "mount", what, context, _CREATE, None, None, 0)
    except KernelError as err:
        raise KernelError(f"{err}{_said(context)}", errno=err.errno) from err


def _said(context: int) -> str:
    """Collect what the kernel noted down about a failure; older kernels note nothing."""
    lines = []
    with suppress(OSError):
        while True:
            lines.append(os.read(context, 1024).decode(errors="replace").strip())
    return "".join(f"; kernel: {line}" for line in lines)
