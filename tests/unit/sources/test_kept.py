"""What was read of manifests is kept on disk by blob: it saves time, and can neither break nor change a load."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from reconciler.manifests.load import Loaded, ParseCache, load_fleet
from reconciler.sources.kept import KeptOnDisk

WEB = b"apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata: {name: web1}\nspec: {memory: {limit: 1Gi}}\n"
WRONG = b"apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata: {name: web2}\nspec: {memory: {limt: 1Gi}}\n"


class Files(Mapping[str, bytes]):
    """Files that tell which of them were read."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self._contents = contents
        self.read: list[str] = []

    def __getitem__(self, name: str) -> bytes:
        self.read.append(name)
        return self._contents[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._contents)

    def __len__(self) -> int:
        return len(self._contents)


def load(file: Path, files: Mapping[str, bytes], *, version: str = "1") -> Loaded:
    """Load files as a new process does; what names a content is the content here."""
    kept = KeptOnDisk(str(file), version=version)
    contents = dict(files.items()) if not isinstance(files, Files) else files._contents
    ids = {name: data.decode("latin-1") for name, data in contents.items()}
    loaded = load_fleet(files, revision="r", cache=ParseCache(kept=kept), ids=ids)
    kept.save(ids.values())
    return loaded


def test_what_was_read_once_is_not_read_again(tmp_path: Path) -> None:
    first, again = Files({"a.yaml": WEB}), Files({"moved/b.yaml": WEB})
    one = load(tmp_path / "cache" / "kept.json", first)
    other = load(tmp_path / "cache" / "kept.json", again)
    assert (first.read, again.read) == (["a.yaml"], [])
    assert one.fleet is not None
    assert one.fleet == other.fleet
    assert other.fleet is not None
    assert [spec.place.line for spec in other.fleet.ves.values() if spec.place] == [1]


def test_a_mistake_is_told_with_its_place_each_time(tmp_path: Path) -> None:
    for _ in range(2):
        [finding] = load(tmp_path / "kept.json", Files({"a.yaml": WEB, "b.yaml": WRONG})).findings
        assert (finding.place.file, finding.place.line, finding.place.column) == ("b.yaml", 4, 17)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"null",
        b'{"format": 1, "version": "1", "files": []}',
        b'{"format": 2, "version": "1", "files": {}}',
    ],
    ids=["empty", "cut", "deep", "null", "list", "format"],
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "kept.json"
    good = load(file, {"a.yaml": WEB})
    file.write_bytes(damage)
    assert load(file, {"a.yaml": WEB}).fleet == good.fleet
    assert json.loads(file.read_bytes())["files"]


@pytest.mark.parametrize("entry", [None, 1, [1], [["1", 1, {}]], [[1, 1, {}, 2]], [[1, 1]]])
def test_a_damaged_entry_is_read_anew(tmp_path: Path, entry: object) -> None:
    file = tmp_path / "kept.json"
    good = load(file, {"a.yaml": WEB})
    content = json.loads(file.read_bytes())
    content["files"] = dict.fromkeys(content["files"], entry)
    file.write_text(json.dumps(content))
    assert load(file, {"a.yaml": WEB}).fleet == good.fleet


def test_another_version_reads_for_itself(tmp_path: Path) -> None:
    load(tmp_path / "kept.json", {"a.yaml": WEB})
    files = Files({"a.yaml": WEB})
    load(tmp_path / "kept.json", files, version="2")
    assert files.read == ["a.yaml"]


def test_what_others_may_write_is_not_believed(tmp_path: Path) -> None:
    load(tmp_path / "kept.json", {"a.yaml": WEB})
    (tmp_path / "kept.json").chmod(0o666)
    files = Files({"a.yaml": WEB})
    load(tmp_path / "kept.json", files)
    assert files.read == ["a.yaml"]


def test_where_nothing_can_be_kept_it_works_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert load(tmp_path / "file" / "kept.json", {"a.yaml": WEB}).fleet is not None
