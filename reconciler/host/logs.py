"""What a VE and its runtime wrote down: read from the end, and hostile, whoever is shown it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.errors import KernelError
from reconciler.host import interface_ends, power, runtime
from reconciler.host.site import Site
from reconciler.kernel import files, rootfs
from reconciler.kernel.syscalls import file_errors
from reconciler.model.identity import Uid
from reconciler.model.power import PowerState

SYSLOG = "var/log/messages"
"""Where a VE's own syslog writes, in its root."""

READ_MAX = 4 << 20
"""The most that is read of a log at once. Units: bytes."""

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Tail:
    """The end of a VE's syslog, then what is added to it; a file that was put in its place is begun anew."""

    def __init__(self, site: Site, uid: Uid) -> None:
        self._site, self._uid = site, uid
        self._place: tuple[int, int, int] | None = None

    def read(self) -> bytes:
        """Read what was added since the last call; at the first one the last `READ_MAX` bytes. Nothing, if no file.

        Raises: KernelError, for what is no regular file.
        """
        with _opened(self._site, self._uid) as descriptor:
            if descriptor is None:
                return b""
            return self._read(descriptor)

    def _read(self, descriptor: int) -> bytes:
        with file_errors("read", SYSLOG):
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise KernelError(f"read {SYSLOG} of VE {self._uid}: expected a regular file")
            start = max(0, info.st_size - READ_MAX)
            if self._place is not None and self._place[:2] == (info.st_dev, info.st_ino):
                start = max(start, self._place[2] if self._place[2] <= info.st_size else 0)
            data = os.pread(descriptor, info.st_size - start, start)
        self._place = (info.st_dev, info.st_ino, start + len(data))
        return data


@contextmanager
def _opened(site: Site, uid: Uid) -> Iterator[int | None]:
    """Open the syslog of a VE: in its root while it runs, else among what it has written over its template."""
    with _root(site, uid) as root:
        try:
            descriptor = None if root is None else rootfs.open_in_root(root, SYSLOG, _FLAGS)
        except KernelError as err:
            if err.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            descriptor = None
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def _root(site: Site, uid: Uid) -> Iterator[int | None]:
    if power.observe(site, uid).state is PowerState.RUNNING:
        with interface_ends.inside(site, uid).root() as root:
            yield root
        return
    upper = _open_upper(f"{site.instance.volume(uid)}/upper")
    try:
        yield upper
    finally:
        if upper is not None:
            os.close(upper)


def _open_upper(path: str) -> int | None:
    with file_errors("open", path):
        try:
            return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None


def read_runtime_log(site: Site, uid: Uid) -> bytes:
    """Read what the runtime said when it last made this VE; nothing, if it said nothing.

    Raises: KernelError.
    """
    return files.read_bytes_if_exists(runtime.log_file(site, uid)) or b""
