"""Manifests that are looked at once, for a command: a directory, a file, or standard input."""

from __future__ import annotations

import os
from typing import BinaryIO

from reconciler.kernel.syscalls import translated
from reconciler.model.seam import Clock
from reconciler.sources.directory import DirectorySource
from reconciler.sources.snapshot import FILE_MAX, Snapshot, snapshot_of

STDIN = "-"
STDIN_NAME = "<stdin>"
"""What findings call standard input."""


def look_once(path: str, *, stdin: BinaryIO, clock: Clock) -> Snapshot:
    """Read what a command was given: ``-``, a file of any name, or a directory.

    Raises: KernelError, if a file is there but cannot be read.
    """
    if path == STDIN:
        return _whole("stdin", STDIN_NAME, stdin.read(FILE_MAX + 1))
    if os.path.isdir(path):
        return DirectorySource(path, clock=clock).look()
    with translated("read", path):
        try:
            with open(path, "rb") as file:
                return _whole("file", path, file.read(FILE_MAX + 1))
        except FileNotFoundError:
            return Snapshot(reason="SourceVanished", problem=f"{path}: no such file or directory")


def _whole(kind: str, name: str, data: bytes) -> Snapshot:
    if len(data) > FILE_MAX:
        return Snapshot(reason="SourceTooLarge", problem=f"{name}: expected {FILE_MAX} bytes at most")
    return snapshot_of(kind, {name: data})
