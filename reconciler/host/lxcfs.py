"""The lxcfs of an instance: one process of its own, the keeper's child, that outlives the agent.

It is the instance's own and not the machine's: instances then never meet, none depends on a service manager, it runs
with the options that are needed here, and when it has to be started anew nobody else's containers lose theirs.

Nobody here ever opens a file of it but `answers`, in a thread that nobody waits for: a process that asks a stopped
lxcfs hangs with it.

Source: lxcfs(1).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from reconciler.errors import CommandError, KernelError, MissingToolError, TimeLimitError, VectlError
from reconciler.host.inits import Inits
from reconciler.host.keeper import protocol, records
from reconciler.host.keeper.client import KeeperClient
from reconciler.kernel import cgroup_mount, command, files, mount, pidfd
from reconciler.kernel.parsed import ParsedFiles
from reconciler.kernel.pidfd import ProcessId
from reconciler.model.instance import Instance

FSTYPE = "fuse.lxcfs"

TARGETS = (
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/sys/devices/system/cpu/online",
)
"""What a VE sees of lxcfs, by the same path in both: each is a mount of the VE that is external to a checkpoint."""

_OPTIONS = ("-f", "--enable-loadavg", "--enable-cfs", "--enable-pidfd")
_FUSE = "/dev/fuse"
_START_S = 10.0
_END_S = 5.0
_POLL_S = 0.005
_RETRY_S = 10.0
_ANSWER_S = 5.0
_LOG_KEPT = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An lxcfs. ``device``: the number of its file system, as mount tables have it."""

    boot_id: str
    process: ProcessId
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """Why it could not be started. Units: ``at`` seconds of the monotonic clock."""

    reason: str
    program: tuple[int, int]
    at: float


class Lxcfs:
    """Finds the lxcfs of an instance, starts it, and tells whether it serves."""

    def __init__(self, instance: Instance, parsed: ParsedFiles, alive: Inits) -> None:
        self._instance, self._parsed, self._alive = instance, parsed, alive
        self._starting = asyncio.Lock()
        self._failure: _Failure | None = None
        self._hung: ProcessId | None = None
        self._asking: threading.Thread | None = None

    @property
    def root(self) -> str:
        """Where it is mounted."""
        return f"{self._instance.run_dir}/lxcfs"

    def source(self, target: str) -> str:
        """Give the file of it that is shown at a place in a VE."""
        return f"{self.root}{target}"

    def running(self) -> Running | None:
        """Give the one that runs and serves; None, if there is none or it was found to hang.

        Raises: KernelError, StateError.
        """
        found = self._parsed.read(_record_file(self._instance), _parse)
        if found is None or found.process == self._hung or not self._alive.is_alive(found.process):
            return None
        return found

    def obstacle(self) -> str:
        """Say why there is none and none could be started now; empty, if there is or can be one."""
        if self.running() is not None:
            return ""
        program = _program(self._instance)
        if program is None:
            return "lxcfs is not installed; install the Debian package lxcfs"
        if not os.path.exists(_FUSE):
            return f"this host has no {_FUSE}; load the module fuse"
        failure = self._failure
        if failure is None or time.monotonic() - failure.at > _RETRY_S or failure.program != _identity(program):
            return ""
        return failure.reason

    async def ensure(self, keeper: KeeperClient) -> Running:
        """Give the one that runs; start one, if there is none.

        Raises: MissingToolError, if there can be none now; CommandError, if it ended at once; TimeLimitError.
        """
        async with self._starting:
            found = self.running()
            if found is not None:
                return found
            if why := self.obstacle():
                raise MissingToolError(f"start lxcfs: {why}")
            program = _program(self._instance) or "lxcfs"
            identity = _identity(program)
            try:
                return await self._start(keeper, program)
            except VectlError as err:
                self._failure = _Failure(reason=str(err), program=identity, at=time.monotonic())
                raise

    async def _start(self, keeper: KeeperClient, program: str) -> Running:
        await asyncio.to_thread(end, self._instance)
        self._hung = None
        os.makedirs(self.root, mode=0o711, exist_ok=True)
        flags = cgroup_mount.read_flags()
        pid_file, log = f"{self.root}.pid", f"{self.root}.log"
        request = protocol.Serve(
            argv=(program, *_OPTIONS, "-p", pid_file, self.root),
            env={"PATH": os.environ.get("PATH", os.defpath)},
            output=log,
            timeout_s=_START_S,
        )
        started = await keeper.ask(request, protocol.Started, timeout_s=_START_S + 1)
        process = pidfd.identify(started.pid)
        device = None if process is None else await self._await_mount(process)
        if process is None or device is None:
            raise CommandError(f"start lxcfs: it ended at once: {_last_words(log)}", status=1, output="")
        cgroup_mount.restore_flags(flags)
        running = Running(boot_id=records.boot_id(), process=process, device=device)
        files.write_volatile(_record_file(self._instance), _to_json(running))
        return running

    async def _await_mount(self, process: ProcessId) -> str | None:
        deadline = time.monotonic() + _START_S
        while self._alive.is_alive(process):
            device = next((m.device for m in mount.read_mounts() if m.target == self.root and m.fstype == FSTYPE), None)
            if device is not None:
                return device
            if time.monotonic() > deadline:
                _kill(process)
                raise TimeLimitError(f"start lxcfs: it mounted nothing within {_START_S:g} s")
            await asyncio.sleep(_POLL_S)
        return None

    async def answers(self) -> bool:
        """Ask the one that runs for something; if it does not answer it counts as gone, and the next start ends it.

        A thread that hangs in the kernel is freed when the one that it asked is killed.
        """
        found = self.running()
        if found is None or (self._asking is not None and self._asking.is_alive()):
            return True
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        self._asking = threading.Thread(target=_ask, args=(self.source("/proc/uptime"), loop, told), daemon=True)
        self._asking.start()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await told.wait()
        except TimeoutError:
            self._hung = found.process
        return self._hung is None


def find(instance: Instance) -> Running | None:
    """Give the newest one that an instance started in this boot; it may have ended since.

    Raises: KernelError.
    """
    data = files.read_bytes_if_exists(_record_file(instance))
    return None if data is None else _parse(data, where=_record_file(instance))


def end(instance: Instance) -> None:
    """End the lxcfs of an instance, if one runs, and take its mount away; VEs that saw through it get errors.

    Raises: KernelError, StateError.
    """
    found = find(instance)
    if found is not None:
        _kill(found.process)
    root = os.path.realpath(f"{instance.run_dir}/lxcfs")
    for entry in mount.read_mounts():
        if entry.target == root:
            mount.unmount(root, lazy=True)
    with suppress(FileNotFoundError):
        os.unlink(_record_file(instance))


def _kill(process: ProcessId) -> None:
    """Kill it and wait until it is gone, so that what waits for an answer of it gets an error."""
    descriptor = pidfd.open_process(process)
    if descriptor is None:
        return
    try:
        pidfd.send_signal(descriptor, signal.SIGKILL)
        pidfd.has_ended(descriptor, timeout_s=_END_S)
    finally:
        os.close(descriptor)


def _ask(path: str, loop: asyncio.AbstractEventLoop, told: asyncio.Event) -> None:
    try:
        with open(path, "rb") as file:
            file.read()
    except OSError:
        pass  # it is gone, as its descriptor tells
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(told.set)


def _program(instance: Instance) -> str | None:
    own = f"{instance.programs}/lxcfs"
    return own if os.access(own, os.X_OK) else shutil.which("lxcfs")


def _identity(program: str) -> tuple[int, int]:
    try:
        status = os.stat(program)
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)


def _record_file(instance: Instance) -> str:
    return f"{instance.run_dir}/lxcfs.json"


def _to_json(running: Running) -> bytes:
    process = running.process
    fields = {"boot_id": running.boot_id, "pid": process.pid, "start": process.start_time, "device": running.device}
    return json.dumps(fields).encode()


def _parse(data: bytes, *, where: str) -> Running | None:
    """Parse what was written when it was started; None, if that was in another boot or makes no sense."""
    del where
    try:
        fields = json.loads(data)
        process = ProcessId(pid=int(fields["pid"]), start_time=int(fields["start"]))
        running = Running(boot_id=str(fields["boot_id"]), process=process, device=str(fields["device"]))
    except (ValueError, KeyError, TypeError):
        return None
    return running if running.boot_id == records.boot_id() else None


def _last_words(log: str) -> str:
    said = (files.read_bytes_if_exists(log) or b"").decode(errors="replace").strip()
    return said[-_LOG_KEPT:].rpartition("\n")[2] or "it said nothing"


def version(instance: Instance) -> str | None:
    """Ask the program for its version; None, if there is no such program.

    Raises: VectlError.
    """
    program = _program(instance)
    if program is None:
        return None
    return command.run([program, "--version"], timeout_s=_START_S, with_errors=True).strip().strip('"')


def is_alive(instance: Instance) -> bool:
    """Say whether the one that an instance started is there.

    Raises: KernelError.
    """
    found = find(instance)
    try:
        descriptor = None if found is None else pidfd.open_process(found.process)
    except KernelError:
        return False
    if descriptor is None:
        return False
    ended = pidfd.has_ended(descriptor)
    os.close(descriptor)
    return not ended
