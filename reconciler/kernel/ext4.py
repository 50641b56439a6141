"""ext4 in an image file: made, looked at, grown while it is mounted and shrunk while it is not.

The directories that matter are told apart from the rest by a project, whose quota counts the files below them.
"""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass

from reconciler.errors import CommandError, KernelFormatError, NoSpaceError
from reconciler.kernel import command
from reconciler.kernel.syscalls import file_errors, kernel_error

BLOCK = 4096
PROJECT = 1
"""The project of all that a VE writes."""

_SUPERBLOCK_AT = 1024
_MAGIC = 0xEF53
_RO_COMPAT_QUOTA = 0x0100
_RO_COMPAT_PROJECT = 0x2000

_IOC_RESIZE_FS = 0x40086610
_IOC_FSGETXATTR = 0x801C581F
_IOC_FSSETXATTR = 0x401C5820
_IOC_SETFLAGS = 0x40086602
_XATTR = struct.Struct("<5I8x")  # flags, extent size, extents, project, extent size of copies
_XFLAG_PROJECT_INHERITED = 0x200
_FL_NO_COPY_ON_WRITE = 0x00800000

_TOOL_SECONDS = 600.0
_BYTES_PER_FILE = 16_384  # of mke2fs.conf(5), the default
_OWN_FILES = 64  # of ext4 and the overlay themselves
_CHECKED = (0, 1)  # nothing to mend, and all of it mended

_QUOTAS = ("quota,project", "quotatype=usrquota:grpquota:prjquota")
# Each block keeps its place: what mke2fs gave back to the pool, or left to the kernel to zero later, which gives it
# back as well, somebody else could have taken when it is written.
_PLACES = "nodiscard,lazy_itable_init=0,lazy_journal_init=0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """What a file system says of itself. ``files``: how many it has room for. Units: bytes."""

    size: int
    files: int
    has_quotas: bool


def make_filesystem(image: str, *, files: int | None, quotas: bool) -> None:
    """Make an ext4 in an image file whose place is allocated already.

    ``files``: for how many there is to be room at least.

    Raises: CommandError; MissingToolError; TimeLimitError.
    Source: mke2fs(8).
    """
    with file_errors("look at", image):
        usual = os.stat(image).st_size // _BYTES_PER_FILE
    room = max(usual, files or 0) + _OWN_FILES
    features, extended = ("-O", _QUOTAS[0]), f"{_QUOTAS[1]},{_PLACES}"
    argv = ["mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-m", "0", "-N", str(room)]
    argv += [*features, "-E", extended] if quotas else ["-E", _PLACES]
    command.run([*argv, image], timeout_s=_TOOL_SECONDS)


def read_superblock(image: str) -> Superblock:
    """Read what a file system in an image says of itself, mounted or not.

    Raises: KernelError; KernelFormatError, if it is no ext4.
    Source: Linux Documentation/filesystems/ext4/super.rst.
    """
    with file_errors("read", image):
        fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(fd, 1024, _SUPERBLOCK_AT)
        finally:
            os.close(fd)
    if len(data) < 1024 or struct.unpack_from("<H", data, 56)[0] != _MAGIC:
        raise KernelFormatError(f"read {image}: expected an ext4 file system")
    files, blocks = struct.unpack_from("<II", data, 0)
    log_size, high = struct.unpack_from("<I", data, 24)[0], struct.unpack_from("<I", data, 0x150)[0]
    features = struct.unpack_from("<I", data, 100)[0]
    wanted = _RO_COMPAT_QUOTA | _RO_COMPAT_PROJECT
    return Superblock(
        size=(high << 32 | blocks) << (10 + log_size), files=files, has_quotas=features & wanted == wanted
    )


def grow(mounted: int, size: int) -> None:
    """Let a mounted file system fill its device. ``mounted``: a descriptor of a file in it. Units: bytes.

    Raises: KernelError, also without CAP_SYS_RESOURCE.
    Source: linux/ext4.h, EXT4_IOC_RESIZE_FS.
    """
    try:
        fcntl.ioctl(mounted, _IOC_RESIZE_FS, struct.pack("<Q", size // BLOCK))
    except OSError as err:
        raise kernel_error("grow", f"ext4 to {size} bytes", err.errno or 0) from err


def resize(image: str, size: int) -> None:
    """Grow or shrink a file system that is not mounted; the image, which must be large enough, keeps its size.

    Units: bytes.
    Raises: NoSpaceError, if its files do not fit; CommandError; MissingToolError; TimeLimitError.
    Source: resize2fs(8), e2fsck(8).
    """
    check(image)
    try:
        command.run(["resize2fs", image, f"{size // 1024}K"], timeout_s=_TOOL_SECONDS)
    except CommandError as err:
        if "smaller than minimum" in (err.output or "") or "New size smaller" in str(err):
            raise NoSpaceError(f"resize {image} to {size} bytes: its files do not fit; delete some") from err
        raise


def check(image: str) -> None:
    """Check a file system that is not mounted, and mend what can be mended without a question.

    Raises: CommandError, if it needs a person; MissingToolError; TimeLimitError.
    """
    try:
        command.run(["e2fsck", "-f", "-p", image], timeout_s=_TOOL_SECONDS)
    except CommandError as err:
        if err.status not in _CHECKED:
            raise


def join_project(directory: int) -> None:
    """Put an empty directory, and all that will be made below it, into the project. Takes a descriptor.

    Raises: KernelError.
    Source: ioctl_xfs_fsgetxattr(2).
    """
    data = bytearray(_XATTR.size)
    try:
        fcntl.ioctl(directory, _IOC_FSGETXATTR, data)
        flags, *rest, _, extent = _XATTR.unpack(data)
        _XATTR.pack_into(data, 0, flags | _XFLAG_PROJECT_INHERITED, *rest, PROJECT, extent)
        fcntl.ioctl(directory, _IOC_FSSETXATTR, data)
    except OSError as err:
        raise kernel_error("set project of", f"directory {directory}", err.errno or 0) from err


def keep_in_place(path: str) -> None:
    """Have btrfs overwrite an empty file in place, without copies or checksums.

    Raises: KernelError.
    Source: ioctl_iflags(2), FS_NOCOW_FL.
    """
    with file_errors("open", path):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _IOC_SETFLAGS, struct.pack("<q", _FL_NO_COPY_ON_WRITE))
    except OSError as err:
        raise kernel_error("switch off copy on write of", path, err.errno or 0) from err
    finally:
        os.close(fd)
