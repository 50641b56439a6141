"""Claims about small files that are parsed again only when they are other files than before."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from reconciler.errors import StateError
from reconciler.kernel.parsed import ParsedFiles

LONG_AGO_NS = 1_700_000_000_000_000_000


class Counting:
    """A parser that counts how often it is asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, data: bytes, *, where: str) -> str:
        self.count += 1
        if data == b"bad":
            raise StateError(f"read {where}: damaged")
        return data.decode()


def write(path: Path, data: bytes, *, modified_ns: int = LONG_AGO_NS) -> None:
    """Write in place, so that the inode stays, with a time of choice: what a reused inode looks like."""
    path.write_bytes(data)
    os.utime(path, ns=(modified_ns, modified_ns))


def test_an_old_file_is_parsed_once(tmp_path: Path) -> None:
    files, parse, path = ParsedFiles(), Counting(), tmp_path / "a.json"
    write(path, b"one")
    assert [files.read(str(path), parse) for _ in range(3)] == ["one"] * 3
    assert parse.count == 1


def test_another_parser_is_asked_anew(tmp_path: Path) -> None:
    files, first, second, path = ParsedFiles(), Counting(), Counting(), tmp_path / "a.json"
    write(path, b"one")
    assert (files.read(str(path), first), files.read(str(path), second)) == ("one", "one")
    assert (first.count, second.count) == (1, 1)


@pytest.mark.parametrize(("data", "modified_ns"), [(b"two", LONG_AGO_NS + 1), (b"three", LONG_AGO_NS)])
def test_a_file_of_another_time_or_size_is_parsed_anew(tmp_path: Path, data: bytes, modified_ns: int) -> None:
    files, parse, path = ParsedFiles(), Counting(), tmp_path / "a.json"
    write(path, b"one")
    files.read(str(path), parse)
    write(path, data, modified_ns=modified_ns)
    assert files.read(str(path), parse) == data.decode()


def test_a_file_that_follows_within_one_tick_of_the_clock_is_seen(tmp_path: Path) -> None:
    files, parse, path, now = ParsedFiles(), Counting(), tmp_path / "a.json", time.time_ns() + 3600 * 10**9
    write(path, b"one", modified_ns=now)
    assert files.read(str(path), parse) == "one"
    write(path, b"two", modified_ns=now)
    assert files.read(str(path), parse) == "two"


def test_a_file_that_stays_as_it_was_written_is_parsed_once(tmp_path: Path) -> None:
    files, parse, path = ParsedFiles(), Counting(), tmp_path / "a.json"
    write(path, b"one", modified_ns=time.time_ns() + 3600 * 10**9)  # young for an hour
    assert [files.read(str(path), parse) for _ in range(3)] == ["one"] * 3
    assert parse.count == 1


def test_a_file_that_is_gone_is_none_and_forgotten(tmp_path: Path) -> None:
    files, parse, path = ParsedFiles(), Counting(), tmp_path / "a.json"
    write(path, b"one")
    files.read(str(path), parse)
    path.unlink()
    assert files.read(str(path), parse) is None
    write(path, b"two")
    assert files.read(str(path), parse) == "two"


def test_what_is_forgotten_is_parsed_anew_and_its_neighbours_are_not(tmp_path: Path) -> None:
    files, parse = ParsedFiles(), Counting()
    paths = [tmp_path / "a" / "x.json", tmp_path / "ab" / "x.json"]
    for path in paths:
        path.parent.mkdir()
        write(path, b"one")
        files.read(str(path), parse)
    files.forget_below(str(tmp_path / "a"))
    for path in paths:
        files.read(str(path), parse)
    assert parse.count == 3


def test_a_file_that_cannot_be_parsed_is_tried_each_time(tmp_path: Path) -> None:
    files, parse, path = ParsedFiles(), Counting(), tmp_path / "a.json"
    write(path, b"bad")
    for _ in range(2):
        with pytest.raises(StateError, match="damaged"):
            files.read(str(path), parse)
    assert parse.count == 2


def listed_anew(files: ParsedFiles, directory: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Say whether a directory is listed for its names, and not only looked at."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", lambda path: ["anew"])
        return files.names(str(directory)) == {"anew"}


def test_an_old_directory_is_listed_once_and_again_when_a_name_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, directory = ParsedFiles(), tmp_path / "run"
    directory.mkdir()
    (directory / "a").touch()
    os.utime(directory, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert files.names(str(directory)) == {"a"}
    assert not listed_anew(files, directory, monkeypatch)
    (directory / "b").touch()
    assert files.names(str(directory)) == {"a", "b"}


def test_a_directory_in_which_something_changed_just_now_is_listed_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, now = ParsedFiles(), time.time_ns() + 3600 * 10**9
    os.utime(tmp_path, ns=(now, now))
    assert files.names(str(tmp_path)) == set()
    assert listed_anew(files, tmp_path, monkeypatch)


def test_a_directory_that_is_not_there_has_no_names(tmp_path: Path) -> None:
    files, directory = ParsedFiles(), tmp_path / "run"
    assert files.names(str(directory)) == set()
    directory.mkdir()
    (directory / "a").touch()
    os.utime(directory, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert files.names(str(directory)) == {"a"}
    files.forget_below(str(directory))
    (directory / "a").unlink()
    directory.rmdir()
    assert files.names(str(directory)) == set()
