"""Claims about the directories that tests work in: nothing mounted in them is ever deleted."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import scratch, storage
from tests.support.etcd import etcd


def bind(source: Path, target: Path) -> None:
    target.mkdir()
    subprocess.run(["mount", "--bind", source, target], check=True, timeout=10)


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory with a file that must survive."""
    path = tmp_path / "precious"
    path.mkdir()
    (path / "file").write_text("here")
    return path


@pytest.fixture
def bound(precious: Path, tmp_path: Path) -> Iterator[Path]:
    """A directory in which the precious one is mounted."""
    path = tmp_path / "outer"
    path.mkdir()
    bind(precious, path / "mounted here")
    yield path
    scratch.unmount_below(str(path))


def test_a_mount_is_seen_below_but_not_beside(bound: Path) -> None:
    assert scratch.mounts_below(str(bound)) == [f"{bound}/mounted here"]
    assert scratch.mounts_below(f"{bound}/mounted") == []


def test_a_tree_with_a_mount_in_it_is_not_removed(bound: Path, precious: Path) -> None:
    with pytest.raises(RuntimeError, match="mounted here"):
        scratch.remove_tree(str(bound))
    assert (precious / "file").read_text() == "here"


def test_a_test_that_leaves_a_mount_fails_and_deletes_nothing_through_it(precious: Path, tmp_path: Path) -> None:
    def leave_a_mount() -> None:
        with scratch.directory(tmp_path / "work") as path:
            bind(precious, path / "left")

    with pytest.raises(RuntimeError, match=r"work/left"):
        leave_a_mount()
    assert (precious / "file").read_text() == "here"
    assert not (tmp_path / "work").exists()


def test_a_test_that_fails_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), scratch.directory(tmp_path / "work"):
        _ = 1 / 0
    assert not (tmp_path / "work").exists()


def test_runs_that_live_and_the_latest_that_failed_keep_their_directories(tmp_path: Path) -> None:
    alive, earlier, latest = (scratch.RunDirectory(str(tmp_path)) for _ in range(3))
    for changed_at, run in enumerate((alive, earlier, latest)):
        os.utime(run.path, (changed_at, changed_at))
    for failed in (earlier, latest):
        failed.keep = True
        failed.close()
    scratch.RunDirectory(str(tmp_path)).close()
    assert {entry.name for entry in tmp_path.iterdir()} == {os.path.basename(run.path) for run in (alive, latest)}
    alive.close()
    assert [entry.name for entry in tmp_path.iterdir()] == [os.path.basename(latest.path)]


def test_a_run_whose_test_left_a_mount_keeps_its_directory(precious: Path, tmp_path: Path) -> None:
    run = scratch.RunDirectory(str(tmp_path))
    bind(precious, Path(run.path, "left"))
    try:
        run.close()
        assert (precious / "file").read_text() == "here"
    finally:
        scratch.unmount_below(run.path)


def test_a_directory_with_nosuid_or_of_memory_is_unfit_for_roots(tmp_path: Path) -> None:
    target = tmp_path / "memory"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nosuid", "none", target], check=True, timeout=10)
    try:
        assert scratch.unfitness(f"{target}/not/yet/there") == f"{target}/not/yet/there is on tmpfs"
    finally:
        scratch.unmount_below(str(target))
    assert scratch.unfitness(str(tmp_path)) is None


def test_a_test_has_a_short_name_and_root_of_its_own(instance_name: str, tmp_root: Path) -> None:
    assert re.fullmatch(r"t[0-9a-f]{4}", instance_name)
    assert tmp_root.name == instance_name
    assert len(str(tmp_root)) < 60  # a socket's path has 107 characters
    assert os.listdir(tmp_root) == []


def test_a_place_without_room_is_refused_with_the_remedy(tmp_path: Path) -> None:
    scratch.require_room(str(tmp_path), room_bytes=1)
    with pytest.raises(OSError, match=r"expected \d+ MiB free, found \d+; .* VECTL_TEST_DIR") as caught:
        scratch.require_room(str(tmp_path), room_bytes=1 << 60)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path)


def test_what_takes_much_room_goes_with_its_test(tmp_path: Path) -> None:
    with storage.pool(str(tmp_path)), etcd(tmp_path / "etcd") as cluster:
        assert (tmp_path / "pool.img").is_file()
        assert all(member.directory.is_dir() for member in cluster.members)
    assert {path.name for path in tmp_path.rglob("*")} == {"pool", "etcd", "m1.log"}
