"""A directory of manifests: every look lists all of it, and reads only what changed since the last one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from reconciler.model.seam import Clock
from reconciler.sources.snapshot import DEPTH_MAX, ENTRIES_MAX, FILE_MAX, FILES_MAX, TOTAL_MAX, Snapshot, snapshot_of

_SUFFIXES = (".yaml", ".yml")
_TRIES = 3

_SURE_AFTER_S = 2.0
"""A file changed this shortly before it was read may have changed again without its times showing that.

Source: the same race in git, Documentation/technical/racy-git.txt; file systems with times of one or two seconds.
"""

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN_BELOW = _OPEN_DIRECTORY | os.O_NOFOLLOW
# Without O_NONBLOCK a named pipe put in place of a manifest would hold us for ever.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What changes when a file does."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class _Cached:
    stamp: _Stamp
    content: bytes
    sure: bool


class _LookError(Exception):
    """A look that cannot give a revision; never leaves this module."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.snapshot = Snapshot(reason=reason, problem=problem)


class _ChangedError(Exception):
    """Something was renamed or removed between the listing and the reading; never leaves this module."""


class DirectorySource:
    """The manifests below ``path``, which may itself be a symbolic link to a directory that is switched.

    ``had_files``: it is known to have held manifests, so to find none is a problem and not a wish.
    """

    __slots__ = ("_cache", "_clock", "_had_files", "_last", "_path")

    def __init__(self, path: str, *, clock: Clock, had_files: bool = False) -> None:
        self._path = path
        self._clock = clock
        self._had_files = had_files
        self._cache: dict[str, _Cached] = {}
        self._last: Snapshot | None = None

    def look(self) -> Snapshot:
        """Look at the directory; what is wrong with it is in the snapshot. Nothing new gives the same object again."""
        for _ in range(_TRIES):
            try:
                return self._look()
            except _LookError as err:
                return err.snapshot
            except _ChangedError:
                continue
        return Snapshot(reason="SourceChanging", problem=f"{self._path}: it changes faster than it can be read")

    def _look(self) -> Snapshot:
        root = self._open_root()
        try:
            info = os.fstat(root)
            return self._take(root, (info.st_dev, info.st_ino))
        finally:
            os.close(root)

    def _take(self, root: int, identity: tuple[int, int]) -> Snapshot:
        walk = _Walk(self._cache, self._clock.now())
        try:
            walk.enter(root, "", depth=0)
            self._cache = walk.found
            return self._conclude(walk, identity)
        except _LookError as err:  # a directory that cannot be taken is there all the same, to be watched
            return replace(err.snapshot, root=identity)

    def _open_root(self) -> int:
        try:
            return os.open(self._path, _OPEN_DIRECTORY)
        except FileNotFoundError as err:
            raise _LookError("SourceVanished", f"{self._path}: no such directory; nothing is removed for it") from err
        except OSError as err:
            raise _LookError("SourceUnreadable", f"{self._path}: {err.strerror}") from err

    def _conclude(self, walk: _Walk, root: tuple[int, int]) -> Snapshot:
        files = {path: cached.content for path, cached in walk.found.items()}
        if not files and self._had_files:
            raise _LookError(
                "SourceEmpty",
                f"{self._path}: it held manifests and now holds none; to remove every VE, leave a file with a comment",
            )
        self._had_files = bool(files)
        skipped, last = tuple(sorted(walk.skipped)), self._last
        if last is None or (last.files, last.root, last.skipped) != (files, root, skipped):
            last = replace(snapshot_of("dir", files), root=root, skipped=skipped)
        self._last = last
        return last


class _Walk:
    """One pass through the tree: what was found, with the contents that had to be read or were known."""

    __slots__ = ("_known", "_now", "_seen", "_size", "found", "skipped")

    def __init__(self, known: Mapping[str, _Cached], now: float) -> None:
        self._known = known
        self._now = now
        self._seen = 0
        self._size = 0
        self.found: dict[str, _Cached] = {}
        self.skipped: list[str] = []

    def enter(self, fd: int, prefix: str, *, depth: int) -> None:
        """Take in the directory behind a descriptor. By descriptor, so that none can be swapped for a link."""
        with _translated(prefix or "."), os.scandir(fd) as entries:
            for entry in entries:
                self._count()
                if not entry.name.startswith("."):
                    self._take(fd, entry, prefix + entry.name, depth)

    def _take(self, fd: int, entry: os.DirEntry[str], path: str, depth: int) -> None:
        is_manifest = entry.name.endswith(_SUFFIXES)
        if entry.is_dir(follow_symlinks=False):
            self._descend(fd, entry.name, path, depth + 1)
        elif is_manifest and entry.is_file(follow_symlinks=False):
            self._file(fd, entry, path)
        elif is_manifest:
            kind = "a symbolic link, which is not followed" if entry.is_symlink() else "neither a file nor a directory"
            raise _LookError("SourceUnreadable", f"{path}: expected a file, found {kind}")
        elif entry.is_symlink() and entry.is_dir():
            self.skipped.append(path)

    def _descend(self, fd: int, name: str, path: str, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise _LookError("SourceTooLarge", f"{path}: expected {DEPTH_MAX} folders in each other at most")
        with _translated(path):
            below = os.open(name, _OPEN_BELOW, dir_fd=fd)
        try:
            self.enter(below, f"{path}/", depth=depth)
        finally:
            os.close(below)

    def _file(self, fd: int, entry: os.DirEntry[str], path: str) -> None:
        if not path.isprintable():
            raise _LookError("SourceUnreadable", f"{path!r}: expected a name that can be printed")
        known = self._known.get(path)
        with _translated(path):
            if known is None or not known.sure or known.stamp != _stamp(entry.stat(follow_symlinks=False)):
                known = self._read(fd, entry.name, path)
        self._size += len(known.content)
        if self._size > TOTAL_MAX:
            raise _LookError("SourceTooLarge", f"{path}: with it there are more than {TOTAL_MAX} bytes of manifests")
        self.found[path] = known
        if len(self.found) > FILES_MAX:
            raise _LookError("SourceTooLarge", f"{path}: with it there are more than {FILES_MAX} files of manifests")

    def _read(self, fd: int, name: str, path: str) -> _Cached:
        with open(os.open(name, _OPEN_FILE, dir_fd=fd), "rb", buffering=0) as file:
            # Taken before the content: a write during the reading makes the next look read again.
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise _ChangedError(path)
            content = file.read(FILE_MAX + 1) if info.st_size <= FILE_MAX else None
        if content is None or len(content) > FILE_MAX:
            raise _LookError("SourceTooLarge", f"{path}: expected {FILE_MAX} bytes at most")
        changed_at = max(info.st_mtime_ns, info.st_ctime_ns) / 1e9
        return _Cached(_stamp(info), content, sure=self._now - changed_at > _SURE_AFTER_S)

    def _count(self) -> None:
        self._seen += 1
        if self._seen > ENTRIES_MAX:
            raise _LookError("SourceTooLarge", f"expected {ENTRIES_MAX} files and folders of any kind at most")


def _stamp(info: os.stat_result) -> _Stamp:
    return _Stamp(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        if err.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            raise _ChangedError(path) from err
        raise _LookError("SourceUnreadable", f"{path}: {err.strerror}") from err
