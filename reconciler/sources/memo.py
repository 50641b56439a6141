"""Values of one program, kept on disk for its next run by names: to save time, and for nothing else.

A file that is damaged, of another program or not ours is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress

from reconciler import manifests, model
from reconciler.errors import VectlError
from reconciler.kernel import files
from reconciler.model.facts import Json
from reconciler.model.version import VERSION
from reconciler.sources.snapshot import TOTAL_MAX

_FORMAT = "vectl-memo 1"


class Memo:
    """Implements `manifests.memory.Store` in one file, which is written by `save` alone.

    Shape: a line with format, program and the SHA-256 of all that follows; then a line for each value, its name before
    it. ``program``: names the code whose values they are; other code may come to others.
    """

    def __init__(self, path: str, *, program: str) -> None:
        self._path, self._program = path, program
        self._before = dict(_lines(_read(path, program)))
        self._used: dict[bytes, bytes] = {}
        self._is_new = False

    def get(self, name: str) -> Json:
        """Give a value; None, if there is none."""
        key = name.encode()
        text = self._used.get(key) or self._before.get(key)
        if text is None:
            return None
        self._used[key] = text
        value: Json = json.loads(text)
        return value

    def __contains__(self, name: str) -> bool:
        """Say whether there is such a value."""
        key = name.encode()
        return key in self._used or key in self._before

    def put(self, name: str, value: Json) -> None:
        """Keep a value, whose name is one word."""
        self._used[name.encode()] = json.dumps(value, separators=(",", ":")).encode()
        self._is_new = True

    def save(self) -> None:
        """Write what was asked for or is new, and forget all else; without room or rights for it, do without."""
        if self._is_new:
            body = b"".join(b"%s %s\n" % line for line in self._used.items())
            with suppress(OSError, VectlError):
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
                files.write_volatile(self._path, _head(self._program, body) + body)


def program() -> str:
    """Name the code that makes values of manifests: what it is, and which files it was loaded from."""
    seen = hashlib.sha256(f"{VERSION} {sys.version}".encode())
    for package in (manifests, model):
        for path, status in sorted(_sources(package.__path__)):
            seen.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return seen.hexdigest()


def _sources(directories: Iterable[str]) -> Iterator[tuple[str, os.stat_result]]:
    for directory in directories:
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield from _sources([entry.path])
                elif entry.name.endswith(".py"):
                    yield entry.path, entry.stat()


def _head(program: str, body: bytes) -> bytes:
    return f"{_FORMAT} {program} {hashlib.sha256(body).hexdigest()}\n".encode()


def _read(path: str, program: str) -> bytes:
    """Give the lines of values, none of a file that is not to be believed."""
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            if info.st_uid != os.geteuid() or info.st_mode & 0o022 or info.st_size > 2 * TOTAL_MAX:
                return b""
            head, body = file.readline(), file.read()
    except OSError:
        return b""
    return body if head == _head(program, body) else b""


def _lines(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in body.split(b"\n")[:-1]:
        name, _, value = line.partition(b" ")
        yield name, value
