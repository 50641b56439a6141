"""What is kept between runs is believed only if this program wrote it, as whoever runs it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler import model
from reconciler.sources.memo import Memo, program


def written(path: Path) -> Path:
    """Write a file with two values."""
    first = Memo(str(path), program="p")
    first.put("a", {"one": [1, None, "é\n"]})
    first.put("b", 2)
    first.save()
    return path


def read(path: Path, *, by: str = "p") -> list[object]:
    """Give both values, as another run finds them."""
    found = Memo(str(path), program=by)
    return [found.get("a"), found.get("b")]


def test_values_are_there_in_the_next_run(tmp_path: Path) -> None:
    path = written(tmp_path / "cache" / "memo")
    assert read(path) == [{"one": [1, None, "é\n"]}, 2]
    assert path.stat().st_mode & 0o777 == 0o600
    assert "a" in Memo(str(path), program="p")
    assert "c" not in Memo(str(path), program="p")


def test_what_nobody_asks_for_is_forgotten_at_the_next_change(tmp_path: Path) -> None:
    path = written(tmp_path / "memo")
    later = Memo(str(path), program="p")
    later.get("a")
    later.save()
    assert read(path)[1] == 2
    later.put("c", 3)
    later.save()
    assert read(path) == [{"one": [1, None, "é\n"]}, None]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flip(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"b 2", b"b 3"))


def _more(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"c 3\n")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _no_text(path: Path) -> None:
    path.write_bytes(b"\xff" * 1000)


def _writable(path: Path) -> None:
    path.chmod(0o666)


def _of_somebody_else(path: Path) -> None:
    os.chown(path, 12345, -1)


@pytest.mark.parametrize("damage", [_cut, _flip, _more, _empty, _no_text, _writable, _of_somebody_else])
def test_a_file_that_is_not_as_it_was_written_is_as_good_as_none(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    if damage is _of_somebody_else and os.geteuid() != 0:
        pytest.skip("needs root")
    path = written(tmp_path / "memo")
    damage(path)
    assert read(path) == [None, None]


def test_other_code_does_not_believe_it(tmp_path: Path) -> None:
    assert read(written(tmp_path / "memo"), by="q") == [None, None]


def test_a_changed_line_of_code_is_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part").mkdir()
    source = tmp_path / "part" / "code.py"
    source.write_text("one = 1\n")
    monkeypatch.setattr(model, "__path__", [str(tmp_path)])
    before = program()
    assert program() == before
    os.utime(source, ns=(1, 1))
    assert program() != before


def test_where_nothing_can_be_kept_it_works_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    written(tmp_path / "file" / "memo")
