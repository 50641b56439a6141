"""Packing: a root file system of another system as a plain tar archive that a template can be built from.

Whoever owned that system wrote everything in it: no symbolic link is followed, no file system below it is entered, and
what a template would refuse (devices, sockets) is left out and named. Owners become those that a VE has, from 0 on.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile as tar_format
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Final

from reconciler.errors import TemplateError
from reconciler.kernel import archive
from reconciler.kernel.archive import Header, Stream
from reconciler.kernel.shift import Shift, shifted_capability
from reconciler.kernel.syscalls import file_errors

IDS: Final = 65_536
NOBODY: Final = 65_534
"""Whose what belongs to none of a VE's ids becomes.

Source: Linux Documentation/admin-guide/sysctl/fs.rst, overflowuid.
"""

INITS = ("sbin/init", "usr/sbin/init", "usr/lib/systemd/systemd", "lib/systemd/systemd", "bin/init", "init")
"""Where systems have their init, the likeliest first."""

PREFIXES = ("", "rootfs", "backup/container/rootfs", "backup/instance/rootfs")
"""Where in an archive the root file system is: of backups and images of Incus and LXC below others."""

_SIZE_MOST = 32 << 30
_ENTRIES_MOST = 1_000_000
_DEPTH_MOST = 256
_TOLD_MOST = 100
_CHUNK = 1 << 20
_SPARSE = 1 << 30
_CAPABILITY = "security.capability"
_XATTR = "SCHILY.xattr."
_SECONDS = 3600.0
_PLACE_OF_DEVICES = "dev"
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


class _Packer:
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
        if packed.entries > _ENTRIES_MOST or packed.size > _SIZE_MOST:
            raise TemplateError(
                f"pack {self.what}: expected at most {_ENTRIES_MOST} files of {_SIZE_MOST >> 30} GiB together; "
                f"it is more at {entry.name!r}"
            )
        entry.uid, entry.gid = self._owner(entry.uid, entry.gid)
        entry.uname = entry.gname = ""
        capability = entry.pax_headers.get(_XATTR + _CAPABILITY)
        if capability is not None:
            value = shifted_capability(capability.encode("utf-8", "surrogateescape"), self._shift)
            text = value.decode("utf-8", "surrogateescape")
            entry.pax_headers = {**entry.pax_headers, _XATTR + _CAPABILITY: text}
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
def _packing(path: str, *, what: str, id_base: int) -> Iterator[_Packer]:
    """Write an archive that is there only once it is whole, for root alone.

    Raises: KernelError; NoSpaceError.
    """
    temporary = f"{path}.{os.urandom(4).hex()}.tmp"
    with file_errors("write", path):
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                with tar_format.open(fileobj=file, mode="w", format=tar_format.PAX_FORMAT, encoding="utf-8") as tar:
                    yield _Packer(tar, what=what, id_base=id_base)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        finally:
            if os.path.lexists(temporary):
                os.unlink(temporary)


# Of a directory


def pack_directory(directory: str, target: str, *, id_base: int = 0) -> Packed:
    """Pack the tree below a directory, which should be at rest; what changes meanwhile may be in it either way.

    ``id_base``: the owner on disk that is root of the tree.

    Raises: TemplateError; KernelError; NoSpaceError.
    """
    with file_errors("open", directory):
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _packing(target, what=f"directory {directory}", id_base=id_base) as packer:
            info = os.fstat(root)
            _Walk(packer, info.st_dev).directory(root, "", info)
        return packer.packed
    finally:
        os.close(root)


class _Walk:
    def __init__(self, packer: _Packer, device: int) -> None:
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
        elif not path.startswith(f"{_PLACE_OF_DEVICES}/"):
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
                self._packer.add(entry, io.BufferedReader(_Exactly(file, info.st_size), _CHUNK))


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
        if name == _CAPABILITY or name.startswith("user."):
            yield _XATTR + name, os.getxattr(descriptor, name).decode("utf-8", "surrogateescape")


# Of an archive


def inspect(path: str, *, id_base: int = 0) -> tuple[Packed, bool]:
    """Read an archive to its end; say what is in it, and whether a template can be built from it as it is.

    Raises: TemplateError; TimeLimitError; KernelError; MissingToolError.
    """
    found, prefixes, is_fit = Packed(), set[str](), id_base == 0
    for member, _ in _members(path):
        name = _name(member.name)
        found.entries += 1
        found.size += member.size if member.isreg() else 0
        prefixes |= {prefix for prefix in PREFIXES if name == f"{prefix}/etc".lstrip("/")}
        found.inits |= {init for init in INITS if name == init or name.endswith(f"rootfs/{init}")}
        is_fit &= not member.isdev() and not member.name.startswith("/") and min(member.uid, member.gid) >= 0
        is_fit &= max(member.uid, member.gid) < IDS
    found.prefix = next((prefix for prefix in PREFIXES if prefix in prefixes), "")
    return found, is_fit and not found.prefix


def repack(path: str, target: str, *, id_base: int = 0, prefix: str = "") -> Packed:
    """Write an archive anew, with what a template takes. ``prefix``: only what is below it, without it.

    Raises: as `pack_directory`; TimeLimitError; MissingToolError.
    """
    gone: set[str] = set()
    with _packing(target, what=f"archive {path}", id_base=id_base) as packer:
        packer.packed.prefix = prefix
        for member, content in _members(path):
            _take(packer, member, content, prefix, gone)
    return packer.packed


def _take(packer: _Packer, member: tar_format.TarInfo, content: IO[bytes] | None, prefix: str, gone: set[str]) -> None:
    whole = _name(member.name)
    if prefix and whole != prefix and not whole.startswith(f"{prefix}/"):
        return
    name = whole[len(prefix) :].lstrip("/")
    if ".." in name.split("/"):
        raise TemplateError(f"pack {packer.what}: {member.name!r} is refused: a path with '..'")
    entry = tar_format.TarInfo(name or ".")
    entry.type, entry.mode, entry.uid, entry.gid = member.type, member.mode & 0o7777, member.uid, member.gid
    entry.mtime = max(0, int(member.mtime))
    if member.isreg():
        entry.type, entry.size = tar_format.REGTYPE, member.size
        wanted = (_XATTR + _CAPABILITY, f"{_XATTR}user.")
        entry.pax_headers = {key: text for key, text in member.pax_headers.items() if key.startswith(wanted)}
    elif member.issym():
        entry.linkname = member.linkname
    elif member.islnk():
        entry.linkname = _name(member.linkname)[len(prefix) :].lstrip("/")
        if entry.linkname in gone:
            return
    elif not (member.isdir() or member.isfifo()):
        gone.add(name)
        if not name.startswith(f"{_PLACE_OF_DEVICES}/"):
            packer.packed.leave_out(name, "a device")
        return
    packer.add(entry, content if member.isreg() else None)


def _name(text: str) -> str:
    return "/".join(part for part in text.split("/") if part not in ("", "."))


def _members(path: str) -> Iterator[tuple[tar_format.TarInfo, IO[bytes] | None]]:
    """Read the entries of an archive, with their content. Raises: TemplateError, of a damaged one."""
    most = _SIZE_MOST + (4 << 30)
    with archive.opened(path, what=f"archive {path}", most=most, deadline=time.monotonic() + _SECONDS) as stream:
        try:
            yield from _of_stream(stream)
        except (tar_format.TarError, EOFError, OverflowError, ValueError) as err:
            raise TemplateError(f"read archive {path}: it is no tar archive, or damaged: {err}") from err


def _of_stream(stream: Stream) -> Iterator[tuple[tar_format.TarInfo, IO[bytes] | None]]:
    with tar_format.open(fileobj=stream, mode="r|", bufsize=_CHUNK, tarinfo=Header) as tar:  # type: ignore[call-overload]  # what it needs is read()
        count = 0
        while (member := tar.next()) is not None:
            count += 1
            if count > _ENTRIES_MOST:
                raise ValueError(f"more than {_ENTRIES_MOST} entries")
            yield member, tar.extractfile(member) if member.isreg() else None
            tar.members.clear()  # it would remember all of them
