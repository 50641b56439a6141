"""Loop devices: a file as a block device."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.errors import BusyError, MissingToolError
from reconciler.kernel.syscalls import file_errors, kernel_error

_LOOP_GET_STATUS64 = 0x4C05
_LOOP_CONFIGURE = 0x4C0A
_LOOP_SET_CAPACITY = 0x4C07
_LOOP_CTL_GET_FREE = 0x4C82

_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
_LO_FLAGS_DIRECT_IO = 16

# Between asking for a free device and taking it somebody else may take it. Each round somebody got one, so only a
# machine that takes that many at once runs out of rounds.
_ROUNDS = 256


class _Info(ctypes.Structure):
    _fields_ = (
        ("device", ctypes.c_uint64),
        ("inode", ctypes.c_uint64),
        ("rdevice", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("size_limit", ctypes.c_uint64),
        ("number", ctypes.c_uint32),
        ("encrypt_type", ctypes.c_uint32),
        ("encrypt_key_size", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("file_name", ctypes.c_char * 64),
        ("crypt_name", ctypes.c_char * 64),
        ("encrypt_key", ctypes.c_uint8 * 32),
        ("init", ctypes.c_uint64 * 2),
    )


class _Config(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", _Info),
        ("reserved", ctypes.c_uint64 * 8),
    )


@contextmanager
def attached(file: str, *, read_only: bool, direct_io: bool = False) -> Iterator[str]:
    """Attach a file for the block; yields the device's path. What mounts it in the block keeps it attached.

    With direct I/O the file's content is cached once, by the file system on the device, where the kernel can.

    Raises: KernelError; MissingToolError, if the machine has no loop devices for us.
    Source: loop(4), LOOP_CONFIGURE, LO_FLAGS_AUTOCLEAR.
    """
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_DIRECT_IO if direct_io else 0)
    device, fd = _configure(file, flags, read_only=read_only)
    try:
        yield device
    finally:
        os.close(fd)


def find(file: str) -> list[str]:
    """List the loop devices that a file is attached to, whatever it was called then.

    Raises: KernelError.
    """
    with file_errors("find", file):
        info = os.stat(file)
        names = [name for name in os.listdir("/sys/block") if os.path.isdir(f"/sys/block/{name}/loop")]
    wanted = (os.major(info.st_dev), os.minor(info.st_dev), info.st_ino)
    return [f"/dev/{name}" for name in sorted(names) if _backing(f"/dev/{name}") == wanted]


def find_below(directory: str) -> list[str]:
    """List the loop devices whose files lie, or lay until they were removed, below a directory.

    Raises: KernelError.
    Source: Linux Documentation/ABI/testing/sysfs-block-loop, backing_file.
    """
    with file_errors("list", "/sys/block"):
        names = [name for name in os.listdir("/sys/block") if name.startswith("loop")]
    return [f"/dev/{name}" for name in sorted(names) if _backing_path(name).startswith(f"{directory}/")]


def backing_file(device: str) -> str:
    """Name the file of a loop device as it was called when it was attached; "" if it has none."""
    return _backing_path(os.path.basename(device))


def refresh_size(device: str) -> None:
    """Let a loop device be as large as its file has become.

    Raises: KernelError.
    Source: loop(4), LOOP_SET_CAPACITY.
    """
    with _opened(device) as fd, file_errors("grow", device):
        fcntl.ioctl(fd, _LOOP_SET_CAPACITY, 0)


def _backing_path(name: str) -> str:
    try:
        with open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8", errors="surrogateescape") as file:
            return file.read().rstrip("\n")
    except OSError:  # it has no file, or lost it meanwhile
        return ""


def _configure(file: str, flags: int, *, read_only: bool) -> tuple[str, int]:
    access = os.O_RDONLY if read_only else os.O_RDWR
    with file_errors("open", file):
        backing = os.open(file, access | os.O_CLOEXEC)
    info = _Info(flags=flags | (_LO_FLAGS_READ_ONLY if read_only else 0), file_name=os.fsencode(file)[-63:])
    config = _Config(fd=backing, info=info)
    try:
        for _ in range(_ROUNDS):
            device = _free_device()
            fd = _open_device(device, access)
            if _take(fd, config, f"{file} to {device}"):
                return device, fd
            os.close(fd)
    finally:
        os.close(backing)
    raise BusyError(f"attach {file}: other processes took {_ROUNDS} free loop devices before us")


def _take(fd: int, config: _Config, what: str) -> bool:
    try:
        fcntl.ioctl(fd, _LOOP_CONFIGURE, config)
    except OSError as err:
        if err.errno == errno.EBUSY:
            return False
        os.close(fd)
        raise kernel_error("attach", what, err.errno or 0) from err
    return True


def _free_device() -> str:
    with _opened("/dev/loop-control") as control, file_errors("find", "a free loop device"):
        return f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"


def _backing(device: str) -> tuple[int, int, int] | None:
    info = _Info()
    with _opened(device) as fd:
        try:
            fcntl.ioctl(fd, _LOOP_GET_STATUS64, info)
        except OSError as err:
            if err.errno == errno.ENXIO:  # detached meanwhile
                return None
            raise kernel_error("read", device, err.errno or 0) from err
    # The kernel's own packing of a device number in 64 bits.
    major, minor = (info.device >> 8) & 0xFFF, (info.device & 0xFF) | ((info.device >> 12) & 0xFFF00)
    return major, minor, info.inode


@contextmanager
def _opened(device: str) -> Iterator[int]:
    fd = _open_device(device, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_device(device: str, access: int) -> int:
    try:
        return os.open(device, access | os.O_CLOEXEC)
    except FileNotFoundError as err:
        raise MissingToolError(
            f"open {device}: no such device; load the kernel module loop, or give this container the host's /dev"
        ) from err
    except OSError as err:
        raise kernel_error("open", device, err.errno or 0) from err
