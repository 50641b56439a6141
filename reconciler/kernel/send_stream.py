"""The stream that btrfs sends a subvolume as: its commands, taken apart without trust in who made them.

Source: Linux fs/btrfs/send.h; btrfs documentation, "Send stream format" (version 1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import IO

from reconciler.errors import StateError

MAGIC = b"btrfs-stream\0"
_HEADER = struct.Struct("<13sI")
_COMMAND = struct.Struct("<IHI")  # length of what follows, number, checksum
_ATTRIBUTE = struct.Struct("<HH")
_VERSION = 1
_LONGEST = 1 << 17
_PATH_MOST = 4095
_NAME_MOST = 255
_UUID_BYTES = 16


class Verb(IntEnum):
    """What a command does."""

    SUBVOLUME = 1
    SNAPSHOT = 2
    FILE = 3
    DIRECTORY = 4
    NODE = 5
    FIFO = 6
    SOCKET = 7
    SYMLINK = 8
    RENAME = 9
    LINK = 10
    UNLINK = 11
    RMDIR = 12
    SET_ATTRIBUTE = 13
    REMOVE_ATTRIBUTE = 14
    WRITE = 15
    CLONE = 16
    TRUNCATE = 17
    CHMOD = 18
    CHOWN = 19
    TIMES = 20
    END = 21


class Key(IntEnum):
    """What an attribute of a command is."""

    UUID = 1
    SIZE = 4
    MODE = 5
    USER = 6
    GROUP = 7
    DEVICE = 8
    MTIME = 10
    ATIME = 11
    XATTR_NAME = 13
    XATTR_DATA = 14
    PATH = 15
    PATH_TO = 16
    PATH_LINK = 17
    OFFSET = 18
    DATA = 19
    CLONE_UUID = 20
    CLONE_PATH = 22
    CLONE_OFFSET = 23
    CLONE_LENGTH = 24


_TIME = struct.Struct("<QI")
_VERBS = {int(verb): verb for verb in Verb}


@dataclass(frozen=True, slots=True)
class Command:
    """One command. Whoever asks it for what it lacks, or for what cannot be, gets a `StateError`."""

    verb: Verb
    attributes: dict[int, memoryview]

    def data(self, key: Key) -> memoryview:
        """Give an attribute as it is."""
        found = self.attributes.get(key)
        if found is None:
            raise broken(f"{self.verb.name} without {key.name}")
        return found

    def number(self, key: Key) -> int:
        """Give an attribute that is a number."""
        data = self.data(key)
        if len(data) != 8:
            raise broken(f"{key.name} of {len(data)} bytes")
        return int.from_bytes(data, "little")

    def uuid(self, key: Key) -> str:
        """Give an attribute that is a UUID. Shape: 32 hex digits."""
        data = self.data(key)
        if len(data) != _UUID_BYTES:
            raise broken(f"{key.name} of {len(data)} bytes")
        return bytes(data).hex()

    def time(self, key: Key) -> int:
        """Give an attribute that is a time. Units: nanoseconds since 1970."""
        data = self.data(key)
        if len(data) != _TIME.size:
            raise broken(f"{key.name} of {len(data)} bytes")
        seconds, nanoseconds = _TIME.unpack(data)
        signed = seconds - (1 << 64) if seconds >> 63 else seconds
        return int(signed) * 1_000_000_000 + int(nanoseconds)

    def text(self, key: Key) -> bytes:
        """Give an attribute that is a text without NUL."""
        data = bytes(self.data(key))
        if b"\0" in data:
            raise broken(f"{key.name} with a NUL in it")
        return data

    def path(self, key: Key, *, may_be_root: bool = False) -> bytes:
        """Give an attribute that is a path below the subvolume."""
        path = self.text(key)
        if not path and may_be_root:
            return path
        parts = path.split(b"/")
        if len(path) > _PATH_MOST or any(part in (b"", b".", b"..") or len(part) > _NAME_MOST for part in parts):
            raise broken(f"{key.name} {path[:_NAME_MOST]!r}, which is no path below the subvolume")
        return path


def read_commands(stream: IO[bytes]) -> Iterator[Command]:
    """Take a stream apart, which is one subvolume, up to its end.

    Raises: StateError, if it is not whole, or not one that Linux makes; what reading raises.
    """
    magic, version = _HEADER.unpack(_exactly(stream, _HEADER.size))
    if magic != MAGIC or version != _VERSION:
        raise broken(f"a beginning {magic!r} of version {version}")
    while True:
        command = _read_command(stream)
        if command.verb is Verb.END:
            break
        yield command
    if stream.read(1):
        raise broken("more after its end")


def _read_command(stream: IO[bytes]) -> Command:
    length, number, _ = _COMMAND.unpack(_exactly(stream, _COMMAND.size))
    if length > _LONGEST or number not in _VERBS:
        raise broken(f"a command {number} of {length} bytes")
    return Command(_VERBS[number], dict(_attributes(memoryview(_exactly(stream, length)))))


def _attributes(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at < len(body):
        if at + _ATTRIBUTE.size > len(body):
            raise broken("half an attribute")
        kind, length = _ATTRIBUTE.unpack_from(body, at)
        at += _ATTRIBUTE.size
        if at + length > len(body):
            raise broken(f"an attribute of {length} bytes that ends too soon")
        yield kind, body[at : at + length]
        at += length


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise broken("an end before its end")
    return data


def broken(what: str) -> StateError:
    """Make the error of a stream that is none."""
    return StateError(f"read stream of a subvolume: it has {what}")
