"""Whom a source is believed can be asked in a clone and on a host, and its root has the last word."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.agent.clock import SystemClock
from reconciler.agent.pulling import Puller
from reconciler.model.commit import TrustState
from reconciler.sources.snapshot import Snapshot
from reconciler.state.config import Config, Overrides, load_config
from reconciler.state.location import GitLocation
from tests.support.fleet import network
from tests.support.gitrepo import Clone, bare
from tests.support.outputs import misfits
from tests.support.patience import PATIENCE
from tests.support.signing import Person, ssh_person

COMMAND_S = 120.0 * PATIENCE


class Place:
    """A host that follows a repository of this machine, and the clone of somebody who signs."""

    def __init__(self, directory: Path) -> None:
        self.ann: Person = ssh_person(directory, "ann")
        self.served = bare(directory / "served.git")
        self.clone = Clone(directory / "clone", env=self.ann.env)
        self.trust = directory / "trust.yaml"
        self.trust.write_text(json.dumps({"signers": [self.ann.signer()]}))
        self.file = directory / "config.yaml"
        git = {"url": str(self.served), "trust": str(self.trust)}
        state = {"stateDir": str(directory / "state"), "runDir": str(directory / "run")}
        self.file.write_text(json.dumps({"instance": "trusting", "source": {"git": git}, **state}))

    def push(self, subnet: int, *options: str) -> str:
        oid = self.clone.commit({"lan.yaml": json.dumps(network("lan", f"10.9.{subnet}.0/24"))})
        self.clone.push(self.served, "HEAD:refs/heads/main", *options)
        return oid

    def take(self) -> Snapshot:
        """Do what an agent does with a look."""
        config: Config = load_config(str(self.file), Overrides(), environment={})
        assert isinstance(config.source, GitLocation)
        puller = Puller(config.source, config.instance, clock=SystemClock())
        found = asyncio.run(puller.pull(""))
        if found.complete:
            puller.accept(found.revision)
        return found

    def vectl(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        argv = [sys.executable, "-m", "reconciler.cli.entry", "--config", str(self.file), *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S)
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_root_may_put_a_commit_in_the_place_of_the_trusted_one(place: Place) -> None:
    first = place.push(1)
    assert place.take().complete
    place.clone.git("checkout", "--quiet", "--orphan", "new")
    place.clone.env = {}
    other = place.push(2, "--force")
    refused = place.take()
    remedy = f"vectl source accept-rewrite {first[:12]} {other[:12]}"
    assert remedy in refused.trust.message
    assert remedy in place.vectl("source", "verify", code=4)[1]
    assert "expected the commit that is trusted now" in place.vectl(*remedy.split()[1:3], other, first, code=64)[1]
    assert "expected a commit that was fetched" in place.vectl(*remedy.split()[1:4], "f" * 40, code=64)[1]
    assert first[:12] in place.vectl(*remedy.split()[1:])[1]
    (entry,) = (json.loads(line) for line in place.vectl("audit", "-o", "json")[0].splitlines())
    assert (entry["request"], entry["detail"], entry["outcome"]) == ("accept-rewrite", f"{first} {other}", "done")
    taken = place.take()
    assert (taken.complete, taken.trust.reason, [step.commit.id for step in taken.way]) == (True, "Signed", [other])
    unsigned = place.push(3)
    assert place.take().trust.reason == "Unsigned"
    assert unsigned[:12] in place.vectl("source", "verify", code=4)[1]


def test_a_clone_is_verified_without_a_host(place: Place) -> None:
    first, second = place.push(1), place.push(2)
    clone = ["--repository", str(place.clone.path), "--trust", str(place.trust)]
    found = json.loads(place.vectl("source", "verify", second, "--from", first, *clone, "-o", "json")[0])
    assert misfits("source-verify", found) == []
    assert (found["state"], [(step["commit"], step["signer"]) for step in found["way"]]) == (
        TrustState.TRUSTED,
        [(second, "ann")],
    )
    text, words = place.vectl("source", "verify", *clone)
    assert [line.split()[:2] for line in text.splitlines()[1:]] == [[first[:12], "ann"], [second[:12], "ann"]]
    assert words == f"{second[:12]}: Signed\n"
    place.trust.write_text("signers: []")
    assert "UnknownSigner" in place.vectl("source", "verify", *clone, code=4)[1]


def test_the_doctor_looks_at_the_trust_file(place: Place) -> None:
    def trust() -> dict[str, str]:
        probes = json.loads(place.vectl("doctor", "-o", "json")[0])["probes"]
        return next(probe for probe in probes if probe["name"] == "trust")

    assert trust()["level"] == "OK"
    place.trust.chmod(0o666)
    found = trust()
    assert (found["level"], "only root may write" in found["found"]) == ("WARN", True)
