"""Trying criu out on this kernel: a process with an established TCP connection is dumped, restored and asked again.

``criu check`` looks at neither sockets nor a whole dump: 4.1.1 passes it and cannot dump a socket on Linux 6.16.
Everything happens in mount, network and process namespaces that end with the attempt.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import KernelError
from reconciler.kernel import command
from reconciler.kernel.syscalls import translated

_SUBJECT = str(Path(__file__).with_name("criu_subject.py"))
_GRACE_S = 3.0
_NAMESPACES = ("--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How long it took. Units: seconds."""

    dump_s: float
    restore_s: float


def prove(program: str, *, timeout_s: float) -> Proof:
    """Dump and restore a process that talks to another one over TCP.

    Units: seconds.
    Raises: KernelError, with what criu said; CommandError, if the attempt itself could not be made; TimeLimitError.
    """
    with translated("make", "temporary directory"):
        place = tempfile.mkdtemp(prefix="vectl-criu-")
    argv = ["unshare", *_NAMESPACES, "--", sys.executable, "-I", "-S", _SUBJECT, program, place, str(timeout_s)]
    try:
        text = command.run(argv, timeout_s=timeout_s + _GRACE_S)
    finally:
        with suppress(OSError):  # what was in it lay in a mount of the namespace
            os.rmdir(place)
    return _parse(text, program)


def _parse(text: str, program: str) -> Proof:
    try:
        found = json.loads(text)
        if "step" not in found:
            return Proof(dump_s=float(found["dump_s"]), restore_s=float(found["restore_s"]))
        step, said = str(found["step"]), str(found["said"])
    except (ValueError, KeyError, TypeError) as err:
        raise KernelError(f"try {program}: expected to hear how it went, got {text[:200]!r}") from err
    raise KernelError(f"{step} a process with a TCP connection by {program}: {said}")
