"""Claims about the CI recipes: their steps make a plan and one comment of it, and hold no secret without need.

The steps are run as a forge's runner would, with a real web server in the place of its API; what a runner does by
itself (checking out, handing on files) is done by the test.
"""

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
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from ruamel.yaml import YAML

import reconciler
from tests.support.gitrepo import ANN, Clone, bare
from tests.support.patience import PATIENCE

RECIPES = Path(__file__).parents[2] / "hooks/ci"
STEP_S = 60.0 * PATIENCE
TOKEN = "secret-of-the-job"
OURS = "vectl-bot"
QUIET = "<!-- vectl-plan -->\nvectl: no changes, `1` → `2`\n"

Recipe = dict[str, Any]  # whatever the recipe's YAML says
Comment = dict[str, Any]


def ve(name: str, spec: str = "{}") -> str:
    return f"apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata: {{name: {name}}}\nspec: {spec}\n"


@dataclass(kw_only=True)
class Api:
    """A forge's API. ``pages``: whether it gives comments in parts."""

    url: str = ""
    pages: bool = True
    comments: list[Comment] = field(default_factory=list)

    def answer(self, method: str, path: str, query: Mapping[str, list[str]], body: Comment) -> object:
        """Do what is asked for; None, if there is no such thing."""
        base = {"/repos/org/fleet/issues/7/comments", "/projects/org%2Ffleet/merge_requests/7/notes"}
        if (method, path) == ("GET", "/user"):
            return {"login": OURS, "username": OURS}
        if path in base and method == "GET":
            page = int(query["page"][0])
            return self.comments[(page - 1) * 2 : page * 2] if self.pages else self.comments
        if path in base and method == "POST":
            self.comments.append(made(len(self.comments), OURS, body["body"]))
            return self.comments[-1]
        number = path.rpartition("/")[2]
        if method in ("PATCH", "PUT") and number.isdecimal():
            self.comments[int(number)]["body"] = body["body"]
            return self.comments[int(number)]
        return None

    @property
    def ours(self) -> list[str]:
        """What was said in our name."""
        return [one["body"] for one in self.comments if one["user"]["login"] == OURS]


def made(number: int, by: str, body: str) -> Comment:
    return {"id": number, "body": body, "user": {"login": by}, "author": {"username": by}}


@contextmanager
def serving() -> Iterator[Api]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            parts = urlsplit(self.path)
            proof = self.headers.get("Authorization") or self.headers.get("PRIVATE-TOKEN") or ""
            body = json.loads(self.rfile.read(length) or b"{}")
            found = served.answer(self.command, parts.path, parse_qs(parts.query), body) if TOKEN in proof else None
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815  # their names in the base

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        served = Api(url=f"http://127.0.0.1:{listening.server_address[1]}")
        threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield served
        listening.shutdown()


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as made_api:
        yield made_api


@dataclass(kw_only=True)
class Runner:
    """Runs the steps of a job in a checkout. ``bin``: where it finds programs first."""

    checkout: Clone
    bin: Path
    environment: dict[str, str]

    def run(self, script: str, environment: Mapping[str, str], *, code: int = 0) -> str:
        """Run a step as a forge does."""
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.checkout.path,
            env={**os.environ, **ANN, **self.environment, **environment, "PATH": f"{self.bin}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=STEP_S,
        )
        assert done.returncode == code, (script, done.stdout, done.stderr)
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A checkout of a feature branch whose base is at its remote, where pip installs nothing."""
    programs = tmp_path / "bin"
    programs.mkdir()
    tree = Path(reconciler.__file__).parent.parent
    vectl = f'PYTHONPATH="{tree}" exec "{sys.executable}" -m reconciler.cli.entry "$@"'
    for name, line in {"vectl": vectl, "pip": 'test "$*" = "install vectl"'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    remote = bare(tmp_path / "remote.git")
    checkout = Clone(tmp_path / "checkout")
    checkout.commit({"web.yaml": ve("web1", "{memory: {limit: 1Gi}}")})
    checkout.git("remote", "add", "origin", str(remote))
    checkout.push("origin")
    checkout.git("fetch", "--quiet", "origin")
    checkout.git("checkout", "--quiet", "-b", "feature")
    checkout.commit({"web.yaml": ve("web1", "{memory: {limit: 2Gi}}")})
    summary = tmp_path / "summary"
    summary.touch()
    return Runner(checkout=checkout, bin=programs, environment={"GITHUB_STEP_SUMMARY": str(summary)})


def recipe(name: str) -> Recipe:
    found: Recipe = YAML(typ="safe", pure=True).load((RECIPES / f"{name}.yml").read_text())
    return found


def runs(job: Recipe) -> list[str]:
    """Give what the steps of a job run in a shell, without those for failures."""
    return [step["run"] for step in job["steps"] if "run" in step and step.get("if") != "failure()"]


def plan(runner: Runner, name: str, *, code: int = 0) -> None:
    """Do what the job that plans does."""
    head = runner.checkout.git("rev-parse", "HEAD")
    if name == "gitlab":
        lines = [*recipe(name)[".vectl"]["before_script"], *recipe(name)["vectl-plan"]["script"]]
        variables = recipe(name)[".vectl"]["variables"]
        job = {"CI_COMMIT_SHA": head, "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main", "VECTL_TOKEN": TOKEN}
        runner.run("\n".join(lines), {**variables, **job}, code=code)
        return
    variables = recipe(name)["env"]
    install, planning = runs(recipe(name)["jobs"]["plan"])
    runner.run(install, variables)
    runner.run(planning, {**variables, "BASE": "origin/main", "HEAD": head}, code=code)


def comment(runner: Runner, name: str, api: Api) -> str:
    """Do what the job that comments does, as a user of the name `OURS`."""
    if name == "gitlab":
        job = {"GITLAB_CI": "true", "CI_API_V4_URL": api.url, "CI_PROJECT_ID": "org/fleet", "CI_MERGE_REQUEST_IID": "7"}
        return runner.run("\n".join(recipe(name)["vectl-comment"]["script"]), {**job, "VECTL_TOKEN": TOKEN})
    job = {"GITHUB_API_URL": f"{api.url}/", "GITHUB_REPOSITORY": "org/fleet", "GITHUB_REF": "refs/pull/7/merge"}
    script = runs(recipe(name)["jobs"]["comment"])[-1]
    for author in ("'github-actions[bot]'", "gitea-actions"):
        script = script.replace(author, OURS)
    return runner.run(script, {**job, "GITHUB_ACTIONS": "true", "VECTL_TOKEN": TOKEN})


NAMES = ("github", "gitea", "gitlab")


@pytest.mark.parametrize("name", NAMES)
def test_a_pull_request_has_one_comment_however_often_it_changes(runner: Runner, api: Api, name: str) -> None:
    api.pages = name != "gitea"
    forged = "<!-- vectl-plan -->\nall is well\n"
    api.comments += [made(0, "ann", "nice"), made(1, "eve", forged), made(2, "ann", "hm")]
    plan(runner, name)
    assert json.loads((runner.checkout.path / "plan.json").read_text())["hosts"]
    comment(runner, name, api)
    (first,) = api.ours
    assert "memory.limit" in first
    assert "2Gi" in first

    made_plan = runner.checkout.path / "plan.md"
    made_plan.write_text(first.replace("2Gi", "3Gi"))
    comment(runner, name, api)
    assert api.ours == [made_plan.read_text()]
    assert [one["body"] for one in api.comments[:3]] == ["nice", forged, "hm"]


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_what_is_not_valid_fails_the_job_and_is_told(runner: Runner, api: Api, name: str) -> None:
    runner.checkout.commit({"web.yaml": ve("web1", "{memory: {limt: 2Gi}}")})
    plan(runner, name, code=1)
    comment(runner, name, api)
    assert "did you mean" in api.ours[0]
    assert "web.yaml:4:17" in api.ours[0]
    if name == "github":
        marking = next(step["run"] for step in recipe(name)["jobs"]["plan"]["steps"] if step.get("if") == "failure()")
        assert "::error file=web.yaml,line=4,col=17::" in runner.run(marking, recipe(name)["env"], code=1)


def test_where_nothing_changes_nothing_is_said(runner: Runner, api: Api) -> None:
    (runner.checkout.path / "plan.md").write_text(QUIET)
    assert "nothing changes" in comment(runner, "github", api)
    assert api.comments == []


def test_a_refused_token_fails_the_job_without_showing_it(runner: Runner, api: Api) -> None:
    (runner.checkout.path / "plan.md").write_text(QUIET)
    script = "\n".join(recipe("gitlab")["vectl-comment"]["script"])
    job = {"GITLAB_CI": "true", "CI_API_V4_URL": api.url, "CI_PROJECT_ID": "org/fleet", "CI_MERGE_REQUEST_IID": "7"}
    said = runner.run(script, {**job, "VECTL_TOKEN": "wrong-token"}, code=1)
    assert "answered by 404" in said
    assert "wrong-token" not in said
    assert "expected a token in VECTL_TOKEN" in runner.run(script, job, code=64)
    assert "CI job of GitHub" in runner.run("vectl hook comment plan.md", {"VECTL_TOKEN": TOKEN, "CI": "1"}, code=64)
    assert "expected what `vectl plan" in runner.run("vectl hook comment web.yaml", job, code=64)


@pytest.mark.parametrize("name", ["github", "gitea"])
def test_the_job_that_reads_a_pull_request_holds_no_secret(name: str) -> None:
    found = recipe(name)
    assert found["on"] == "pull_request"  # pull_request_target would run strangers' text with our secrets
    reading, writing = found["jobs"]["plan"], found["jobs"]["comment"]
    assert reading["permissions"] == {"contents": "read"}
    assert "token" not in json.dumps(reading).lower()
    assert "head.repo.full_name == github.repository" in writing["if"]
    assert all("${{" not in script for job in (reading, writing) for script in runs(job))
    checkout = reading["steps"][0]
    assert checkout["uses"].startswith("actions/checkout@")
    assert checkout["with"]["persist-credentials"] is False
    assert all("checkout" not in step.get("uses", "") for step in writing["steps"])


def test_merge_requests_from_forks_get_no_token() -> None:
    found = recipe("gitlab")
    assert found["vectl-plan"]["script"][0] == "unset VECTL_TOKEN"
    assert "$CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_PROJECT_ID" in found["vectl-comment"]["rules"][0]["if"]
    assert found["vectl-comment"]["variables"] == {"GIT_STRATEGY": "none"}
