"""Owners on disk moved to another range of ids: of a file system in an image, whose quotas go by the ids on disk.

What names an owner elsewhere goes along: access lists, and the root that a program's capabilities are good for.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass

from reconciler.kernel import files
from reconciler.kernel.syscalls import file_errors

_CAPABILITY = "security.capability"
_ACCESS_LISTS = frozenset({"system.posix_acl_access", "system.posix_acl_default"})
_CAPABILITY_OF_NAMESPACE = 0x03000000
_REVISION_MASK = 0xFF000000
_ROOT_AT = 20
_ENTRY = struct.Struct("<HHI")  # tag, permissions, id
_NAMED = frozenset({0x02, 0x08})  # a user, a group
_SPECIAL = stat.S_ISUID | stat.S_ISGID


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """From one range of ids to another, which do not overlap."""

    before: int
    after: int
    count: int

    def of(self, number: int) -> int:
        """Give the id that one becomes; one outside the range stays."""
        return number - self.before + self.after if self.before <= number < self.before + self.count else number


def shift_owners(root: int, shift: Shift, *, path: str) -> None:
    """Move the owners of all that is below a directory; done before is left alone, so it may be run again.

    Nobody else may use the file system. Takes as long as there are files. ``path``: for errors.

    Raises: KernelError; NoSpaceError.
    """
    for directory in files.directories_below(root, path):
        with file_errors("change owners in", path), os.scandir(directory) as entries:
            for name in [entry.name for entry in entries]:
                _shift(directory, name, shift)


def _shift(directory: int, name: str, shift: Shift) -> None:
    info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    owner = shift.of(info.st_uid), shift.of(info.st_gid)
    if owner == (info.st_uid, info.st_gid):
        return
    where = f"/proc/self/fd/{directory}/{name}"
    named = {key: os.getxattr(where, key, follow_symlinks=False) for key in _with_owners(where)}
    os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
    # chown takes these away.
    if stat.S_ISREG(info.st_mode) and info.st_mode & _SPECIAL:
        os.chmod(where, stat.S_IMODE(info.st_mode))
    for key, value in named.items():
        os.setxattr(where, key, _shifted(key, value, shift), follow_symlinks=False)


def _with_owners(path: str) -> list[str]:
    return [key for key in os.listxattr(path, follow_symlinks=False) if key == _CAPABILITY or key in _ACCESS_LISTS]


def _shifted(key: str, value: bytes, shift: Shift) -> bytes:
    if key == _CAPABILITY:
        return shifted_capability(value, shift)
    return shifted_access_list(value, shift)


def shifted_capability(value: bytes, shift: Shift) -> bytes:
    """Give the capabilities of a program for another root.

    Source: linux/capability.h, struct vfs_ns_cap_data.
    """
    revision = int.from_bytes(value[:4], "little") & _REVISION_MASK
    if revision != _CAPABILITY_OF_NAMESPACE or len(value) != _ROOT_AT + 4:
        return value
    root = int.from_bytes(value[_ROOT_AT:], "little")
    return value[:_ROOT_AT] + shift.of(root).to_bytes(4, "little")


def shifted_access_list(value: bytes, shift: Shift) -> bytes:
    """Give an access list with other ids.

    Source: linux/posix_acl_xattr.h.
    """
    entries = [_ENTRY.unpack_from(value, at) for at in range(4, len(value), _ENTRY.size)]
    return value[:4] + b"".join(
        _ENTRY.pack(tag, permissions, shift.of(number) if tag in _NAMED else number)
        for tag, permissions, number in entries
    )
