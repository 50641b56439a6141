"""Claims about a real agent of a fleet: other hosts reach it at the address that its manifest says, by their keys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.fleet import host_key
from tests.support.fleet import Document, Fleet, until
from tests.support.fleet import fleet as made_fleet

pytestmark = pytest.mark.xdist_group("agent-peers")

OTHER = "node-other"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp()) as made:
        told = json.loads(made.config.read_text())
        coordinator = {"etcd": {"endpoints": ["https://127.0.0.1:1"]}}  # away; hosts talk to each other all the same
        made.config.write_text(json.dumps({**told, "coordinator": coordinator}))
        yield made


@pytest.fixture
def elsewhere(tmp_path: Path) -> list[str]:
    """The options of a command on the other host."""
    return ["--state-dir", str(tmp_path), "--host", OTHER]


def _host(name: str, address: str, line: str) -> Document:
    return {
        "apiVersion": "ve/v1",
        "kind": "Host",
        "metadata": {"name": name},
        "spec": {"address": address, "publicKey": line.strip()},
    }


def test_hosts_talk_by_the_keys_of_the_revision_in_force(fleet: Fleet, elsewhere: list[str], tmp_path: Path) -> None:
    own = fleet.instance.host
    hosts = {
        "here": _host(own, "127.0.0.1", fleet.vectl("host", "key")),
        "there": _host(OTHER, "127.0.0.2", fleet.vectl(*elsewhere, "host", "key")),
    }
    fleet.put("hosts.yaml", *hosts.values())
    fleet.start_agent()
    until(lambda: fleet.said("peers.listening"), "the agent to listen")
    kept = Path(fleet.instance.state_dir, "last-good.json")
    until(kept.exists, "the revision to be in force")
    shutil.copy(kept, tmp_path)
    found = json.loads(fleet.vectl(*elsewhere, "host", "ping", own, "-o", "json"))["items"]
    assert [(item["host"], item["problem"]) for item in found] == [(own, None)]

    stranger = host_key.make_key(str(tmp_path / "stranger.key")).public
    fleet.put("hosts.yaml", hosts["here"], _host(OTHER, "127.0.0.2", stranger))
    until(lambda: "does not let this host in" in _pinged(fleet, elsewhere, own), "the agent to take the new revision")
    fleet.end_agent()


def _pinged(fleet: Fleet, elsewhere: list[str], host: str) -> str:
    try:
        return fleet.vectl(*elsewhere, "host", "ping", host, code=1)
    except AssertionError:  # it was still let in
        return ""
