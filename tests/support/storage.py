"""What the tests of storage share: work in a forked child, and file systems in image files."""

from __future__ import annotations

import os
import pickle
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from reconciler.kernel import btrfs, erofs, files, loop, mount, qgroup
from tests.support.patience import PATIENCE

T = TypeVar("T")

POOL_BYTES = 256 << 20
_RELEASE_S = 5.0 * PATIENCE
UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


class NoAnswerError(AssertionError):
    """A child was killed before it had done its work."""


def in_child(work: Callable[[], T]) -> T:
    """Run work in a forked child, which has one thread whatever we have, and give back what it returns."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of forking while xdist's threads run: the child execs none
        pid = os.fork()
    if pid == 0:
        _report(writing, work)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    if not answer:
        raise NoAnswerError("the child ended without an answer")
    error, result = pickle.loads(answer)
    assert error is None, f"in the child:\n{error}"
    return result  # type: ignore[no-any-return]  # what came out of the pickle is what the work returned


def in_private_namespace(work: Callable[[], T]) -> T:
    """Run work in a forked child with its own mount table."""

    def entered() -> T:
        mount.enter_private_namespace()
        return work()

    return in_child(entered)


@contextmanager
def mounted(image: str, target: str, *, fstype: str, read_only: bool) -> Iterator[str]:
    """Mount an image for the block."""
    os.makedirs(target, exist_ok=True)
    mount.mount_image(image, target, fstype=fstype, read_only=read_only)
    try:
        yield target
    finally:
        _await_release(target)
        mount.unmount(target)


def _await_release(directory: str) -> None:
    """Wait until no loop device keeps a file below a directory: udev may look at one after its last user."""
    deadline = time.monotonic() + _RELEASE_S
    while loop.find_below(directory) and time.monotonic() < deadline:
        time.sleep(0.01)


@contextmanager
def pool(directory: str) -> Iterator[str]:
    """Make and mount a btrfs with quotas on; its image goes with it."""
    image = f"{directory}/pool.img"
    files.allocate(image, POOL_BYTES)
    try:
        btrfs.make_filesystem(image, label="vectl-test")
        with mounted(image, f"{directory}/pool", fstype="btrfs", read_only=False) as path:
            qgroup.enable_quota(path)
            yield path
    finally:
        os.unlink(image)


@contextmanager
def template(directory: str, fill: Callable[[str], None]) -> Iterator[str]:
    """Make and mount an image of the tree that ``fill`` makes."""
    tree, image = f"{directory}/tree", f"{directory}/template.erofs"
    os.mkdir(tree)
    fill(tree)
    erofs.make_image(tree, image, uuid=UUID)
    with mounted(image, f"{directory}/template", fstype="erofs", read_only=True) as path:
        yield path


def bind(source: str, target: str) -> None:
    """Show a file or directory at another place."""
    subprocess.run(["mount", "--bind", source, target], check=True, timeout=20)


def snapshot(subvolume: str, target: str, *options: str) -> None:
    """Make a snapshot of a subvolume, as an administrator would."""
    subprocess.run(["btrfs", "subvolume", "snapshot", *options, subvolume, target], check=True, timeout=20)


def commit(path: str) -> None:
    """Have a btrfs written out, which brings its quota numbers up to date and lets it clean up."""
    subprocess.run(["btrfs", "filesystem", "sync", path], check=True, timeout=60)


def write(path: str, text: str) -> None:
    """Write a file, with its parents."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def read(path: str) -> str:
    """Read a file."""
    with open(path) as file:
        return file.read()


def _report(writing: int, work: Callable[[], object]) -> None:
    try:
        answer: tuple[str | None, object] = (None, work())
    except BaseException:
        answer = (traceback.format_exc(), None)
    try:
        with open(writing, "wb") as pipe:
            pickle.dump(answer, pipe)
    finally:
        os._exit(0)
