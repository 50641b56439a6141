"""Claims about git's hooks: what no host would take is neither committed nor pushed, and the hosts are woken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import reconciler
from reconciler.kernel.git import ISOLATED
from reconciler.web.exchange import Request
from reconciler.web.webhook import Delivery, Webhook
from tests.support import gitserver
from tests.support.gitrepo import ANN, Clone, bare, git
from tests.support.gitserver import HttpServer
from tests.support.patience import PATIENCE
from tests.support.signing import Person, ssh_person

HOOKS = Path(__file__).parents[2] / "hooks"
PUSH_S = 60.0 * PATIENCE


def ve(name: str, spec: str = "{}") -> str:
    return f"apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata: {{name: {name}}}\nspec: {spec}\n"


BROKEN = ve("web1", "{memory: {limt: 1Gi}}")


@pytest.fixture(scope="module")
def vectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a program that runs the command of this tree."""
    program = tmp_path_factory.mktemp("bin") / "vectl"
    tree = Path(reconciler.__file__).parent.parent
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{tree}" exec "{sys.executable}" -m reconciler.cli.entry "$@"\n')
    program.chmod(0o755)
    return program


@dataclass(kw_only=True)
class Forge:
    """A bare repository behind a web server, whose hooks are ours, and a clone that pushes to it."""

    repository: Path
    clone: Clone
    url: str

    def set(self, key: str, value: str) -> None:
        """Set what its hooks follow."""
        git(self.repository, "config", "--add", f"vectl.{key}", value)

    def push(self, refspec: str = "HEAD:refs/heads/main", *options: str, ok: bool = True) -> str:
        """Push; give what the pusher was told."""
        done = subprocess.run(
            ["git", "-C", str(self.clone.path), "push", *options, self.url, refspec],
            env={**os.environ, **ISOLATED, **ANN, **self.clone.env},
            capture_output=True,
            text=True,
            timeout=PUSH_S,
        )
        assert (done.returncode == 0) is ok, done.stderr
        return done.stderr

    @property
    def head(self) -> str:
        """The commit that hosts would find."""
        return gitserver.head(self.repository)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    with gitserver.http(tmp_path_factory.mktemp("served")) as serving:
        yield serving


@pytest.fixture
def forge(server: HttpServer, tmp_path: Path, vectl: Path) -> Forge:
    """A forge with one commit, pushed before there were hooks."""
    name = f"{tmp_path.name}.git"
    made = Forge(repository=bare(server.root / name), clone=Clone(tmp_path / "clone"), url=server.url(name))
    made.clone.commit({"fleet/web.yaml": ve("web1"), "README": "words\n", "other.yaml": "no manifest\n"})
    made.push()
    for hook in ("pre-receive", "post-receive"):
        (made.repository / "hooks").mkdir(exist_ok=True)
        (made.repository / "hooks" / hook).symlink_to(HOOKS / hook)
    made.set("command", str(vectl))
    made.set("subdir", "fleet")
    return made


# What is pushed


def test_an_invalid_push_is_refused_and_the_pusher_told_where_it_is_wrong(forge: Forge) -> None:
    before = forge.head
    forge.clone.commit({"fleet/web.yaml": BROKEN})
    said = forge.push(ok=False)
    assert "remote: fleet/web.yaml:4:17: spec.memory.limt: unknown field" in said
    assert "did you mean 'limit'?" in said
    assert forge.head == before
    forge.clone.commit({"fleet/web.yaml": ve("web1", "{memory: {limit: 1Gi}}")})
    forge.push()
    assert forge.head == forge.clone.git("rev-parse", "HEAD")


def test_what_hosts_do_not_follow_may_hold_anything(forge: Forge) -> None:
    forge.clone.commit({"fleet/web.yaml": BROKEN})
    forge.push("HEAD:refs/heads/draft")
    forge.push("HEAD:refs/tags/v1")
    forge.set("ref", "refs/heads/production")
    forge.push()
    assert "unknown field" in forge.push("HEAD:refs/heads/production", ok=False)


def test_what_hosts_have_is_neither_rewritten_nor_deleted(forge: Forge) -> None:
    before = forge.head
    forge.clone.git("commit", "--quiet", "--amend", "-m", "other words")
    assert f"expected commits on top of {before[:12]}" in forge.push("HEAD:refs/heads/main", "--force", ok=False)
    git(forge.repository, "config", "receive.denyDeleteCurrent", "ignore")
    assert "hosts follow it" in forge.push(":refs/heads/main", ok=False)
    forge.clone.git("tag", "-a", "-m", "words", "v1")
    assert forge.head == before


def test_a_tree_that_no_host_would_read_is_refused(forge: Forge) -> None:
    (forge.clone.path / "fleet/link.yaml").symlink_to("/etc/passwd")
    forge.clone.commit({})
    assert "link.yaml: expected a file of mode" in forge.push(ok=False)
    forge.clone.commit({"fleet/link.yaml": None, "fleet/big.yaml": "#" * (1 << 20) + "\n"})
    assert "big.yaml: expected 1048576 bytes at most" in forge.push(ok=False)
    forge.clone.git("rm", "--quiet", "-r", "fleet")
    forge.clone.commit({})
    assert "expected a folder 'fleet'" in forge.push(ok=False)


def test_only_signed_pushes_pass_where_signatures_are_asked_for(forge: Forge, tmp_path: Path) -> None:
    ann, bob = ssh_person(tmp_path, "ann"), ssh_person(tmp_path, "bob")
    trust(forge, tmp_path, ann.signer(), bob.signer(paths=["fleet/db/**"]))
    commit(forge, None, {"fleet/web.yaml": ve("web1", "{processes: 10}")})
    assert "push: Unsigned: " in forge.push(ok=False)
    forge.clone.git("reset", "--quiet", "--hard", "HEAD~1")
    commit(forge, bob, {"fleet/web.yaml": ve("web1", "{processes: 10}")})
    said = forge.push(ok=False)
    assert "push: SignerNotAllowed: " in said
    assert "fleet/web.yaml" in said
    assert "accept-rewrite" not in said
    forge.clone.git("reset", "--quiet", "--hard", "HEAD~1")
    commit(forge, bob, {"fleet/db/db1.yaml": ve("db1")})
    commit(forge, ann, {"fleet/web.yaml": ve("web1", "{processes: 10}")})
    forge.push()


def test_a_stranger_signs_in_vain(forge: Forge, tmp_path: Path) -> None:
    trust(forge, tmp_path, ssh_person(tmp_path, "ann").signer())
    commit(forge, ssh_person(tmp_path, "eve"), {"README": "x\n"})
    assert "push: UnknownSigner: " in forge.push(ok=False)
    (tmp_path / "trust.yaml").write_text("signers: [")
    assert "trust.yaml" in forge.push(ok=False)


def trust(forge: Forge, directory: Path, *signers: Mapping[str, object]) -> None:
    """Ask for signatures from now on."""
    file = directory / "trust.yaml"
    file.write_text(json.dumps({"anchor": forge.head, "signers": signers}))
    forge.set("trust", str(file))


def commit(forge: Forge, who: Person | None, files: Mapping[str, str]) -> None:
    forge.clone.env = dict(who.env) if who else {}
    forge.clone.commit(files)


# Who is woken


@dataclass(kw_only=True)
class Agents:
    """What hosts were told. ``status``: what they answer."""

    url: str
    status: int = 202
    told: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)


@contextmanager
def agents() -> Iterator[Agents]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.told.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(made.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        made = Agents(url=f"http://127.0.0.1:{listening.server_address[1]}/hooks/source")
        threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield made
        listening.shutdown()


def test_hosts_are_woken_with_proof_of_the_secret(forge: Forge, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123\n")
    secret.chmod(0o600)
    with agents() as woken:
        forge.set("webhook", "http://127.0.0.1:1/hooks/source")
        forge.set("webhook", woken.url)
        forge.set("webhookSecret", str(secret))
        forge.clone.commit({"README": "other words\n"})
        forge.push("HEAD:refs/heads/draft")
        assert woken.told == []
        assert "not woken: ask 127.0.0.1: " in forge.push()
        ((headers, body),) = woken.told
        assert believed(headers, body, secret)
        assert not believed(headers, body + b" ", secret)
        assert json.loads(body) == {"ref": "refs/heads/main", "after": forge.head}
        forge.push("HEAD:refs/notes/vectl")
        assert len(woken.told) == 2
        woken.status = 401
        forge.clone.commit({"README": "more words\n"})
        said = forge.push()
        assert "was answered by 401; the host looks by itself" in said
        assert "0123456789abcdef" not in said


def test_a_push_over_ssh_is_judged_and_wakes_too(forge: Forge, tmp_path: Path) -> None:
    with gitserver.ssh(tmp_path / "ssh", forge.repository.parent) as server, agents() as woken:
        forge.url = server.url(forge.repository.name)
        forge.clone.env = {"GIT_SSH_COMMAND": server.command}
        forge.set("webhook", woken.url)
        before = forge.head
        forge.clone.commit({"fleet/web.yaml": BROKEN})
        said = forge.push(ok=False)
        assert "remote: fleet/web.yaml:4:17: spec.memory.limt: unknown field" in said
        assert "(pre-receive hook declined)" in said
        assert (forge.head, woken.told) == (before, [])
        head = forge.clone.commit({"fleet/web.yaml": ve("web1", "{memory: {limit: 1Gi}}")})
        forge.push()
        assert forge.head == head
        assert [json.loads(body)["after"] for _, body in woken.told] == [head]


def believed(headers: Mapping[str, str], body: bytes, secret: Path) -> bool:
    """Say whether an agent's webhook takes a message."""
    looked: list[bool] = []
    webhook = Webhook(secret_file=str(secret), accepted=lambda: looked.append(True))
    delivery = webhook.begin(Request(method="POST", path="/hooks/source", headers=headers))
    assert isinstance(delivery, Delivery)
    delivery.feed(body)
    return delivery.finish().status == 202 and looked == [True]


# What is committed


def test_what_is_staged_counts_and_not_what_lies_in_the_work_tree(tmp_path: Path, vectl: Path) -> None:
    clone = Clone(tmp_path / "clone")
    clone.commit({"web.yaml": ve("web1")})
    clone.git("config", "core.hooksPath", str(HOOKS))
    clone.git("config", "vectl.command", str(vectl))
    first = clone.git("rev-parse", "HEAD")

    (clone.path / "web.yaml").write_text(BROKEN)
    assert "web.yaml:4:17" in refused(clone, "commit", "-a", "-m", "broken")
    clone.git("add", "web.yaml")
    (clone.path / "web.yaml").write_text(ve("web1", "{processes: 5}"))
    assert "web.yaml:4:17" in refused(clone, "commit", "-m", "still broken")
    assert clone.git("rev-parse", "HEAD") == first

    clone.git("add", "web.yaml")
    (clone.path / "web.yaml").write_text(BROKEN)
    (clone.path / "new.yaml").write_text(BROKEN)
    clone.git("commit", "--quiet", "-m", "right as staged")
    assert clone.git("show", "HEAD:web.yaml") == ve("web1", "{processes: 5}").strip()
    assert refused(clone, "commit", "--only", "web.yaml", "-m", "only the broken one") != ""


def test_a_commit_from_a_folder_below_is_looked_at_as_a_whole(tmp_path: Path, vectl: Path) -> None:
    clone = Clone(tmp_path / "clone")
    clone.commit({"fleet/deep/web.yaml": ve("web1"), "other.yaml": "no manifest"})
    for key, value in {"core.hooksPath": str(HOOKS), "vectl.command": str(vectl), "vectl.subdir": "fleet"}.items():
        clone.git("config", key, value)
    (clone.path / "fleet/deep/again.yaml").write_text(ve("web1"))
    below = Clone.__new__(Clone)
    below.path, below.env = clone.path / "fleet/deep", {}
    below.git("add", "again.yaml")
    assert "fleet/deep/web.yaml" in refused(below, "commit", "-m", "twice")


def refused(clone: Clone, *arguments: str) -> str:
    """Run git, which is to fail; give what it said."""
    done = subprocess.run(
        ["git", "-C", str(clone.path), *arguments],
        env={**os.environ, **ISOLATED, **ANN},
        capture_output=True,
        text=True,
        timeout=PUSH_S,
    )
    assert done.returncode != 0
    return done.stderr
