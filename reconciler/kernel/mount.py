"""Mounts: the table, images, binds and private mount namespaces.

Light on imports: the keeper holds this module.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.errors import BusyError, KernelError, KernelFormatError, MissingToolError
from reconciler.kernel import loop
from reconciler.kernel.syscalls import AT_FDCWD, checked, file_errors, kernel_error, libc, syscall

MOUNT_ATTR_NODEV = 0x4
_MOUNT_ATTR_IDMAP = 0x100000

_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442

_AT_SYMLINK_NOFOLLOW = 0x100
_AT_NO_AUTOMOUNT = 0x800
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x04

_MS_RDONLY = 1
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_BIND = 1 << 12
_MS_REC = 1 << 14
_MS_PRIVATE = 1 << 18
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_CLONE_NEWNS = 0x20000

_STATX_ATTR_MOUNT_ROOT = 0x2000
_STATX_SIZE = 256
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of the mount table; ``super_options`` are those of the file system, shared by all its mounts."""

    mount_id: int
    parent_id: int
    device: str
    root: str
    target: str
    options: tuple[str, ...]
    fstype: str
    source: str
    super_options: tuple[str, ...]


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def read_mounts(pid: int | None = None) -> list[Mount]:
    """Read the mount table of a process, or of the calling thread; later mounts come later.

    Raises: KernelError, KernelFormatError.
    """
    path = f"/proc/{'thread-self' if pid is None else pid}/mountinfo"
    with file_errors("read", path), open(path, "rb") as file:
        return parse_mounts(os.fsdecode(file.read()), path=path)


def parse_mounts(text: str, *, path: str) -> list[Mount]:
    """Parse the text of a ``mountinfo`` file.

    Shape: ``id parent major:minor root target options [tag...] - fstype source superoptions``, white space in octal.
    Raises: KernelFormatError.
    Source: proc_pid_mountinfo(5).
    """
    return [_parse_line(line, path) for line in text.split("\n") if line]


def is_mounted(path: str) -> bool:
    """Tell whether something is mounted exactly at a path, whose last part is not followed if it is a link.

    Raises: KernelError.
    Source: statx(2), STATX_ATTR_MOUNT_ROOT.
    """
    answer = ctypes.create_string_buffer(_STATX_SIZE)
    flags = _AT_SYMLINK_NOFOLLOW | _AT_NO_AUTOMOUNT
    if libc.statx(AT_FDCWD, os.fsencode(path), flags, 0, answer) < 0:
        error = ctypes.get_errno()
        if error in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise kernel_error("look at", path, error)
    return bool(int.from_bytes(answer.raw[8:16], "little") & _STATX_ATTR_MOUNT_ROOT)


def mount_image(image: str, target: str, *, fstype: str, read_only: bool, options: Sequence[str] = ()) -> None:
    """Mount a file system image by a loop device that is freed with the mount; nosuid and nodev. Mounted is success.

    Raises: KernelError, also if something else is mounted there; MissingToolError, if the kernel has no such file
    system.
    """
    if is_mounted(target):
        _expect_image(image, target)
        return
    flags = _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if read_only else 0)
    # Without direct I/O each block of a writable image would be cached twice. The pages of a read-only image are
    # the file's own.
    with loop.attached(image, read_only=read_only, direct_io=not read_only) as device:
        _mount(device, target, fstype, flags=flags, options=options)


def unmount(path: str, *, lazy: bool = False) -> None:
    """Unmount what is mounted topmost at a path; nothing there is success.

    Lazy: it vanishes at once and is let go when the last user is.

    Raises: BusyError; KernelError.
    """
    if libc.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)) == 0:
        return
    error = ctypes.get_errno()
    if error == errno.EBUSY:
        raise BusyError(f"unmount {path}: in use by a process or another mount")
    if error in (errno.ENOENT, errno.ENOTDIR) or (error == errno.EINVAL and not is_mounted(path)):
        return
    raise kernel_error("unmount", path, error)


def enter_private_namespace() -> None:
    """Give the calling process, which must have one thread, its own copy of the mount table; nothing leaves it.

    Raises: KernelError.
    """
    checked(libc.unshare(_CLONE_NEWNS), "make", "mount namespace")
    checked(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "make private", "/")


def see_only(directory: str) -> None:
    """Make a directory all that the calling process, which has a private mount namespace, sees; it is ``/`` then.

    Raises: KernelError.
    Source: pivot_root(2), "pivot_root(\".\", \".\")".
    """
    path = os.fsencode(directory)
    checked(libc.mount(path, path, None, _MS_BIND, None), "bind", directory)
    with file_errors("enter", directory):
        os.chdir(directory)
    syscall(_SYS_PIVOT_ROOT[os.uname().machine], "make the root", directory, b".", b".")
    checked(libc.umount2(b".", _MNT_DETACH), "leave", "the mounts of the host")
    os.chdir("/")


def mount_tmpfs(target: str, *, size: int) -> None:
    """Mount an empty tmpfs; nosuid and nodev.

    Units: bytes.
    Raises: KernelError.
    """
    _mount("tmpfs", target, "tmpfs", flags=_MS_NOSUID | _MS_NODEV, options=(f"size={size}", "mode=755"))


def clone(path: str, *, id_map: int) -> int:
    """Open a detached copy of the mount that a path lies in, with that path as its root.

    ``id_map`` is a descriptor of a user namespace whose map its owners are shown through.

    Raises: KernelError.
    Source: open_tree(2), mount_setattr(2).
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    tree = syscall(_SYS_OPEN_TREE, "clone mount of", path, AT_FDCWD, os.fsencode(path), flags)
    change = _MountAttr(set=_MOUNT_ATTR_IDMAP, userns_fd=id_map)
    try:
        size = ctypes.sizeof(change)
        syscall(_SYS_MOUNT_SETATTR, "set mount attributes of", path, tree, b"", _AT_EMPTY_PATH, change, size)
    except KernelError:
        os.close(tree)
        raise
    return tree


def attach(tree: int, target: str) -> None:
    """Attach a detached mount at a path.

    Raises: KernelError.
    Source: move_mount(2).
    """
    path, flags = os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH
    syscall(_SYS_MOVE_MOUNT, "attach mount at", target, tree, b"", AT_FDCWD, path, flags)


def _mount(source: str, target: str, fstype: str, *, flags: int, options: Sequence[str]) -> None:
    data = ",".join(options).encode() or None
    result = libc.mount(os.fsencode(source), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), data)
    if result == 0:
        return
    error = ctypes.get_errno()
    if error == errno.ENODEV:
        raise MissingToolError(f"mount {target}: this kernel has no {fstype}; load or build its module")
    raise kernel_error("mount", f"{source} ({fstype}) at {target}", error)


def _expect_image(image: str, target: str) -> None:
    there = os.path.realpath(target)
    sources = [found.source for found in read_mounts() if found.target == there]
    if not sources or sources[-1] not in loop.find(image):
        raise KernelError(f"mount {image} at {target}: {sources[-1] if sources else 'something'} is mounted there")


def _parse_line(line: str, path: str) -> Mount:
    before, separator, after = line.partition(" - ")
    first, last = before.split(" "), after.split(" ")
    if not separator or len(first) < 6 or len(last) < 3:
        raise KernelFormatError(f"read {path}: expected a line of mountinfo(5), got {line!r}")
    return Mount(
        mount_id=int(first[0]),
        parent_id=int(first[1]),
        device=first[2],
        root=_unescape(first[3]),
        target=_unescape(first[4]),
        options=tuple(first[5].split(",")),
        fstype=last[0],
        source=_unescape(last[1]),
        super_options=tuple(last[2].split(",")),
    )


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)
