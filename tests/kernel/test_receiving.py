"""Streams of subvolumes that are no honest ones: none of them touches what is outside of what it is received as."""

from __future__ import annotations

import asyncio
import os
import stat
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from reconciler.errors import KernelError, NoSpaceError, StateError
from reconciler.kernel import btrfs, receiving, sending
from reconciler.kernel.receive_child import Reception
from reconciler.kernel.send_stream import MAGIC, Key, Verb
from tests.support.storage import pool, write

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

UUID, FOREIGN = bytes(range(16)), b"f" * 16
HEAD = MAGIC + struct.pack("<I", 1)
MIB = 1 << 20


def said(verb: Verb, **attributes: bytes | int) -> bytes:
    """Give a command. Shape: attributes by the names of `Key` in lower case; a number takes eight bytes."""
    body = b""
    for name, value in attributes.items():
        data = value.to_bytes(8, "little") if isinstance(value, int) else value
        body += struct.pack("<HH", Key[name.upper()], len(data)) + data
    return struct.pack("<IHI", len(body), verb, 0) + body


BEGIN = HEAD + said(Verb.SUBVOLUME, path=b"x", uuid=UUID)
END = said(Verb.END)
MAKE = said(Verb.FILE, path=b"f")


def write_to(path: bytes, data: bytes = b"evil") -> bytes:
    return said(Verb.WRITE, path=path, offset=0, data=data)


def link_to(target: bytes) -> bytes:
    return said(Verb.SYMLINK, path=b"l", path_link=target)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pool(str(tmp_path_factory.mktemp("receiving"))) as path:
        yield path


@pytest.fixture
def move(place: str, tmp_path: Path) -> Iterator[str]:
    """Make the directory of a move, with a file, beside the secret of somebody else."""
    stem = f"{place}/{tmp_path.name}"
    write(f"{stem}/move/other/f", "other\n")
    write(f"{stem}/secret", "secret\n")
    yield f"{stem}/move"
    for name in os.listdir(f"{stem}/move"):
        if btrfs.is_subvolume(f"{stem}/move/{name}"):
            btrfs.delete_subvolume(f"{stem}/move/{name}")


def receive(move: str, *pieces: bytes, **job: object) -> str:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    made = Reception(directory=move, target="new", **job)  # type: ignore[arg-type]  # each test gives what fits
    return asyncio.run(receiving.receive(made, chunks()))


def outside(move: str) -> dict[str, tuple[object, ...]]:
    """Give all that is beside what is received."""
    found: dict[str, tuple[object, ...]] = {}
    for top, directories, names in os.walk(os.path.dirname(move)):
        if "new" in directories:
            directories.remove("new")
        for name in (*directories, *names):
            path = Path(top, name)
            info = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
            found[str(path)] = info.st_mode, info.st_uid, info.st_nlink, content
    return found


HOSTILE = {
    "absolute": MAKE + said(Verb.FILE, path=b"/secret"),
    "up": said(Verb.FILE, path=b"../secret"),
    "up-within": said(Verb.DIRECTORY, path=b"d") + said(Verb.FILE, path=b"d/../../other/g"),
    "here": said(Verb.FILE, path=b"./f"),
    "empty": said(Verb.FILE, path=b""),
    "nul": said(Verb.FILE, path=b"f\0g"),
    "long": said(Verb.FILE, path=b"n" * 256),
    "rename-out": MAKE + said(Verb.RENAME, path=b"f", path_to=b"../g"),
    "rename-in": said(Verb.RENAME, path=b"../other", path_to=b"g"),
    "link-in": said(Verb.LINK, path=b"g", path_link=b"../other/f"),
    "unlink-out": said(Verb.UNLINK, path=b"../other/f"),
    "write-by-link": link_to(b"../other/f") + write_to(b"l"),
    "write-below-link": link_to(b"../other") + write_to(b"l/f"),
    "write-below-absolute-link": link_to(b"/other") + write_to(b"l/f"),
    "make-below-link": link_to(b"../other") + said(Verb.FILE, path=b"l/g"),
    "mode-by-link": link_to(b"../other/f") + said(Verb.CHMOD, path=b"l", mode=0o777),
    "owner-out": said(Verb.CHOWN, path=b"../other/f", user=1, group=1),
    "remove-below-link": link_to(b"../other") + said(Verb.UNLINK, path=b"l/f"),
    "rename-below-link": link_to(b"../other") + MAKE + said(Verb.RENAME, path=b"f", path_to=b"l/f"),
    "copy-from-a-stranger": MAKE
    + said(Verb.CLONE, path=b"f", offset=0, clone_length=4096, clone_uuid=FOREIGN, clone_path=b"f", clone_offset=0),
    "copy-from-below-link": link_to(b"../other")
    + MAKE
    + said(Verb.CLONE, path=b"f", offset=0, clone_length=4096, clone_uuid=UUID, clone_path=b"l/f", clone_offset=0),
    "second-subvolume": said(Verb.SUBVOLUME, path=b"y", uuid=FOREIGN),
    "second-snapshot": said(Verb.SNAPSHOT, path=b"y", uuid=FOREIGN, clone_uuid=UUID),
    "node-of-no-kind": said(Verb.NODE, path=b"n", mode=stat.S_IFREG | 0o644, device=0),
    "write-to-a-fifo": said(Verb.FIFO, path=b"p") + write_to(b"p"),
    "write-to-a-disk": said(Verb.NODE, path=b"n", mode=stat.S_IFBLK | 0o600, device=7 << 8) + write_to(b"n"),
    "far": MAKE + said(Verb.WRITE, path=b"f", offset=(1 << 64) - 1, data=b"x"),
    "nobody": said(Verb.CHOWN, path=b"", user=(1 << 32) - 1, group=0),
    "unknown-command": struct.pack("<IHI", 0, 77, 0),
    "huge-command": struct.pack("<IHI", 1 << 30, Verb.WRITE, 0),
    "half-an-attribute": struct.pack("<IHI", 3, Verb.FILE, 0) + b"abc",
    "attribute-too-long": struct.pack("<IHI", 4, Verb.FILE, 0) + struct.pack("<HH", Key.PATH, 99),
    "nothing-said": said(Verb.FILE),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_stream_is_refused_and_nothing_outside_is_touched(move: str, body: bytes) -> None:
    before = outside(move)
    with pytest.raises((StateError, KernelError)):
        receive(move, BEGIN + body + END)
    assert outside(move) == before


@pytest.mark.parametrize(
    "stream",
    [b"", b"garbage" * 1000, HEAD, BEGIN, BEGIN + MAKE, BEGIN + MAKE[:-1], BEGIN + END + b"x", HEAD + MAKE + END],
    ids=["empty", "garbage", "only-head", "no-end", "no-end-after-one", "cut", "more", "no-subvolume"],
)
def test_what_is_no_whole_stream_is_refused(move: str, stream: bytes) -> None:
    before = outside(move)
    with pytest.raises(StateError, match="it has"):
        receive(move, stream)
    assert outside(move) == before


def test_another_version_is_refused_rather_than_guessed_at(move: str) -> None:
    with pytest.raises(StateError, match="of version 2"):
        receive(move, MAGIC + struct.pack("<I", 2) + BEGIN[len(HEAD) :] + END)


def test_a_difference_of_something_else_is_refused(move: str) -> None:
    assert receive(move, BEGIN + END) == UUID.hex()
    os.rename(f"{move}/new", f"{move}/first")
    btrfs.make_read_only(f"{move}/first")
    try:
        job = {"parent": "first", "sources": {UUID.hex(): "first"}}
        for wrong in (BEGIN, HEAD + said(Verb.SNAPSHOT, path=b"x", uuid=FOREIGN, clone_uuid=FOREIGN)):
            with pytest.raises(StateError, match="where it should be a difference of first"):
                receive(move, wrong + END, **job)
        assert not os.path.exists(f"{move}/new")
        with pytest.raises(StateError, match="where it should be whole"):
            receive(move, HEAD + said(Verb.SNAPSHOT, path=b"x", uuid=FOREIGN, clone_uuid=UUID) + END)
    finally:
        btrfs.delete_subvolume(f"{move}/first")


def test_more_than_the_limit_is_never_written(move: str) -> None:
    block = os.urandom(40_000)
    body = b"".join(
        said(Verb.WRITE, path=b"f", offset=at * len(block), data=block) for at in range(24 * MIB // len(block))
    )
    with pytest.raises(NoSpaceError):
        receive(move, BEGIN, MAKE, body, END, limit=8 * MIB)
    assert os.stat(f"{move}/new/f").st_blocks * 512 <= 9 * MIB


def test_what_the_source_raises_is_raised_and_the_process_has_ended(move: str) -> None:
    async def broken_off() -> AsyncIterator[bytes]:
        yield BEGIN
        yield MAKE
        raise ConnectionError("the line is gone")

    with pytest.raises(ConnectionError):
        asyncio.run(receiving.receive(Reception(directory=move, target="new"), broken_off()))
    assert receive_children() == []


def receive_children() -> list[str]:
    """List the processes of ours that receive."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(status[1]) == os.getpid() and b"receive_child" in line:
            found.append(entry.name)
    return found


def test_who_stops_reading_ends_who_sends(place: str, move: str) -> None:
    btrfs.create_subvolume(f"{move}/new")
    Path(f"{move}/new/f").write_bytes(os.urandom(8 * MIB))
    btrfs.make_read_only(f"{move}/new")

    async def take_one() -> int:
        stream = sending.send(f"{move}/new", parent=None)
        first = await anext(stream)
        await stream.aclose()
        return len(first)

    assert asyncio.run(take_one()) > 0
    btrfs.delete_subvolume(f"{move}/new")  # which nothing keeps the kernel from
