"""The OCI runtime, runc or crun: the commands that make and unmake a container, and letting a made one go.

Nothing that the runtime remembers is used to observe a VE: a VE that criu restored is unknown to it. Only the FIFO is
looked at, on which an init waits that was made and not yet started: that it is there is a fact, not a memory.

Source: opencontainers/runtime-spec, runtime.md; runc(8); crun(1).
"""

from __future__ import annotations

import errno
import json
import os
import select
import time
from dataclasses import dataclass

from reconciler.errors import KernelError, TimeLimitError
from reconciler.kernel import command
from reconciler.kernel.syscalls import translated

_FIFO = "exec.fifo"
_LOG_BYTES = 1 << 16  # the end of it, where the last error is
_COMMAND_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A runtime of one instance; ``root`` is its directory of containers, ``log`` where errors of a call go."""

    program: str
    root: str
    log: str

    def fifo(self, name: str) -> str:
        """Give the FIFO on which the init of a created container waits."""
        return f"{self.root}/{name}/{_FIFO}"

    def _argv(self, *words: str) -> tuple[str, ...]:
        return (self.program, "--root", self.root, "--log", self.log, "--log-format", "json", *words)

    def create_argv(self, name: str, *, bundle: str, pid_file: str) -> tuple[str, ...]:
        """Build the command that makes the namespaces and an init that waits."""
        return self._argv("create", "--bundle", bundle, "--pid-file", pid_file, name)

    def start_argv(self, name: str) -> tuple[str, ...]:
        """Build the command that lets the init go."""
        return self._argv("start", name)

    def delete_argv(self, name: str) -> tuple[str, ...]:
        """Build the command that kills what is left and forgets the container; an unknown one is success."""
        return self._argv("delete", "--force", name)


def awaits_release(runtime: Runtime, name: str) -> bool:
    """Tell whether a container was made and its init not yet let go."""
    return os.path.exists(runtime.fifo(name))


def start(runtime: Runtime, name: str, *, timeout_s: float = 10.0) -> None:
    """Let the init of a created container go; already gone is success.

    For runc this is a read of the FIFO, done here: its own ``start`` takes 8 ms for it.
    Raises: TimeLimitError; KernelError, if init ended before; CommandError.
    """
    if os.path.basename(runtime.program) == "runc":
        release(runtime.fifo(name), timeout_s=timeout_s)
    elif awaits_release(runtime, name):
        command.run(runtime.start_argv(name), timeout_s=timeout_s)


def release(fifo: str, *, timeout_s: float = 10.0) -> bool:
    """Read the byte that a waiting init writes before it executes its program; False if nothing waits there.

    Opening never blocks: an init that has died would leave us waiting for ever.
    Raises: TimeLimitError; KernelError, if init ended without writing.
    Source: runc, libcontainer/container_linux.go, "exec".
    """
    try:
        descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as err:
        raise KernelError(f"open {fifo}: {err.strerror}", errno=err.errno or 0) from err
    try:
        _await_byte(descriptor, fifo, time.monotonic() + timeout_s)
    finally:
        os.close(descriptor)
    with translated("remove", fifo):
        os.unlink(fifo)
    return True


def _await_byte(descriptor: int, fifo: str, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
        raise TimeLimitError(f"read {fifo}: the init that should wait there does not")
    with translated("read", fifo):
        if not os.read(descriptor, 1):
            raise KernelError(f"read {fifo}: init ended before it was let go", errno=errno.EPIPE)


def remembers(runtime: Runtime, name: str) -> bool:
    """Tell whether the runtime keeps anything of a container."""
    return os.path.isdir(f"{runtime.root}/{name}")


def delete(runtime: Runtime, name: str, *, timeout_s: float = _COMMAND_S) -> None:
    """Kill what is left of a container and make the runtime forget it; an unknown one is success.

    Raises: CommandError; TimeLimitError; MissingToolError.
    """
    if remembers(runtime, name):
        command.run(runtime.delete_argv(name), timeout_s=timeout_s)


def read_error(log: str) -> str | None:
    """Find the last error in a runtime's log; None if there is none.

    Raises: KernelError, if the log is there and cannot be read.
    """
    with translated("read", log):
        try:
            with open(log, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
                return parse_error(file.read().decode(errors="replace"))
        except FileNotFoundError:
            return None


def parse_error(text: str) -> str | None:
    """Find the message of the last error in the text of a log.

    Shape: a JSON object on each line, with ``level`` and ``msg``; lines of other shapes are passed over.
    """
    for line in reversed(text.splitlines()):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal"):
            return str(entry.get("msg", "")).strip()
    return None
