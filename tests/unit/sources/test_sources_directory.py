"""A directory of manifests: read whole or not at all, read again only where it changed, never mistaken for empty."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import KernelError
from reconciler.sources import directory, snapshot
from reconciler.sources.directory import DirectorySource
from reconciler.sources.single import STDIN_NAME, look_once
from reconciler.sources.snapshot import Snapshot, digest_of


class LateClock:
    """A clock that is an hour ahead: by it, no file was changed a moment ago."""

    def now(self) -> float:
        return time.time() + 3600.0

    def monotonic(self) -> float:
        return time.monotonic()


class PlainClock(LateClock):
    """The time of day."""

    def now(self) -> float:
        return time.time()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "desired"
    path.mkdir()
    return path


def _source(root: Path, *, had_files: bool = False) -> DirectorySource:
    return DirectorySource(str(root), clock=LateClock(), had_files=had_files)


def _look(root: Path) -> Snapshot:
    return _source(root).look()


def test_all_manifests_below_are_read_and_nothing_else(root: Path) -> None:
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "a.yaml").write_bytes(b"a")
    (root / "sub" / "b.yml").write_bytes(b"b")
    (root / "sub" / "deep" / "c.yaml").write_bytes(b"c")
    (root / ".git").mkdir()
    (root / ".git" / "x.yaml").write_bytes(b"x")
    (root / ".swap.yaml").write_bytes(b"x")
    (root / "README.md").write_bytes(b"x")
    (root / "b.yaml~").write_bytes(b"x")
    look = _look(root)
    assert look.complete
    assert look.files == {"a.yaml": b"a", "sub/b.yml": b"b", "sub/deep/c.yaml": b"c"}
    info = root.stat()
    assert look.root == (info.st_dev, info.st_ino)


def test_the_revision_is_named_after_paths_and_contents_alone(root: Path, tmp_path: Path) -> None:
    (root / "a.yaml").write_bytes(b"a")
    first = _look(root)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "a.yaml").write_bytes(b"a")
    os.utime(copy / "a.yaml", (1, 1))
    assert _look(copy).revision == first.revision == f"dir:{first.digest[:12]}"
    (copy / "a.yaml").rename(copy / "b.yaml")
    assert _look(copy).digest != first.digest


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text("ab/"), st.binary(max_size=3), max_size=3), min_size=2, max_size=2))
def test_no_two_sets_of_files_share_a_digest(two: list[dict[str, bytes]]) -> None:
    first, second = two
    assert (digest_of(first) == digest_of(second)) is (first == second)


def test_a_look_that_finds_nothing_new_reads_nothing_and_gives_the_same_snapshot(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a.yaml").write_bytes(b"a")
    (root / "b.yaml").write_bytes(b"b")
    source = _source(root)
    first = source.look()
    opened: list[str] = []
    real_open = os.open

    def counting(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        opened.append(path)
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr("reconciler.sources.directory.os.open", counting)
    assert source.look() is first
    assert opened == [str(root)]
    (root / "b.yaml").write_bytes(b"B")
    assert source.look().files == {"a.yaml": b"a", "b.yaml": b"B"}
    assert opened == [str(root), str(root), "b.yaml"]


def test_a_file_changed_a_moment_ago_is_read_again_though_it_looks_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coarse(info: os.stat_result) -> directory._Stamp:
        """What a file system with times of two seconds shows of a file written twice in them."""
        return directory._Stamp(info.st_dev, info.st_ino, info.st_size, 0, 0)

    monkeypatch.setattr(directory, "_stamp", coarse)
    (root / "a.yaml").write_bytes(b"old")
    source = DirectorySource(str(root), clock=PlainClock())
    assert source.look().files == {"a.yaml": b"old"}
    (root / "a.yaml").write_bytes(b"new")
    assert source.look().files == {"a.yaml": b"new"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda root: (root / "a.yaml").write_bytes(b"b"), id="rewritten"),
        pytest.param(lambda root: (root / "a.yaml").unlink(), id="removed"),
        pytest.param(lambda root: (root / "a.yaml").rename(root / "c.yaml"), id="renamed"),
        pytest.param(lambda root: (root / "c.yaml").write_bytes(b"c"), id="added"),
        pytest.param(lambda root: os.replace(root / "z.yaml", root / "a.yaml"), id="replaced"),
    ],
)
def test_every_kind_of_change_is_another_revision(root: Path, change: Callable[[Path], object]) -> None:
    (root / "a.yaml").write_bytes(b"a")
    (root / "z.yaml").write_bytes(b"z")
    source = _source(root)
    first = source.look()
    change(root)
    second = source.look()
    assert second.complete
    assert second.revision != first.revision
    assert second == _look(root)


def test_a_directory_never_seen_with_manifests_may_be_empty(root: Path) -> None:
    look = _look(root)
    assert look.complete
    assert look.files == {}
    assert look.revision.startswith("dir:")


def test_an_emptied_directory_is_a_problem_and_not_an_empty_revision(root: Path) -> None:
    (root / "a.yaml").write_bytes(b"a")
    source = _source(root)
    assert source.look().complete
    (root / "a.yaml").unlink()
    for look in (source.look(), source.look(), _source(root, had_files=True).look()):
        assert (look.reason, look.complete, look.revision) == ("SourceEmpty", False, "")
        assert str(root) in look.problem
    (root / "a.yaml").write_bytes(b"a")
    assert source.look().complete


def test_a_vanished_directory_is_a_problem(root: Path) -> None:
    (root / "a.yaml").write_bytes(b"a")
    source = _source(root)
    source.look()
    root.rename(root.with_name("gone"))
    look = source.look()
    assert (look.reason, look.complete) == ("SourceVanished", False)
    root.with_name("gone").rename(root)
    assert source.look().complete


def test_a_replaced_directory_has_another_root_and_none_of_the_old_content(root: Path) -> None:
    (root / "a.yaml").write_bytes(b"a")
    source = _source(root)
    first = source.look()
    root.rename(root.with_name("old"))
    root.mkdir()
    (root / "a.yaml").write_bytes(b"b")
    second = source.look()
    assert second.root != first.root
    assert second.files == {"a.yaml": b"b"}


def test_a_link_to_a_directory_may_be_the_root_and_be_switched(root: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_bytes(name.encode())
    link = tmp_path / "current"
    link.symlink_to("one")
    source = _source(link)
    assert source.look().files == {"a.yaml": b"one"}
    (tmp_path / "next").symlink_to("two")
    os.replace(tmp_path / "next", link)
    assert source.look().files == {"a.yaml": b"two"}


def test_a_file_in_place_of_the_directory_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "desired").write_bytes(b"a")
    assert _look(tmp_path / "desired").reason == "SourceUnreadable"


def test_links_are_not_followed_and_said_so(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.yaml").write_bytes(b"secret")
    (root / "a.yaml").write_bytes(b"a")
    (root / "more").symlink_to(outside)
    (root / "notes.txt").symlink_to(outside / "secret.yaml")
    look = _look(root)
    assert (look.complete, look.files, look.skipped) == (True, {"a.yaml": b"a"}, ("more",))


def test_a_link_in_place_of_a_manifest_never_reads_as_its_removal(root: Path, tmp_path: Path) -> None:
    (root / "a.yaml").write_bytes(b"a")
    (root / "b.yaml").write_bytes(b"b")
    source = _source(root)
    source.look()
    (tmp_path / "b.yaml").write_bytes(b"b")
    (root / "b.yaml").unlink()
    (root / "b.yaml").symlink_to(tmp_path / "b.yaml")
    look = source.look()
    assert (look.reason, look.complete) == ("SourceUnreadable", False)
    assert "b.yaml: expected a file, found a symbolic link" in look.problem


def test_a_pipe_in_place_of_a_manifest_stops_nobody(root: Path) -> None:
    os.mkfifo(root / "a.yaml")
    look = _look(root)
    assert look.reason == "SourceUnreadable"
    assert "neither a file nor a directory" in look.problem


def test_a_name_that_cannot_be_printed_is_a_problem(root: Path) -> None:
    (root / "a\x1b[31m.yaml").write_bytes(b"a")
    look = _look(root)
    assert look.reason == "SourceUnreadable"
    assert look.problem.isprintable()


def test_a_file_that_cannot_be_read_is_a_problem_and_not_a_removal(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "sub").mkdir()
    for name in ("a.yaml", "sub/b.yaml"):
        (root / name).write_bytes(b"a")
    real_open = os.open
    for forbidden in ("b.yaml", "sub"):

        def refusing(
            path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None, forbidden: str = forbidden
        ) -> int:
            if path == forbidden:
                raise PermissionError(13, "Permission denied", path)
            return real_open(path, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr("reconciler.sources.directory.os.open", refusing)
        look = _look(root)
        assert (look.reason, look.complete, dict(look.files)) == ("SourceUnreadable", False, {})
        assert "sub" in look.problem
        assert "Permission denied" in look.problem


def test_a_file_that_goes_away_between_listing_and_reading_is_looked_for_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a.yaml").write_bytes(b"a")
    (root / "b.yaml").write_bytes(b"b")
    real_open = os.open

    def racing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "b.yaml":
            (root / "b.yaml").unlink(missing_ok=True)
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr("reconciler.sources.directory.os.open", racing)
    look = _look(root)
    assert (look.complete, look.files) == (True, {"a.yaml": b"a"})


def test_a_pipe_put_in_place_after_the_listing_stops_nobody(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a.yaml").write_bytes(b"a")
    real_open = os.open

    def swapping(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "a.yaml":
            (root / "a.yaml").unlink()
            os.mkfifo(root / "a.yaml")
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr("reconciler.sources.directory.os.open", swapping)
    assert _look(root).reason == "SourceUnreadable"


def test_a_directory_that_never_stays_is_a_problem(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a.yaml").write_bytes(b"a")
    real_open = os.open

    def vanishing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "a.yaml":
            raise FileNotFoundError(2, "No such file or directory", path)
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr("reconciler.sources.directory.os.open", vanishing)
    assert _look(root).reason == "SourceChanging"


@pytest.mark.parametrize("limit", ["FILES_MAX", "TOTAL_MAX", "ENTRIES_MAX", "DEPTH_MAX"])
def test_a_source_beyond_a_limit_is_a_problem(root: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    (root / "sub" / "sub").mkdir(parents=True)
    for name in ("a.yaml", "sub/b.yaml", "sub/sub/c.yaml"):
        (root / name).write_bytes(b"1234")
    assert _look(root).complete
    monkeypatch.setattr(directory, limit, {"TOTAL_MAX": 11, "ENTRIES_MAX": 4, "DEPTH_MAX": 1, "FILES_MAX": 2}[limit])
    look = _look(root)
    assert (look.reason, look.complete) == ("SourceTooLarge", False)


def test_a_large_file_is_a_problem(root: Path) -> None:
    with (root / "a.yaml").open("wb") as file:
        file.truncate(snapshot.FILE_MAX + 1)
    look = _look(root)
    assert look.reason == "SourceTooLarge"
    assert "a.yaml" in look.problem


def test_no_descriptor_stays_open(root: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub" / "a.yaml").write_bytes(b"a")
    (root / "sub" / "b.yaml").symlink_to("a.yaml")
    source = _source(root)
    for _ in range(5):
        assert not source.look().complete
    assert _opened_below(root) == []


def _opened_below(root: Path) -> list[str]:
    """Name what this process holds open of a tree; what other tests' garbage holds open comes and goes."""
    opened = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            opened.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [path for path in opened if Path(path).is_relative_to(root)]


def test_relisting_a_thousand_files_reads_none_of_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1000):
        folder = root / f"team-{number % 20}"
        folder.mkdir(exist_ok=True)
        (folder / f"web{number}.yaml").write_text(f"apiVersion: ve/v1\nmetadata: {{name: web{number}}}\n" + "#" * 500)
    source = _source(root)
    began = time.perf_counter()
    first = source.look()
    read = time.perf_counter()
    monkeypatch.setattr("reconciler.sources.directory._Walk._read", lambda *_: pytest.fail("a file was read"))
    again = source.look()
    relisted = time.perf_counter()
    print(f"1000 files: first look {(read - began) * 1e3:.1f} ms, relist {(relisted - read) * 1e3:.1f} ms")
    assert len(first.files) == 1000
    assert again is first


def test_a_command_may_be_given_standard_input_a_file_or_a_directory(root: Path) -> None:
    (root / "a.yaml").write_bytes(b"a")
    (root / "note.txt").write_bytes(b"t")
    nothing = io.BytesIO()

    def look(path: str, stdin: bytes = b"") -> Snapshot:
        return look_once(path, stdin=io.BytesIO(stdin), clock=LateClock())

    assert look("-", b"piped").files == {STDIN_NAME: b"piped"}
    assert look("-", b"piped").revision.startswith("stdin:")
    assert look(str(root / "note.txt")).files == {str(root / "note.txt"): b"t"}
    assert look(str(root)) == look_once(str(root), stdin=nothing, clock=LateClock()) == _look(root)
    assert look(str(root / "none.yaml")).reason == "SourceVanished"
    assert look("-", b"x" * (snapshot.FILE_MAX + 1)).reason == "SourceTooLarge"
    assert look("/dev/zero").reason == "SourceTooLarge"


def test_a_file_given_to_a_command_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(KernelError, match="loop"):
        look_once(str(tmp_path / "loop"), stdin=io.BytesIO(), clock=LateClock())
