"""Claims about `vectl set`: it writes a valid file or none, and commits that and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.cli import entry
from reconciler.kernel.git import ISOLATED
from tests.support.gitrepo import ANN, Clone

WEB = """\
apiVersion: ve/v1
kind: VirtualEnvironment
metadata: {name: web1}
spec:
  memory: {limit: 512Mi}  # half
"""


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    """A repository with one VE in a folder, in which the test stands, as a person without settings of their own."""
    for name, value in {**ISOLATED, **ANN}.items():
        monkeypatch.setenv(name, value)
    clone = Clone(tmp_path)
    clone.commit({"fleet/web.yaml": WEB, "README": "words\n"})
    monkeypatch.chdir(tmp_path)
    return clone


def run(capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """Run the command; give what it printed, and what it said."""
    found = entry.run(["set", *arguments])
    told = capfd.readouterr()
    assert found == code, told.err
    return told.out + told.err


def test_a_field_is_set_where_the_ve_is_written(clone: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    file = clone.path / "fleet/web.yaml"
    file.chmod(0o664)
    said = run(capfd, "web1", "memory.limit=1Gi", "--source", "fleet")
    assert said == "fleet/web.yaml:5: memory.limit: 512Mi -> 1Gi\n"
    assert file.read_text() == WEB.replace("512Mi", "1Gi")
    assert file.stat().st_mode & 0o777 == 0o664
    assert sorted(os.listdir(clone.path / "fleet")) == ["web.yaml"]
    assert "says so already" in run(capfd, "web1", "memory.limit=1Gi", "--source", "fleet/web.yaml")


def test_its_owner_keeps_the_file(clone: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() == 0:
        os.chown(clone.path / "fleet/web.yaml", 1234, 1235)
    owner = (clone.path / "fleet/web.yaml").stat().st_uid
    run(capfd, "web1", "processes=100")
    assert (clone.path / "fleet/web.yaml").stat().st_uid == owner


def test_what_would_not_be_valid_is_not_written(clone: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    said = run(capfd, "web1", "memory.limit=lots", code=1)
    assert "fleet/web.yaml:5:" in said
    assert "expected a size" in said
    assert (clone.path / "fleet/web.yaml").read_text() == WEB


def test_a_dry_run_shows_the_lines_and_writes_nothing(clone: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    said = run(capfd, "web1", "processes=100", "--dry-run")
    assert [line for line in said.splitlines() if line[0] in "+-" and line[:3] not in ("+++", "---")] == [
        "+  processes: 100"
    ]
    assert (clone.path / "fleet/web.yaml").read_text() == WEB


def test_the_change_is_committed_and_nothing_else(clone: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    (clone.path / "README").write_text("other words\n")
    clone.git("add", "README")
    (clone.path / "fleet/new.txt").write_text("not for git\n")
    run(capfd, "web1", "memory.limit=1Gi", "--commit")
    assert clone.git("log", "--format=%an|%s", "-1", "--name-only").split("\n") == [
        "Ann|web1: memory.limit=1Gi",
        "",
        "fleet/web.yaml",
    ]
    assert clone.git("status", "--porcelain") == "M  README\n?? fleet/new.txt"


def test_a_branch_takes_the_commit(clone: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    main = clone.git("rev-parse", "main")
    run(capfd, "web1", "memory.limit=1Gi", "--branch", "more", "-m", "web1: needs more")
    assert clone.git("rev-parse", "main") == main
    assert clone.git("branch", "--show-current") == "more"
    assert clone.git("log", "--format=%s", "-1", "more") == "web1: needs more"
    said = run(capfd, "web1", "memory.limit=2Gi", "--branch", "more", code=1)
    assert "already exists" in said
    assert "2Gi" not in (clone.path / "fleet/web.yaml").read_text()


def test_a_commit_that_a_hook_refuses_leaves_everything_as_it_was(
    clone: Clone, capfd: pytest.CaptureFixture[str]
) -> None:
    hook = clone.path / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    said = run(capfd, "web1", "memory.limit=1Gi", "--branch", "more", code=1)
    assert "not today" in said
    assert clone.git("status", "--porcelain") == ""
    assert clone.git("branch", "--format=%(refname:short)") == "main"


def test_changes_that_wait_for_a_commit_are_not_swept_into_it(clone: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    mine = WEB + "  processes: 7\n"
    (clone.path / "fleet/web.yaml").write_text(mine)
    assert "not committed" in run(capfd, "web1", "memory.limit=1Gi", "--commit", code=64)
    assert (clone.path / "fleet/web.yaml").read_text() == mine


def test_a_commit_needs_a_repository(clone: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    (clone.path / ".git").rename(clone.path / "moved")
    assert "not a git repository" in run(capfd, "web1", "memory.limit=1Gi", "--commit", code=64)
    assert "512Mi" in (clone.path / "fleet/web.yaml").read_text()


def test_standard_input_has_no_place_to_write_to(clone: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    assert "written there" in run(capfd, "web1", "memory.limit=1Gi", "--source", "-", code=64)
