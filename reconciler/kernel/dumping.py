"""Dumping a VE: frozen, written to disk, made to count by one rename, and killed or let go on.

Done by a forked child of the keeper, so that it ends in one way or the other whatever becomes of the agent. Until the
rename a failure changes nothing: the VE goes on, and what was written does not count. After it the VE is suspended, and
what is left of its processes is killed.

Light on imports: the keeper holds this module.

Source: criu(8).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

from reconciler.errors import CommandError, KernelError, KernelFormatError, VectlError
from reconciler.kernel import btrfs, cgroup_layout, child, criu, criu_timers, dumpdebris, files, image, mount, pidfd
from reconciler.kernel.cgroup import CgroupTree
from reconciler.kernel.child import Report
from reconciler.kernel.criu import DumpSpec
from reconciler.kernel.hooked import Asked, Finished, HookedCriu
from reconciler.kernel.syscalls import checked, file_errors, libc

MEMORY = "memory"
VOLUME = "volume"
END, RESUME = b"end", b"resume"
"""What is said to who holds a VE."""

_BEGUN = "begun"
_LOCK_S = 30.0
_FREEZE_S = 10.0
_VFORK_S = 0.002
_FORKS = {"x86_64": frozenset({"56", "58", "435"}), "aarch64": frozenset({"220", "435"})}
"""The numbers of clone(2), vfork(2) and clone3(2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """The data that belongs to a memory.

    Shape: ``group`` is the quota group that its snapshots belong to; ``device`` the one behind which an image is.
    """

    path: str
    group: int | None = None
    device: str | None = None
    quotas: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A volatile file to be there once a dump counts."""

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What a VE is held with, once it is written: a snapshot of its ``data``, and the note that says that it is held.

    As long as the note is there nothing lets it go but who is told to.
    """

    data: str
    note: Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """A dump, and what makes it count.

    Shape: ``unborn`` is a directory with all else that belongs to it, and an empty ``memory`` for the images; it gets
    the data as ``volume``, and then the name ``born``. ``names``: of processes, by their pids on the host. ``hold``: it
    is not ended then, but stands still, for as long as it takes, until a word says whether it ends or goes on.
    Units: seconds.
    """

    criu: DumpSpec
    env: Mapping[str, str]
    cgroup: str
    unborn: str
    born: str
    volume: Volume
    note: Note | None
    names: Mapping[str, str]
    timeout_s: float
    hold: Hold | None = None


def dump(spec: Dump, report: Report) -> NoReturn:
    """Carry out a dump, in a forked child with one thread; that a VE is held is reported.

    Raises: VectlError, and then the VE goes on as if nothing had been asked.
    """
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    child.replace_stdio(output=None)
    mount.enter_private_namespace()
    with leading(spec.criu.work, wait_s=_LOCK_S):
        _dump(spec, report)
    os._exit(0)


@contextmanager
def leading(work: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Be the one who leads a dump with that work directory, or brings one to its end; so long no other one is.

    Raises: BusyError, naming who does; KernelError.
    """
    with files.lock(f"{work}.lock", wait_s=wait_s):
        yield


def was_begun(work: str) -> bool:
    """Say whether a dump with that work directory was begun, and neither ended nor was undone."""
    return os.path.exists(f"{work}/{_BEGUN}")


def _dump(spec: Dump, report: Report) -> None:
    dumpdebris.empty_directory(spec.criu.work)
    files.write_volatile(f"{spec.criu.work}/{_BEGUN}", b"")
    tree = CgroupTree(cgroup_layout.detect(), spec.cgroup)
    try:
        _freeze(tree)
        _run(spec, report)
    except VectlError:
        mend(spec)
        if not _is_suspended(spec):
            raise
    if not spec.criu.leave_running:
        tree.thaw()  # the signal that ends them is taken only then
    dumpdebris.empty_directory(spec.criu.work, keep=(criu.log_name("dump"),))


def _freeze(tree: CgroupTree) -> None:
    """Freeze a VE at a moment when none of its processes waits for a child to execute a program.

    Such a one cannot be stopped by criu while its child is: that waits in vain, and gives up.
    """
    deadline = time.monotonic() + _FREEZE_S
    while True:
        tree.freeze(timeout_s=_FREEZE_S)
        if time.monotonic() > deadline or not any(_is_in_vfork(pid) for pid in tree.processes()):
            return
        tree.thaw()
        time.sleep(_VFORK_S)


def _is_in_vfork(pid: int) -> bool:
    """Say whether a thread of a frozen process is in a call that returns at once, unless a child has its memory.

    Source: proc_pid_syscall(5); vfork(2); clone(2), CLONE_VFORK.
    """
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/syscall", encoding="ascii") as file:
                if file.read().partition(" ")[0] in _FORKS[os.uname().machine]:
                    return True
    return False


def _run(spec: Dump, report: Report) -> None:
    deadline, go_on = time.monotonic() + spec.timeout_s, True
    running = HookedCriu(criu.dump_argv(spec.criu), spec.env, work=spec.criu.work)
    try:
        while isinstance(event := running.wait(deadline=deadline), Asked):
            if event.action == criu.DUMPED:
                _commit(spec)
                if spec.hold is not None and _await_word(spec, running, report) == END:
                    _end_held(spec, running)
                    return
                go_on = spec.hold is None
                deadline = time.monotonic() + spec.timeout_s
            running.answer(go_on=go_on or event.action != criu.DUMPED)
    except BaseException:
        running.kill()
        raise
    if spec.hold is not None and not go_on:
        _forget_hold(spec.hold)
        let_go(CgroupTree(cgroup_layout.detect(), spec.cgroup), spec.criu.pid, work=spec.criu.work, note=None)
        return
    if isinstance(event, Finished) and event.status:
        raise failure(spec.criu.work, "dump", event.status, spec.names)
    if spec.criu.leave_running:
        CgroupTree(cgroup_layout.detect(), spec.cgroup).thaw()
        _give_birth(spec)


def _end_held(spec: Dump, running: HookedCriu) -> None:
    """End a VE that is held. criu would wait for the end of its processes, which frozen as they are cannot come."""
    running.kill()
    CgroupTree(cgroup_layout.detect(), spec.cgroup).kill()


def _await_word(spec: Dump, running: HookedCriu, report: Report) -> bytes:
    """Hold a VE that is written, and wait for the word whether it ends.

    criu keeps each process by ptrace alone and has thawed the cgroup: frozen again, they outlive criu as they are.
    Raises: KernelError, if no word will come; then it stays as it is.
    """
    assert spec.hold is not None, "who waits holds something"
    CgroupTree(cgroup_layout.detect(), spec.cgroup).freeze(timeout_s=_FREEZE_S)
    files.write_volatile(spec.hold.note.path, spec.hold.note.text.encode())
    init = os.pidfd_open(spec.criu.pid)
    try:
        report.send(Report.STANDS, "")
        event = running.wait(deadline=math.inf, beside=(report.fileno(), init))
        if event is not None or pidfd.has_ended(init):
            raise KernelError("hold VE: what held it, or its init, was killed")
        word = report.receive()
    finally:
        os.close(init)
    if word not in (END, RESUME):
        raise KernelError("hold VE: the keeper has ended")
    return word


def _forget_hold(hold: Hold) -> None:
    with file_errors("remove", hold.note.path), suppress(FileNotFoundError):
        os.unlink(hold.note.path)


def failure(work: str, what: str, status: int, names: Mapping[str, str]) -> CommandError:
    """Say why criu failed, out of its log."""
    log = f"{work}/{criu.log_name(what)}"
    ended = f"criu was killed by signal {-status}" if status < 0 else f"criu ended with status {status}"
    why = criu.read_error(log, names) or f"{ended}; its log is {log}"
    return CommandError(why, status=status, output="")


def _commit(spec: Dump) -> None:
    """Keep the data as it is at this instant; a dump that ends the VE counts before its processes are killed."""
    with suppress(KernelFormatError):  # of a criu that writes otherwise, which may not need it
        criu_timers.correct(spec.criu.images)
    if spec.volume.device is not None:
        image.flush(spec.volume.device, quotas=spec.volume.quotas)
    data = f"{spec.unborn}/{VOLUME}" if spec.hold is None else spec.hold.data
    btrfs.snapshot(spec.volume.path, data, read_only=True, group=spec.volume.group)
    if not spec.criu.leave_running:
        _give_birth(spec)


def _give_birth(spec: Dump) -> None:
    if spec.hold is None:  # of what is held nothing needs to be there after a crash of the host
        _flush(spec.unborn)
    if spec.note is not None:
        files.write_volatile(spec.note.path, spec.note.text.encode())
    with file_errors("rename", spec.unborn):
        os.rename(spec.unborn, spec.born)
    if spec.hold is None:
        files.sync_directory(os.path.dirname(spec.born))


def _flush(directory: str) -> None:
    """Have all of the pool on disk: one commit, where flushing the hundred files of a memory would take one each.

    Source: syncfs(2).
    """
    with file_errors("flush", directory):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        checked(libc.syncfs(descriptor), "flush", directory)
    finally:
        os.close(descriptor)


def _is_suspended(spec: Dump) -> bool:
    return not spec.criu.leave_running and spec.hold is None and os.path.isdir(spec.born)


def mend(spec: Dump) -> None:
    """Bring a dump that failed, or whose process was killed, to an end: the VE goes on, or is suspended, or stays held.

    Raises: VectlError.
    """
    if spec.hold is not None and os.path.exists(spec.hold.note.path):
        return
    tree = CgroupTree(cgroup_layout.detect(), spec.cgroup)
    if _is_suspended(spec):
        tree.kill()
        return
    let_go(tree, spec.criu.pid, work=spec.criu.work, note=None if spec.note is None else spec.note.path)


def let_go(tree: CgroupTree, init: int, *, work: str, note: str | None) -> None:
    """Let a VE go on as if nothing had been asked, of which a dump came to nothing.

    Shape: ``note`` is the path of what was to be there once the dump counts.
    Raises: VectlError.
    """
    dumpdebris.unlock(init, tree.processes())
    with suppress(KernelError):  # a VE that has ended meanwhile
        tree.thaw()
    if note is not None:
        with suppress(FileNotFoundError):
            os.unlink(note)
    dumpdebris.empty_directory(work, keep=(criu.log_name("dump"),))
