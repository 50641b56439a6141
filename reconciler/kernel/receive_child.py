"""The process that receives a subvolume: it sees nothing but the directory of the move that the subvolume belongs to.

Shape: on standard input a line of JSON, see `Reception`, then the stream; on standard output a line of JSON with what
the source calls the subvolume, or with the ``error``, its ``text`` and its ``errno``.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import IO

import reconciler
from reconciler.errors import CommandError, KernelError, NoSpaceError, StateError, VectlError
from reconciler.kernel import btrfs, command, mount, qgroup, send_stream
from reconciler.kernel.receiver import Receiver
from reconciler.kernel.send_stream import Command, Key, Verb, broken
from reconciler.kernel.syscalls import checked, file_errors, libc

_PR_SET_PDEATHSIG = 1
_MEMORY = 1 << 30
_BUFFER = 1 << 20
_SAID_MOST = 1 << 16
_IOC_GETFLAGS, _IOC_SETFLAGS = 0x80086601, 0x40086602
_NO_COPY_ON_WRITE = 0x00800000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """What to receive where. Paths are relative to ``directory``, and what they name lies in it.

    ``parent``: what the stream is a difference of. ``sources``: what it may copy from, by what the source calls them.
    ``limit``: what the subvolume may refer to; ``grouped``: a quota group above it, or that of the parent, is to hold
    it. ``in_place``: its files are overwritten in place. Units: bytes.
    """

    directory: str
    target: str
    parent: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    grouped: bool = False
    in_place: bool = False


async def receive(job: Reception, chunks: AsyncIterator[bytes]) -> str:
    """Receive a subvolume, and give what the source calls it. It stays writable, and is not on disk yet.

    Whatever fails leaves half of it; the process has ended then.

    Raises: StateError, if the stream is none for it; NoSpaceError; KernelError; CommandError, if the process was
    killed; whatever ``chunks`` raises.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(reconciler.__file__)))
    argv = [sys.executable, "-P", "-s", "-S", "-m", __name__]
    with command.started(argv[0]):
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env={"PYTHONPATH": package, "PATH": os.environ.get("PATH", os.defpath)},
            process_group=0,
        )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        await _feed(process.stdin, job, chunks)
        answer = await process.stdout.read(_SAID_MOST)
        status = await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return _judge(answer, status)


async def _feed(pipe: asyncio.StreamWriter, job: Reception, chunks: AsyncIterator[bytes]) -> None:
    """Write all chunks; a process that wants no more says why."""
    try:
        pipe.write(json.dumps(asdict(job)).encode() + b"\n")
        async for chunk in chunks:
            pipe.write(chunk)
            await pipe.drain()
        pipe.close()
        await pipe.wait_closed()
    except (BrokenPipeError, ConnectionResetError):
        return


def _judge(answer: bytes, status: int) -> str:
    try:
        said = json.loads(answer)
    except ValueError:
        raise CommandError("receive a subvolume: its process was killed", status=status, output="") from None
    if "uuid" in said:
        return str(said["uuid"])
    match said["error"]:
        case "NoSpaceError":
            raise NoSpaceError(said["text"])
        case "StateError":
            raise StateError(said["text"])
        case _:
            raise KernelError(said["text"], errno=said["errno"])


def receive_here(job: Reception, stream: IO[bytes]) -> str:
    """Receive a subvolume in this process, which has one thread and sees the directory as its root.

    Raises: as `receive`.
    """
    commands = send_stream.read_commands(stream)
    first = next(commands, None)
    if first is None:
        raise broken("no subvolume in it")
    target = f"/{job.target}"
    _make(job, first, target)
    qgroup.set_limit(target, job.limit)
    with ExitStack() as held:
        root = held.enter_context(_opened(target))
        sources = {uuid: held.enter_context(_opened(f"/{path}")) for uuid, path in job.sources.items()}
        name = first.uuid(Key.UUID)
        with _in_place(root, wanted=job.in_place):
            Receiver(root, {**sources, name: root}).carry_out(commands)
    return name


def _make(job: Reception, first: Command, target: str) -> None:
    if job.parent is None:
        if first.verb is not Verb.SUBVOLUME:
            raise broken(f"{first.verb.name} first, where it should be whole")
        btrfs.create_subvolume(target)
        if job.grouped:
            number = btrfs.subvolume_id(target)
            group = qgroup.group_of_level_1(number)
            qgroup.create_qgroup("/", group)
            qgroup.assign_qgroup("/", number, group)
        return
    if first.verb is not Verb.SNAPSHOT or job.sources.get(first.uuid(Key.CLONE_UUID)) != job.parent:
        raise broken(f"{first.verb.name} first, where it should be a difference of {job.parent}")
    parent = f"/{job.parent}"
    above = next(iter(qgroup.read_parents("/", btrfs.subvolume_id(parent))), None)
    btrfs.snapshot(parent, target, read_only=False, group=above)


@contextmanager
def _in_place(root: int, *, wanted: bool) -> Iterator[None]:
    """Have files that are made at the top be overwritten in place: a stream does not tell that of them."""
    before = int.from_bytes(fcntl.ioctl(root, _IOC_GETFLAGS, bytes(8)), "little")
    during = before | _NO_COPY_ON_WRITE if wanted else before & ~_NO_COPY_ON_WRITE
    fcntl.ioctl(root, _IOC_SETFLAGS, during.to_bytes(8, "little"))
    yield
    fcntl.ioctl(root, _IOC_SETFLAGS, (before & ~_NO_COPY_ON_WRITE).to_bytes(8, "little"))


@contextmanager
def _opened(path: str) -> Iterator[int]:
    with file_errors("open", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _main() -> None:
    checked(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "prctl", "PR_SET_PDEATHSIG")
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    os.umask(0o077)
    with open(0, "rb", buffering=_BUFFER, closefd=False) as stream:
        job = Reception(**json.loads(stream.readline()))
        try:
            mount.enter_private_namespace()
            mount.see_only(job.directory)
            with file_errors("receive", job.target):
                _say(uuid=receive_here(job, stream))
        except MemoryError:
            _say(error=StateError.__name__, text=f"receive {job.target}: it takes too much memory", errno=errno.ENOMEM)
        except VectlError as err:
            _say(error=type(err).__name__, text=str(err), errno=getattr(err, "errno", 0))


def _say(**answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
