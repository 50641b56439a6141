"""The one way into btrfs: an ioctl on a directory, and a search in one of its trees."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from reconciler.errors import KernelError, NoSpaceError
from reconciler.kernel.syscalls import file_error, file_errors

_IOC_TREE_SEARCH_V2 = 0xC0709411
_KEY = struct.Struct("<7Q4I4Q")
_KEY_AND_SIZE = 112
_HEADER = struct.Struct("<3Q2I")
_BUFFER = 1 << 18  # the quota items of some 1,600 subvolumes at once; more take another call
_BUFFER_FOR_ONE = 1 << 12
_LAST = (1 << 64) - 1


class Key(NamedTuple):
    """The place of an item in a btrfs tree, which is ordered by it."""

    objectid: int
    type: int
    offset: int


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Open a directory for ioctls; a symbolic link in its place is refused.

    Raises: KernelError.
    """
    with file_errors("open", path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def call(fd: int, request: int, arguments: bytearray, verb: str, what: str) -> None:
    """Make a btrfs ioctl; the kernel's answer is in ``arguments`` afterwards.

    Raises: KernelError, NoSpaceError.
    Source: linux/btrfs.h.
    """
    try:
        # Only a mutable buffer may be longer than 1,024 bytes.
        fcntl.ioctl(fd, request, arguments)
    except OSError as err:
        raise _error(verb, what, err.errno or 0) from err


def search(fd: int, tree: int, first: Key, last: Key, what: str) -> Iterator[tuple[Key, memoryview]]:
    """Give the items of a tree from one key to another, in order.

    Raises: KernelError; its errno is ENOENT if there is no such tree.
    Source: linux/btrfs.h, BTRFS_IOC_TREE_SEARCH_V2.
    """
    room = _BUFFER_FOR_ONE if first[:2] == last[:2] else _BUFFER
    while True:
        arguments = bytearray(_KEY_AND_SIZE + room)
        # Objectid, offset and transaction bounds, then types; keys are compared whole, not part by part.
        bounds = (first.objectid, last.objectid, first.offset, last.offset, 0, _LAST, first.type, last.type)
        _KEY.pack_into(arguments, 0, tree, *bounds, _LAST & 0xFFFFFFFF, 0, 0, 0, 0, 0)
        struct.pack_into("<Q", arguments, _KEY.size, room)
        call(fd, _IOC_TREE_SEARCH_V2, arguments, "search", what)
        items = list(_items(arguments))
        yield from items
        if not items or items[-1][0] >= last:
            return
        first = _after(items[-1][0])


def _items(arguments: bytearray) -> Iterator[tuple[Key, memoryview]]:
    count = struct.unpack_from("<I", arguments, 64)[0]
    view, at = memoryview(arguments), _KEY_AND_SIZE
    for _ in range(count):
        _, objectid, offset, kind, length = _HEADER.unpack_from(arguments, at)
        at += _HEADER.size
        yield Key(objectid, kind, offset), view[at : at + length]
        at += length


def _after(key: Key) -> Key:
    if key.offset < _LAST:
        return key._replace(offset=key.offset + 1)
    return Key(key.objectid, key.type + 1, 0)


def _error(verb: str, what: str, error: int) -> KernelError | NoSpaceError:
    if error == errno.ENOTTY:
        return KernelError(f"{verb} {what}: expected a path on btrfs", errno=error)
    if error == errno.ENOTCONN:
        return KernelError(f"{verb} {what}: quotas are not on", errno=error)
    return file_error(verb, what, error)
