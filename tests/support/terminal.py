"""A person at a terminal: a program on a pseudo-terminal, what it shows, and what is typed."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from tests.support.patience import PATIENCE

DEADLINE_S = 30.0 * PATIENCE


class Terminal:
    """A program that runs on a terminal of its own; all that it showed is kept."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self._pid, self._descriptor = pid, descriptor
        self.shown = ""
        self._status: int | None = None

    def type(self, text: str) -> None:
        """Type something."""
        os.write(self._descriptor, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size, as a window manager does."""
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text: str) -> None:
        """Wait until something is shown."""
        deadline = time.monotonic() + DEADLINE_S
        while text not in self.shown:
            assert time.monotonic() < deadline, f"waited for {text!r}, saw {self.shown!r}"
            assert self._read(0.2) is not False or text in self.shown, f"it ended before {text!r}: {self.shown!r}"

    def end(self) -> int:
        """Wait until the program ends; give its exit status."""
        deadline = time.monotonic() + DEADLINE_S
        while self._status is None:
            assert time.monotonic() < deadline, f"it does not end: {self.shown!r}"
            self._read(0.05)
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        while self._read(0.0):
            pass
        return self._status

    def close(self) -> None:
        """End the program, if it has not ended."""
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._descriptor)

    def _read(self, wait_s: float) -> bool | None:
        """Take in what is shown; None if nothing is now, False if nothing more will be."""
        if not select.select([self._descriptor], [], [], wait_s)[0]:
            return None
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


@contextmanager
def terminal(argv: Sequence[str], *, env: Mapping[str, str], inherit: int) -> Iterator[Terminal]:
    """Run a program on a terminal of 24 rows and 80 columns. ``inherit``: a descriptor that it gets."""
    pid, descriptor = pty.fork()
    if pid == 0:
        try:
            os.set_inheritable(inherit, True)
            os.execvpe(argv[0], [*argv], env)
        finally:
            os._exit(127)
    shown = Terminal(pid, descriptor)
    shown.resize(24, 80)
    try:
        yield shown
    finally:
        shown.close()
