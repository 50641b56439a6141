"""Small files of ours that are read at every look, and their directories: read again only when they are others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from reconciler.kernel import files
from reconciler.kernel.syscalls import file_error

_Value = TypeVar("_Value")
_Value_co = TypeVar("_Value_co", covariant=True)

_Identity = tuple[int, int, int]


class Parser(Protocol[_Value_co]):
    """Makes a value of a file's content; ``where`` is its path, for errors."""

    def __call__(self, data: bytes, *, where: str) -> _Value_co:
        """Parse."""
        ...


_NO_NAMES: frozenset[str] = frozenset()

_TICK_NS = 20_000_000
"""Longer than the clock of file systems stands still (a jiffy, 10 ms at most). Units: nanoseconds."""


@dataclass(frozen=True, slots=True)
class _Known:
    """``young``: the content, of a file that was read so soon after it was written that its identity proves nothing."""

    identity: _Identity
    parse: Callable[..., Any]
    value: Any
    young: bytes | None


@dataclass(slots=True)
class ParsedFiles:
    """What files were parsed to, by path. A file is another one if its inode, its time or its size is another.

    One that was just written is read at each look: while its time stands still, another may follow it with the same
    time, the same size, and the number of an inode that was freed a moment ago.
    Source: git, Documentation/technical/racy-git.txt.
    """

    _known: dict[str, _Known] = field(default_factory=dict)
    _listed: dict[str, tuple[_Identity, frozenset[str]]] = field(default_factory=dict)

    def names(self, directory: str) -> frozenset[str]:
        """List a directory, none that is not there: one call where asking for each of several files takes one each.

        A name comes and goes with the time of the directory, which tells as of a file whether it is as it was.

        Raises: KernelError.
        """
        try:
            status = os.stat(directory)
            identity = (status.st_ino, status.st_mtime_ns, status.st_size)
            known = self._listed.get(directory)
            if known is not None and known[0] == identity:
                return known[1]
            names = frozenset(os.listdir(directory))
        except FileNotFoundError:
            self._listed.pop(directory, None)
            return _NO_NAMES
        except OSError as err:
            raise file_error("list", directory, err.errno or 0) from err
        if time.time_ns() - status.st_mtime_ns > _TICK_NS:
            self._listed[directory] = identity, names
        return names

    def read(self, path: str, parse: Parser[_Value]) -> _Value | None:
        """Give the value of a file, None if there is none.

        Raises: whatever ``parse`` raises; KernelError.
        """
        try:
            status = os.stat(path)
        except FileNotFoundError:
            self._known.pop(path, None)
            return None
        except OSError as err:
            raise file_error("read", path, err.errno or 0) from err
        identity = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._known.get(path)
        if known is not None and known.parse is not parse:
            known = None
        if known is None or known.young is not None or known.identity != identity:
            data = files.read_bytes_if_exists(path)
            if data is None:
                return None
            value = known.value if known is not None and known.young == data else parse(data, where=path)
            young = data if time.time_ns() - status.st_mtime_ns <= _TICK_NS else None
            known = self._known[path] = _Known(identity, parse, value, young)
        found: _Value = known.value
        return found

    def forget_below(self, directory: str) -> None:
        """Drop what is kept of the files below a directory that is no more."""
        below = f"{directory}/"
        for path in [path for path in self._known if path.startswith(below)]:
            del self._known[path]
        for path in [path for path in self._listed if path == directory or path.startswith(below)]:
            del self._listed[path]
