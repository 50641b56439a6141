"""The program criu: where it is, and whether it is new enough."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import lru_cache

from reconciler.errors import CommandError, MissingToolError, TimeLimitError, VectlError
from reconciler.kernel import command
from reconciler.kernel.syscalls import translated

LEAST = (4, 2)
"""Older ones cannot dump a socket on Linux 6.16 and later. Source: criu's issues 2705 and 2718."""

_ASK_S = 10.0
_REMEDY = "run `make criu`, or set VECTL_LIB"


@dataclass(frozen=True, slots=True, kw_only=True)
class CriuProgram:
    """A criu that is new enough."""

    path: str
    version: tuple[int, ...]

    @property
    def version_text(self) -> str:
        """The version as people write it."""
        return ".".join(map(str, self.version))


def find(programs: str) -> CriuProgram:
    """Find criu in vectl's own directory of programs, else among the host's, and ask it for its version.

    The same file is asked once.
    Raises: MissingToolError, if there is none, only an older one, or one that does not run.
    """
    path = _path(programs)
    with translated("look at", path):
        stamp = os.stat(path).st_mtime_ns
    version = _version(path, stamp)
    if isinstance(version, str):
        raise MissingToolError(f"{version}; {_REMEDY}")
    if version < LEAST:
        seen = ".".join(map(str, version)) or "one that does not tell its version"
        raise MissingToolError(f"run {path}: expected criu 4.2 or newer, found {seen}; {_REMEDY}")
    return CriuProgram(path=path, version=version)


def why_not(programs: str) -> str:
    """Say why there is no criu to be used; empty, if there is one.

    One in vectl's own directory is taken for what set-up put there, and not asked.
    """
    if os.path.exists(f"{programs}/criu"):
        return ""
    try:
        find(programs)
    except VectlError as err:
        return str(err)
    return ""


def _path(programs: str) -> str:
    own = f"{programs}/criu"
    path = own if os.path.exists(own) else shutil.which("criu")
    if path is None:
        raise MissingToolError(f"run criu: no such program; {_REMEDY}")
    return path


@lru_cache(maxsize=4)
def _version(path: str, stamp: int) -> tuple[int, ...] | str:
    """Ask a criu for its version, or give why it does not tell. ``stamp``: when the file was changed."""
    try:
        return command.parse_version(command.run([path, "--version"], timeout_s=_ASK_S))
    except (CommandError, TimeLimitError) as err:
        return str(err)
