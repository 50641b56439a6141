"""Reading and writing the small files of a cgroup; a failure becomes a `KernelError` that names the file."""

from __future__ import annotations

import errno
import os

from reconciler.errors import KernelError
from reconciler.kernel.syscalls import translated

_ABSENT = frozenset({errno.ENOENT, errno.ENODEV})  # ENODEV: removed between open and read


def read(path: str) -> str:
    """Read a file whole.

    Raises: KernelError.
    """
    with translated("read", path), open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def read_optional(path: str) -> str | None:
    """Read a file that some kernels do not have; None if it is not there.

    Raises: KernelError, if it is there and cannot be read.
    """
    try:
        return read(path)
    except KernelError as err:
        if err.errno in _ABSENT:
            return None
        raise


def write(path: str, text: str) -> None:
    """Write a file with one write(2), as the kernel wants it; nothing is written as a newline.

    Raises: KernelError.
    """
    with translated(f"write {text!r} to", path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode() or b"\n")
        finally:
            os.close(descriptor)


def make_directory(path: str) -> None:
    """Make a cgroup; already there is success.

    Raises: KernelError.
    """
    with translated("create cgroup", path):
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            return


def remove_directory(path: str) -> bool:
    """Remove an empty cgroup; False while it is still busy, True once it is gone.

    Raises: KernelError.
    """
    with translated("remove cgroup", path):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return True
        except OSError as err:
            if err.errno == errno.EBUSY:
                return False
            raise
    return True


def directories(path: str) -> list[str]:
    """List a cgroup and all below it, parents first; empty if it is not there.

    Raises: KernelError.
    """
    found: list[str] = []
    with translated("list", path):
        for top, _, _ in os.walk(path, onerror=_unless_absent):
            found.append(top)
    return found


def _unless_absent(err: OSError) -> None:
    if err.errno not in _ABSENT:
        raise err
