"""The check of a source goes step by step, and the first step that fails names what to do."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.agent.clock import SystemClock
from reconciler.agent.source_check import examine
from reconciler.model.identity import HostName
from reconciler.model.instance import Instance
from reconciler.model.probe import Level, Probe
from reconciler.state.config import Config
from reconciler.state.location import DirectoryLocation, GitLocation
from tests.support import gitserver
from tests.support.gitrepo import Clone, bare
from tests.support.gitserver import SshServer

WEB = '{"apiVersion": "ve/v1", "kind": "VirtualEnvironment", "metadata": {"name": "web"}, "spec": {}}'
LOGIN = "fleet:s3cret"
STEPS = [
    *("configuration", "ca", "credentials", "name", "connection", "certificate", "access"),
    *("fetch", "signatures", "manifests"),
]


@pytest.fixture
def served(tmp_path: Path) -> Path:
    bare(tmp_path / "served" / "fleet.git")
    clone = Clone(tmp_path / "clone")
    clone.commit({"prod/web.yaml": WEB})
    clone.push(tmp_path / "served/fleet.git")
    return tmp_path / "served"


def config(tmp_path: Path, source: GitLocation | DirectoryLocation | None) -> Config:
    state = str(tmp_path / "state")
    instance = Instance(name="check", host=HostName("here"), state_dir=state, run_dir=f"{state}/run", cgroup="/check")
    return Config(instance=instance, source=source)


def probes(found: Config) -> list[Probe]:
    async def collect() -> list[Probe]:
        return [probe async for probe in examine(found, "", clock=SystemClock())]

    return asyncio.run(collect())


def failure(found: Config) -> Probe:
    """Give the step that failed: it is the last one."""
    seen = probes(found)
    assert [probe.level is Level.FAIL for probe in seen] == [False] * (len(seen) - 1) + [True], seen
    assert all("s3cret" not in f"{probe.found}{probe.remedy}" for probe in seen)
    return seen[-1]


def test_every_step_to_an_https_server_is_told(tmp_path: Path, served: Path) -> None:
    tls, login = gitserver.certificate(tmp_path / "tls"), tmp_path / "login"
    login.write_text(LOGIN)
    login.chmod(0o600)
    with gitserver.http(served, tls=tls, login=LOGIN) as server:
        url = server.url("fleet.git")
        location = GitLocation(urls=(url,), subdir="prod", ca=str(tls.ca), credentials=str(login))
        seen = probes(config(tmp_path, location))
        assert {probe.level for probe in seen} == {Level.OK}
        assert [probe.name for probe in seen] == STEPS
        assert seen[-1].found == "1 files, 1 VEs, 0 networks"

        def failing(**other: object) -> Probe:
            return failure(config(tmp_path, replace(location, **other)))  # type: ignore[arg-type]  # fields by name

        assert failing(ca=None).name == "certificate"
        assert failing(credentials=None).name == "login"
        assert "credentials" in failing(credentials=None).remedy
        assert failing(credentials=str(tmp_path / "none")).name == "credentials"
        assert failing(ref="refs/heads/other").name == "ref"
        assert failing(ref="0" * 40).name == "fetch"
        assert (failing(subdir="other").name, failing(subdir="other").remedy) == ("manifests", "")
        assert failing(urls=(server.url("other.git"),)).name == "repository"
        assert failing(urls=("https://name.invalid/fleet.git",)).name == "connection"
        login.chmod(0o644)
        (warned,) = (probe for probe in probes(config(tmp_path, location)) if probe.level is Level.WARN)
        assert (warned.name, "chmod 600" in warned.remedy) == ("credentials", True)
        with server.gone():
            assert failing().name == "connection"


def test_every_step_to_an_ssh_server_is_told(tmp_path: Path, served: Path) -> None:
    with gitserver.ssh(tmp_path / "ssh", served) as server:
        location = of(server)
        assert [probe.name for probe in probes(config(tmp_path, location)) if probe.level is not Level.OK] == []
        stranger = tmp_path / "stranger"
        gitserver.make_key(stranger)
        assert failure(config(tmp_path, replace(location, ssh_key=str(stranger)))).name == "login"
        server.change_host_key()
        changed = failure(config(tmp_path, location))
        assert (changed.name, "ssh-keyscan" in changed.remedy) == ("host key", True)


def of(server: SshServer) -> GitLocation:
    return GitLocation(urls=(server.url("fleet.git"),), ssh_key=str(server.key), known_hosts=str(server.known_hosts))


def test_a_copy_that_cannot_be_reached_is_a_warning(tmp_path: Path, served: Path) -> None:
    location = GitLocation(urls=(str(served / "fleet.git"), str(served / "copy.git")))
    seen = probes(config(tmp_path, location))
    assert [(probe.name, probe.level) for probe in seen if probe.level is not Level.OK] == [("repository", Level.WARN)]
    assert seen[-1].name == "manifests"


def test_manifests_that_are_not_valid_are_the_last_step(tmp_path: Path) -> None:
    assert failure(config(tmp_path, None)).name == "configuration"
    (tmp_path / "web.yaml").write_text(WEB.replace("spec", "specs"))
    found = failure(config(tmp_path, DirectoryLocation(path=str(tmp_path))))
    assert (found.name, "web.yaml:1:" in found.found) == ("manifests", True)
    assert failure(config(tmp_path, DirectoryLocation(path=str(tmp_path / "none")))).name == "directory"
