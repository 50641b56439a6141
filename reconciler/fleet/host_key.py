"""A host's key: what it proves its identity with to other hosts, and signs what it says about VEs with.

A change of key needs no hour at which all hosts change: the next key lies beside the present one until the manifests
in force pin it.

Source: RFC 8032 (Ed25519); PROTOCOL.key of OpenSSH.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler.errors import RefusedError, StateError
from reconciler.kernel import files
from reconciler.kernel.syscalls import file_errors
from reconciler.model.public_key import PublicLine, parse_public_key, public_line, raw_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SIGNED = b"vectl signed record\x00"
"""Begins what is signed, so that no signature of a record passes for one of a certificate or of a handshake."""

_FILE_MAX = 16 << 10
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """The key of this host. ``public``: its line for the manifest."""

    public: PublicLine
    private: Ed25519PrivateKey = field(repr=False, compare=False)

    def sign(self, data: bytes) -> bytes:
        """Sign a record."""
        return self.private.sign(_SIGNED + data)


def verify(public: PublicLine, data: bytes, signature: bytes) -> bool:
    """Say whether the holder of a key signed a record."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(raw_key(public)).verify(signature, _SIGNED + data)
    except InvalidSignature:
        return False
    return True


def read_key(path: str) -> HostKey | None:
    """Read a key; None, if there is none.

    Raises: RefusedError, if others than its owner can read it; StateError, if it is not an ed25519 key without a
    passphrase; KernelError.
    """
    data = _read_private(path)
    return None if data is None else _parse(data, path)


def make_key(path: str) -> HostKey:
    """Give the key of a path, made now if there is none. Whoever asks at the same time gets the same one.

    Raises: as `read_key`; BusyError.
    """
    with file_errors("make directory", os.path.dirname(path)):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with files.lock(f"{path}.lock", wait_s=5.0):
        return read_key(path) or _write_new(path)


def next_path(path: str) -> str:
    """Give the path of the key that is to follow."""
    return f"{path}.next"


def former_path(path: str) -> str:
    """Give the path of the public line of the key before this one."""
    return f"{path}.former.pub"


def take_up(path: str, pinned: PublicLine | None) -> HostKey:
    """Give the key of a path, made now if there is none; the next one takes its place once the manifests pin it.

    Raises: as `make_key`.
    """
    key = make_key(path)
    if pinned is None or pinned == key.public:
        return key
    with files.lock(f"{path}.lock", wait_s=5.0):
        key, following = read_key(path) or key, read_key(next_path(path))
        if following is None or following.public != pinned:
            return key
        # Records that the former key signed are still to be read, to be signed anew.
        files.write_atomic(former_path(path), f"{key.public}\n".encode(), mode=0o644)
        with file_errors("rename", next_path(path)):
            os.rename(next_path(path), path)
        files.sync_directory(os.path.dirname(path))
        return following


def read_former(path: str) -> PublicLine | None:
    """Give the public line of the key before this one; None, if there was none.

    Raises: StateError; KernelError.
    """
    data = files.read_bytes_if_exists(former_path(path))
    try:
        return None if data is None else parse_public_key(data.decode("ascii"))
    except ValueError as err:
        raise StateError(f"read {former_path(path)}: expected a public key; remove the file") from err


def _write_new(path: str) -> HostKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.OpenSSH
    data = private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    files.write_atomic(path, data, mode=0o600)
    return _of(private)


def _of(private: Ed25519PrivateKey) -> HostKey:
    return HostKey(public=public_line(private.public_key().public_bytes_raw()), private=private)


def _parse(data: bytes, path: str) -> HostKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private: object = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        private = serialization.load_ssh_private_key(data, password=None)
    if not isinstance(private, Ed25519PrivateKey):
        raise StateError(
            f"read {path}: expected an ed25519 key of OpenSSH without a passphrase; move the file away, "
            "run `vectl host key`, and pin the line that it prints in the Host manifest"
        )
    return _of(private)


def _read_private(path: str) -> bytes | None:
    """Read a file that nobody else can read: a key that others may have is not this host's alone."""
    with file_errors("read", path):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a fifo would hold us up for ever
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & _OTHERS:
                owner, mode = found.st_uid, stat.filemode(found.st_mode)
                raise RefusedError(
                    f"read {path}: expected a file that only root can read, got {mode} of user {owner}; if others "
                    "have read it, it is their key too: `vectl host key --rotate`, after `chown root` and `chmod 600`"
                )
            return file.read(_FILE_MAX)
