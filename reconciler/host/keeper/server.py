"""The keeper itself: one thread that forks, reaps, writes down and answers, and never waits for anything else."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import assert_never

from reconciler.errors import KeeperError, KernelError, VectlError
from reconciler.host.keeper import protocol, records
from reconciler.host.keeper.children import Dumping, Executing, Launching, Restoring, Serving, Showing, Starting
from reconciler.host.keeper.connections import Connections
from reconciler.host.keeper.memories import Memories, Parent
from reconciler.host.keeper.protocol import (
    Decide,
    Done,
    Dump,
    Ended,
    Exec,
    Failed,
    Hold,
    InitEnded,
    Launch,
    Launched,
    Open,
    Ping,
    Pong,
    Release,
    ReleaseClosed,
    Request,
    Restore,
    Serve,
    Show,
    Shutdown,
    Signal,
    Started,
    Watch,
)
from reconciler.kernel import child, execute, launch, pidfd, seccomp, views
from reconciler.kernel.pidfd import Exit, ProcessId
from reconciler.kernel.syscalls import file_errors, translated

_STDIO = 3


class Keeper:
    """The parent of the VEs of one instance."""

    def __init__(self, run_dir: str, listener: socket.socket) -> None:
        self._run_dir = run_dir
        self._selector = selectors.DefaultSelector()
        self._connections = Connections(
            listener, self._selector, on_request=self._on_request, on_gone=self._on_client_gone
        )
        self._launching: dict[int, Launching] = {}
        self._helpers: dict[int, Executing] = {}
        self._programs: dict[int, Executing] = {}
        self._shows: dict[int, Showing] = {}
        self._services: dict[int, Serving] = {}
        parent = Parent(
            listen=self._listen_to, send=self._connections.send, adopt=self._take_over, bury=self._bury_unseen
        )
        self._memories = Memories(parent)
        self._inits: dict[int, tuple[str, ProcessId]] = {}
        self._unclaimed: dict[int, tuple[ProcessId, Exit]] = {}
        self._filters: dict[bool, bytes] = {}
        self._woken, self._waker = socket.socketpair()
        self._ending = False

    def run(self) -> None:
        """Serve until a `Shutdown` or SIGTERM; the VEs live on."""
        self._wake_on_signals()
        while not self._ending:
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._reap()
            self._expire()

    def _wake_on_signals(self) -> None:
        for sock in (self._woken, self._waker):
            sock.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass

    def _end(self) -> None:
        self._ending = True

    def _on_request(self, client: int, number: int, request: Request, descriptors: list[int]) -> None:
        try:
            match request:
                case Launch():
                    self._launch(client, number, request)
                case Exec():
                    self._execute(client, number, request, descriptors)
                case Show():
                    self._show(client, number, request)
                case Serve():
                    self._serve(client, number, request)
                case Dump() | Hold() | Decide() | Restore() | Release() | ReleaseClosed() | Open():
                    self._remember(client, number, request)
                case Signal() | Watch() | Ping() | Shutdown():
                    self._connections.send(client, number, self._answer_at_once(client, request))
                case _:
                    assert_never(request)
        except VectlError as err:
            self._connections.send(client, number, _refusal(err))

    def _remember(self, client: int, number: int, request: protocol.MemoryRequest) -> None:
        match request:
            case Dump() | Hold():
                self._memories.dump(client, number, request)
            case Decide():
                self._memories.decide(client, number, request)
            case Restore():
                self._refuse_alive(request.uid)
                self._memories.restore(client, number, request)
            case Release() | ReleaseClosed():
                is_closed = isinstance(request, ReleaseClosed)
                if not self._memories.release(client, number, request.uid, closed=is_closed):
                    self._answer_for_running(client, number, request.uid)
            case Open():
                if not self._memories.open(client, number, request.uid):
                    self._answer_for_running(client, number, request.uid)

    def _answer_for_running(self, client: int, number: int, uid: str) -> None:
        if not any(other == uid for other, _ in self._inits.values()):
            raise KeeperError(f"release VE {uid}: it is not held back; create its runtime again")
        self._connections.send(client, number, Done())

    def _answer_at_once(self, client: int, request: Signal | Watch | Ping | Shutdown) -> Done | Pong:
        match request:
            case Signal():
                self._signal(client, request)
            case Watch():
                self._connections.watch(client)
            case Ping():
                return self._pong()
            case Shutdown():
                self._shut_down(request)
        return Done()

    def _launch(self, client: int, number: int, request: Launch) -> None:
        self._refuse_alive(request.uid)
        self._memories.refuse_busy(request.uid)
        with file_errors("remove", request.pid_file), suppress(FileNotFoundError):
            os.unlink(request.pid_file)
        pid, report = child.fork(lambda _report: launch.launch(request.spec))
        self._launching[pid] = Launching(
            child=pid,
            report=report,
            client=client,
            request=number,
            deadline=time.monotonic() + request.timeout_s,
            uid=request.uid,
            pid_file=request.pid_file,
        )
        self._listen_to(self._launching[pid])

    def _refuse_alive(self, uid: str) -> None:
        records.directory(self._run_dir, uid)
        if any(other.uid == uid for other in self._launching.values()):
            raise KeeperError(f"launch {uid}: it is being launched already")
        if any(other == uid for other, _ in self._inits.values()):
            raise KeeperError(f"launch {uid}: it runs already")

    def _execute(self, client: int, number: int, request: Exec, descriptors: list[int]) -> None:
        self._memories.refuse_inside(request.spec.init.pid)
        expected = 0 if request.spec.tty else _STDIO
        if len(descriptors) != expected:
            raise KeeperError(f"execute: expected {expected} descriptors, got {len(descriptors)}")
        filter_ = self._filter(nesting=request.spec.nesting)
        pid, report = child.fork(partial(execute.run_inside, request.spec, filter_), stdio=tuple(descriptors))
        self._helpers[pid] = Executing(
            child=pid,
            report=report,
            client=client,
            request=number,
            deadline=time.monotonic() + request.timeout_s,
        )
        self._listen_to(self._helpers[pid])

    def _show(self, client: int, number: int, request: Show) -> None:
        self._memories.refuse_inside(request.spec.init.pid)
        pid, report = child.fork(lambda _report: views.show(request.spec))
        deadline = time.monotonic() + request.timeout_s
        self._shows[pid] = Showing(child=pid, report=report, client=client, request=number, deadline=deadline)
        self._listen_to(self._shows[pid])

    def _serve(self, client: int, number: int, request: Serve) -> None:
        pid, report = child.fork(lambda _report: launch.serve(request.argv, request.env, output=request.output))
        deadline = time.monotonic() + request.timeout_s
        self._services[pid] = Serving(child=pid, report=report, client=client, request=number, deadline=deadline)
        self._listen_to(self._services[pid])

    def _filter(self, *, nesting: bool) -> bytes:
        if nesting not in self._filters:
            self._filters[nesting] = seccomp.compile_profile(seccomp.profile(nesting=nesting))
        return self._filters[nesting]

    def _signal(self, client: int, request: Signal) -> None:
        for executing in self._executing():
            if (executing.client, executing.request) == (client, request.target):
                if request.number == signal.SIGKILL:
                    executing.kill()
                elif executing.program is not None:
                    with translated(f"send signal {request.number} to", f"request {request.target}"):
                        os.kill(executing.program, request.number)
                return
        raise KeeperError(f"signal request {request.target}: no program of it runs")

    def _pong(self) -> Pong:
        inits, programs = len(self._inits), len(self._executing())
        return Pong(version=protocol.VERSION, pid=os.getpid(), inits=inits, programs=programs)

    def _shut_down(self, request: Shutdown) -> None:
        helpers = len(self._executing()) + len(self._shows) + len(list(self._memories.under_way()))
        busy = len(self._inits) + len(self._launching) + helpers
        if busy and not request.force:
            raise KeeperError(f"shut the keeper down: it is the parent of {busy} processes, whose ends would be missed")
        self._end()

    def _executing(self) -> list[Executing]:
        return list({id(each): each for each in chain(self._helpers.values(), self._programs.values())}.values())

    def _on_client_gone(self, client: int) -> None:
        """Kill what a client that left was executing. A launch goes on: a VE belongs to nobody."""
        for executing in self._executing():
            if executing.client == client:
                self._hear(executing)
                executing.kill()

    def _listen_to(self, starting: Starting) -> None:
        self._selector.register(starting.report, selectors.EVENT_READ, partial(self._hear, starting))

    def _hear(self, starting: Starting) -> None:
        if starting.settled:
            return
        starting.settled = starting.read_report()
        if isinstance(starting, Executing) and starting.program is not None:
            self._programs.setdefault(starting.program, starting)
        if isinstance(starting, Restoring | Dumping):
            self._memories.heard(starting)
        if starting.settled:
            self._selector.unregister(starting.report)
            if isinstance(starting, Executing):
                self._answer_start(starting)
            elif isinstance(starting, Serving):
                self._answer(self._services.pop(starting.child), Started(pid=starting.child))
            starting.close()

    def _answer_start(self, executing: Executing) -> None:
        executing.deadline = None
        if executing.failure is None and executing.program is None:
            executing.failure = Failed(kind="failed", message="execute: the helper was killed before it was inside")
        if executing.answered:
            return
        executing.answered = True
        if executing.failure is not None:
            self._connections.send(executing.client, executing.request, executing.failure)
        elif executing.program is not None:
            descriptors = () if executing.terminal is None else (executing.terminal,)
            self._connections.send(executing.client, executing.request, Started(pid=executing.program), descriptors)

    def _answer(self, starting: Starting, done: protocol.Answer) -> None:
        if not starting.answered:
            self._connections.send(starting.client, starting.request, starting.failure or done)

    def _patience(self) -> float | None:
        deadlines = [each.deadline for each in self._starting() if each.deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _starting(self) -> Iterator[Launching | Executing | Showing | Serving | Dumping | Restoring]:
        helpers: list[Showing | Serving] = [*self._shows.values(), *self._services.values()]
        return chain(list(self._launching.values()), self._executing(), helpers, self._memories.under_way())

    def _expire(self) -> None:
        now = time.monotonic()
        for each in list(self._starting()):
            if each.deadline is not None and each.deadline <= now:
                each.deadline = None
                each.answered = True
                each.kill()
                message = "the time allowed is over, and what had begun was killed"
                self._connections.send(each.client, each.request, Failed(kind="timeout", message=message))

    def _reap(self) -> None:
        """Reap every child that has ended; its number is not used again before.

        How an init ended is written down while it is a zombie, so that one that is gone has its record.
        """
        while (result := _peek()) is not None:
            process = _identify(result.si_pid) if self._launching else None
            if result.si_pid in self._inits:
                self._write_end(*self._inits[result.si_pid], pidfd.exit_of(result))
            os.waitid(os.P_PID, result.si_pid, os.WEXITED)
            for each in list(self._starting()):
                self._hear(each)  # what it said before it ended tells whose number this is
            self._reaped(result.si_pid, process, pidfd.exit_of(result))
        if not self._launching:
            self._unclaimed.clear()

    def _reaped(self, pid: int, process: ProcessId | None, exit_: Exit) -> None:
        if pid in self._launching:
            self._finish_launch(self._launching.pop(pid), exit_)
        elif pid in self._programs:
            executing = self._programs.pop(pid)
            if executing.failure is None:
                self._connections.send(executing.client, executing.request, Ended(exit=exit_))
        elif pid in self._helpers:
            del self._helpers[pid]
        elif pid in self._shows:
            self._finish_show(self._shows.pop(pid), exit_)
        elif self._memories.reaped(pid, exit_):
            pass
        elif pid in self._inits:
            uid, init = self._inits.pop(pid)
            self._connections.publish(InitEnded(uid=uid, init=init, exit=exit_))
        elif process is not None:
            self._unclaimed[pid] = process, exit_

    def _finish_show(self, showing: Showing, exit_: Exit) -> None:
        well = exit_ == Exit(kind="exited", value=0)
        self._answer(showing, Done() if well else Failed(kind="failed", message="show views: the helper was killed"))

    def _finish_launch(self, launching: Launching, exit_: Exit) -> None:
        try:
            answer: Launched | Failed = launching.failure or self._adopt(launching, exit_)
        except VectlError as err:
            answer = _refusal(err, kind="failed")
        if not launching.answered:
            self._connections.send(launching.client, launching.request, answer)

    def _adopt(self, launching: Launching, exit_: Exit) -> Launched | Failed:
        if exit_ != Exit(kind="exited", value=0):
            ended = f"ended with status {exit_.value}" if exit_.kind == "exited" else f"was killed by {exit_.value}"
            status = exit_.value if exit_.kind == "exited" else -exit_.value
            return Failed(kind="failed", message=f"launch {launching.uid}: the command {ended}", status=status)
        pid = _read_pid(launching.pid_file)
        init, ended_already = self._unclaimed.pop(pid, (_identify(pid), None))
        if init is None or (ended_already is None and not _is_our_child(pid)):
            raise KeeperError(f"launch {launching.uid}: process {pid} of {launching.pid_file} is no child of ours")
        records.write_init(self._run_dir, launching.uid, init)
        if ended_already is None:
            self._inits[pid] = launching.uid, init
        else:
            self._write_end(launching.uid, init, ended_already)
            self._connections.publish(InitEnded(uid=launching.uid, init=init, exit=ended_already))
        return Launched(init=init)

    def _take_over(self, uid: str, init: ProcessId) -> None:
        """Become the parent of an init in all but name: it will be our child once who made it has ended."""
        records.write_init(self._run_dir, uid, init)
        self._inits[init.pid] = uid, init

    def _bury_unseen(self, pid: int) -> None:
        """Write down the end of an init that whoever made it killed and reaped; one that we shall reap is left."""
        if pid not in self._inits or _is_our_child(pid):
            return
        uid, init = self._inits.pop(pid)
        killed = Exit(kind="signaled", value=signal.SIGKILL)
        self._write_end(uid, init, killed)
        self._connections.publish(InitEnded(uid=uid, init=init, exit=killed))

    def _write_end(self, uid: str, init: ProcessId, exit_: Exit) -> None:
        try:
            records.write_exit(self._run_dir, uid, init, exit_)
        except VectlError as err:
            sys.stderr.write(f"{err}\n")  # to the log; whoever looks finds an end of unknown cause


def _refusal(err: VectlError, *, kind: protocol.FailureKind = "refused") -> Failed:
    return Failed(kind=kind, message=str(err), errno=err.errno if isinstance(err, KernelError) else 0)


def _peek() -> os.waitid_result | None:
    """Look for a child that has ended, and leave it a zombie."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None


def _identify(pid: int) -> ProcessId | None:
    try:
        return pidfd.identify(pid)
    except VectlError as err:
        sys.stderr.write(f"{err}\n")
        return None


def _is_our_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _read_pid(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError) as err:
        raise KeeperError(f"read {path}: expected the pid of an init: {err}") from err
