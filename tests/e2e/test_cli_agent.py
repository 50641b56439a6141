"""Claims about the commands beside a running agent: it does the work, and nobody does it twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.model.condition import ConditionType
from tests.support.fleet import Fleet, network, until, ve
from tests.support.fleet import fleet as made_fleet

pytestmark = pytest.mark.xdist_group("cli-agent")

LAN = network("lan", "10.181.2.0/24", gateway=["10.181.2.1"])
A = ve("a", "10.181.2.11/24")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp(), LAN, A) as made:
        made.start_agent()
        made.await_ready("a")
        yield made


def test_apply_of_its_own_source_is_handed_to_the_agent(fleet: Fleet) -> None:
    fleet.put("all.yaml", LAN, ve("a", "10.181.2.11/24", processes=120))
    last = json.loads(fleet.vectl("apply", str(fleet.manifests), "-o", "json").splitlines()[-1])
    assert (last["by"], last["converged"], last["effects"]) == ("agent", True, 0)
    assert fleet.ve("a").limit("processes") == 120


def test_apply_of_anything_else_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps(ve("a")))
    assert "stop it first" in fleet.complaint("apply", str(other), "--yes", code=4)
    paper = str(tmp_path / "plan.json")
    fleet.vectl("plan", str(fleet.manifests), "--out", paper)
    assert "stop it first" in fleet.complaint("apply", "--plan", paper, "--yes", code=4)


def test_apply_tells_at_once_what_the_agent_cannot_do(fleet: Fleet) -> None:
    fleet.put("b.yaml", ve("b", security={"profile": "app", "command": ["/bin/sh"]}))
    said = fleet.complaint("apply", str(fleet.manifests), code=4)
    assert "b: Unsupported: not supported yet by this version: security" in said
    fleet.drop("b.yaml")
    fleet.vectl("apply", str(fleet.manifests))


def test_requests_are_carried_out_by_the_agent(fleet: Fleet) -> None:
    fleet.vectl("stop", "a", "--reason", "new disk")
    assert not fleet.ve("a").runs
    fleet.await_reason("a", "Paused")
    assert "no such" not in fleet.complaint("restart", "a", code=4)
    fleet.vectl("start", "a")
    fleet.vectl("wait", "a", "--for", "condition=Ready")
    before = fleet.ve("a").init
    fleet.vectl("restart", "a")
    assert fleet.ve("a").init != before
    assert "none of that name" in fleet.complaint("stop", "nobody")


def test_a_pause_is_seen_by_the_agent_and_ends(fleet: Fleet) -> None:
    fleet.vectl("pause", "--all", "--reason", "moving house")
    fleet.await_reason("a", "Paused", ConditionType.PAUSED)
    limit = fleet.ve("a").limit_file("pids.max", "pids.max", controller="pids")
    limit.write_text("77")
    fleet.vectl("unpause", "--all")
    until(lambda: fleet.ve("a").limit("processes") != 77, "the drift to be put right")


def test_a_protection_is_told_as_a_condition(fleet: Fleet) -> None:
    fleet.vectl("protect", "a")
    fleet.vectl("wait", "a", "--for", "condition=Protected", "--timeout", "30s")
    fleet.vectl("unprotect", "a")
    fleet.vectl("wait", "a", "--for", "condition=Protected=False", "--timeout", "30s")


def test_the_agent_says_how_each_ve_stands(fleet: Fleet) -> None:
    said = [json.loads(line) for line in fleet.log.read_text().splitlines() if line.startswith("{")]
    told = [(line["ve"], line["type"], line["status"]) for line in said if line["event"] == "condition.changed"]
    assert ("a", "Ready", "True") in told
    assert ("a", "Paused", "True") in told
