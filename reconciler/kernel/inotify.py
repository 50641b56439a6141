"""Changes of files and directories, as hints: an event says where to look, never what is there.

Source: inotify(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from reconciler.errors import KernelError
from reconciler.kernel.syscalls import checked, kernel_error, libc, translated

MODIFY = 0x2
ATTRIB = 0x4
CREATE = 0x100
DELETE = 0x200
OVERFLOW = 0x4000
IGNORED = 0x8000

_IN_NONBLOCK = os.O_NONBLOCK
_IN_CLOEXEC = os.O_CLOEXEC
_HEADER = struct.Struct("iIII")
_BUFFER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``watch`` is what `Inotify.add` gave; ``name`` the entry of a watched directory, or empty.

    Where ``mask`` has OVERFLOW, ``watch`` is -1 and events were lost: look at everything.
    """

    watch: int
    mask: int
    name: str


class Inotify:
    """One inotify instance that never blocks; for the loop, `fileno` becomes readable."""

    def __init__(self) -> None:
        result = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if result < 0 and ctypes.get_errno() == errno.EMFILE:
            text = "open inotify: this user has too many instances; raise the sysctl fs.inotify.max_user_instances"
            raise KernelError(text, errno=errno.EMFILE)
        self._descriptor = checked(result, "open", "inotify")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Give the descriptor, -1 if closed."""
        return self._descriptor

    def close(self) -> None:
        """Close the instance with all its watches; closing twice is allowed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def add(self, path: str, mask: int) -> int:
        """Watch a path; watching it again replaces the mask and gives the same watch.

        Raises: KernelError, with ENOENT if it is not there, with ENOSPC if this user has too many watches.
        """
        watch: int = libc.inotify_add_watch(self._descriptor, os.fsencode(path), ctypes.c_uint32(mask))
        if watch < 0 and ctypes.get_errno() == errno.ENOSPC:
            text = f"watch {path}: this user has too many watches; raise the sysctl fs.inotify.max_user_watches"
            raise KernelError(text, errno=errno.ENOSPC)
        return checked(watch, "watch", path)

    def remove(self, watch: int) -> None:
        """Stop watching; a watch that is gone with its file is success.

        Raises: KernelError.
        """
        if libc.inotify_rm_watch(self._descriptor, watch) < 0 and ctypes.get_errno() != errno.EINVAL:
            raise kernel_error("remove", f"watch {watch}", ctypes.get_errno())

    def read(self) -> list[Event]:
        """Take the events that are there, at most one buffer of them; none is an empty list.

        Raises: KernelError.
        """
        with translated("read", "inotify"):
            try:
                return parse_events(os.read(self._descriptor, _BUFFER_BYTES))
            except BlockingIOError:
                return []

    def wait(self, *, timeout_s: float) -> list[Event]:
        """Take the events that are there, or wait for the first of them; none when the time is over.

        Raises: KernelError.
        """
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.poll(timeout_s * 1000)
        return self.read()


def parse_events(data: bytes) -> list[Event]:
    """Split what the kernel wrote into events.

    Shape: ``struct inotify_event``, each followed by a name padded with zeros.
    """
    events: list[Event] = []
    offset = 0
    while offset + _HEADER.size <= len(data):
        watch, mask, _, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        name = data[offset : offset + length].rstrip(b"\0")
        events.append(Event(watch, mask, os.fsdecode(name)))
        offset += length
    return events
