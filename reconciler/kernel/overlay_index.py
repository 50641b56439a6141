"""The index of an overlay, renewed after its volume became another subvolume.

With index=on the overlay keeps, below ``work/index``, one entry for each file that it copied up, and in attributes of
the directories among them the handles of what they stand for in the upper layer. A handle on btrfs holds the number of
the subvolume; in a snapshot all else of it stays the same. Neither the index nor the attributes that name the origin in
the lower layer may be taken away instead: the overlay would mount, and a file that the template has by several names
would fall apart into several files.

Source: Linux fs/overlayfs/overlayfs.h, struct ovl_fb; fs/overlayfs/namei.c, ovl_verify_index; fs/btrfs/export.h,
struct btrfs_fid.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import uuid
from collections.abc import Iterator

from reconciler.errors import KernelFormatError
from reconciler.kernel import btrfs, files
from reconciler.kernel.syscalls import checked, file_errors, libc

_INDEX = ("work", "index")
_UPPER = "trusted.overlay.upper"
_UUID = "trusted.overlay.uuid"
_ORIGIN = "trusted.overlay.origin"

_AT_EMPTY_PATH = 0x1000
_HANDLE_HEADER = 8

_HEADER = struct.Struct("<BBBBB16s")  # version, magic, length, flags, type of the file's handle, file system
_VERSION, _MAGIC = 0, 0xFB
_BTRFS_WITHOUT_PARENT = 0x4D
_FID = struct.Struct("<QQI")  # inode, subvolume, generation
_ROOT_AT = _HEADER.size + 8


def renew(volume: str) -> int:
    """Make the handles in the index of a volume's overlay speak of this subvolume; give how many did not.

    To be called while no overlay of the volume is mounted. Costs as much as there are entries, whatever the files hold.
    A volume that was never mounted has no index.

    Raises: KernelError; NoSpaceError; KernelFormatError, if a handle is not one of btrfs.
    """
    number = btrfs.subvolume_id(volume)
    return sum(_renew(path, number) for path in _holders(os.path.join(volume, *_INDEX)))


def renew_received(volume: str) -> int:
    """Make the handles in the index of a volume's overlay speak of files that came here from another file system.

    As `renew`, but nothing in the handles stays the same, so that the directories of the upper layer are searched for
    those whose origin an entry is named after: it costs as much as there are directories. ``upper``, ``work`` and
    ``work/index`` are known to be directories.

    Raises: as `renew`.
    """
    index, upper = os.path.join(volume, *_INDEX), f"{volume}/upper"
    stale = {os.path.basename(path): handle for path, handle in _stale(index)}
    if not stale:
        return 0
    identity, count = btrfs.filesystem_id(volume), 0
    with file_errors("open", upper):
        top = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for number, directory in enumerate(files.directories_below(top, upper)):
            name = _entry_of(directory) if number else os.path.basename(index)
            if name in stale:
                holder = index if number == 0 else f"{index}/{name}"
                count += _renew_to(holder, directory, stale.pop(name), identity)
            if not stale:
                break
    finally:
        os.close(top)
    return count


def _renew_to(holder: str, directory: int, before: bytes, identity: bytes) -> bool:
    renewed = _handle_of(directory, before, identity, where=holder)
    if renewed != before:
        with file_errors("renew index of", holder):
            os.setxattr(holder, _UPPER, renewed, follow_symlinks=False)
    return renewed != before


def _stale(index: str) -> Iterator[tuple[str, bytes]]:
    for path in _holders(index):
        with file_errors("look at", path):
            handle = _attribute(path, _UPPER)
        if handle is not None:
            yield path, handle


def _entry_of(directory: int) -> str:
    """Give the name of the index entry of a directory of the upper layer; empty, if it stands for none below."""
    with file_errors("look at", "upper layer"):
        try:
            return os.getxattr(directory, _ORIGIN).hex()
        except OSError as err:
            if err.errno != errno.ENODATA:
                raise
            return ""


def _handle_of(directory: int, before: bytes, identity: bytes, *, where: str) -> bytes:
    """Give the handle of a directory as the overlay writes it down, with the flags of the one before."""
    with_subvolume(before, 0, where=where)  # which tells whether it is one of btrfs
    answer = ctypes.create_string_buffer(struct.pack("<Ii", _FID.size, 0), _HANDLE_HEADER + _FID.size)
    mount_id = ctypes.c_int()
    result = libc.name_to_handle_at(directory, b"", answer, ctypes.byref(mount_id), _AT_EMPTY_PATH)
    checked(result, "ask for the handle of", where)
    header = _HEADER.pack(*before[:4], _BTRFS_WITHOUT_PARENT, identity)
    return header + answer.raw[_HANDLE_HEADER : _HANDLE_HEADER + _FID.size]


def give_identity(upper: str) -> None:
    """Give the overlay of an upper layer an identity of its own, if it has one: that of a copy is the original's.

    Raises: KernelError; NoSpaceError.
    Source: Linux Documentation/filesystems/overlayfs.rst, "UUID and fsid".
    """
    with file_errors("set identity of", upper):
        if _attribute(upper, _UUID) is not None:
            os.setxattr(upper, _UUID, uuid.uuid4().bytes, follow_symlinks=False)


def _holders(index: str) -> Iterator[str]:
    """List what has a handle: the index for the upper layer's root, and its entries for directories."""
    with file_errors("list", index):
        try:
            entries = os.scandir(index)
        except FileNotFoundError:
            return
        yield index
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield entry.path


def _renew(path: str, number: int) -> bool:
    with file_errors("renew index of", path):
        handle = _attribute(path, _UPPER)
        if handle is None:
            return False
        renewed = with_subvolume(handle, number, where=path)
        if renewed != handle:
            os.setxattr(path, _UPPER, renewed, follow_symlinks=False)
    return renewed != handle


def with_subvolume(handle: bytes, number: int, *, where: str) -> bytes:
    """Give a file's handle as the overlay writes it down, with another number of its btrfs subvolume.

    Raises: KernelFormatError, if it is of another kind.
    """
    expected = (_VERSION, _MAGIC, _HEADER.size + _FID.size, _BTRFS_WITHOUT_PARENT)
    found = _HEADER.unpack_from(handle) if len(handle) >= _HEADER.size else (0,) * 6
    if (found[0], found[1], found[2], found[4]) != expected or len(handle) != expected[2]:
        raise KernelFormatError(f"read {_UPPER} of {where}: expected a handle of btrfs, got {handle.hex()}")
    return handle[:_ROOT_AT] + number.to_bytes(8, "little") + handle[_ROOT_AT + 8 :]


def _attribute(path: str, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError as err:
        if err.errno != errno.ENODATA:
            raise
        return None
