"""Our own files: whole or not there, locked by one, removed without leaving the tree."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.errors import BusyError, KernelError, NoSpaceError
from reconciler.kernel import files, mount
from tests.support.storage import bind, in_child, in_private_namespace, read, write

pytestmark = pytest.mark.kernel


def test_a_file_is_replaced_whole_with_its_mode_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")
    before = path.stat().st_ino
    files.write_atomic(str(path), b"new", mode=0o640)
    assert (path.read_bytes(), path.stat().st_mode & 0o7777) == (b"new", 0o640)
    assert path.stat().st_ino != before
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(KernelError, match=r"^write .*taken: Is a directory$"):
        files.write_atomic(str(tmp_path / "taken"), b"new")
    assert os.listdir(tmp_path) == ["taken"]


def test_a_full_disk_keeps_the_old_content_and_has_its_own_error(tmp_path: Path) -> None:
    def fill() -> tuple[str, list[str], str]:
        mount.mount_tmpfs(str(tmp_path), size=1 << 16)
        write(f"{tmp_path}/record", "old")
        try:
            files.write_atomic(f"{tmp_path}/record", bytes(1 << 20))
        except NoSpaceError as err:
            return read(f"{tmp_path}/record"), os.listdir(tmp_path), str(err)
        raise AssertionError("expected NoSpaceError")

    content, names, message = in_private_namespace(fill)
    assert (content, names) == ("old", ["record"])
    assert message == f"write {tmp_path}/record: No space left on device"


def test_an_absent_file_is_none_and_an_unreadable_one_an_error(tmp_path: Path) -> None:
    assert files.read_bytes_if_exists(str(tmp_path / "absent")) is None
    with pytest.raises(KernelError, match=r"^read .*: Is a directory$"):
        files.read_bytes_if_exists(str(tmp_path))


def test_an_allocated_file_has_its_place_on_disk_and_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"data")
    files.allocate(str(path), 1 << 20)
    assert path.stat().st_size == 1 << 20
    assert path.stat().st_blocks * 512 >= 1 << 20
    assert path.read_bytes()[:4] == b"data"


def test_an_image_that_does_not_fit_is_refused_as_no_space(tmp_path: Path) -> None:
    def allocate() -> str:
        mount.mount_tmpfs(str(tmp_path), size=1 << 16)
        with pytest.raises(NoSpaceError) as caught:
            files.allocate(f"{tmp_path}/image", 1 << 24)
        return str(caught.value)

    assert in_private_namespace(allocate) == f"allocate {tmp_path}/image: No space left on device"


@contextmanager
def held(path: str) -> Iterator[int]:
    """Have a child hold a lock; gives its pid. It is killed at the end, if it still runs."""
    ready, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with files.lock(path):
            os.write(writing, b"x")
            signal.pause()
    os.close(writing)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_second_holder_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with (
        held(path) as pid,
        pytest.raises(BusyError, match=f"^lock {path}: held by another process, pid {pid}$"),
        files.lock(path),
    ):
        raise AssertionError("two holders")


def test_a_lock_is_waited_for_until_its_holder_dies(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with held(path) as pid:
        killer = threading.Thread(target=os.kill, args=(pid, signal.SIGKILL))
        killer.start()
        with files.lock(path, wait_s=30):
            assert int(read(path)) == os.getpid()
        killer.join()


def test_a_lock_is_free_again_after_the_block_even_if_a_child_inherited_it(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with files.lock(path):
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        with files.lock(path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_tree_is_removed_and_what_its_links_point_to_stays(tmp_path: Path) -> None:
    write(f"{tmp_path}/outside/f", "kept")
    write(f"{tmp_path}/tree/a/b/f", "x")
    write(f"{tmp_path}/tree/c/f", "x")
    os.symlink(f"{tmp_path}/outside", f"{tmp_path}/tree/link")
    os.symlink(f"{tmp_path}/outside", f"{tmp_path}/tree/a/link")
    os.mkfifo(f"{tmp_path}/tree/a/fifo")
    files.remove_tree(f"{tmp_path}/tree")
    assert os.listdir(tmp_path) == ["outside"]
    assert read(f"{tmp_path}/outside/f") == "kept"


def test_removing_a_link_a_file_or_nothing_removes_just_that(tmp_path: Path) -> None:
    write(f"{tmp_path}/outside/f", "kept")
    os.symlink(f"{tmp_path}/outside", f"{tmp_path}/link")
    files.remove_tree(f"{tmp_path}/link")
    files.remove_tree(f"{tmp_path}/absent")
    assert os.listdir(tmp_path) == ["outside"]
    files.remove_tree(f"{tmp_path}/outside/f")
    assert os.listdir(f"{tmp_path}/outside") == []


def test_depth_costs_neither_stack_nor_descriptors(tmp_path: Path) -> None:
    def make_and_remove() -> int:
        fd = os.open(tmp_path, os.O_RDONLY)
        for _ in range(3000):
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        files.remove_tree(f"{tmp_path}/d")
        return len(os.listdir(tmp_path))

    assert in_child(make_and_remove) == 0


def test_a_tree_with_a_mount_in_it_is_refused_untouched(tmp_path: Path) -> None:
    write(f"{tmp_path}/tree/f", "kept")
    os.mkdir(f"{tmp_path}/tree/mnt")

    def remove() -> tuple[str, bool]:
        mount.mount_tmpfs(f"{tmp_path}/tree/mnt", size=1 << 16)
        with pytest.raises(BusyError) as caught:
            files.remove_tree(f"{tmp_path}/tree")
        return str(caught.value), os.path.exists(f"{tmp_path}/tree/f")

    message, kept = in_private_namespace(remove)
    assert message == f"remove {tmp_path}/tree: tmpfs is mounted at {tmp_path}/tree/mnt; unmount it first"
    assert kept


def test_a_mount_that_appears_after_the_check_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.makedirs(f"{tmp_path}/tree/mnt")
    monkeypatch.setattr(mount, "read_mounts", list)

    def remove() -> tuple[int, list[str]]:
        write(f"{tmp_path}/elsewhere/f", "kept")
        bind(f"{tmp_path}/elsewhere", f"{tmp_path}/tree/mnt")
        with pytest.raises(KernelError) as caught:
            files.remove_tree(f"{tmp_path}/tree")
        return caught.value.errno, os.listdir(f"{tmp_path}/elsewhere")

    errno_seen, left = in_private_namespace(remove)
    assert os.strerror(errno_seen) == "Invalid cross-device link"
    assert left == ["f"]


def test_a_directory_that_is_moved_away_meanwhile_does_not_lead_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(f"{tmp_path}/tree/a/inner/f", "x")
    os.makedirs(f"{tmp_path}/tree/a/same-name")
    os.makedirs(f"{tmp_path}/outside/same-name")
    listed = os.scandir

    def list_and_move(fd: int) -> object:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/inner"):
            os.rename(f"{tmp_path}/tree/a/inner", f"{tmp_path}/outside/inner")
        return listed(fd)

    monkeypatch.setattr(os, "scandir", list_and_move)
    with pytest.raises(KernelError, match="a directory in it was moved meanwhile"):
        files.remove_tree(f"{tmp_path}/tree")
    assert sorted(os.listdir(f"{tmp_path}/outside")) == ["inner", "same-name"]


def test_two_directories_take_each_others_place(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    files.exchange(f"{tmp_path}/one", f"{tmp_path}/other")
    assert [(tmp_path / name / "f").read_text() for name in ("one", "other")] == ["other", "one"]
    with pytest.raises(KernelError, match=r"^exchange .*one and .*absent: No such file"):
        files.exchange(f"{tmp_path}/one", f"{tmp_path}/absent")
    assert (tmp_path / "one" / "f").read_text() == "other"
