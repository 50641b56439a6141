"""Hints: a change wakes whoever waits, a look does not, and no loss of inotify or of the directory is for ever."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from watchdog.events import DirMovedEvent, FileCreatedEvent

from reconciler.sources import watch
from reconciler.sources.watch import Watch

DEADLINE_S = 30.0

IN_ACCESS, IN_CLOSE_NOWRITE, IN_OPEN, IN_CLOSE_WRITE = 0x1, 0x10, 0x20, 0x8
"""Source: linux/inotify.h."""


class Waiting:
    """A loop that waits for a hint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.woken = asyncio.Event()
        self.thread = 0
        self.watch = Watch(str(path), self._wake, loop=asyncio.get_running_loop())

    def _wake(self) -> None:
        self.thread = threading.get_ident()
        self.woken.set()

    def arm(self) -> None:
        self.watch.arm(_root(self.path))

    async def woken_by(self, change: Callable[[], object]) -> None:
        change()
        await asyncio.wait_for(self.woken.wait(), DEADLINE_S)
        self.woken.clear()


def _root(path: Path) -> tuple[int, int] | None:
    try:
        info = path.stat()
    except FileNotFoundError:
        return None
    return info.st_dev, info.st_ino


@asynccontextmanager
async def _waiting(path: Path) -> AsyncIterator[Waiting]:
    waiting = Waiting(path)
    waiting.arm()
    try:
        yield waiting
    finally:
        waiting.watch.stop()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "desired"
    (path / "sub").mkdir(parents=True)
    (path / "sub" / "a.yaml").write_bytes(b"a")
    return path


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda root: (root / "b.yaml").write_bytes(b"b"), id="added"),
        pytest.param(lambda root: (root / "sub" / "a.yaml").write_bytes(b"A"), id="written-below"),
        pytest.param(lambda root: (root / "sub" / "a.yaml").rename(root / "c.yaml"), id="moved"),
        pytest.param(lambda root: (root / "sub" / "a.yaml").unlink(), id="removed"),
        pytest.param(lambda root: (root / "new").mkdir(), id="folder"),
    ],
)
def test_a_change_wakes_the_loop_in_its_own_thread(root: Path, change: Callable[[Path], object]) -> None:
    async def run() -> None:
        async with _waiting(root) as waiting:
            await waiting.woken_by(lambda: change(root))
            assert waiting.thread == threading.get_ident()
            assert waiting.watch.degraded == ""

    asyncio.run(run())


def _inotify_masks() -> list[int]:
    """Read what this process watches for. Source: proc(5), fdinfo of inotify."""
    texts = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            texts.append(Path(f"/proc/self/fdinfo/{fd}").read_text())
        except OSError:
            continue
    return [int(mask, 16) for text in texts for mask in re.findall(r"^inotify .* mask:([0-9a-f]+)", text, re.M)]


def test_a_look_does_not_wake_who_looks(root: Path) -> None:
    async def run() -> None:
        before = len(_inotify_masks())
        async with _waiting(root):
            masks = _inotify_masks()
            assert len(masks) == before + 3, "expected watches on the parent, the root and the folder in it"
            assert [mask for mask in masks if mask & (IN_ACCESS | IN_OPEN | IN_CLOSE_NOWRITE)] == []
            assert all(mask & IN_CLOSE_WRITE for mask in masks)
        assert len(_inotify_masks()) == before

    asyncio.run(run())


def test_neighbours_of_the_directory_do_not_wake() -> None:
    hints: list[bool] = []
    handler = watch._Handler(lambda: hints.append(True), only="/srv/desired")
    handler.dispatch(FileCreatedEvent("/srv/desired.tmp"))
    handler.dispatch(FileCreatedEvent("/srv"))
    assert hints == []
    handler.dispatch(DirMovedEvent("/srv/next", "/srv/desired"))
    handler.dispatch(FileCreatedEvent(b"/srv/desired"))
    assert len(hints) == 2


def test_a_replaced_directory_wakes_and_is_watched_again(root: Path) -> None:
    async def run() -> None:
        async with _waiting(root) as waiting:
            await waiting.woken_by(lambda: root.rename(root.with_name("old")))
            waiting.arm()
            await waiting.woken_by(root.mkdir)
            waiting.arm()
            await asyncio.sleep(0)
            waiting.woken.clear()
            await waiting.woken_by(lambda: (root / "a.yaml").write_bytes(b"a"))

    asyncio.run(run())


def test_a_switched_link_wakes_and_its_new_directory_is_watched(root: Path) -> None:
    (root.parent / "other").mkdir()
    link = root.parent / "current"
    link.symlink_to(root)

    async def run() -> None:
        async with _waiting(link) as waiting:
            (root.parent / "next").symlink_to("other")
            await waiting.woken_by(lambda: os.replace(root.parent / "next", link))
            waiting.arm()
            await asyncio.sleep(0)
            waiting.woken.clear()
            await waiting.woken_by(lambda: (root.parent / "other" / "a.yaml").write_bytes(b"a"))

    asyncio.run(run())


def test_a_directory_that_is_not_there_yet_is_waited_for(root: Path) -> None:
    async def run() -> None:
        path = root.parent / "later"
        async with _waiting(path) as waiting:
            assert waiting.watch.degraded == ""
            await waiting.woken_by(path.mkdir)

    asyncio.run(run())


def test_without_even_a_parent_it_says_so_and_recovers(root: Path) -> None:
    async def run() -> None:
        path = root.parent / "none" / "desired"
        async with _waiting(path) as waiting:
            assert waiting.watch.degraded == "No such file or directory"
            path.mkdir(parents=True)
            waiting.arm()
            assert waiting.watch.degraded == ""
            await waiting.woken_by(lambda: (path / "a.yaml").write_bytes(b"a"))

    asyncio.run(run())


def test_arming_again_on_the_same_directory_keeps_the_threads(root: Path) -> None:
    async def run() -> None:
        async with _waiting(root) as waiting:
            before = {thread.ident for thread in threading.enumerate()}
            waiting.arm()
            assert {thread.ident for thread in threading.enumerate()} == before

    asyncio.run(run())


def test_hints_after_the_end_of_the_loop_harm_nobody(root: Path) -> None:
    async def run() -> Watch:
        waiting = Waiting(root)
        waiting.arm()
        return waiting.watch

    left = asyncio.run(run())
    try:
        left._hint()
    finally:
        left.stop()
        left.stop()


_EXHAUSTED = """
import asyncio, os, sys
from reconciler.sources.watch import Watch

def limit(number):
    with open("/proc/sys/user/max_inotify_instances", "w") as file:
        file.write(str(number))

async def run(path):
    woken = asyncio.Event()
    watch = Watch(path, woken.set, loop=asyncio.get_running_loop())
    root = os.stat(path).st_dev, os.stat(path).st_ino
    limit(0)
    for _ in range(3):
        watch.arm(root)
        print("degraded:", watch.degraded)
    limit(128)
    watch.arm(root)
    print("degraded:", watch.degraded)
    open(path + "/b.yaml", "w").close()
    await asyncio.wait_for(woken.wait(), 30)
    print("woken")
    watch.stop()

asyncio.run(run(sys.argv[1]))
"""


@pytest.mark.kernel
def test_without_inotify_it_says_so_once_and_goes_back_to_it_when_it_can(root: Path) -> None:
    # The limit is one of the user namespace: the machine's own is not touched.
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", _EXHAUSTED, str(root)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    told = [line for line in lines if line.startswith("degraded:")]
    assert told == ["degraded: inotify instance limit reached"] * 3 + ["degraded: "]
    assert len([line for line in lines if "source.watch_degraded" in line]) == 1
    assert len([line for line in lines if "source.watch_restored" in line]) == 1
    assert lines[-1] == "woken"
