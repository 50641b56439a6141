"""Where tests keep their files: a file system that carries every kind of mount, and a removal that crosses none.

pytest itself would delete the directories of earlier runs, through whatever an ended run left mounted in them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.kernel import mount

_CANDIDATES = ("/var/tmp", "/var/lib", "/tmp")
_PREFIX = "vectl-tests-"
_KEPT_RUNS = 1
"""Of those that failed or were killed, the latest; each may hold gigabytes."""
ROOM_BYTES = 4 << 30
"""What a whole run needs: it was seen to take 3.4 GiB at its peak."""

# An overlay cannot lie on an overlay, and these hold no device node, no trusted attribute or no loop file.
_UNFIT_KINDS = frozenset({"overlay", "tmpfs", "ramfs", "9p", "virtiofs", "nfs", "nfs4", "cifs"})
_UNFIT_OPTIONS = frozenset({"ro", "nosuid", "nodev", "noexec"})


def unfitness(path: str) -> str | None:
    """Say why roots of VEs cannot lie below a path, or None."""
    place = _mount_of(path)
    if place is None:
        return f"{path} is on no mount that this mount namespace shows"
    if place.fstype in _UNFIT_KINDS or place.fstype.startswith("fuse"):
        return f"{path} is on {place.fstype}"
    found = sorted(_UNFIT_OPTIONS.intersection(place.options))
    return f"{path} is mounted {','.join(found)}" if found else None


def choose_place() -> str:
    """Choose the directory that a run's own directory is made in; VECTL_TEST_DIR names another."""
    named = os.environ.get("VECTL_TEST_DIR")
    usable = [path for path in _CANDIDATES if os.access(path, os.W_OK)]
    return named or next((path for path in usable if unfitness(path) is None), tempfile.gettempdir())


def require_room(place: str, *, room_bytes: int = ROOM_BYTES) -> None:
    """Refuse a place that a run would fill: its pools are allocated in full.

    Raises: OSError of ENOSPC, with what was expected, found, and the remedy.
    """
    free = shutil.disk_usage(place).free
    if free < room_bytes:
        wanted = f"expected {room_bytes >> 20} MiB free, found {free >> 20}"
        raise OSError(errno.ENOSPC, f"{wanted}; free some, or name another directory in VECTL_TEST_DIR", place)


def mounts_below(path: str) -> list[str]:
    """List what is mounted at or below a path, as this mount namespace sees it; the deepest last."""
    inside = os.path.join(os.path.realpath(path), "")
    targets = (place.target for place in mount.read_mounts())
    return [target for target in targets if os.path.join(target, "").startswith(inside)]


def unmount_below(path: str) -> list[str]:
    """Unmount everything at and below a path and return what that was."""
    left = mounts_below(path)
    for target in reversed(left):
        mount.unmount(target, lazy=True)
    return left


def remove_tree(path: str) -> None:
    """Remove a directory, unless something is mounted in it.

    Raises: RuntimeError, naming the mounts; OSError.
    """
    if left := mounts_below(path):
        raise RuntimeError(f"remove {path}: expected nothing mounted in it, found {', '.join(left)}")
    shutil.rmtree(path)


class RunDirectory:
    """The directory of one run, locked while the run lives. Kept after it for a look, or removed."""

    def __init__(self, place: str) -> None:
        _remove_old(place)
        self.keep = False
        self.path = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
        os.chmod(self.path, 0o711)  # ids of VEs pass through
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    @property
    def base(self) -> Path:
        """What pytest makes its own directories in; it must not exist when pytest is told of it."""
        return Path(self.path, "t")

    def close(self) -> None:
        """End the run. What is kept is removed by a later run; so is what holds a mount, once that is gone."""
        try:
            if not self.keep and not mounts_below(self.path):
                shutil.rmtree(self.path)
        finally:
            os.close(self._lock)


@contextmanager
def directory(path: Path) -> Iterator[Path]:
    """Make a directory, and remove it whatever was left in it.

    Raises: RuntimeError, if something was left mounted in it; that is unmounted, and the directory is removed.
    """
    path.mkdir(mode=0o711)
    try:
        yield path
    finally:
        left = unmount_below(str(path))
        remove_tree(str(path))
    if left:
        raise RuntimeError(f"end of test: expected nothing mounted, found {', '.join(left)}")


def _mount_of(path: str) -> mount.Mount | None:
    """Find the mount that holds a path: the deepest, and of several at one place the last."""
    real = os.path.join(os.path.realpath(path), "")
    holding = [place for place in mount.read_mounts() if real.startswith(os.path.join(place.target, ""))]
    return max(reversed(holding), key=lambda place: len(place.target), default=None)


def runs(place: str) -> list[Path]:
    """List the directories of runs, whether they live or not."""
    return sorted(Path(place).glob(f"{_PREFIX}*"))


def _remove_old(place: str) -> None:
    """Remove the directories of runs that ended and left nothing mounted, but for the latest."""
    ended = 0
    for entry in sorted(runs(place), key=_changed_at, reverse=True):
        with lock_if_free(entry) as free:
            ended += free
            if free and ended > _KEPT_RUNS and not mounts_below(str(entry)):
                shutil.rmtree(entry, ignore_errors=True)


def _changed_at(path: Path) -> float:
    """Give the time of a directory's last change, 0 for one that another run has removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the directory of a run for the block, if nobody does; say whether that is so."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
