"""Restoring a VE from its memory: made, held back while its network is filled, and let go.

Done by a forked child of the keeper. criu makes the namespaces and the mounts, and then asks: so long the VE has an
init, a network namespace without links, and nothing that runs. Told to go on, it makes the processes; the memory is
spent at the last moment before any of them takes a step, as the data moves on from there.

Light on imports: the keeper holds this module.

Source: criu(8); criu, criu/cr-restore.c, restore_root_task.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from reconciler.errors import KernelError, VectlError
from reconciler.kernel import cgroup_layout, child, criu, dumpdebris, dumping, files, mount, overlay, pidfd, provided
from reconciler.kernel.cgroup import CgroupTree
from reconciler.kernel.child import Report
from reconciler.kernel.criu import RestoreSpec
from reconciler.kernel.hooked import Asked, Finished, HookedCriu
from reconciler.kernel.overlay import OverlayMount
from reconciler.kernel.provided import Directory, Node
from reconciler.kernel.syscalls import file_errors

GO, GO_CLOSED = b"go", b"closed"
"""What is said to who holds a VE back: let it run, or make all of it, and say so before it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """How a VE stands that is made, and of which nothing runs: ``note`` is a file that names its init meanwhile.

    Units: seconds that it may take to get there.
    """

    note: str
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """A restore, and the memory that it spends.

    Shape: ``held`` is a file that is there from when the VE is held back; ``born`` the directory that the memory is
    in, and ``spent`` its name from when the processes run. ``names``: of processes, by their pids inside.
    ``directories`` and ``nodes`` are what is provided at places in ``scratch``. ``closed``: how it may be started so.
    Units: seconds, before and after the hold.
    """

    criu: RestoreSpec
    env: Mapping[str, str]
    overlay: OverlayMount
    cgroup: str
    held: str
    born: str
    spent: str
    names: Mapping[str, str]
    timeout_s: float
    scratch: str
    directories: Mapping[str, Directory]
    nodes: Mapping[str, Node]
    closed: Closed | None = None


def restore(spec: Restore, report: Report) -> NoReturn:
    """Carry out a restore, in a forked child with one thread; the init's pid is reported once it is held back.

    Raises: VectlError, and then nothing of the VE is left but its memory.
    """
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    child.replace_stdio(output=None)
    mount.enter_private_namespace()
    dumpdebris.empty_directory(spec.criu.work)
    overlay.mount_overlay(spec.overlay)
    ids = {"id_base": spec.overlay.id_base, "id_count": spec.overlay.id_count}
    provided.provide(spec.scratch, spec.directories, spec.nodes, **ids)
    running = HookedCriu(criu.restore_argv(spec.criu), spec.env, work=spec.criu.work)
    holder = _Holder(spec, running, report)
    try:
        holder.run()
    except BaseException:
        running.kill()
        mend(spec, holder.init)
        raise
    dumpdebris.empty_directory(spec.criu.work, keep=(criu.log_name("restore"),))
    os._exit(0)


class _Holder:
    """Leads criu through a restore."""

    def __init__(self, spec: Restore, running: HookedCriu, report: Report) -> None:
        self._spec, self._running, self._report = spec, running, report
        self.init: int | None = None
        self._closed: Closed | None = None
        self._deadline = math.inf

    def run(self) -> None:
        """Answer criu until it has ended well.

        Raises: VectlError.
        """
        self._deadline = time.monotonic() + self._spec.timeout_s
        while isinstance(event := self._running.wait(deadline=self._deadline), Asked):
            match event.action:
                case criu.HELD:
                    self._hold(event.pid)
                case criu.SOCKETS if self._closed is not None:
                    self._stand(event.pid, self._closed)
                case criu.RESTORED:
                    self._spend()
            self._running.answer(go_on=True)
        if isinstance(event, Finished) and event.status:
            raise dumping.failure(self._spec.criu.work, "restore", event.status, self._spec.names)

    def _hold(self, pid: int) -> None:
        """Tell the keeper who the init is, and wait until it says that it may go on."""
        self.init = pid
        with file_errors("make", self._spec.held):
            os.makedirs(os.path.dirname(self._spec.held), mode=0o700, exist_ok=True)
            os.close(os.open(self._spec.held, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        self._report.send(Report.PID, str(pid))
        word = self._await_word(pid)
        self._closed = self._spec.closed if word == GO_CLOSED else None
        if word == GO_CLOSED and self._closed is None:
            raise KernelError("restore VE: it was not made to be started closed")
        self._allow(self._closed)

    def _stand(self, pid: int, closed: Closed) -> None:
        """Say that all is made, and wait until it may run."""
        init = pidfd.identify(pid)
        if init is None:
            raise KernelError("restore VE: its init was killed")
        files.write_volatile(closed.note, json.dumps([init.pid, init.start_time]).encode())
        self._report.send(Report.STANDS, "")
        self._await_word(pid)
        with file_errors("remove", closed.note):
            os.unlink(closed.note)
        self._allow(None)

    def _allow(self, closed: Closed | None) -> None:
        self._deadline = time.monotonic() + (self._spec.timeout_s if closed is None else closed.timeout_s)

    def _await_word(self, pid: int) -> bytes:
        """Wait for a word of the keeper's.

        Raises: KernelError, if none will come.
        """
        process = os.pidfd_open(pid)
        try:
            event = self._running.wait(deadline=math.inf, beside=(self._report.fileno(), process))
            if event is not None or pidfd.has_ended(process):
                raise KernelError("restore VE: its init was killed while it was held back")
        finally:
            os.close(process)
        word = self._report.receive()
        if word not in (GO, GO_CLOSED):
            raise KernelError("restore VE: the keeper has ended")
        return word

    def _spend(self) -> None:
        with file_errors("rename", self._spec.born):
            os.rename(self._spec.born, self._spec.spent)
        files.sync_directory(os.path.dirname(self._spec.born))


def mend(spec: Restore, init: int | None) -> None:
    """Kill all that a restore has made that failed or was killed, and keep the memory for another one.

    The processes may have run for a moment, with no network yet; their data is put back before the next attempt.
    Raises: VectlError.
    """
    if init is not None:
        with suppress(ProcessLookupError):
            os.kill(init, signal.SIGKILL)
    if spec.closed is not None:
        with suppress(FileNotFoundError):
            os.unlink(spec.closed.note)
    CgroupTree(cgroup_layout.detect(), spec.cgroup).kill()
    if os.path.isdir(spec.spent) and not os.path.exists(spec.born):
        with file_errors("rename", spec.spent):
            os.rename(spec.spent, spec.born)
        files.sync_directory(os.path.dirname(spec.born))
    with suppress(VectlError):
        dumpdebris.empty_directory(spec.criu.work, keep=(criu.log_name("restore"),))
