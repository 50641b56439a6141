"""What happened, for `vectl events`: lines of JSON, the newest 10,000 at most, readable while they are written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from reconciler.errors import StateError
from reconciler.kernel import files
from reconciler.kernel.syscalls import translated
from reconciler.model.condition import Event
from reconciler.model.decode import Fields
from reconciler.state import layout

LINES_MAX = 10_000
"""How many events are kept at most, half of them in the file that was put aside."""

MESSAGE_MAX = 1000
"""A longer message is cut, so that a line is written by one call and the files stay small. Units: characters."""

_FORMAT = 1
_HEADER = b'{"format": %d}\n' % _FORMAT
_LOCK_WAIT_S = 10.0


class EventLog:
    """The events, in ``path`` and, the older half, in ``<path>.1``. Several processes may append."""

    __slots__ = ("_lines", "_path", "_size")

    def __init__(self, path: str) -> None:
        self._path = path
        self._size = -1
        self._lines = 0

    def append(self, event: Event) -> None:
        """Add an event. It is not flushed to disk: a power cut may take the last ones, and nothing rests on them.

        Raises: KernelError, NoSpaceError, BusyError.
        """
        layout.make_directory(os.path.dirname(self._path))
        with files.lock(f"{self._path}.lock", wait_s=_LOCK_WAIT_S), translated("write", self._path):
            if self._count() >= LINES_MAX // 2:
                os.replace(self._path, f"{self._path}.1")
                self._size = self._lines = 0
            self._write(event)

    def read(self, *, ve: str | None = None, limit: int = LINES_MAX) -> tuple[Event, ...]:
        """Read the newest events, oldest first; of one VE, if ``ve`` names it.

        A line that a crash tore is left out.

        Raises: StateError, if a file is of another format; KernelError, BusyError.
        """
        if not os.path.isdir(os.path.dirname(self._path)):
            return ()
        # Without the lock a rotation between the two files would hide the newer half.
        with files.lock(f"{self._path}.lock", wait_s=_LOCK_WAIT_S):
            found = [*_read(f"{self._path}.1"), *_read(self._path)]
        events = [event for event in found if ve is None or event.ve == ve]
        return tuple(events[len(events) - min(limit, len(events)) :])

    def _count(self) -> int:
        """Count the lines; anew only if somebody else wrote to the file since we did."""
        if self._size_on_disk() != self._size:
            data = files.read_bytes_if_exists(self._path) or b""
            self._size, self._lines = len(data), data.count(b"\n")
        return self._lines

    def _size_on_disk(self) -> int:
        try:
            return os.stat(self._path).st_size
        except FileNotFoundError:
            return 0

    def _write(self, event: Event) -> None:
        line = _line(event)
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if self._lines == 0:
                os.ftruncate(fd, 0)
                self._size, line = 0, _HEADER + line
            elif os.pread(fd, 1, self._size - 1) != b"\n":
                line = b"\n" + line
            os.write(fd, line)
        finally:
            os.close(fd)
        self._size += len(line)
        self._lines += line.count(b"\n")


def _line(event: Event) -> bytes:
    content = event.to_json() | {"message": event.message[:MESSAGE_MAX]}
    return json.dumps(content, allow_nan=False).encode() + b"\n"


def _read(path: str) -> Iterator[Event]:
    lines = (files.read_bytes_if_exists(path) or b"").splitlines(keepends=True)
    if len(lines) > 1 and lines[0] != _HEADER:
        raise StateError(f"read {path}: expected events of format {_FORMAT}; move it away: then events are kept anew")
    for line in lines[1:]:
        event = _parse(line, path)
        if event is not None:
            yield event


def _parse(line: bytes, path: str) -> Event | None:
    try:
        fields = Fields(json.loads(line), where=path)
        event = Event(
            at=fields.number("at"),
            ve=fields.text("ve"),
            kind=fields.text("kind"),
            reason=fields.text("reason"),
            message=fields.text("message"),
        )
    except (ValueError, StateError):
        return None
    return event
