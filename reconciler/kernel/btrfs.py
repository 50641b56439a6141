"""btrfs: file systems, subvolumes and snapshots, by the kernel's ioctls. Quotas are in `qgroup`."""

from __future__ import annotations

import array
import ctypes
import errno
import os
import stat
import struct
from dataclasses import dataclass

from reconciler.errors import BusyError, KernelError
from reconciler.kernel import command
from reconciler.kernel.btrfs_call import call, opened
from reconciler.kernel.syscalls import checked, file_errors, libc

_ROOT_INODE = 256  # the inode number of every subvolume's root directory, and of nothing else
_STATFS_SIZE = 120
_SUPER_MAGIC = 0x9123683E

_IOC_SYNC = 0x9408
_IOC_FS_INFO = 0x8400941F
_FS_INFO_BYTES = 1024
_FSID_AT = 16
_IOC_INO_LOOKUP = 0xD0009412
_IOC_SNAP_CREATE_V2 = 0x50009417
_IOC_SUBVOL_CREATE_V2 = 0x50009418
_IOC_SUBVOL_GETFLAGS = 0x80089419
_IOC_SUBVOL_SETFLAGS = 0x4008941A
_IOC_SNAP_DESTROY_V2 = 0x5000943F

_SUBVOL_RDONLY = 1 << 1
_SUBVOL_QGROUP_INHERIT = 1 << 2
_SUBVOL_SPEC_BY_ID = 1 << 4

_MKFS_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A file system's size and what an ordinary file could still take of it, in bytes."""

    size: int
    free: int


def is_btrfs(path: str) -> bool:
    """Tell whether a path lies on btrfs.

    Raises: KernelError.
    Source: statfs(2).
    """
    answer = ctypes.create_string_buffer(_STATFS_SIZE)
    checked(libc.statfs(os.fsencode(path), answer), "look at", path)
    return int.from_bytes(answer.raw[:8], "little") == _SUPER_MAGIC


def make_filesystem(target: str, *, label: str) -> None:
    """Make a btrfs in an image file or on a device that holds no other file system.

    An image keeps the place that was allocated for it.

    Raises: CommandError, if there is a file system already or it is too small; MissingToolError; TimeLimitError.
    Source: mkfs.btrfs(8).
    """
    command.run(["mkfs.btrfs", "--quiet", "--label", label, target], timeout_s=_MKFS_SECONDS)


def create_subvolume(path: str) -> None:
    """Make an empty subvolume; a subvolume there is success.

    Raises: KernelError, NoSpaceError.
    """
    if is_subvolume(path):
        return
    directory, name = _split(path)
    with opened(directory) as fd:
        arguments = struct.pack("<qQQQQ16x4040s", 0, 0, 0, 0, 0, os.fsencode(name))
        call(fd, _IOC_SUBVOL_CREATE_V2, bytearray(arguments), "create subvolume", path)


def snapshot(source: str, target: str, *, read_only: bool, group: int | None = None) -> None:
    """Make a snapshot of a subvolume; it is on disk when this returns. It has the source's quota limit from the start.

    ``group``: the quota group of a higher level that it is a member of from the start. The quota stays consistent only
    if the source is a member of that one and of no other, nobody outside it shares any data with its members, and the
    kernel is 6.9 or later; with None, only if the source is a member of none.

    Raises: KernelError, also if the target exists; NoSpaceError.
    Source: Linux fs/btrfs/qgroup.c, qgroup_snapshot_quick_inherit.
    """
    directory, name = _split(target)
    flags, inherit = _SUBVOL_RDONLY if read_only else 0, array.array("Q")
    if group is not None:
        flags |= _SUBVOL_QGROUP_INHERIT
        # btrfs_qgroup_inherit: flags, how many groups, two counts and a limit of five words unused, the groups.
        inherit.extend((0, 1, 0, 0, 0, 0, 0, 0, 0, group))
    with opened(source) as origin, opened(directory) as fd:
        size, address = inherit.itemsize * len(inherit), inherit.buffer_info()[0]
        arguments = struct.pack("<qQQQQ16x4040s", origin, 0, flags, size, address, os.fsencode(name))
        call(fd, _IOC_SNAP_CREATE_V2, bytearray(arguments), "snapshot", f"{source} as {target}")


def make_read_only(path: str) -> None:
    """Let nothing in a subvolume be changed any more; already so is success.

    Raises: KernelError, if there is no subvolume.
    Source: btrfs-subvolume(8), "subvolume flags".
    """
    subvolume_id(path)
    with opened(path) as fd:
        flags = bytearray(8)
        call(fd, _IOC_SUBVOL_GETFLAGS, flags, "read flags of", path)
        if not int.from_bytes(flags, "little") & _SUBVOL_RDONLY:
            wanted = int.from_bytes(flags, "little") | _SUBVOL_RDONLY
            call(fd, _IOC_SUBVOL_SETFLAGS, bytearray(struct.pack("<Q", wanted)), "make read-only", path)


def delete_subvolume(path: str) -> None:
    """Delete a subvolume or a snapshot with all its files; absent is success. Its space comes back in the background.

    Raises: BusyError, if it holds another subvolume; KernelError, also if it is a plain directory.
    """
    if not os.path.lexists(path):
        return
    number = subvolume_id(path)
    with opened(os.path.dirname(path) or ".") as fd:
        # By id: what somebody else puts in the path's place meanwhile is safe.
        arguments = bytearray(struct.pack("<qQQ32xQ4032x", 0, 0, _SUBVOL_SPEC_BY_ID, number))
        try:
            call(fd, _IOC_SNAP_DESTROY_V2, arguments, "delete subvolume", path)
        except KernelError as err:
            if err.errno == errno.ENOTEMPTY:
                raise BusyError(f"delete subvolume {path}: another subvolume is in it; delete that first") from err
            raise


def find_subvolume(path: str) -> int | None:
    """Read the id of the subvolume whose root is at a path, not followed if it is a link; None, if there is none.

    Raises: KernelError.
    """
    with file_errors("look at", path):
        try:
            info = os.lstat(path)
        except FileNotFoundError:
            return None
    if info.st_ino != _ROOT_INODE or not stat.S_ISDIR(info.st_mode):
        return None
    arguments = bytearray(struct.pack("<QQ4080x", 0, _ROOT_INODE))
    try:
        with opened(path) as fd:
            call(fd, _IOC_INO_LOOKUP, arguments, "read subvolume", path)
    except KernelError as err:
        if err.errno == errno.ENOTTY:  # another file system's inode of that number
            return None
        raise
    return int.from_bytes(arguments[:8], "little")


def is_subvolume(path: str) -> bool:
    """Tell whether a path, not followed if it is a link, is a subvolume's root; absent is False.

    Raises: KernelError.
    """
    return find_subvolume(path) is not None


def subvolume_id(path: str) -> int:
    """Read the id of the subvolume whose root is at a path.

    Raises: KernelError, if there is no subvolume.
    """
    number = find_subvolume(path)
    if number is None:
        raise KernelError(f"read subvolume {path}: expected a btrfs subvolume", errno=errno.EINVAL)
    return number


def filesystem_id(path: str) -> bytes:
    """Read what a file system is known by, as the kernel's own handles of its files hold it. Shape: 16 bytes.

    Raises: KernelError.
    """
    answer = bytearray(_FS_INFO_BYTES)
    with opened(path) as fd:
        call(fd, _IOC_FS_INFO, answer, "look at", path)
    return bytes(answer[_FSID_AT : _FSID_AT + 16])


def sync(path: str) -> None:
    """Write out all that was written to the file system.

    Raises: KernelError; NoSpaceError.
    """
    with opened(path) as fd:
        call(fd, _IOC_SYNC, bytearray(), "write out", path)


def read_space(path: str) -> Space:
    """Read the size of a file system and its free space as btrfs estimates it.

    Raises: KernelError.
    """
    with file_errors("look at", path):
        info = os.statvfs(path)
    return Space(size=info.f_blocks * info.f_frsize, free=info.f_bavail * info.f_frsize)


def _split(path: str) -> tuple[str, str]:
    directory, name = os.path.split(path)
    return directory or ".", name
