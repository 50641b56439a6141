"""Packing: a root file system of another system as a plain tar archive that a template can be built from.

Whoever owned that system wrote everything in it: no symbolic link is followed, no file system below it is entered, and
what a template would refuse (devices, sockets) is left out and named. Owners become those that a VE has, from 0 on.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile as tar_format
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Final

from reconciler.errors import TemplateError
from reconciler.kernel.shift import Shift, shifted_capability
from reconciler.kernel.syscalls import file_errors

IDS: Final = 65_536
NOBODY: Final = 65_534
"""Whose what belongs to none of a VE's ids becomes.

Source: Linux Documentation/admin-guide/sysctl/fs.rst, overflowuid.
"""

INITS = ("sbin/init", "usr/sbin/init", "usr/lib/systemd/systemd", "lib/systemd/systemd", "bin/init", "init")
"""Where systems have their init, the likeliest first."""

SIZE_MOST = 32 << 30
ENTRIES_MOST = 1_000_000
_DEPTH_MOST = 256
_TOLD_MOST = 100
CHUNK = 1 << 20
_SPARSE = 1 << 30
CAPABILITY = "security.capability"
XATTR = "SCHILY.xattr."
PLACE_OF_DEVICES = "dev"
_HERE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(slots=True, kw_only=True)
class Packed:
    """What is in an archive. ``left_out``: names and why, the first of ``left_out_count``; ``inits``: those of `INITS`
    that are there; ``strangers``: how many entries belonged to none of the ids; ``prefix``: where the root was.

    Units: ``size`` bytes of all files.
    """

    entries: int = 0
    size: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    left_out_count: int = 0
    inits: set[str] = field(default_factory=set)
    strangers: int = 0
    prefix: str = ""

    @property
    def init(self) -> str:
        """The path of its init; empty, if it has none."""
        return next((f"/{name}" for name in INITS if name in self.inits), "")

    def leave_out(self, name: str, why: str) -> None:
        """Note what is not in the archive."""
        self.left_out_count += 1
        if self.left_out_count <= _TOLD_MOST:
            self.left_out.append((name, why))


class Packer:
    """Writes entries, with owners that count from 0."""

    def __init__(self, tar: tar_format.TarFile, *, what: str, id_base: int) -> None:
        self.packed = Packed()
        self.what = what
        self._shift = Shift(before=id_base, after=0, count=IDS)
        self._tar = tar

    def add(self, entry: tar_format.TarInfo, content: IO[bytes] | None = None) -> None:
        """Write an entry. Raises: TemplateError, beyond what a template may hold."""
        packed = self.packed
        packed.entries += 1
        packed.size += entry.size if entry.isreg() else 0
        if packed.entries > ENTRIES_MOST or packed.size > SIZE_MOST:
            raise TemplateError(
                f"pack {self.what}: expected at most {ENTRIES_MOST} files of {SIZE_MOST >> 30} GiB together; "
                f"it is more at {entry.name!r}"
            )
        entry.uid, entry.gid = self._owner(entry.uid, entry.gid)
        entry.uname = entry.gname = ""
        capability = entry.pax_headers.get(XATTR + CAPABILITY)
        if capability is not None:
            value = shifted_capability(capability.encode("utf-8", "surrogateescape"), self._shift)
            text = value.decode("utf-8", "surrogateescape")
            entry.pax_headers = {**entry.pax_headers, XATTR + CAPABILITY: text}
        if entry.name in INITS:
            packed.inits.add(entry.name)
        self._tar.addfile(entry, content)
        self._tar.members.clear()  # type: ignore[attr-defined]  # it would remember all of them

    def _owner(self, uid: int, gid: int) -> tuple[int, int]:
        owner = uid - self._shift.before, gid - self._shift.before
        if all(0 <= one < IDS for one in owner):
            return owner
        self.packed.strangers += 1
        uid, gid = (one if 0 <= one < IDS else NOBODY for one in owner)
        return uid, gid


@contextmanager
def packing(path: str, *, what: str, id_base: int) -> Iterator[Packer]:
    """Write an archive that is there only once it is whole, for root alone.

    Raises: KernelError; NoSpaceError.
    """
    temporary = f"{path}.{os.urandom(4).hex()}.tmp"
    with file_errors("write", path):
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                with tar_format.open(fileobj=file, mode="w", format=tar_format.PAX_FORMAT, encoding="utf-8") as tar:
                    yield Packer(tar, what=what, id_base=id_base)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        finally:
            if os.path.lexists(temporary):
                os.unlink(temporary)


def pack_directory(directory: str, target: str, *, id_base: int = 0) -> Packed:
    """Pack the tree below a directory, which should be at rest; what changes meanwhile may be in it either way.

    ``id_base``: the owner on disk that is root of the tree.

    Raises: TemplateError; KernelError; NoSpaceError.
    """
    with file_errors("open", directory):
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with packing(target, what=f"directory {directory}", id_base=id_base) as packer:
            info = os.fstat(root)
            _Walk(packer, info.st_dev).directory(root, "", info)
        return packer.packed
    finally:
        os.close(root)


class _Walk:
    def __init__(self, packer: Packer, device: int) -> None:
        self._packer, self._device = packer, device
        self._names: dict[tuple[int, int], str] = {}

    def directory(self, descriptor: int, path: str, info: os.stat_result) -> None:
        """Pack a directory and what is below it, by name, so that the same tree gives the same archive."""
        self._packer.add(_entry(path or ".", tar_format.DIRTYPE, info))
        if path.count("/") >= _DEPTH_MOST:
            raise TemplateError(f"pack {self._packer.what}: expected at most {_DEPTH_MOST} directories in each other")
        with os.scandir(descriptor) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            self._one(descriptor, name, f"{path}/{name}" if path else name)

    def _one(self, parent: int, name: str, path: str) -> None:
        try:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if info.st_dev != self._device:
            self._packer.packed.leave_out(path, "another file system is mounted there")
        elif stat.S_ISLNK(info.st_mode):
            entry = _entry(path, tar_format.SYMTYPE, info)
            entry.linkname = os.readlink(name, dir_fd=parent)
            self._packer.add(entry)
        elif stat.S_ISDIR(info.st_mode):
            self._below(parent, name, path)
        elif stat.S_ISREG(info.st_mode):
            self._file(parent, name, path)
        elif stat.S_ISFIFO(info.st_mode):
            self._packer.add(_entry(path, tar_format.FIFOTYPE, info))
        elif not path.startswith(f"{PLACE_OF_DEVICES}/"):
            self._packer.packed.leave_out(path, "a socket" if stat.S_ISSOCK(info.st_mode) else "a device")

    def _below(self, parent: int, name: str, path: str) -> None:
        try:
            descriptor = os.open(name, _HERE, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return  # it went, or became something else, a moment ago
        try:
            self.directory(descriptor, path, os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def _file(self, parent: int, name: str, path: str) -> None:
        try:
            descriptor = os.open(name, _FILE, dir_fd=parent)
        except OSError:
            self._packer.packed.leave_out(path, "it could not be opened")
            return
        with open(descriptor, "rb", buffering=0) as file:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode) or info.st_dev != self._device:
                self._packer.packed.leave_out(path, "it became something else meanwhile")
            elif info.st_size > _SPARSE and info.st_blocks * 512 < info.st_size // 16:
                self._packer.packed.leave_out(path, f"nearly all of its {info.st_size >> 30} GiB are holes")
            elif info.st_nlink > 1 and (first := self._names.setdefault((info.st_dev, info.st_ino), path)) != path:
                entry = _entry(path, tar_format.LNKTYPE, info)
                entry.linkname = first
                self._packer.add(entry)
            else:
                entry = _entry(path, tar_format.REGTYPE, info)
                entry.pax_headers = dict(_attributes(descriptor))
                entry.size = info.st_size
                self._packer.add(entry, io.BufferedReader(_Exactly(file, info.st_size), CHUNK))


class _Exactly(io.RawIOBase):
    """So many bytes of a file, whatever becomes of it: what it has no more is zeros."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # what is passed is writable
        data = self._file.read(min(len(buffer), self._left)) or b"\0" * min(len(buffer), self._left)
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def _entry(path: str, kind: bytes, info: os.stat_result) -> tar_format.TarInfo:
    entry = tar_format.TarInfo(path)
    entry.type, entry.mode = kind, stat.S_IMODE(info.st_mode)
    entry.uid, entry.gid, entry.mtime = info.st_uid, info.st_gid, max(0, int(info.st_mtime))
    return entry


def _attributes(descriptor: int) -> Iterator[tuple[str, str]]:
    for name in os.listxattr(descriptor):
        if name == CAPABILITY or name.startswith("user."):
            yield XATTR + name, os.getxattr(descriptor, name).decode("utf-8", "surrogateescape")
