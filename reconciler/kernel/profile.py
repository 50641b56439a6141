"""The profile of a template: what every tree gets, wherever it came from, so that it runs as a VE, and as no other's.

Mount points that the runtime needs; no identity that VEs would share; and where systemd is its init, the settings under
which that comes up without a failed unit and can be saved and restored. Every path is resolved with the tree as root.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase

from reconciler.errors import KernelError, TemplateError
from reconciler.kernel import rootfs
from reconciler.kernel.syscalls import file_errors

_SYSTEMD = ("usr/lib/systemd/systemd", "lib/systemd/systemd")

# What systemd cannot do in a VE, and what criu cannot save: a service with namespaces of its own.
_SERVICES = """\
[Service]
ProtectHostname=no
PrivateNetwork=no
PrivateIPC=no
PrivateUsers=no
ProtectControlGroups=no
ProtectKernelModules=no
ProtectKernelTunables=no
ProtectKernelLogs=no
ProtectClock=no
"""

# A pressure file that systemd polls does not survive a restore: it reports an error for ever.
_MANAGER = """\
[Manager]
DefaultMemoryPressureWatch=off
ManagerEnvironment=MEMORY_PRESSURE_WATCH=/dev/null
"""

_SSH_KEYS = """\
[Unit]
Description=Make host keys of this system's own for ssh
Before=ssh.service sshd.service ssh.socket sshd.socket
After=systemd-remount-fs.service systemd-tmpfiles-setup.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
ConditionPathExists=/usr/bin/ssh-keygen

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -A
"""

_SSH_UNIT = "vectl-ssh-keys.service"
_SSH_USERS = ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket")

_MASKED = (
    "console-getty.service",
    "dev-hugepages.mount",
    "getty@tty1.service",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-firstboot.service",
    "systemd-modules-load.service",
    "systemd-networkd-wait-online.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
)

_UNITS = "etc/systemd/system"

_FILES: Mapping[str, str] = {
    f"{_UNITS}/service.d/50-vectl.conf": _SERVICES,
    "etc/systemd/system.conf.d/50-vectl.conf": _MANAGER,
    f"{_UNITS}/{_SSH_UNIT}": _SSH_KEYS,
}
_LINKS: Mapping[str, str] = {
    **{f"{_UNITS}/{unit}": "/dev/null" for unit in _MASKED},
    **{f"{_UNITS}/{user}.wants/{_SSH_UNIT}": f"../{_SSH_UNIT}" for user in _SSH_USERS},
}

_DIRECTORIES: Mapping[str, int] = {"dev": 0o755, "proc": 0o555, "run": 0o755, "sys": 0o555, "tmp": 0o1777, "etc": 0o755}

_IDENTITY = (
    "etc/hostname",
    "etc/resolv.conf",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "var/lib/NetworkManager/secret_key",
    "var/lib/NetworkManager/NetworkManager-intern.conf",
)
_DBUS_ID = "var/lib/dbus/machine-id"
_MACHINE_ID = "etc/machine-id"
_HOST_KEYS = "etc/ssh"
_JOURNAL = "var/log/journal"
_LEASES = "var/lib/dhcp"


def apply(tree: str, *, init: str, directories: Sequence[str] = (), files: Sequence[str] = ()) -> None:
    """Make a tree run as a VE. ``directories``, ``files``: absolute paths over which the runtime mounts.

    Raises: TemplateError, if the tree has no such init, or something else is in the way; KernelError; NoSpaceError.
    """
    with _opened(tree) as root:
        for path, mode in _DIRECTORIES.items():
            _make_directory(root, path, mode)
        _expect_init(root, init)
        for path in directories:
            _make_directory(root, path.lstrip("/"), 0o755)
        for path in files:
            _make_mount_point(root, path.lstrip("/"))
        _remove_identity(root)
        if has_systemd(root):
            _set_up_systemd(root)


def clean_identity(tree: str) -> None:
    """Take out of a tree what tells one system from another.

    Raises: KernelError; NoSpaceError.
    """
    with _opened(tree) as root:
        _remove_identity(root)


def has_systemd(root: int) -> bool:
    """Say whether systemd is in a tree."""
    return any(_exists(root, path) for path in _SYSTEMD)


@contextmanager
def _opened(tree: str) -> Iterator[int]:
    with file_errors("open", tree):
        fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _exists(root: int, path: str) -> bool:
    try:
        os.close(rootfs.open_in_root(root, path, os.O_PATH))
    except KernelError as err:
        if err.errno in rootfs.ABSENT:
            return False
        raise
    return True


def _expect_init(root: int, init: str) -> None:
    try:
        fd = rootfs.open_in_root(root, init, os.O_PATH)
    except KernelError as err:
        raise TemplateError(f"finish tree: its init {init} is not there ({err}); name one under `init`") from err
    try:
        mode = os.fstat(fd).st_mode
    finally:
        os.close(fd)
    if not stat.S_ISREG(mode) or not mode & 0o111:
        raise TemplateError(f"finish tree: its init {init} is no program; name one under `init`")


# Mount points


def _make_directory(root: int, path: str, mode: int) -> None:
    if _exists(root, path):
        return
    fd = rootfs.make_directory_in_root(root, path, owner=0)
    try:
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _make_mount_point(root: int, path: str) -> None:
    if not _exists(root, path):
        os.close(rootfs.make_file_in_root(root, path, owner=0))


# Identity


def _remove_identity(root: int) -> None:
    for path in _IDENTITY:
        _remove(root, path)
    if _exists(root, _MACHINE_ID) or has_systemd(root):
        _write(root, _MACHINE_ID, "")
    if _is_file(root, _DBUS_ID):
        _remove(root, _DBUS_ID)
        _link(root, _DBUS_ID, f"/{_MACHINE_ID}")
    _remove_entries(root, _HOST_KEYS, "ssh_host_*_key*")
    _remove_entries(root, _JOURNAL, "*")
    _remove_entries(root, _LEASES, "*.lease*")


def _remove(root: int, path: str) -> None:
    above, _, name = path.rpartition("/")
    with _directory(root, above) as directory:
        if directory is not None:
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(name, dir_fd=directory)


def _remove_entries(root: int, path: str, pattern: str) -> None:
    with _directory(root, path) as directory:
        for name in os.listdir(directory) if directory is not None else ():
            if not fnmatchcase(name, pattern):
                continue
            try:
                os.unlink(name, dir_fd=directory)
            except IsADirectoryError:
                shutil.rmtree(name, dir_fd=directory)


@contextmanager
def _directory(root: int, path: str) -> Iterator[int | None]:
    """Open a directory for the block; None, if there is none."""
    try:
        fd = rootfs.open_in_root(root, path or "/", os.O_RDONLY | os.O_DIRECTORY)
    except KernelError as err:
        if err.errno not in rootfs.ABSENT:
            raise
        yield None
        return
    try:
        with file_errors("change", path):
            yield fd
    finally:
        os.close(fd)


def _is_file(root: int, path: str) -> bool:
    """Say whether there is a file itself, not a symbolic link to one."""
    try:
        fd = rootfs.open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
    except KernelError as err:
        if err.errno in rootfs.ABSENT:
            return False
        raise
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


# systemd


def _set_up_systemd(root: int) -> None:
    for path, text in _FILES.items():
        _write(root, path, text)
    for path, target in _LINKS.items():
        _link(root, path, target)
    _settle_time_zone(root)


def _settle_time_zone(root: int) -> None:
    """Make the local time a file: PID 1 watches it, and a watched symbolic link cannot be saved."""
    data = (
        _read(root, "etc/localtime")
        or _read(root, "usr/share/zoneinfo/UTC")
        or _read(root, "usr/share/zoneinfo/Etc/UTC")
    )
    if data is None:
        _remove(root, "etc/localtime")
    else:
        rootfs.write_in_root(root, "etc/localtime", data, mode=0o644, uid=0, gid=0)


def _read(root: int, path: str) -> bytes | None:
    try:
        return rootfs.read_in_root(root, path)
    except KernelError as err:
        if err.errno in (errno.ELOOP, 0):
            return None
        raise


def _write(root: int, path: str, text: str) -> None:
    rootfs.write_in_root(root, path, text.encode(), mode=0o644, uid=0, gid=0)


def _link(root: int, path: str, target: str) -> None:
    """Put a symbolic link in the place of nothing; what is there stays."""
    above, _, name = path.rpartition("/")
    directory = rootfs.make_directory_in_root(root, above, owner=0)
    try:
        with file_errors("link", path), suppress(FileExistsError):
            os.symlink(target, name, dir_fd=directory)
    finally:
        os.close(directory)
