"""Claims about finding loop devices by the directory of their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.kernel import loop

pytestmark = pytest.mark.kernel


def test_a_device_is_found_by_the_directory_of_its_file_also_after_that_was_removed(tmp_path: Path) -> None:
    inside, beside = tmp_path / "inside", tmp_path / "inside-out"
    for directory in (inside, beside):
        directory.mkdir()
        (directory / "image").write_bytes(bytes(1 << 16))
    with (
        loop.attached(str(inside / "image"), read_only=True) as device,
        loop.attached(str(beside / "image"), read_only=True),
    ):
        assert loop.find_below(str(inside)) == [device]
        (inside / "image").unlink()
        assert loop.find_below(str(inside)) == [device]
