"""Claims about `vectl place`: what it proposes is written into the manifests, all of it or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli import entry
from reconciler.kernel.git import ISOLATED
from tests.support.gitrepo import ANN, Clone
from tests.support.outputs import misfits

HOSTS = """\
apiVersion: ve/v1
kind: Host
metadata: {name: node-a}
spec:
  capacity: {memory: 8Gi, cpu: 4, disk: 100Gi}
---
apiVersion: ve/v1
kind: Host
metadata: {name: node-b}
spec:
  capacity: {memory: 8Gi, cpu: 4, disk: 100Gi}
---
apiVersion: ve/v1
kind: Host
metadata: {name: node-c}
spec:
  capacity: {memory: 2Gi, cpu: 4, disk: 100Gi}
  maintenance: true
"""
WEB = """\
apiVersion: ve/v1
kind: VirtualEnvironment
metadata: {name: web1, labels: {tier: web}}
spec:
  host: node-a   # next to the switch
  spread: [tier]
---
apiVersion: ve/v1
kind: VirtualEnvironment
metadata: {name: web2, labels: {tier: web}}
spec:
  spread: [tier]
  memory: {guarantee: 1Gi, limit: 2Gi}
"""
DB = (
    "apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata: {name: db1}\nspec: {memory: {guarantee: 3Gi, limit: 4Gi}}\n"
)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    """A repository of three hosts, in which the test stands, as a person without settings of their own."""
    for name, value in {**ISOLATED, **ANN}.items():
        monkeypatch.setenv(name, value)
    clone = Clone(tmp_path)
    clone.commit({"fleet/hosts.yaml": HOSTS, "fleet/web.yaml": WEB, "fleet/db.yaml": DB})
    monkeypatch.chdir(tmp_path)
    return clone


def run(capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 0, command: str = "place") -> tuple[str, str]:
    """Run the command; give what it printed, and what it said."""
    found = entry.run([command, *arguments])
    told = capfd.readouterr()
    assert found == code, told.err + told.out
    return told.out, told.err


def proposed(capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    """Give what the command proposes for scripts, after a look at its form."""
    document: dict[str, Any] = json.loads(run(capfd, *arguments, "-o", "json", code=code)[0])
    assert misfits("place", document) == []
    return document


def test_hosts_are_proposed_for_those_that_have_none_and_nothing_is_written(
    clone: Clone, capfd: pytest.CaptureFixture[str]
) -> None:
    moves = [(move["ve"], move["from"], move["to"]) for move in proposed(capfd, "fleet")["moves"]]
    assert moves == [("db1", None, "node-a"), ("web2", None, "node-b")]
    assert clone.git("status", "--porcelain") == ""
    out, _ = run(capfd, "fleet")
    assert out.splitlines()[1].split() == ["db1", "-", "node-a", "1", "has", "no", "host"]


def test_a_proposal_is_one_commit_on_a_branch_and_leaves_the_rest_of_each_file_alone(
    clone: Clone, capfd: pytest.CaptureFixture[str]
) -> None:
    main = clone.git("rev-parse", "main")
    run(capfd, "fleet", "--branch", "placed")
    assert clone.git("rev-parse", "main") == main
    assert clone.git("log", "--format=%s", "main..placed", "--name-only").split("\n") == [
        "place 2 VEs",
        "",
        "fleet/db.yaml",
        "fleet/web.yaml",
    ]
    assert (clone.path / "fleet/web.yaml").read_text() == WEB + "  host: node-b\n"
    assert (clone.path / "fleet/db.yaml").read_text() == DB.replace("4Gi}}", "4Gi}, host: node-a}")
    assert "every VE has its host" in run(capfd, "fleet")[1]
    run(capfd, "fleet", command="validate")


def test_a_drain_finds_hosts_that_are_open(clone: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    run(capfd, "fleet", "--commit")
    document = proposed(capfd, "fleet", "--drain", "node-a")
    assert [(move["ve"], move["to"]) for move in document["moves"]] == [("db1", "node-b"), ("web1", "node-b")]
    assert "node-a takes new VEs until its manifest says maintenance: true" in document["notes"]
    assert any("tier=web" in note for note in document["notes"])
    run(capfd, "fleet", "--drain", "node-a", "--commit")
    assert "host: node-b   # next to the switch" in (clone.path / "fleet/web.yaml").read_text()
    assert clone.git("log", "-1", "--format=%s") == "place 2 VEs, to drain node-a"


def test_who_finds_no_room_is_told_why_of_each_host(clone: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    (clone.path / "fleet/db.yaml").write_text(DB.replace("3Gi", "9Gi").replace("4Gi", "9Gi"))
    (left,) = proposed(capfd, "fleet", code=4)["unplaced"]
    assert (left["ve"], left["host"]) == ("db1", None)
    assert [one["host"] for one in left["hosts"]] == ["node-a", "node-b", "node-c"]
    assert "guarantees of memory" in left["hosts"][0]["reason"]
    assert left["hosts"][2]["reason"] == "node-c is under maintenance"
    run(capfd, "fleet", "--write", code=4)
    assert "host: node-b" in (clone.path / "fleet/web.yaml").read_text()


def test_only_what_is_named_is_placed(clone: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    assert [move["ve"] for move in proposed(capfd, "web2", "--source", "fleet")["moves"]] == ["web2"]
    assert "no manifest declares VE web9" in run(capfd, "fleet", "web9", code=64)[1]
    assert "no manifest declares host node-x" in run(capfd, "fleet", "--drain", "node-x", code=64)[1]


def test_a_file_with_changes_keeps_all_files_as_they_are(clone: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    (clone.path / "fleet/web.yaml").write_text(f"{WEB}# mine\n")
    assert "not committed" in run(capfd, "fleet", "--commit", code=64)[1]
    assert (clone.path / "fleet/db.yaml").read_text() == DB


def test_a_commit_that_a_hook_refuses_leaves_all_files_as_they_were(
    clone: Clone, capfd: pytest.CaptureFixture[str]
) -> None:
    hook = clone.path / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    run(capfd, "fleet", "--branch", "placed", code=1)
    assert clone.git("status", "--porcelain") == ""
    assert clone.git("branch", "--format=%(refname:short)") == "main"


def test_many_ves_of_one_file_are_placed(clone: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    one = "apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata:\n  name: v{}\n  # kept\n"
    (clone.path / "fleet/many.yaml").write_text("---\n".join(one.format(number) for number in range(30)))
    run(capfd, "fleet", "--write")
    text = (clone.path / "fleet/many.yaml").read_text()
    assert (text.count("# kept"), text.count("host: node-a") + text.count("host: node-b")) == (30, 30)
    run(capfd, "fleet", command="validate")


def test_validate_warns_of_those_that_are_together_and_are_to_be_apart(
    clone: Clone, capfd: pytest.CaptureFixture[str]
) -> None:
    (clone.path / "fleet/web.yaml").write_text(f"{WEB}  host: node-a\n")
    (clone.path / "fleet/db.yaml").unlink()
    _, said = run(capfd, "fleet", command="validate")
    assert "fleet/web.yaml:14" in said
    assert "spread: web1, web2 are on node-a together (tier=web), expected 1 at most" in said
    assert "node-c is under maintenance: it takes no new VE" in said
    document = json.loads(run(capfd, "fleet", "-o", "json", command="validate")[0])
    assert misfits("validate", document) == []
    assert (document["valid"], len(document["warnings"])) == (True, 1)
    found = proposed(capfd, "fleet", "--rebalance")["moves"]
    assert [(move["ve"], move["to"], move["reason"]) for move in found] == [
        ("web1", "node-b", "is to be apart from web2")
    ]


def test_manifests_of_one_host_leave_nothing_to_choose(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(DB)
    assert "expected manifests that declare several hosts" in run(capfd, str(tmp_path), code=64)[1]
