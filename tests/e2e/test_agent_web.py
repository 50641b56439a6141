"""Claims about a forge and people beside a real agent: a push wakes it, and how that went is told and written down."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.kernel import netns
from tests.support import gitserver
from tests.support.fleet import Document, Fleet, Value, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.gitrepo import Clone, bare
from tests.support.inbox import Inbox, inbox
from tests.support.outputs import misfits
from tests.support.webserver import rest_of, secret_file

pytestmark = pytest.mark.xdist_group("agent-web")

SECRET = "correct-horse-battery-staple"
PORT = 9118
BODY = b'{"ref": "refs/heads/main"}'


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("web")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp()) as made:
        yield made


@pytest.fixture(scope="module")
def box(fleet: Fleet) -> Iterator[Inbox]:
    with inbox(listener=netns.call_in(fleet.namespace, gitserver.listen)) as made:
        yield made


@pytest.fixture(scope="module")
def clone(fleet: Fleet, box: Inbox, directory: Path) -> Clone:
    """A person's clone of the repository that the agent follows, which polls it once an hour."""
    bare(directory / "fleet.git")
    made = Clone(directory / "clone")
    push(made, {"web.yaml": ve("web")})
    secret = secret_file(directory / "secret", SECRET)
    told = json.loads(fleet.config.read_text())
    status = {"forge": "gitea", "api": f"{box.url}/api/v1", "repository": "org/fleet", "tokenFile": secret}
    notify = [
        {"webhook": {"url": f"{box.url}/told", "secretFile": secret}, "on": ["failure", "recovery", "applied"]},
        {"status": status},
    ]
    fleet.config.write_text(json.dumps({**told, "listen": f"127.0.0.1:{PORT}", "notify": notify}))
    fleet.follow(git={"url": str(directory / "fleet.git"), "poll": "1h", "webhookSecret": secret})
    fleet.start_agent()
    return made


def push(clone: Clone, files: dict[str, Document | None]) -> str:
    oid = clone.commit({name: None if file is None else json.dumps(file) for name, file in files.items()})
    clone.push(clone.path.parent / "fleet.git")
    return oid


def deliver(fleet: Fleet, secret: str = SECRET) -> bytes:
    """Send what GitHub would; give the first line of the answer."""
    digest = hmac.new(secret.encode(), BODY, hashlib.sha256).hexdigest()
    head = (
        f"POST /hooks/source HTTP/1.1\r\nHost: a\r\nX-Hub-Signature-256: sha256={digest}\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n"
    )
    with netns.call_in(fleet.namespace, lambda: socket.create_connection(("127.0.0.1", PORT), timeout=30)) as forge:
        forge.sendall(head.encode() + BODY)
        return rest_of(forge).splitlines()[0]


def notices(box: Inbox) -> list[Any]:  # the JSON of the webhook
    return [notice for said in list(box.said) if said.path == "/told" for notice in said.json["notices"]]


def statuses(box: Inbox, commit: str) -> list[str]:
    path = f"/api/v1/repos/org/fleet/statuses/{commit}"
    return [said.json["state"] for said in list(box.said) if said.path == path]


def is_told(box: Inbox, topic: str, **fields: Value) -> bool:
    wanted = {"topic": topic, **fields}.items()
    return any(wanted <= notice.items() for notice in notices(box))


def test_a_push_wakes_the_agent_and_is_told_shown_and_written_down(fleet: Fleet, clone: Clone, box: Inbox) -> None:
    first = clone.git("rev-parse", "HEAD")
    until(lambda: is_told(box, "applied", revision=first), "the first commit to be carried out")
    assert deliver(fleet, "guess") == b"HTTP/1.1 401 Unauthorized"
    second = push(clone, {"web.yaml": ve("web", processes=77)})
    box.script = [(503, {}, "")] * 2
    assert deliver(fleet) == b"HTTP/1.1 202 Accepted"
    until(lambda: is_told(box, "applied", revision=second, subject="here"), "the push to be carried out and told")
    until(lambda: statuses(box, second)[-1:] == ["success"], "the commit to show it")
    assert [
        problem for said in box.said if said.path == "/told" for problem in misfits("notification", said.json)
    ] == []
    lines = [json.loads(line) for line in fleet.vectl("audit", "--ve", "web", "-o", "json").splitlines()]
    entry = next(line for line in lines if line["revision"] == second)
    assert (entry["who"], entry["outcome"]) == ("Ann <ann@example.org>", "done")
    assert [(action["path"], action["after"]) for action in entry["actions"]] == [("processes", 77)]
    assert len(entry["plan"]) == len(entry["ve_hash"]) == 64
    fleet.vectl("audit", "--verify")


def test_a_commit_that_is_not_taken_is_told_and_shows_why(fleet: Fleet, clone: Clone, box: Inbox) -> None:
    bad = push(clone, {"web.yaml": ve("web", processes="many")})
    deliver(fleet)
    until(lambda: is_told(box, "failure", subject="source", reason="Invalid"), "the mistake to be told")
    until(lambda: statuses(box, bad) == ["failure"], "the commit to show it")
    clone.git("revert", "--no-edit", "HEAD")
    clone.push(clone.path.parent / "fleet.git")
    assert sum(notice["topic"] == "failure" for notice in notices(box)) == 1
    assert fleet.agent is not None
    assert SECRET not in fleet.log.read_text()
    assert SECRET.encode() not in Path(f"/proc/{fleet.agent.pid}/cmdline").read_bytes()
