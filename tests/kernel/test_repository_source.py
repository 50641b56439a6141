"""The manifests of a commit are read as they were committed, each blob once; what may not be read has a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import CommandError
from reconciler.kernel.git import ISOLATED, Repository
from reconciler.model.commit import Commit
from reconciler.sources.repository import RepositorySource
from tests.support.gitrepo import Clone


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone")


@pytest.fixture
def repository(clone: Clone) -> Repository:
    return Repository(path=str(clone.path), environment=ISOLATED)


def commit(repository: Repository, oid: str) -> Commit:
    return repository.commits([oid])[0]


def test_the_manifests_of_a_commit_are_a_snapshot_of_it(clone: Clone, repository: Repository) -> None:
    oid = clone.commit({"web.yaml": "one", "a/db.yml": "two", "README.md": "no", ".ci/plan.yaml": "no"})
    (clone.path / "web.yaml").write_text("not committed")
    found = RepositorySource(repository).look(commit(repository, oid))
    assert (found.files, found.revision, found.reason) == ({"web.yaml": b"one", "a/db.yml": b"two"}, oid, "")
    assert found.commit is not None
    assert found.commit.id == oid


def test_a_folder_of_the_repository_is_all_there_is(clone: Clone, repository: Repository) -> None:
    oid = clone.commit({"prod/web.yaml": "one", "test/web.yaml": "two", "file": "three"})
    found = RepositorySource(repository, subdir="prod").look(commit(repository, oid))
    assert found.files == {"web.yaml": b"one"}
    for missing in ("other", "file", "prod/web.yaml"):
        refused = RepositorySource(repository, subdir=missing).look(commit(repository, oid))
        assert (refused.reason, refused.files) == ("SubdirMissing", {})
        assert missing in refused.problem


def test_a_link_in_the_place_of_a_manifest_refuses_the_commit(clone: Clone, repository: Repository) -> None:
    clone.commit({"web.yaml": "one"})
    (clone.path / "passwd.yaml").symlink_to("/etc/passwd")
    oid = clone.commit({})
    refused = RepositorySource(repository).look(commit(repository, oid))
    assert (refused.reason, refused.files) == ("SourceUnreadable", {})
    assert oid[:12] in refused.problem


def test_a_blob_is_read_once_as_long_as_it_is_in_use(
    clone: Clone, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = Repository.objects

    def counting(self: Repository, oids: list[str], **bounds: int) -> dict[str, bytes]:
        read.extend(oids)
        return whole(self, oids, **bounds)

    first = commit(repository, clone.commit({"a.yaml": "one", "b.yaml": "two"}))
    second = commit(repository, clone.commit({"b.yaml": "three", "moved/a.yaml": "one", "a.yaml": None}))
    source = RepositorySource(repository)
    monkeypatch.setattr(Repository, "objects", counting)
    source.look(first)
    assert len(read) == 2
    assert source.look(second).files == {"b.yaml": b"three", "moved/a.yaml": b"one"}
    assert len(read) == 3
    source.look(second)
    assert len(read) == 3


def test_a_damaged_store_is_no_judgement_of_the_commit(clone: Clone, repository: Repository) -> None:
    found = commit(repository, clone.commit({"prod/web.yaml": "one"}))
    tree = clone.git("rev-parse", "HEAD^{tree}")
    (clone.path / ".git/objects" / tree[:2] / tree[2:]).unlink()
    for subdir in ("", "prod"):
        with pytest.raises(CommandError):
            RepositorySource(repository, subdir=subdir).look(found)
