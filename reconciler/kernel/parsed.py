"""Small files of ours that are read at every look: parsed again only when they are other files than before."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from reconciler.kernel import files
from reconciler.kernel.syscalls import file_errors

_Value = TypeVar("_Value")
_Value_co = TypeVar("_Value_co", covariant=True)

_Identity = tuple[int, int, int]


class Parser(Protocol[_Value_co]):
    """Makes a value of a file's content; ``where`` is its path, for errors."""

    def __call__(self, data: bytes, *, where: str) -> _Value_co:
        """Parse."""
        ...


_TICK_NS = 20_000_000
"""Longer than the clock of file systems stands still (a jiffy, 10 ms at most). Units: nanoseconds."""


@dataclass(slots=True)
class ParsedFiles:
    """What files were parsed to, by path. A file is another one if its inode, its time or its size is another.

    One that was just written is parsed at each look: while its time stands still, another may follow it with the same
    time, the same size, and the number of an inode that was freed a moment ago.
    Source: git, Documentation/technical/racy-git.txt.
    """

    _known: dict[str, tuple[_Identity, Callable[..., Any], Any]] = field(default_factory=dict)

    def read(self, path: str, parse: Parser[_Value]) -> _Value | None:
        """Give the value of a file, None if there is none.

        Raises: whatever ``parse`` raises; KernelError.
        """
        with file_errors("read", path):
            try:
                status = os.stat(path)
            except FileNotFoundError:
                self._known.pop(path, None)
                return None
        identity = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._known.get(path)
        if known is not None and known[0] == identity and known[1] is parse:
            value: _Value = known[2]
            return value
        data = files.read_bytes_if_exists(path)
        if data is None:
            return None
        parsed = parse(data, where=path)
        if time.time_ns() - status.st_mtime_ns > _TICK_NS:
            self._known[path] = (identity, parse, parsed)
        return parsed

    def forget_below(self, directory: str) -> None:
        """Drop what is kept of the files below a directory that is no more."""
        for path in [path for path in self._known if path.startswith(f"{directory}/")]:
            del self._known[path]
