"""Reading and writing the small files of a cgroup; a failure becomes a `KernelError` that names the file."""

from __future__ import annotations

import errno
import os

from reconciler.errors import KernelError


def read(path: str) -> str:
    """Read a file whole.

    Raises: KernelError.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as err:
        raise failure("read", path, err) from err


def read_optional(path: str) -> str | None:
    """Read a file that some kernels do not have; None if it is not there.

    Raises: KernelError, if it is there and cannot be read.
    """
    try:
        return read(path)
    except KernelError as err:
        if err.errno in (errno.ENOENT, errno.ENODEV):
            return None
        raise


def write(path: str, text: str) -> None:
    """Write a file with one write(2), as the kernel wants it.

    Raises: KernelError.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode() or b"\n")
        finally:
            os.close(descriptor)
    except OSError as err:
        raise failure(f"write {text!r} to", path, err) from err


def make_directory(path: str) -> None:
    """Make a directory; already there is success.

    Raises: KernelError.
    """
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return
    except OSError as err:
        raise failure("create cgroup", path, err) from err


def remove_directory(path: str) -> bool:
    """Remove an empty cgroup; False while it is still busy, True once it is gone.

    Raises: KernelError.
    """
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as err:
        if err.errno == errno.EBUSY:
            return False
        raise failure("remove cgroup", path, err) from err
    return True


def directories(path: str) -> list[str]:
    """List a cgroup and all below it, parents first; empty if it is not there."""
    return [top for top, _, _ in os.walk(path)]


def failure(verb: str, path: str, err: OSError) -> KernelError:
    """Build the exception for a failed file operation."""
    return KernelError(f"{verb} {path}: {err.strerror}", errno=err.errno or 0)
