"""What makes a root file system that of one machine and of no other: replaced in the copy of another one's."""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from itertools import islice

from reconciler.errors import KernelError
from reconciler.kernel import command, files, rootfs, userns
from reconciler.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from reconciler.kernel.syscalls import file_errors

_MACHINE_ID = "/etc/machine-id"
_MACHINE_ID_OF_DBUS = "/var/lib/dbus/machine-id"
_SSH = "/etc/ssh"
_SSH_KEY = re.compile(r"ssh_host_([a-z0-9]+)_key\Z")
_ANY_SSH_KEY = "ssh_host_"
_ORIGIN = "trusted.overlay.origin"
_NOT_PLAIN = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO})
_KINDS = frozenset({"rsa", "ecdsa", "ed25519"})
_MOST_NAMES = 4096
_KEYGEN_S = 60.0


def renew_offline(upper: int, lower: int) -> bool:
    """Do as `renew` to the layers of an overlay that is not mounted, if nothing is to be done but to empty an id.

    That is overwritten in place, as the overlay's index has a link to it. Returns False, with nothing done, if it takes
    the overlay to see or to do it. Takes descriptors of the two layers.

    Raises: KernelError; NoSpaceError.
    Source: Linux Documentation/filesystems/overlayfs.rst, "Changes to underlying filesystems".
    """
    if _has_keys(rootfs.list_in_root(lower, _SSH, most=_MOST_NAMES)) or _has_id(lower):
        return False
    try:
        if _has_keys(_list_plain(upper, _SSH)) or _exists_plain(upper, _MACHINE_ID_OF_DBUS):
            return False
        if not _exists_plain(upper, _MACHINE_ID):
            return True
        machine_id = _open_plain(upper, _MACHINE_ID, os.O_RDWR | os.O_NONBLOCK)
    except KernelError as err:
        if err.errno in _NOT_PLAIN:
            return False
        raise
    try:
        with file_errors("empty", _MACHINE_ID):
            info = os.fstat(machine_id)
            links = 2 if _ORIGIN in os.listxattr(machine_id) else 1
            if not stat.S_ISREG(info.st_mode) or info.st_nlink > links:
                return False
            os.ftruncate(machine_id, 0)
    finally:
        os.close(machine_id)
    return True


def _has_keys(names: list[str]) -> bool:
    return any(name.startswith(_ANY_SSH_KEY) for name in names)


def _has_id(root: int) -> bool:
    return any(rootfs.read_in_root(root, path) for path in (_MACHINE_ID, _MACHINE_ID_OF_DBUS))


def _open_plain(layer: int, path: str, flags: int) -> int:
    """Open a path of a layer in which there is no symbolic link."""
    return openat2(layer, path.lstrip("/"), flags, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)


def _exists_plain(layer: int, path: str) -> bool:
    try:
        os.close(_open_plain(layer, path, os.O_PATH))
    except KernelError as err:
        if err.errno == errno.ENOENT:
            return False
        raise
    return True


def _list_plain(layer: int, path: str) -> list[str]:
    if not _exists_plain(layer, path):
        return []
    directory = _open_plain(layer, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in islice(entries, _MOST_NAMES)]
    finally:
        os.close(directory)


def renew(root: int, *, owner: int, hostname: str) -> None:
    """Give a root file system that nothing runs in a new identity: an empty machine id, new keys of its ssh server.

    systemd makes a new machine id at a boot that finds it empty. Keys are made of the kinds that are there; where
    there are none, nothing is done. For a thread of its own, as `userns.acting_as` is.

    Units: ``owner`` the host's id of its root.
    Raises: KernelError; NoSpaceError; MissingToolError, without ssh-keygen where there are keys.
    Source: machine-id(5); "Safely Building Images" of systemd.
    """
    kinds = [match[1] for name in rootfs.list_in_root(root, _SSH, most=_MOST_NAMES) if (match := _SSH_KEY.match(name))]
    keys = _make_keys(sorted(_KINDS.intersection(kinds)), hostname)
    with userns.acting_as(owner, owner):
        if rootfs.read_in_root(root, _MACHINE_ID):
            rootfs.write_in_root(root, _MACHINE_ID, b"", mode=0o444, uid=owner, gid=owner)
        rootfs.remove_in_root(root, _MACHINE_ID_OF_DBUS)
        for kind in kinds:
            for name in (f"ssh_host_{kind}_key", f"ssh_host_{kind}_key.pub"):
                _replace(root, f"{_SSH}/{name}", keys.get(name), owner=owner)


def _replace(root: int, path: str, content: bytes | None, *, owner: int) -> None:
    """Write a file, or remove it: a key of a kind that nobody makes any more is still the other machine's."""
    if content is None:
        rootfs.remove_in_root(root, path)
    else:
        mode = 0o644 if path.endswith(".pub") else 0o600
        rootfs.write_in_root(root, path, content, mode=mode, uid=owner, gid=owner)


def _make_keys(kinds: list[str], hostname: str) -> Mapping[str, bytes]:
    """Make keys; gives the content of each file by its name.

    Source: ssh-keygen(1).
    """
    found: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="vectl-keys-") as scratch, file_errors("make ssh keys in", scratch):
        for kind in kinds:
            key = f"ssh_host_{kind}_key"
            options = ["-q", "-t", kind, "-N", "", "-C", f"root@{hostname}"]
            command.run(["ssh-keygen", *options, "-f", f"{scratch}/{key}"], timeout_s=_KEYGEN_S)
            for name in (key, f"{key}.pub"):
                found[name] = files.read_bytes_if_exists(f"{scratch}/{name}") or b""
    return found
