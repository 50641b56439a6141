"""Claims about change hints, with a real inotify."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.errors import KernelError
from reconciler.kernel import inotify
from reconciler.kernel.inotify import Event, Inotify

pytestmark = pytest.mark.kernel


def test_nothing_to_read_does_not_block() -> None:
    with Inotify() as watcher:
        assert watcher.read() == []


def test_an_entry_of_a_watched_directory_is_named(tmp_path: Path) -> None:
    with Inotify() as watcher:
        watch = watcher.add(str(tmp_path), inotify.CREATE)
        (tmp_path / "ä name").touch()
        assert watcher.wait(timeout_s=10) == [Event(watch, inotify.CREATE, "ä name")]


def test_watching_twice_is_one_watch_with_the_new_mask(tmp_path: Path) -> None:
    with Inotify() as watcher:
        first = watcher.add(str(tmp_path), inotify.CREATE)
        assert watcher.add(str(tmp_path), inotify.DELETE) == first
        (tmp_path / "x").touch()
        (tmp_path / "x").unlink()
        assert watcher.wait(timeout_s=10) == [Event(first, inotify.DELETE, "x")]


def test_a_removed_watch_says_so_and_removing_it_again_is_success(tmp_path: Path) -> None:
    with Inotify() as watcher:
        watch = watcher.add(str(tmp_path), inotify.CREATE)
        watcher.remove(watch)
        watcher.remove(watch)
        assert watcher.wait(timeout_s=10) == [Event(watch, inotify.IGNORED, "")]
        (tmp_path / "x").touch()
        assert watcher.read() == []


def test_what_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with Inotify() as watcher, pytest.raises(KernelError) as caught:
        watcher.add(str(tmp_path / "none"), inotify.MODIFY)
    assert os.strerror(caught.value.errno) == "No such file or directory"


def test_lost_events_are_told(tmp_path: Path) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    file = tmp_path / "x"
    file.touch()
    with Inotify() as watcher:
        # Equal events in a row are merged: alternate.
        watcher.add(str(file), inotify.MODIFY | inotify.ATTRIB)
        descriptor = os.open(file, os.O_WRONLY)
        for n in range(most // 2 + 10):
            os.pwrite(descriptor, b"x", 0)
            os.fchmod(descriptor, 0o600 + n % 2)
        os.close(descriptor)
        events: list[Event] = []
        while part := watcher.read():
            events += part
    assert events[-1] == Event(-1, inotify.OVERFLOW, "")
    assert len(events) == most + 1


def test_closing_twice_is_allowed() -> None:
    watcher = Inotify()
    assert watcher.fileno() >= 0
    watcher.close()
    watcher.close()
    assert watcher.fileno() == -1
