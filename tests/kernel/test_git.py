"""A repository is read as git has it, and what is not there is an error with a name."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from reconciler.errors import CommandError, KernelFormatError, TooLargeError
from reconciler.kernel import command
from reconciler.kernel.git import AS_SIGNED, ISOLATED, Repository
from reconciler.kernel.git_object import parse_commit
from reconciler.model.commit import trailers
from tests.support.gitrepo import Clone
from tests.support.patience import PATIENCE


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone")


@pytest.fixture
def repository(clone: Clone) -> Repository:
    return Repository(path=str(clone.path), environment=ISOLATED)


def test_blobs_are_read_from_the_store_whatever_lies_in_the_work_tree(clone: Clone, repository: Repository) -> None:
    first = clone.commit({"a/web.yaml": "one\n", "b.yaml": "\x00two"})
    (clone.path / "b.yaml").write_text("not committed")
    entries = {entry.path: entry for entry in repository.tree(first) if entry.kind == "blob"}
    assert {path: (entry.mode, entry.size) for path, entry in entries.items()} == {
        "a/web.yaml": ("100644", 4),
        "b.yaml": ("100644", 4),
    }
    found = repository.objects(entry.oid for entry in entries.values())
    assert {path: found[entry.oid] for path, entry in entries.items()} == {"a/web.yaml": b"one\n", "b.yaml": b"\x00two"}
    assert [entry.path for entry in repository.tree(first, "a")] == ["web.yaml"]


def test_a_commit_says_who_made_it_when_and_from_what(clone: Clone, repository: Repository) -> None:
    first = clone.commit({"a.yaml": ""})
    second = clone.commit({"a.yaml": "x"}, "resize web1\n\nmore words\n\nReviewed-by: Bob\nVectl-Reviewed: abc")
    (commit,) = repository.commits([second])
    assert (commit.id, commit.parents, commit.committer) == (second, (first,), "Ann <ann@example.org>")
    assert (commit.subject, commit.committed_at, commit.signature) == ("resize web1", 1700000000.0, "")
    assert trailers(commit.message) == (("Reviewed-by", "Bob"), ("Vectl-Reviewed", "abc"))


def test_the_way_between_two_commits_goes_along_first_parents(clone: Clone, repository: Repository) -> None:
    first = clone.commit({"a.yaml": ""})
    clone.git("checkout", "--quiet", "-b", "feature")
    side = clone.commit({"b.yaml": ""})
    clone.git("checkout", "--quiet", "main")
    second = clone.commit({"c.yaml": ""})
    clone.git("merge", "--quiet", "--no-ff", "-m", "merge", "feature")
    merge = clone.git("rev-parse", "HEAD")
    assert repository.first_parents(first, merge) == (second, merge)
    assert repository.changed_paths(merge) == ("b.yaml",)
    assert repository.changed_paths(first) == ("a.yaml",)
    assert repository.is_ancestor(first, merge)
    assert not repository.is_ancestor(side, second)


def test_what_is_not_there_has_no_name(clone: Clone, repository: Repository) -> None:
    first = clone.commit({"a.yaml": ""})
    assert repository.resolve("main") == first
    assert repository.resolve("--help") is None
    assert repository.resolve("nothing") is None
    with pytest.raises(CommandError):
        repository.tree(first, "nowhere")
    with pytest.raises(KernelFormatError, match="expected its name"):
        repository.objects(["0" * 40])


@pytest.mark.parametrize(
    "message",
    ["subject only", "subject\n\nText: with\nother lines", "Key: value", "subject\n\nsee http://example.org"],
)
def test_only_a_last_paragraph_of_nothing_else_is_trailers(message: str) -> None:
    assert trailers(message) == ()


def test_a_tree_without_end_is_given_up_on(
    clone: Clone, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten folders that each hold ten folders, and so on, are a dozen objects and 10^10 paths."""
    monkeypatch.setattr(command, "_MEMORY_MAX", 64 << 20)
    oid, mode, kind = clone.git("hash-object", "-w", "--stdin", input=b"x"), "100644", "blob"
    for _ in range(10):
        listing = "".join(f"{mode} {kind} {oid}\td{number}\n" for number in range(10))
        oid, mode, kind = clone.git("mktree", input=listing.encode()), "040000", "tree"
    bomb = clone.git("commit-tree", oid, "-m", "bomb")
    run = partial(repository.run, output_max=1 << 20, timeout_s=30 * PATIENCE)
    with pytest.raises(TooLargeError, match="got more"):
        run("ls-tree", "-r", "-t", "-z", "--long", bomb)
    with pytest.raises(TooLargeError):
        run("diff-tree", "--stdin", "--root", "-r", input=f"{bomb}\n".encode())


def test_no_setting_of_a_clone_hides_what_a_commit_changes(clone: Clone) -> None:
    first = clone.commit({"a.yaml": "", "web/b.yaml": ""})
    second = clone.commit({"c.yaml": "", "a.yaml": None})
    third = clone.commit({})
    for setting in ("log.showRoot=false", "diff.relative=true", "diff.noprefix=true", "diff.renames=copies"):
        clone.git("config", *setting.split("="))
    found = Repository(path=str(clone.path / "web")).changes((first, second, third))
    assert found == {first: ("a.yaml", "web/b.yaml"), second: ("a.yaml", "c.yaml"), third: ()}


def test_neither_grafts_nor_replacements_show_another_way(clone: Clone) -> None:
    first, second, third = (clone.commit({"a.yaml": text}) for text in "123")
    clone.git("replace", second, first)
    (clone.path / ".git/info").mkdir(exist_ok=True)
    (clone.path / ".git/info/grafts").write_text(f"{third} {first}\n")
    found = Repository(path=str(clone.path), environment=AS_SIGNED)
    assert found.first_parents(None, third) == (first, second, third)
    assert found.commits([second])[0].parents == (first,)


def test_what_is_signed_twice_or_has_parents_elsewhere_is_read_as_git_does(clone: Clone) -> None:
    first = clone.commit({"a.yaml": ""})
    tree = clone.git("rev-parse", f"{first}^{{tree}}")
    who = "Ann <ann@example.org> 1700000000 +0000"
    head = f"tree {tree}\nparent {first}\nauthor {who}\ncommitter {who}\nparent {tree}\n"
    commit = parse_commit("0" * 40, f"{head}gpgsig A\n B\ngpgsig C\n\nmessage\n".encode())
    assert (commit.parents, commit.signature) == ((first,), "A\nB\nC")
