"""The process that receives a subvolume: it sees nothing but the directory of the move that the subvolume belongs to.

Shape: on standard input a line of JSON, see `Reception`, then the stream; on standard output a line of JSON with what
the source calls the subvolume, or with the ``error``, its ``text`` and its ``errno``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import IO

from reconciler.errors import StateError, VectlError
from reconciler.kernel import btrfs, mount, qgroup, send_stream
from reconciler.kernel.receiver import Receiver
from reconciler.kernel.send_stream import Command, Key, Verb, broken
from reconciler.kernel.syscalls import checked, file_errors, libc

_PR_SET_PDEATHSIG = 1
_MEMORY = 1 << 30
_BUFFER = 1 << 20
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


def receive_here(job: Reception, stream: IO[bytes]) -> str:
    """Receive a subvolume in this process, which has one thread and sees the directory as its root.

    Raises: StateError; NoSpaceError; KernelError.
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
