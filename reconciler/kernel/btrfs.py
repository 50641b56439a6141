"""btrfs: file systems, subvolumes and snapshots, by the kernel's ioctls. Quotas are in `qgroup`."""

from __future__ import annotations

import array
import ctypes
import errno
import os
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
_IOC_RESIZE = 0x50009403
_IOC_INO_LOOKUP = 0xD0009412
_IOC_SNAP_CREATE_V2 = 0x50009417
_IOC_SUBVOL_CREATE_V2 = 0x50009418
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _New:
    name: str
    origin: int = 0
    flags: int = 0
    qgroup: int | None


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


def create_subvolume(path: str, *, qgroup: int | None = None) -> None:
    """Make an empty subvolume, a member of a higher quota group if one is given; a subvolume there is success.

    Raises: KernelError, NoSpaceError.
    """
    if is_subvolume(path):
        return
    directory, name = _split(path)
    with opened(directory) as fd:
        _make(fd, _IOC_SUBVOL_CREATE_V2, _New(name=name, qgroup=qgroup), "create subvolume", path)


def snapshot(source: str, target: str, *, read_only: bool, qgroup: int | None = None) -> None:
    """Make a snapshot of a subvolume. It has the source's quota limit from the start.

    As a member of a higher ``qgroup`` it leaves the quota consistent only if the source is in that group and in no
    other, and the kernel is 6.9 or later.

    Raises: KernelError, also if the target exists; NoSpaceError.
    """
    directory, name = _split(target)
    with opened(source) as origin, opened(directory) as fd:
        new = _New(name=name, origin=origin, flags=_SUBVOL_RDONLY if read_only else 0, qgroup=qgroup)
        _make(fd, _IOC_SNAP_CREATE_V2, new, "snapshot", f"{source} as {target}")


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


def is_subvolume(path: str) -> bool:
    """Tell whether a path, not followed if it is a link, is a subvolume's root; absent is False.

    Raises: KernelError.
    """
    with file_errors("look at", path):
        try:
            info = os.lstat(path)
        except FileNotFoundError:
            return False
    return info.st_ino == _ROOT_INODE and is_btrfs(path)


def subvolume_id(path: str) -> int:
    """Read the id of the subvolume whose root is at a path.

    Raises: KernelError, if there is no subvolume.
    """
    if not is_subvolume(path):
        raise KernelError(f"read subvolume {path}: expected a btrfs subvolume", errno=errno.EINVAL)
    arguments = bytearray(struct.pack("<QQ4080x", 0, _ROOT_INODE))
    with opened(path) as fd:
        call(fd, _IOC_INO_LOOKUP, arguments, "read subvolume", path)
    return int.from_bytes(arguments[:8], "little")


def sync(path: str) -> None:
    """Commit the file system now: quota numbers become current and deleted subvolumes begin to be cleaned.

    Raises: KernelError, NoSpaceError.
    """
    with opened(path) as fd:
        call(fd, _IOC_SYNC, bytearray(), "commit", path)


def read_space(path: str) -> Space:
    """Read the size of a file system and its free space as btrfs estimates it.

    Raises: KernelError.
    """
    with file_errors("look at", path):
        info = os.statvfs(path)
    return Space(size=info.f_blocks * info.f_frsize, free=info.f_bavail * info.f_frsize)


def grow(path: str) -> None:
    """Let a mounted file system of one device fill its device.

    Raises: KernelError.
    """
    with opened(path) as fd:
        call(fd, _IOC_RESIZE, bytearray(struct.pack("<q4088s", 0, b"max")), "grow", path)


def _split(path: str) -> tuple[str, str]:
    directory, name = os.path.split(path)
    return directory or ".", name


def _make(fd: int, request: int, new: _New, verb: str, what: str) -> None:
    """Make a subvolume or snapshot in a directory; the ioctl's struct is ``btrfs_ioctl_vol_args_v2``."""
    flags, inherit = new.flags, array.array("Q")
    if new.qgroup is not None:
        flags |= _SUBVOL_QGROUP_INHERIT
        # btrfs_qgroup_inherit: flags, how many groups, two counts and a limit of five words unused, the groups.
        inherit.extend((0, 1, 0, 0, 0, 0, 0, 0, 0, new.qgroup))
    size, address = inherit.itemsize * len(inherit), inherit.buffer_info()[0]
    arguments = struct.pack("<qQQQQ16x4040s", new.origin, 0, flags, size, address, os.fsencode(new.name))
    call(fd, request, bytearray(arguments), verb, what)
