"""Unpacking: a tar stream that somebody else made becomes a tree, and nothing outside that tree is touched.

Every name is resolved by the kernel with the tree as root; what a root file system has no use for is refused with
its name. There is one reader of the archive, so that what was checked and what is written cannot differ.
"""

from __future__ import annotations

import os
import shutil
import tarfile as tar_format
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from reconciler.errors import KernelError, NoSpaceError, TemplateError
from reconciler.kernel.archive import Header, Stream
from reconciler.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV, openat2
from reconciler.kernel.syscalls import file_errors
from reconciler.kernel.unpack_marks import Marks, Rules, Totals, refusal, time_of

IDS: Final = 65_536
"""How many users and groups a VE has."""

_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
_CHUNK = 1 << 20
_SPACE_EVERY = 64 << 20
_SPACE_LEFT_SHARE = 0.03
_SPACE_LEFT_MOST = 1 << 30
_TOLD_EVERY = 2000
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
"""Source: OCI image-spec, layer.md, "Whiteouts"."""

_DEPTH_MOST = 256

_HARMLESS_DEVICES = frozenset(
    {(1, 3): "null", (1, 5): "zero", (1, 7): "full", (1, 8): "random", (1, 9): "urandom"}.items()
    | {(5, 0): "tty", (5, 1): "console", (5, 2): "ptmx"}.items()
)
"""What archives of root file systems have in /dev, and every VE has anyway: left out. Source: Linux devices.txt."""


class Unpacker:
    """Unpacks one archive, or the layers of an image one after the other, into a tree that nobody else changes."""

    def __init__(self, tree: str, *, what: str, rules: Rules, told: Callable[[str], None] = lambda text: None) -> None:
        self.totals = Totals()
        self._what, self._rules, self._told = what, rules, told
        self._marks = Marks(rules, what)
        with file_errors("open", tree):
            self._root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._top = os.path.realpath(tree)
        self._parent: tuple[str, int] | None = None
        self._is_parent_stale = False
        self._fresh: set[str] = set()
        self._times: dict[str, int] = {}
        self._space_asked = 0

    def close(self) -> None:
        """Give back what is open."""
        self._forget_parent()
        os.close(self._root)

    def unpack(self, stream: Stream) -> None:
        """Unpack one archive, over what is there.

        Raises: TemplateError, naming the entry that is refused, or of a damaged archive; NoSpaceError; KernelError.
        """
        self._fresh.clear()
        try:
            with tar_format.open(fileobj=stream, mode="r|", bufsize=_CHUNK, tarinfo=Header) as tar:  # type: ignore[call-overload]  # what it needs is read()
                while (member := tar.next()) is not None:
                    self._take(tar, member)
                    tar.members.clear()  # it would remember all of them
        except (tar_format.TarError, EOFError, OverflowError, ValueError) as err:
            raise TemplateError(f"unpack {self._what}: it is no tar archive, or damaged: {err}") from err
        except OSError as err:
            raise self._failed(err) from err

    def finish(self) -> None:
        """Give directories the times that they have in the archive, when nothing is put into them any more."""
        for path, seconds in self._times.items():
            with suppress(KernelError, OSError):
                fd = openat2(self._root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=_RESOLVE)
                try:
                    os.utime(fd, (seconds, seconds))
                finally:
                    os.close(fd)

    def _failed(self, err: OSError) -> Exception:
        with file_errors("unpack", self._what):
            raise err
        raise AssertionError  # the line above raises

    def _take(self, tar: tar_format.TarFile, member: tar_format.TarInfo) -> None:
        name = self._within(member)
        if name is None:
            return
        self._count(member)
        parent, last = self._parent_of(name, member)
        if last is None and member.isdir():
            self._marks.set(self._root, member)
        elif last is None:
            raise self._refusal(member, "the top of a tree is a directory")
        elif self._rules.whiteouts and last.startswith(_WHITEOUT):
            self._white_out(parent, last)
        else:
            self._put(tar, member, parent, last)

    def _within(self, member: tar_format.TarInfo) -> str | None:
        """Give the path below the tree; None for what is not to be unpacked, "" for the tree itself."""
        if member.name.startswith("/"):
            raise self._refusal(member, "an absolute path")
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self._refusal(member, "a path with '..'")
        if len(parts) > _DEPTH_MOST:
            raise self._refusal(member, f"it lies in more than {_DEPTH_MOST} directories")
        name, prefix = "/".join(parts), self._rules.prefix
        if prefix and name != prefix and not name.startswith(f"{prefix}/"):
            return None
        return name[len(prefix) :].lstrip("/")

    def _count(self, member: tar_format.TarInfo) -> None:
        if member.uid not in range(IDS) or member.gid not in range(IDS):
            raise self._refusal(member, f"owner {member.uid}:{member.gid}, a VE has {IDS} ids from 0 on")
        if member.size < 0:
            raise self._refusal(member, f"its size is {member.size}")
        totals = self.totals
        totals.entries += 1
        totals.size += member.size if member.isreg() else 0
        if totals.entries > self._rules.entries:
            raise TemplateError(f"unpack {self._what}: expected at most {self._rules.entries} files")
        if totals.size > self._rules.size:
            raise self._refusal(member, f"more than {self._rules.size} bytes in all files together")
        if totals.entries % _TOLD_EVERY == 0:
            self._told(f"unpacked {totals.entries} files, {totals.size >> 20} MiB")

    def _refusal(self, member: tar_format.TarInfo, why: str) -> TemplateError:
        return refusal(self._what, member, why)

    # Where things go

    def _parent_of(self, name: str, member: tar_format.TarInfo) -> tuple[int, str | None]:
        """Give the directory that an entry goes into, and its last name; None for the tree itself."""
        above, _, last = name.rpartition("/")
        if not last:
            return self._root, None
        if self._parent is None or self._parent[0] != above or self._is_parent_stale:
            self._forget_parent()
            self._parent = above, self._open_directory(above, member)
        return self._parent[1], last

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
        self._parent, self._is_parent_stale = None, False

    def _open_directory(self, path: str, member: tar_format.TarInfo) -> int:
        """Open a directory; missing ones are made. A symbolic link on the way leads to where it does in a VE."""
        with suppress(KernelError):
            return openat2(self._root, path or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_RESOLVE)
        fd, done = os.dup(self._root), ""
        for part in path.split("/"):
            done = f"{done}/{part}".lstrip("/")
            try:
                following = openat2(self._root, done, os.O_RDONLY | os.O_DIRECTORY, resolve=_RESOLVE)
            except KernelError as err:
                following = self._make_missing(fd, part, member, err)
            os.close(fd)
            fd = following
        return fd

    def _make_missing(self, parent: int, name: str, member: tar_format.TarInfo, err: KernelError) -> int:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            os.close(parent)
            raise self._refusal(member, f"{name!r} on the way is no directory of the tree ({err})") from err
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)

    def _place(self, parent: int, name: str) -> str:
        """Name an entry by where it really is, links on the way resolved."""
        return f"{os.readlink(f'/proc/self/fd/{parent}')}/{name}"

    def _note(self, place: str) -> None:
        """Remember that this layer has an entry, and with it the directories that lead there."""
        while place not in self._fresh and len(place) > len(self._top):
            self._fresh.add(place)
            place = os.path.dirname(place)

    # What is put there

    def _put(self, tar: tar_format.TarFile, member: tar_format.TarInfo, parent: int, name: str) -> None:
        if member.isdir():
            self._put_directory(member, parent, name)
        elif member.isreg():
            self._clear(parent, name)
            self._put_file(tar, member, parent, name)
        elif member.issym():
            self._clear(parent, name)
            os.symlink(member.linkname, name, dir_fd=parent)
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
            os.utime(name, (time_of(member), time_of(member)), dir_fd=parent, follow_symlinks=False)
        elif member.islnk():
            self._put_link(member, parent, name)
        elif member.isfifo():
            self._clear(parent, name)
            os.mkfifo(name, 0o600, dir_fd=parent)
            self._marks.set_named(member, parent, name)
        elif not self._is_harmless_device(member):
            kind = "a device node" if member.isdev() else f"an entry of the unknown type {member.type!r}"
            raise self._refusal(member, kind)
        if self._rules.whiteouts:
            self._note(self._place(parent, name))

    def _is_harmless_device(self, member: tar_format.TarInfo) -> bool:
        place, name = os.path.split(self._within(member) or "")
        return place == "dev" and member.ischr() and ((member.devmajor, member.devminor), name) in _HARMLESS_DEVICES

    def _put_directory(self, member: tar_format.TarInfo, parent: int, name: str) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=parent)
        except OSError:
            self._clear(parent, name)
            os.mkdir(name, 0o700, dir_fd=parent)
            fd = os.open(name, flags, dir_fd=parent)
        try:
            self._marks.set(fd, member)
        finally:
            os.close(fd)
        self._times[self._within(member) or "."] = time_of(member)

    def _put_file(self, tar: tar_format.TarFile, member: tar_format.TarInfo, parent: int, name: str) -> None:
        content = tar.extractfile(member)
        assert content is not None, "it is a regular file"
        fd = os.open(name, _NEW, 0o600, dir_fd=parent)
        try:
            size = 0
            while chunk := content.read(_CHUNK):
                size += len(chunk)
                self._write(fd, chunk, hole=member.issparse())
            if size != member.size:
                raise TemplateError(f"unpack {self._what}: {member.name!r} ends after {size} of {member.size} bytes")
            os.ftruncate(fd, size)
            self._marks.set(fd, member)
        finally:
            os.close(fd)
        self.totals.newest = max(self.totals.newest, time_of(member))

    def _write(self, fd: int, chunk: bytes, *, hole: bool) -> None:
        if hole and not chunk.strip(b"\0"):
            os.lseek(fd, len(chunk), os.SEEK_CUR)
            return
        self._space_asked += len(chunk)
        if self._space_asked >= _SPACE_EVERY:
            self._space_asked = 0
            self._expect_space()
        view = memoryview(chunk)
        while view:
            view = view[os.write(fd, view) :]

    def _expect_space(self) -> None:
        """Leave some of the disk to those who have it in use."""
        disk = os.fstatvfs(self._root)
        left = disk.f_bavail * disk.f_frsize
        if left < min(_SPACE_LEFT_SHARE * disk.f_blocks * disk.f_frsize, _SPACE_LEFT_MOST):
            raise NoSpaceError(f"unpack {self._what}: only {left >> 20} MiB are left on the disk of {self._top}")

    def _put_link(self, member: tar_format.TarInfo, parent: int, name: str) -> None:
        """Make another name of a file that came before."""
        target = member.linkname
        parts = [part for part in target.split("/") if part not in ("", ".")]
        if target.startswith("/") or ".." in parts or not parts:
            raise self._refusal(member, f"a hard link to {target!r}, which leads out of the tree")
        below = "/".join(parts)
        if self._rules.prefix:
            below = below.removeprefix(f"{self._rules.prefix}/")
        try:
            where = openat2(self._root, os.path.dirname(below) or ".", os.O_PATH, resolve=_RESOLVE)
        except KernelError as err:
            raise self._refusal(member, f"a hard link to {target!r}, which does not come before it") from err
        last = os.path.basename(below)
        try:
            if self._place(where, last) == self._place(parent, name):
                return
            self._clear(parent, name)
            os.link(last, name, src_dir_fd=where, dst_dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, PermissionError) as err:
            raise self._refusal(member, f"a hard link to {target!r}, which is no file that came before it") from err
        finally:
            os.close(where)

    # What is taken away

    def _clear(self, parent: int, name: str) -> None:
        """Remove what has a name: a later entry is the one that counts."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            shutil.rmtree(name, dir_fd=parent)
        self._is_parent_stale = True  # its name may lead elsewhere now

    def _white_out(self, parent: int, name: str) -> None:
        if name == _OPAQUE:
            self._remove_stale(self._place(parent, "").rstrip("/"), parent)
            return
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in ("", ".", ".."):
            raise TemplateError(f"unpack {self._what}: {name!r} is refused: a whiteout of nothing")
        place = self._place(parent, hidden)
        if place not in self._fresh:
            self._clear(parent, hidden)
            return
        with suppress(OSError):
            fd = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                self._remove_stale(place, fd)
            finally:
                os.close(fd)

    def _remove_stale(self, place: str, directory: int) -> None:
        """Remove what earlier layers put into a directory, and keep what this one did."""
        for name in os.listdir(directory):
            inner = f"{place}/{name}"
            if inner not in self._fresh:
                self._clear(directory, name)
                continue
            try:
                fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            except OSError:
                continue
            try:
                self._remove_stale(inner, fd)
            finally:
                os.close(fd)
