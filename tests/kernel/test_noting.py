"""What a person notes with the command is what a host that trusts them hears."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from reconciler.cli.entry import run
from reconciler.errors import ExitCode
from reconciler.kernel.git import AS_SIGNED, Repository
from reconciler.sources import notes
from reconciler.sources.verify import Verification
from reconciler.sources.vouched import Vouched, vouched
from reconciler.state.trust import parse_trust
from tests.support.gitrepo import ANN, Clone
from tests.support.signing import Person, ssh_person

ONE, TWO = "ab" * 32, "cd" * 32


@pytest.fixture
def ann(tmp_path: Path) -> Person:
    return ssh_person(tmp_path, "ann")


@pytest.fixture
def clone(tmp_path: Path, ann: Person, monkeypatch: pytest.MonkeyPatch) -> Clone:
    for name, value in {**ANN, **ann.env}.items():
        monkeypatch.setenv(name, value)
    made = Clone(tmp_path / "clone", env=ann.env)
    made.commit({"a.yaml": "# nothing"})
    return made


def heard(clone: Clone, trusted: Person) -> tuple[Vouched, ...]:
    """Give what a host hears that trusts one person."""
    content: Mapping[str, object] = {"signers": [trusted.signer()]}
    policy = parse_trust(json.dumps(content).encode(), file="trust.yaml", read=lambda path: Path(path).read_bytes())
    repository = Repository(path=str(clone.path), environment=AS_SIGNED)
    verification = Verification(repository=repository, policy=policy, now=time.time(), notes_ref=notes.REF)
    return vouched(verification.steps([clone.git("rev-parse", "HEAD")]))


def test_notes_of_the_command_are_heard_side_by_side(clone: Clone, ann: Person, tmp_path: Path) -> None:
    before = int(time.time())
    path = str(clone.path)
    assert run(["approve", ONE, path, "--note", "HEAD", "--key", ann.key, "--reviewed"]) == ExitCode.OK
    assert run(["approve", TWO, path, "--note", "main", "--key", ann.key]) == ExitCode.OK
    said = heard(clone, ann)
    assert [(one.kind, one.hash, one.by) for one in said] == [("reviewed", ONE, "ann"), ("approved", TWO, "ann")]
    assert all(before <= one.at <= time.time() for one in said)
    assert heard(clone, ssh_person(tmp_path, "bob")) == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([ONE[:12], "--note", "HEAD", "--key", "KEY"], "expected the 64 hex digits"),
        ([ONE, "--note", "HEAD"], "needs --key FILE"),
        ([ONE, "--note", "no-such", "--key", "KEY"], "found none"),
        ([ONE, "--key", "KEY"], "go with --note COMMIT"),
    ],
)
def test_a_note_that_nobody_could_hear_is_refused(
    clone: Clone, ann: Person, arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    given = [ann.key if word == "KEY" else word for word in arguments]
    path = [] if "--note" not in arguments else [str(clone.path)]
    assert run(["approve", given[0], *path, *given[1:]]) == ExitCode.USAGE
    assert words in capfd.readouterr().err
    assert clone.git("for-each-ref", "refs/notes") == ""
