"""Talking to the keeper from an event loop, and starting it if there is none."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

import reconciler
from reconciler.errors import CommandError, KeeperError, TerminalError, TimeLimitError, VectlError
from reconciler.host.keeper import protocol
from reconciler.host.keeper.protocol import (
    Answer,
    Done,
    Ended,
    Exec,
    Failed,
    Hello,
    InitEnded,
    Launch,
    Launched,
    Ping,
    Pong,
    Request,
    Shutdown,
    Signal,
    Started,
    Watch,
)
from reconciler.kernel import command, runc
from reconciler.kernel.pidfd import ProcessId

T = TypeVar("T")

_ANSWER_S = 10.0
_START_S = 30.0
_RETRY_S = 0.02
_GRACE_S = 5.0  # beyond a request's own deadline, which the keeper holds
NOT_FOUND, NOT_EXECUTED = 127, 126
"""The status of a program that cannot be executed, as a shell gives it."""


class Execution:
    """A program that runs in a VE, and the number of the request that started it.

    ``terminal`` is the other end of its terminal, to be closed by the holder.
    """

    def __init__(self, client: KeeperClient, number: int, pid: int, terminal: int | None) -> None:
        self._client = client
        self.number = number
        self.pid = pid
        self.terminal = terminal

    async def wait(self) -> int:
        """Wait for the end; give its exit status, 128 and more for a signal.

        Raises: KeeperError, if the keeper goes away before.
        """
        answer, _ = await self._client.next_answer(self.number)
        self._client.forget(self.number)
        exit_ = _expect(answer, Ended).exit
        return exit_.value if exit_.kind == "exited" else 128 + exit_.value

    async def send_signal(self, number: signal.Signals) -> None:
        """Signal the program.

        Raises: KeeperError, if it has ended.
        """
        await self._client.ask(Signal(target=self.number, number=number), Done)


class KeeperClient:
    """One connection. What it executes is killed when it closes; what it launches is not."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._answers: dict[int, asyncio.Queue[tuple[Answer, int | None]]] = {}
        self._events: asyncio.Queue[InitEnded | None] | None = None
        self._hello: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()
        self._last = 0
        asyncio.get_running_loop().add_reader(sock, self._receive)

    @classmethod
    async def connect(cls, run_dir: str) -> Self:
        """Connect to the keeper of a run directory.

        Raises: KeeperError, if there is none; TerminalError, if it speaks another version.
        """
        client = cls(await _connect(run_dir))
        try:
            async with asyncio.timeout(_ANSWER_S):
                hello = await client._hello
        except TimeoutError as err:
            client.close()
            raise KeeperError(f"connect to the keeper of {run_dir}: it does not answer") from err
        if hello.version != protocol.VERSION:
            client.close()
            text = (
                f"it speaks version {hello.version}, this is {protocol.VERSION}; end process {hello.pid}, VEs live on"
            )
            raise TerminalError(f"connect to the keeper of {run_dir}: {text}")
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Tell whether the keeper is still there."""
        return self._socket.fileno() >= 0

    def close(self) -> None:
        """Leave; everybody who waits for an answer gets an error. Closing twice is allowed."""
        if not self.is_open:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        gone = Failed(kind="failed", message="wait for the keeper: the connection is closed")
        for queue in self._answers.values():
            queue.put_nowait((gone, None))
        if self._events is not None:
            self._events.put_nowait(None)
        if not self._hello.done():
            self._hello.set_exception(KeeperError(gone.message))

    async def launch(self, request: Launch, *, log: str | None = None) -> ProcessId:
        """Run what makes or restores an init, and give that init. ``log`` is where an OCI runtime says what is wrong.

        Raises: CommandError, if the command failed; TimeLimitError; KeeperError.
        """
        try:
            return (await self.ask(request, Launched, timeout_s=request.timeout_s + _GRACE_S)).init
        except CommandError as err:
            said = None if log is None else runc.read_error(log)
            if said is None:
                raise
            raise CommandError(f"{err}: {said}", status=err.status, output=said) from err

    async def execute(self, request: Exec, *, stdio: tuple[int, int, int] | None = None) -> Execution:
        """Start a program in a VE on these descriptors, or on a terminal of its own.

        Raises: CommandError with status 126 or 127, if the program cannot be executed; TimeLimitError; KeeperError.
        """
        number = self._send(request, stdio or ())
        try:
            answer, terminal = await self._within(request.timeout_s + _GRACE_S, self.next_answer(number))
            started = _expect(answer, Started)
        except BaseException:
            self._abandon(number)
            raise
        return Execution(self, number, started.pid, terminal)

    async def events(self) -> AsyncIterator[InitEnded]:
        """Give the end of every init from now on, until the connection closes.

        Raises: KeeperError, when it does.
        """
        assert self._events is None, "one reader of events for each connection"
        self._events = asyncio.Queue()
        await self.ask(Watch(), Done)
        while (event := await self._events.get()) is not None:
            yield event
        raise KeeperError("watch the keeper: the connection is closed")

    async def ping(self) -> Pong:
        """Ask whether the keeper is well.

        Raises: KeeperError; TimeLimitError.
        """
        return await self.ask(Ping(), Pong)

    async def shut_down(self, *, force: bool = False) -> None:
        """End the keeper.

        Raises: KeeperError, if it is the parent of something and is not forced.
        """
        await self.ask(Shutdown(force=force), Done)

    async def ask(self, request: Request, expected: type[T], *, timeout_s: float = _ANSWER_S) -> T:
        """Send a request that has one answer.

        Raises: KeeperError; CommandError; TimeLimitError.
        """
        number = self._send(request)
        try:
            answer, _ = await self._within(timeout_s, self.next_answer(number))
            return _expect(answer, expected)
        finally:
            self.forget(number)

    async def next_answer(self, number: int) -> tuple[Answer, int | None]:
        """Wait for the next answer to a request, with the descriptor beside it."""
        return await self._answers[number].get()

    def forget(self, number: int) -> None:
        """Drop a request: answers that still come are thrown away."""
        queue = self._answers.pop(number, None)
        while queue is not None and not queue.empty():
            _close(queue.get_nowait()[1])

    def _abandon(self, number: int) -> None:
        """Forget a program that may be starting, and have it killed."""
        self.forget(number)
        with suppress(KeeperError):
            self.forget(self._send(Signal(target=number, number=signal.SIGKILL)))

    async def _within(self, timeout_s: float, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as err:
            raise TimeLimitError(f"wait for the keeper: no answer within {timeout_s:g} s") from err

    def _send(self, request: Request, descriptors: tuple[int, ...] = ()) -> int:
        self._last += 1
        packet = protocol.encode(self._last, request)
        self._answers[self._last] = asyncio.Queue()
        try:
            socket.send_fds(self._socket, [packet], descriptors)
        except OSError as err:
            self.forget(self._last)
            raise KeeperError(f"send to the keeper: {err.strerror or err}") from err
        return self._last

    def _receive(self) -> None:
        try:
            size, flags = protocol.MESSAGE_BYTES, socket.MSG_CMSG_CLOEXEC
            packet, descriptors, _, _ = socket.recv_fds(self._socket, size, 1, flags)
        except BlockingIOError:
            return
        except OSError:
            packet, descriptors = b"", []
        if not packet:
            self.close()
            return
        self._take(packet, descriptors[0] if descriptors else None)

    def _take(self, packet: bytes, descriptor: int | None) -> None:
        try:
            number, answer = protocol.decode_answer(packet)
        except KeeperError:
            _close(descriptor)
            self.close()
            raise
        queue = None if number is None else self._answers.get(number)
        if queue is not None:
            queue.put_nowait((answer, descriptor))
            return
        _close(descriptor)
        if isinstance(answer, InitEnded) and self._events is not None:
            self._events.put_nowait(answer)
        elif isinstance(answer, Hello) and not self._hello.done():
            self._hello.set_result(answer)


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _expect(answer: Answer, expected: type[T]) -> T:
    if isinstance(answer, Failed):
        raise _error(answer)
    if not isinstance(answer, expected):
        raise KeeperError(f"read message: expected {expected.__name__}, got {type(answer).__name__}")
    return answer


def _error(failed: Failed) -> VectlError:
    if failed.kind == "timeout":
        return TimeLimitError(failed.message)
    if failed.kind == "not-executed":
        status = NOT_FOUND if failed.errno == errno.ENOENT else NOT_EXECUTED
        return CommandError(failed.message, status=status, output="")
    if failed.status is not None:
        return CommandError(failed.message, status=failed.status, output="")
    return KeeperError(failed.message)


async def _connect(run_dir: str) -> socket.socket:
    sock = protocol.new_socket()
    try:
        directory = protocol.open_run_dir(run_dir)
        try:
            await asyncio.get_running_loop().sock_connect(sock, protocol.socket_address(directory))
        finally:
            os.close(directory)
    except OSError as err:
        sock.close()
        raise KeeperError(f"connect to the keeper of {run_dir}: {err.strerror}") from err
    return sock


async def ensure_keeper(run_dir: str) -> KeeperClient:
    """Connect to the keeper of a run directory; start one if there is none.

    Raises: KeeperError; TimeLimitError; TerminalError, if the one that runs speaks another version.
    """
    with suppress(KeeperError):
        return await KeeperClient.connect(run_dir)
    deadline = time.monotonic() + _START_S
    await _start(run_dir)
    while True:
        try:
            return await KeeperClient.connect(run_dir)
        except KeeperError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_RETRY_S)  # another process is just starting one, and has the lock


async def _start(run_dir: str) -> None:
    """Start a keeper with nothing on its module path but this package and the standard library."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(reconciler.__file__)))
    argv = [sys.executable, "-P", "-s", "-S", "-m", "reconciler.host.keeper", "--run-dir", run_dir]
    try:
        await command.run_async(argv, timeout_s=_START_S, env={"PYTHONPATH": package})
    except CommandError as err:
        log = os.path.join(run_dir, protocol.LOG_NAME)
        raise KeeperError(f"start the keeper of {run_dir}: {err}; its log is {log}") from err
