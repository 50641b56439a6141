"""Files with secrets: read when they are needed, so that a new one counts at once, and refused if others may read."""

from __future__ import annotations

import os
import stat

from reconciler.errors import ConfigError, RefusedError
from reconciler.kernel.syscalls import file_errors

_SIZE_MAX = 4096
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_secrets(path: str) -> tuple[bytes, ...]:
    """Give the secrets of a file, one a line: during a change of secrets, the new one and the old one.

    Raises: ConfigError, if there is none; RefusedError, if others than its owner may read or write it; KernelError.
    """
    with file_errors("read", path):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a fifo would hold us up
        except FileNotFoundError as err:
            raise ConfigError(f"read {path}: expected a file with a secret, found none") from err
        with open(fd, "rb") as file:
            _expect_private(path, os.fstat(fd))
            data = file.read(_SIZE_MAX + 1)
    lines = tuple(line for line in (line.strip() for line in data.splitlines()) if line)
    if not lines or len(data) > _SIZE_MAX:
        raise ConfigError(f"read {path}: expected a secret on a line of its own, {_SIZE_MAX} bytes at most")
    return lines


def read_secret(path: str) -> str:
    """Give the one secret of a file, of which only the first line counts.

    Raises: as `read_secrets`; ConfigError, also if it is no text.
    """
    try:
        return read_secrets(path)[0].decode("ascii")
    except UnicodeDecodeError as err:
        raise ConfigError(f"read {path}: expected a secret in ASCII") from err


def _expect_private(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & _OTHERS:
        raise RefusedError(
            f"read {path}: expected a file that only root may read, got {stat.filemode(found.st_mode)} of user "
            f"{found.st_uid}; use `chown root {path}` and `chmod 600 {path}`"
        )
