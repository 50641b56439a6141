"""What makes a root file system that of one machine and of no other: replaced in the copy of another one's."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping

from reconciler.kernel import command, files, rootfs, userns
from reconciler.kernel.syscalls import file_errors

_MACHINE_ID = "/etc/machine-id"
_MACHINE_ID_OF_DBUS = "/var/lib/dbus/machine-id"
_SSH = "/etc/ssh"
_SSH_KEY = re.compile(r"ssh_host_([a-z0-9]+)_key\Z")
_KINDS = frozenset({"rsa", "ecdsa", "ed25519"})
_MOST_NAMES = 4096
_KEYGEN_S = 60.0


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
