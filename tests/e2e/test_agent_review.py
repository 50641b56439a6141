"""Claims about reviews: what people vouched for in the repository is what happens on the host, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reconciler.model.condition import ConditionType
from reconciler.model.identity import VeName
from tests.support.fleet import Document, Fleet, Value, network, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.gitrepo import ANN, Clone, bare
from tests.support.signing import Person, at, ssh_person

pytestmark = pytest.mark.xdist_group("agent-review")

SUBNET = "10.191.21"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A fleet that follows a repository, and the clone of somebody whom it trusts."""

    fleet: Fleet
    clone: Clone
    alice: Person

    def commit(self, *trailers: str, **files: Document | None) -> str:
        """Commit manifests, by the name of their file; None removes one."""
        texts = {f"{name}.yaml": None if one is None else json.dumps(one) for name, one in files.items()}
        message = "\n".join(["Change the fleet", "", *trailers]).strip()
        return self.clone.commit(texts, message)

    def review(self, since: str = "HEAD~1") -> dict[str, Any]:
        """Plan as a pull request does: in a clone, without a host."""
        told = self.fleet.vectl("plan", str(self.clone.path), "--from", since, "--to", "HEAD", "-o", "json")
        found = json.loads(told)
        [plan] = [plan for plan in found["hosts"] if plan["host"] == "here"]
        assert found["action_hashes"]["here"] == plan["action_hash"]
        return dict(plan)

    def merge(self, word: str = "Reviewed", /, **files: Document | None) -> dict[str, Any]:
        """Commit manifests with the hash of their plan, and push; give the plan."""
        self.commit(**files)
        plan = self.review()
        trailer = f"Vectl-{word}: {plan['action_hash']}"
        self.clone.git("commit", "--quiet", "--amend", "-m", "Change the fleet", "-m", trailer)
        self.push()
        return plan

    def push(self) -> None:
        """Push what is committed, and have the agent look."""
        self.clone.push(self.fleet.directory / "fleet.git")
        self.fleet.ask("refresh")

    def is_ready(self, name: str) -> bool:
        """Say whether the agent holds a VE to be as the newest commit says."""
        ready = self.fleet.conditions(name)[ConditionType.READY]
        return (ready.reason, ready.revision) == ("Converged", self.clone.git("rev-parse", "HEAD"))

    def await_ready(self, *names: str) -> None:
        """Wait for VEs to be as the newest commit says."""
        for name in names:
            with self.fleet.explained(name):
                until(lambda name=name: self.is_ready(name), f"{name} to be ready")  # type: ignore[misc]  # bound now

    def await_done(self) -> None:
        """Wait until all of the newest commit is known to be done: what comes then is reviewed from there on."""
        ledger = Path(self.fleet.instance.state_dir, "reviews.json")
        head = self.clone.git("rev-parse", "HEAD")
        until(lambda: json.loads(ledger.read_text())["base"] == head, f"all of {head[:12]} to be done")

    def carried_out(self, name: str) -> dict[str, Any]:
        """Give the newest entry of the audit log that tells of what the manifests wanted of something."""
        told = [json.loads(line) for line in self.fleet.vectl("audit", "-o", "json").splitlines()]
        return dict([entry for entry in told if entry.get("ve") == name and entry.get("ve_hash")][-1])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with made_fleet(tmp_path_factory.getbasetemp()) as fleet:
        alice = ssh_person(fleet.directory, "alice")
        lab = Lab(
            fleet=fleet, clone=Clone(fleet.directory / "clone", env={**alice.env, **at(int(time.time()))}), alice=alice
        )
        bare(fleet.directory / "fleet.git")
        trust, policy = fleet.directory / "trust.yaml", fleet.directory / "policy.yaml"
        trust.write_text(json.dumps({"signers": [alice.signer()]}))
        policy.write_text("requireReviewed: true\n")
        configured = json.loads(fleet.config.read_text())
        fleet.config.write_text(json.dumps({**configured, "policy": str(policy)}))
        url = str(fleet.directory / "fleet.git")
        fleet.follow(git={"url": url, "poll": "1h", "trust": str(trust)})
        lab.commit(lan=network("lan", f"{SUBNET}.0/24", gateway=[f"{SUBNET}.1"]))
        lab.clone.push(url)
        fleet.start_agent()
        until(lambda: fleet.ask("ping")["revision"] == lab.clone.git("rev-parse", "HEAD"), "the first revision")
        yield lab


def web(name: str = "web", number: int = 11, **spec: Value) -> Document:
    return ve(name, f"{SUBNET}.{number}/24", **spec)


def hashes(plan: Mapping[str, Any], name: str) -> tuple[str, str]:
    return plan["action_hash"], plan["ve_hashes"][name]


CHANGES: dict[str, tuple[dict[str, Document | None], str]] = {
    "create": ({"web": web()}, "web"),
    "resize": ({"web": web(memory={"limit": "96Mi"}, disk={"size": "96Mi"}, processes=99)}, "web"),
    "renumber": ({"web": web(number=12, memory={"limit": "96Mi"}, disk={"size": "96Mi"}, processes=99)}, "web"),
    "restart": ({"web": web(number=12, rlimits={"nofile": 256}, disk={"size": "96Mi"})}, "web"),
    "network": (
        {"lan": network("lan", f"{SUBNET}.0/24", gateway=[f"{SUBNET}.1", f"{SUBNET}.2"])},
        "network/lan",
    ),
    "removal": ({"web": None}, "web"),
}


def test_what_a_pull_request_shows_is_what_the_host_does(lab: Lab) -> None:
    """Equal hashes, in a clone without a host and on the kernel, for each kind of change."""
    for kind, (files, name) in CHANGES.items():
        plan = lab.merge(**files)
        if kind == "removal":
            lab.fleet.await_removed("web")
        else:
            until(lambda: lab.fleet.ask("ping")["revision"] == lab.clone.git("rev-parse", "HEAD"), "the revision")
            lab.await_ready("web")
        done = until(lambda name=name: _entry(lab, name), f"{kind} to be in the audit log")  # type: ignore[misc]  # bound now
        assert (done["plan"], done["ve_hash"]) == hashes(plan, name), kind
        assert (done["signer"], done["outcome"]) == ("alice", "done")


def _entry(lab: Lab, name: str) -> dict[str, Any]:
    entry = lab.carried_out(name)
    return entry if entry["revision"] == lab.clone.git("rev-parse", "HEAD") else {}


def test_a_revert_of_a_removal_brings_the_data_back(lab: Lab) -> None:
    lab.merge(back=web("back", 31))
    lab.await_ready("back")
    former = lab.fleet.ve("back")
    former.shell("echo precious > /root/data")
    lab.merge("Approved", back=None)
    lab.fleet.await_removed("back")
    lab.clone.git("revert", "--quiet", "--no-edit", "HEAD")
    trailer = f"Vectl-Reviewed: {lab.review()['action_hash']}"
    lab.clone.git("commit", "--quiet", "--amend", "-m", "Revert it", "-m", trailer)
    lab.push()
    lab.await_ready("back")
    assert lab.fleet.ve("back").uid == former.uid
    assert lab.fleet.ve("back").shell("cat /root/data").strip() == "precious"
    lab.merge("Approved", back=None)
    lab.fleet.await_removed("back")


def test_what_a_rival_merge_changed_waits_and_its_drift_is_corrected(lab: Lab) -> None:
    lab.merge(one=web("one", 41), two=web("two", 42))
    lab.await_ready("one", "two")
    lab.commit(one=web("one", 41, memory={"limit": "96Mi"}), two=web("two", 42, processes=77))
    said = lab.review()["action_hash"]
    lab.clone.git("reset", "--quiet", "--hard", "HEAD~1")
    rival = lab.merge(one=web("one", 41, memory={"limit": "128Mi"}))
    assert rival["action_hash"] != said
    lab.await_ready("one")
    lab.commit(
        f"Vectl-Reviewed: {said}",
        one=web("one", 41, memory={"limit": "96Mi"}, processes=88),
        two=web("two", 42, processes=77),
    )
    lab.push()
    for name in ("one", "two"):
        lab.fleet.await_reason(name, "PlanChanged", ConditionType.STALLED)
    assert "memory.limit -> 96Mi was not reviewed" in lab.fleet.conditions("one")[ConditionType.STALLED].message
    with lab.fleet.puts_right("one", "memory.limit"):
        lab.fleet.ve("one").memory_limit_file.write_text(str(48 << 20))
    assert lab.fleet.ve("one").memory_limit_file.read_text().strip() == str(128 << 20)
    lab.fleet.vectl(
        "approve",
        lab.review()["action_hash"],
        str(lab.clone.path),
        "--note",
        "HEAD",
        "--key",
        lab.alice.key,
        "--reviewed",
        env=ANN,
    )
    lab.clone.push(lab.fleet.directory / "fleet.git", "refs/notes/vectl:refs/notes/vectl")
    lab.fleet.ask("refresh")
    lab.await_ready("one", "two")
    assert lab.fleet.ve("one").limit("memory.limit") == 96 << 20
    assert lab.fleet.ve("two").limit("processes") == 77


def test_a_manifest_that_moves_between_files_and_folders_changes_nothing(lab: Lab) -> None:
    lab.merge(mover=web("mover", 51))
    lab.await_ready("mover")
    init, done = lab.fleet.ve("mover").init, len(lab.fleet.actions())
    (lab.clone.path / "shop/front").mkdir(parents=True)
    lab.clone.git("mv", "mover.yaml", "shop/front/other.yaml")
    lab.clone.commit({}, "Move it")
    assert lab.review()["actions"] == []
    lab.push()
    lab.await_ready("mover")
    assert (lab.fleet.ve("mover").init, len(lab.fleet.actions())) == (init, done)


def test_a_rename_keeps_the_data_where_the_manifest_says_so_and_waits_where_not(lab: Lab) -> None:
    lab.merge(old=web("old", 61))
    lab.await_ready("old")
    lab.await_done()
    uid = lab.fleet.ve("old").uid
    lab.commit(old=web("new", 61))
    since = ("--from", "HEAD~1", "--to", "HEAD")
    shown = json.loads(lab.fleet.vectl("plan", str(lab.clone.path), *since, "-o", "json", code=4))
    assert {refusal["rule"] for refusal in shown["hosts"][0]["refused"]} == {"LooksLikeRename"}
    lab.push()
    for name in ("old", "new"):
        told = lab.fleet.await_reason(name, "LooksLikeRename", ConditionType.STALLED)
    assert "renamedFrom: old" in told.message
    lab.commit(old=ve("new", f"{SUBNET}.61/24", metadata={"renamedFrom": "old"}))
    trailer = f"Vectl-Reviewed: {lab.review(since='HEAD~2')['action_hash']}"
    lab.clone.git("commit", "--quiet", "--amend", "-m", "Say that it is the same", "-m", trailer)
    lab.push()
    lab.await_ready("new")
    assert lab.fleet.records()[VeName("new")].uid == uid
    assert VeName("old") not in lab.fleet.records()


def test_without_a_word_of_review_nothing_comes_and_nothing_goes(lab: Lab) -> None:
    lab.merge(kept=web("kept", 71))
    lab.await_ready("kept")
    lab.commit(kept=None, more=web("more", 72))
    lab.push()
    for name in ("kept", "more"):
        lab.fleet.await_reason(name, "PlanChanged", ConditionType.STALLED)
    assert VeName("more") not in lab.fleet.records()
    with lab.fleet.puts_right("kept", "memory.limit"):
        lab.fleet.ve("kept").memory_limit_file.write_text(str(48 << 20))
    plan = lab.review()
    shown = json.loads(lab.fleet.vectl("plan", str(lab.clone.path), "-o", "json"))
    assert ("more", "PlanChanged") in {(refusal["ve"], refusal["rule"]) for refusal in shown["refused"]}
    lab.fleet.vectl("approve", plan["action_hash"])
    lab.await_ready("more")
    lab.fleet.await_removed("kept")
