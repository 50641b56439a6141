"""A tree is judged before any blob of it is read: what leads elsewhere, is too large, or is no file refuses it."""

from __future__ import annotations

import unicodedata

import pytest

from reconciler.kernel.git_object import TreeEntry
from reconciler.sources import tree
from reconciler.sources.snapshot import DEPTH_MAX, FILE_MAX, TOTAL_MAX
from reconciler.sources.tree import Admitted, Refused, admit


def blob(path: str, *, mode: str = "100644", kind: str = "blob", size: int | None = 10) -> TreeEntry:
    return TreeEntry(mode=mode, kind=kind, oid="a" * 40, size=size, path=path)


def folder(path: str) -> TreeEntry:
    return blob(path, mode="040000", kind="tree", size=None)


def refused(*entries: TreeEntry) -> Refused:
    found = admit(entries)
    assert isinstance(found, Refused)
    return found


def test_manifests_are_the_files_by_their_ends_outside_hidden_folders() -> None:
    entries = [
        folder("web"),
        blob("web/a.yaml"),
        blob("b.yml", mode="100755"),
        blob("README.md"),
        folder(".github"),
        blob(".github/ci.yaml"),
        blob("web/.draft.yaml"),
        folder("folder.yaml"),
        blob("folder.yaml/c.yaml"),
    ]
    found = admit(entries)
    assert isinstance(found, Admitted)
    assert [entry.path for entry in found.files] == ["web/a.yaml", "b.yml", "folder.yaml/c.yaml"]
    assert found.skipped == ()


def test_links_that_are_no_manifests_are_skipped_and_named() -> None:
    found = admit([blob("lib", mode="160000", kind="commit", size=None), blob("docs", mode="120000")])
    assert found == Admitted(files=(), skipped=("docs", "lib"))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (blob("a.yaml", mode="120000"), "symbolic link"),
        (blob("a.yaml", mode="160000", kind="commit", size=None), "submodule"),
        (blob("a.yaml", mode="100664"), "mode 100664"),
        (blob("a.yaml", size=None), "no content"),
        (blob("../a.yaml"), "leads out"),
        (blob("../README"), "leads out"),
        (blob("web/./a.yaml"), "leads out"),
        (blob("/etc/a.yaml"), "leads out"),
        (blob(".GIT/config"), "leads out"),
        (blob("a\n.yaml"), "printed"),
        (blob("a\x1b[2J.yaml"), "printed"),
        (blob("a\u202eb.yaml"), "printed"),
        (blob("a\udcff.yaml"), "printed"),
        (blob("a\u200b.yaml"), "printed"),
        (blob("evil\nlink", mode="120000"), "printed"),
    ],
)
def test_what_is_no_plain_file_of_a_plain_name_refuses_the_tree(entry: TreeEntry, words: str) -> None:
    found = refused(blob("good.yaml"), entry)
    assert (found.reason, words in found.problem) == ("SourceUnreadable", True)
    assert found.problem.isprintable()


def test_sizes_depths_and_numbers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = "/".join(["d"] * (DEPTH_MAX + 1)) + "/a.yaml"
    many = [blob(f"{number}.yaml", size=FILE_MAX) for number in range(TOTAL_MAX // FILE_MAX + 1)]
    assert isinstance(admit(many[:-1]), Admitted)
    reasons = {refused(blob("a.yaml", size=FILE_MAX + 1)).reason, refused(blob(deep)).reason, refused(*many).reason}
    monkeypatch.setattr(tree, "FILES_MAX", 2)
    reasons.add(refused(*many[:3]).reason)
    monkeypatch.setattr(tree, "ENTRIES_MAX", 1)
    reasons.add(refused(*many[:2]).reason)
    assert reasons == {"SourceTooLarge"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("web.yaml", "Web.yaml"),
        (unicodedata.normalize("NFC", "é.yaml"), unicodedata.normalize("NFD", "é.yaml")),
        ("straße.yaml", "STRASSE.yaml"),
        ("same.yaml", "same.yaml"),
    ],
)
def test_two_names_that_are_one_elsewhere_refuse_the_tree(one: str, other: str) -> None:
    assert refused(blob(one), blob(other)).reason == "SourceUnreadable"
