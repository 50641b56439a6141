"""Hashes of files, by which vectl knows them."""

from __future__ import annotations

import hashlib

from reconciler.kernel.syscalls import file_errors

_CHUNK = 1 << 20


def sha256_of(*paths: str) -> str:
    """Give the SHA-256 of files, one after the other as if they were one, in hexadecimal digits.

    Raises: KernelError.
    """
    digest = hashlib.sha256()
    for path in paths:
        with file_errors("read", path), open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
