"""Claims about a repository as the source: what is pushed is what is there, and stays while the server is away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kernel import netns
from reconciler.model.condition import ConditionType, Status
from reconciler.state.conditions import SOURCE
from tests.support import gitserver
from tests.support.fleet import Document, Fleet, Value, network, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.gitrepo import Clone, bare
from tests.support.gitserver import HttpServer
from tests.support.outputs import misfits
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.xdist_group("agent-git")

SUBNET = "10.191.14"
LOGIN = "fleet:s3cret"
FETCH = f"{20 * PATIENCE:g}s"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("git")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp()) as made:
        yield made


@pytest.fixture(scope="module")
def server(fleet: Fleet, directory: Path) -> Iterator[HttpServer]:
    """A server with a certificate, on the loopback of the fleet's host."""
    bare(directory / "served" / "fleet.git")
    tls = gitserver.certificate(directory / "tls")
    (directory / "login").write_text(LOGIN)
    listener = netns.call_in(fleet.namespace, gitserver.listen)
    with gitserver.http(directory / "served", listener=listener, tls=tls, login=LOGIN) as made:
        yield made


@pytest.fixture(scope="module")
def clone(fleet: Fleet, server: HttpServer, directory: Path) -> Clone:
    """A person's clone; the agent follows its branch main on the server."""
    made = Clone(directory / "clone")
    push(made, {"lan.yaml": network("lan", f"{SUBNET}.0/24", gateway=[f"{SUBNET}.1"]), "web.yaml": web()})
    paths = {"ca": str(directory / "tls/ca.pem"), "credentials": str(directory / "login")}
    fleet.follow(git={"url": server.url("fleet.git"), "subdir": "fleet", "poll": "1h", "timeout": FETCH, **paths})
    fleet.start_agent()
    return made


def web(**spec: Value) -> Document:
    return ve("web", f"{SUBNET}.11/24", **spec)


def push(clone: Clone, files: dict[str, Document | None]) -> str:
    """Commit manifests, and push them to where the server has them."""
    texts = {f"fleet/{name}": None if file is None else json.dumps(file) for name, file in files.items()}
    oid = clone.commit(texts)
    clone.push(clone.path.parent / "served/fleet.git")
    return oid


def stands(fleet: Fleet, kind: ConditionType) -> tuple[Status, str]:
    found = fleet.conditions(SOURCE)[kind]
    return found.status, found.reason


def await_revision(fleet: Fleet, name: str, revision: str) -> None:
    """Wait until a VE is ready by a revision."""

    def is_there() -> bool:
        ready = fleet.conditions(name)[ConditionType.READY]
        return (ready.status, ready.revision) == (Status.TRUE, revision)

    with fleet.explained(name):
        until(is_there, f"{name} to be ready by {revision[:12]}")


def test_what_is_pushed_runs_and_its_commit_is_the_revision(fleet: Fleet, clone: Clone) -> None:
    first = clone.git("rev-parse", "HEAD")
    await_revision(fleet, "web", first)
    assert fleet.ve("web").runs
    assert json.loads(fleet.vectl("get", "-o", "json"))["revision"] == first
    assert fleet.vectl("get").splitlines()[1].split()[-1] == first[:12]
    assert stands(fleet, ConditionType.FETCHED) == (Status.TRUE, "Read")
    assert stands(fleet, ConditionType.VERIFIED) == (Status.TRUE, "NotRequired")
    assert stands(fleet, ConditionType.VALID) == (Status.TRUE, "Valid")


def test_apply_without_a_path_has_the_agent_take_the_newest_commit(fleet: Fleet, clone: Clone) -> None:
    second = push(clone, {"web.yaml": web(processes=77)})
    done = json.loads(fleet.vectl("apply", "-o", "json"))
    assert (done["converged"], done["by"]) == (True, "agent")
    await_revision(fleet, "web", second)
    push(clone, {"README.md": {"words": "only"}})
    newest = clone.git("rev-parse", "HEAD")
    fleet.vectl("apply")
    await_revision(fleet, "web", newest)


def test_a_commit_that_is_not_valid_changes_nothing_and_says_where(fleet: Fleet, clone: Clone) -> None:
    before = clone.git("rev-parse", "HEAD")
    push(clone, {"web.yaml": web(procceses=5)})
    told = fleet.complaint("apply", code=4)
    assert "web.yaml:1:" in told
    assert stands(fleet, ConditionType.FETCHED) == (Status.TRUE, "Read")
    assert stands(fleet, ConditionType.VALID) == (Status.FALSE, "Invalid")
    assert f"revision {before[:12]} stays in force" in fleet.conditions(SOURCE)[ConditionType.VALID].message
    with fleet.puts_right("web", "memory.limit"):
        fleet.ve("web").memory_limit_file.write_text(str(32 << 20))
    clone.git("revert", "--no-edit", "HEAD")
    clone.push(clone.path.parent / "served/fleet.git")
    fleet.vectl("apply")
    await_revision(fleet, "web", clone.git("rev-parse", "HEAD"))


def test_while_the_server_is_away_what_was_taken_stays_and_drift_is_put_right(
    fleet: Fleet, clone: Clone, server: HttpServer
) -> None:
    before = clone.git("rev-parse", "HEAD")
    with server.gone():
        assert "Failed to connect" in fleet.complaint("apply", code=4)
        assert stands(fleet, ConditionType.FETCHED) == (Status.FALSE, "RemoteUnreachable")
        assert "the manifests cannot be read" in fleet.complaint("get", code=0)
        with fleet.puts_right("web", "memory.limit"):
            fleet.ve("web").memory_limit_file.write_text(str(32 << 20))
        fleet.end_agent()
        fleet.start_agent()
        until(lambda: stands(fleet, ConditionType.FETCHED)[0] is Status.FALSE, "the agent to have tried")
        with fleet.puts_right("web", "memory.limit"):
            fleet.ve("web").memory_limit_file.write_text(str(32 << 20))
        assert json.loads(fleet.vectl("get", "-o", "json"))["revision"] == before
        after = push(clone, {"web.yaml": None, "db.yaml": ve("db")})
    await_revision(fleet, "db", after)  # by the next try, which comes soon after a failure
    fleet.await_removed("web")
    assert stands(fleet, ConditionType.FETCHED) == (Status.TRUE, "Read")
    assert "RemoteUnreachable" in fleet.told("source")


def test_a_rewritten_history_is_taken_on_the_word_of_the_hosts_root_alone(fleet: Fleet, clone: Clone) -> None:
    old = clone.git("rev-parse", "HEAD")
    clone.git("commit", "--quiet", "--amend", "-m", "another history")
    clone.push(clone.path.parent / "served/fleet.git", "HEAD:refs/heads/main", "--force")
    new = clone.git("rev-parse", "HEAD")
    remedy = f"source accept-rewrite {old[:12]} {new[:12]}"
    assert remedy in fleet.complaint("apply", code=4)
    assert stands(fleet, ConditionType.VERIFIED) == (Status.FALSE, "NotFastForward")
    assert "not to be trusted" in fleet.complaint("get", code=0)
    with fleet.puts_right("db", "memory.limit"):
        fleet.ve("db").memory_limit_file.write_text(str(32 << 20))
    fleet.vectl(*remedy.split())
    fleet.vectl("apply")
    await_revision(fleet, "db", new)
    assert stands(fleet, ConditionType.VERIFIED) == (Status.TRUE, "NotRequired")


def test_the_source_is_shown_and_examined(fleet: Fleet, clone: Clone, server: HttpServer) -> None:
    shown = json.loads(fleet.vectl("source", "status", "-o", "json"))
    assert misfits("source-status", shown) == []
    assert (shown["agent"], shown["revision"]) == (True, clone.git("rev-parse", "HEAD"))
    assert f"{shown['revision'][:12]} since" in fleet.vectl("source", "status")
    examined = json.loads(fleet.vectl("source", "check", "-o", "json"))
    assert misfits("source-check", examined) == []
    assert examined["ok"]
    with server.gone():
        assert "FAIL   connection: " in fleet.vectl("source", "check", code=1)


def test_a_directory_is_refused_while_the_agent_follows_a_repository(fleet: Fleet, clone: Clone) -> None:
    told = fleet.complaint("apply", str(fleet.manifests), code=4)
    assert f"#{'refs/heads/main'}:fleet" in told
    assert "s3cret" not in fleet.log.read_text()


def test_without_an_agent_the_newest_commit_is_planned_and_applied(fleet: Fleet, clone: Clone) -> None:
    fleet.end_agent()
    newest = push(clone, {"db.yaml": ve("db", processes=55)})
    done = [json.loads(line) for line in fleet.vectl("apply", "--yes", "-o", "json").splitlines()]
    assert [action["path"] for action in done[:-1]] == ["processes"]
    assert done[-1]["converged"]
    assert json.loads(fleet.vectl("get", "-o", "json"))["revision"] == newest
