"""Claims about the whole way of a change: branch, plan, review, merge, host, and back; nothing else gets there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import reconciler
from reconciler.kernel import netns
from reconciler.kernel.git import ISOLATED
from reconciler.model.condition import ConditionType, Status
from reconciler.state.conditions import SOURCE
from tests.support import gitserver
from tests.support.fleet import Document, Fleet, Value, network, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.gitrepo import ANN, Clone, bare, git
from tests.support.gitserver import HttpServer
from tests.support.patience import PATIENCE
from tests.support.signing import Person, ssh_person

pytestmark = pytest.mark.xdist_group("git-story")

HOOKS = Path(__file__).parents[2] / "hooks"
SUBNET = "10.191.15"
SECRET = "0123456789abcdef0123456789abcdef"
TREE = Path(reconciler.__file__).parent.parent


@dataclass(kw_only=True)
class Forge:
    """A repository behind a web server on the host's loopback, and the clone of somebody who may sign."""

    fleet: Fleet
    repository: Path
    url: str
    clone: Clone
    alice: Person

    def push(self, refspec: str, *options: str, ok: bool = True) -> str:
        """Push over http; give what the pusher was told."""
        env = {**os.environ, **ISOLATED, **ANN, **self.clone.env}
        argv = ["git", "-C", str(self.clone.path), "push", *options, self.url, refspec]
        done = subprocess.run(
            ["nsenter", f"--net=/proc/self/fd/{self.fleet.namespace}", "--", *argv],
            env=env,
            pass_fds=(self.fleet.namespace,),
            capture_output=True,
            text=True,
            timeout=60 * PATIENCE,
        )
        assert (done.returncode == 0) is ok, done.stderr
        return done.stderr

    def commit(self, files: Mapping[str, Document | None], message: str = "change", *options: str) -> str:
        """Commit manifests."""
        texts = {name: None if file is None else json.dumps(file) for name, file in files.items()}
        return self.clone.commit(texts, message, *options)

    @property
    def head(self) -> str:
        """What hosts would find."""
        return gitserver.head(self.repository)

    def plan(self, start: str, end: str, form: str) -> str:
        """Plan what lies between two commits, as a job without root and without a host does."""
        return self.fleet.vectl("plan", str(self.clone.path), "--from", start, "--to", end, "-o", form)

    def hash_of(self, start: str, end: str) -> str:
        """Give the hash that a review of the way between two commits agrees to."""
        found = json.loads(self.plan(start, end, "json"))["action_hashes"]["here"]
        assert isinstance(found, str)
        return found


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("story")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, directory: Path) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp(), policy=str(directory / "policy.yaml")) as made:
        yield made


@pytest.fixture(scope="module")
def server(fleet: Fleet, directory: Path) -> Iterator[HttpServer]:
    listener = netns.call_in(fleet.namespace, gitserver.listen)
    with gitserver.http(directory / "served", listener=listener) as made:
        yield made


@pytest.fixture(scope="module")
def forge(fleet: Fleet, server: HttpServer, directory: Path) -> Forge:
    """A forge with our hooks, and an agent that follows it, takes what Alice signs, and does what was reviewed."""
    alice = ssh_person(directory, "alice")
    (directory / "trust.yaml").write_text(json.dumps({"signers": [alice.signer()]}))
    (directory / "secret").write_text(SECRET)
    (directory / "secret").chmod(0o600)
    repository = bare(directory / "served" / "fleet.git")
    clone = Clone(directory / "clone", env=alice.env)
    made = Forge(fleet=fleet, repository=repository, url=server.url("fleet.git"), clone=clone, alice=alice)
    address = _address(fleet)
    _put_hooks(fleet, repository, directory, f"http://{address}/hooks/source")
    made.commit({"lan.yaml": network("lan", f"{SUBNET}.0/24", gateway=[f"{SUBNET}.1"]), "web.yaml": web()})
    made.push("HEAD:refs/heads/main")
    trust = {"trust": str(directory / "trust.yaml"), "webhookSecret": str(directory / "secret")}
    fleet.follow(git={"url": made.url, "poll": "1h", **trust})
    told = json.loads(fleet.config.read_text())
    fleet.config.write_text(json.dumps({**told, "listen": address}))
    fleet.start_agent()
    await_revision(fleet, "web", made.head)
    (directory / "policy.yaml").write_text("requireReviewed: true\n")
    fleet.vectl("apply")
    until(lambda: fleet.said("policy.taken"), "the policy to be in force")
    return made


def _address(fleet: Fleet) -> str:
    """Give an address that is free on the host's loopback."""
    with netns.call_in(fleet.namespace, gitserver.listen) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def _put_hooks(fleet: Fleet, repository: Path, directory: Path, webhook: str) -> None:
    vectl = directory / "vectl"
    # The server's programs run beside this test, and the agent is reached from its host only.
    enter = f"nsenter --net=/proc/{os.getpid()}/fd/{fleet.namespace} -- {sys.executable}"
    vectl.write_text(f'#!/bin/sh\nPYTHONPATH="{TREE}" exec {enter} -m reconciler.cli.entry "$@"\n')
    vectl.chmod(0o755)
    (repository / "hooks").mkdir(exist_ok=True)
    for hook in ("pre-receive", "post-receive"):
        (repository / "hooks" / hook).symlink_to(HOOKS / hook)
    settings = {
        "command": str(vectl),
        "trust": str(directory / "trust.yaml"),
        "webhook": webhook,
        "webhookSecret": str(directory / "secret"),
    }
    for key, value in settings.items():
        git(repository, "config", f"vectl.{key}", value)


def web(**spec: Value) -> Document:
    return ve("web", f"{SUBNET}.11/24", **spec)


def await_revision(fleet: Fleet, name: str, revision: str) -> None:
    """Wait until a VE is ready by a revision."""

    def is_there() -> bool:
        ready = fleet.conditions(name)[ConditionType.READY]
        return (ready.status, ready.revision) == (Status.TRUE, revision)

    with fleet.explained(name):
        until(is_there, f"{name} to be ready by {revision[:12]}")


def verified(fleet: Fleet) -> tuple[Status, str]:
    found = fleet.conditions(SOURCE)[ConditionType.VERIFIED]
    return found.status, found.reason


def test_a_change_goes_from_a_branch_to_the_host_and_is_reverted(fleet: Fleet, forge: Forge) -> None:
    base = forge.head
    forge.clone.git("checkout", "-q", "-b", "grow")
    feature = forge.commit({"web.yaml": web(memory={"limit": "96Mi"}), "db.yaml": ve("db")}, "more memory, and db")
    forge.push("HEAD:refs/heads/grow")
    comment = forge.plan(base, feature, "markdown")
    assert comment.startswith("<!-- vectl")
    assert "memory.limit" in comment
    agreed = forge.hash_of(base, feature)
    assert agreed in comment
    assert "db" not in fleet.records()  # a branch is nothing to the host

    forge.clone.git("checkout", "-q", "main")
    merge = ("merge", "-q", "--no-ff", "-m", f"merge grow\n\nVectl-Reviewed: {agreed}", "grow")
    forge.clone.git(*merge)
    merged = forge.clone.git("rev-parse", "HEAD")
    assert forge.hash_of(base, merged) == agreed
    forge.push("HEAD:refs/heads/main")
    for name in ("web", "db"):
        await_revision(fleet, name, merged)
    one = fleet.ve("web")
    assert one.limit("memory.limit") == 96 << 20
    with fleet.puts_right("web", "memory.limit"):
        one.memory_limit_file.write_text(str(32 << 20))
    assert one.limit("memory.limit") == 96 << 20

    forge.clone.git("revert", "--no-edit", "-m", "1", "HEAD")
    reverted = forge.clone.git("rev-parse", "HEAD")
    undone = forge.hash_of(merged, reverted)
    note = ("approve", undone, str(forge.clone.path), "--note", reverted, "--key", forge.alice.key, "--reviewed")
    fleet.vectl(*note, env=ANN)
    forge.push("refs/notes/vectl:refs/notes/vectl")
    forge.push("HEAD:refs/heads/main")
    await_revision(fleet, "web", reverted)
    fleet.await_removed("db")
    assert one.limit("memory.limit") == 64 << 20
    assert one.runs


def test_what_nobody_reviewed_waits_while_the_rest_is_held_right(fleet: Fleet, forge: Forge) -> None:
    base = forge.head
    after = forge.commit({"web.yaml": web(memory={"limit": "80Mi"}, processes=99)})
    forge.push("HEAD:refs/heads/main")
    waiting = fleet.await_reason("web", "PlanChanged", ConditionType.STALLED)
    assert "memory.limit" in waiting.message
    one = fleet.ve("web")
    assert one.limit("memory.limit") == 64 << 20
    with fleet.puts_right("web", "memory.limit"):
        one.memory_limit_file.write_text(str(32 << 20))
    assert one.limit("memory.limit") == 64 << 20
    fleet.vectl("approve", forge.hash_of(base, after))
    await_revision(fleet, "web", after)
    assert one.limit("memory.limit") == 80 << 20
    assert one.limit("processes") == 99


def test_an_unsigned_commit_is_refused_at_the_push_and_not_taken_if_it_got_in(fleet: Fleet, forge: Forge) -> None:
    before = forge.head
    unsigned = forge.commit({"web.yaml": web(processes=55)}, "unsigned", "--no-gpg-sign")
    said = forge.push("HEAD:refs/heads/main", ok=False)
    assert unsigned[:12] in said
    assert forge.head == before
    hook = forge.repository / "hooks" / "pre-receive"
    hook.rename(hook.with_suffix(".off"))
    try:
        forge.push("HEAD:refs/heads/main")
        until(lambda: verified(fleet) == (Status.FALSE, "Unsigned"), "the commit to be refused")
        assert unsigned[:12] in fleet.conditions(SOURCE)[ConditionType.VERIFIED].message
        assert fleet.ve("web").limit("processes") == 99
        forge.clone.git("reset", "-q", "--hard", before)
        forge.push("HEAD:refs/heads/main", "--force")
    finally:
        hook.with_suffix(".off").rename(hook)
    until(lambda: verified(fleet) == (Status.TRUE, "Signed"), "what Alice signed to be in force")
    await_revision(fleet, "web", before)


def test_the_audit_tells_who_had_what_done_by_which_commit(fleet: Fleet, forge: Forge) -> None:
    entries = [json.loads(line) for line in fleet.vectl("audit", "--ve", "web", "-o", "json").splitlines()]
    assert {forge.head} <= {entry["revision"] for entry in entries}
    assert any("alice" in json.dumps(entry) or "Ann" in json.dumps(entry) for entry in entries)
    assert "memory.limit" in json.dumps(entries)
    fleet.vectl("audit", "--verify")
