"""The terminal in front of a person: raw while another terminal is shown on it, and of the same size."""

from __future__ import annotations

import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Hand every key on as it is for the block; then the terminal is as before. What is no terminal is left alone.

    Source: termios(3), "Raw mode".
    """
    try:
        before = termios.tcgetattr(descriptor)
    except termios.error:
        yield
        return
    tty.setraw(descriptor, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def copy_size(source: int, target: int) -> None:
    """Give a terminal the size of another one; a source that has none changes nothing.

    Source: ioctl_tty(2), TIOCGWINSZ and TIOCSWINSZ.
    """
    with suppress(termios.error, OSError):
        termios.tcsetwinsize(target, termios.tcgetwinsize(source))
