"""Keep what is slow to build, outside the repository, under the hash of what it is built from."""

import collections.abc
import fcntl
import hashlib
import os
import pathlib
import shutil

ROOT = pathlib.Path(os.environ.get("VECTL_VM_CACHE", "/var/cache/vectl-tests"))
LOGS = ROOT / "logs"
KEPT = 3

Build = collections.abc.Callable[[pathlib.Path], None]
Get = collections.abc.Callable[[str, str, Build], pathlib.Path]
"""How a folder is got: `built`, or `found`."""


class NotCachedError(Exception):
    """What is asked for would have to be built."""


def built(kind: str, key: str, build: Build) -> pathlib.Path:
    """Give the folder of a key, built if it is missing; it gets its name only when it is complete."""
    final = place(kind, key)
    if final.exists():
        return final
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not final.exists():
            unfinished = ROOT / f"{kind}.unfinished"
            remove_tree(unfinished)
            unfinished.mkdir()
            build(unfinished)
            unfinished.rename(final)
            forget_old(kind)
    return final


def found(kind: str, key: str, _build: Build) -> pathlib.Path:
    """Give the folder of a key only if it is built.

    Raises: NotCachedError.
    """
    final = place(kind, key)
    if not final.exists():
        raise NotCachedError(f"find a built {kind}: there is none in {ROOT} for this tree")
    return final


def place(kind: str, key: str) -> pathlib.Path:
    """Name the folder of a key."""
    return ROOT / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def identity(folder: pathlib.Path) -> str:
    """Name a built folder and that build of it, as the key of what holds only the difference to it."""
    return f"{folder} {folder.stat().st_mtime_ns}"


def forget_old(kind: str) -> None:
    """Remove all but the latest few of a kind; a machine that runs on one has it open, and goes on."""
    folders = sorted(ROOT.glob(f"{kind}-*"), key=lambda folder: folder.stat().st_mtime)
    for folder in folders[:-KEPT]:
        remove_tree(folder)


def remove_tree(tree: pathlib.Path) -> None:
    """Remove a folder unless something is still mounted below it, as an interrupted build may leave it.

    Raises: OSError.
    """
    if not tree.exists():
        return
    mounts = [line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    if left := [mount for mount in mounts if pathlib.Path(mount).is_relative_to(tree.resolve())]:
        raise OSError(f"remove {tree}: still mounted below it: {', '.join(left)}; unmount these first")
    shutil.rmtree(tree)
