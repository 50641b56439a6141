"""Claims about distributions beside each other: each comes up whole, as nobody else, and answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from reconciler.host import ground, templates
from reconciler.host.site import Site
from reconciler.kernel import netns
from reconciler.manifests.canonical import template_spec
from reconciler.model.identity import TemplateName
from reconciler.model.instance import Instance
from reconciler.model.volume import BuildTemplate, DebootstrapSource
from tests.support.fleet import Document, Fleet, Value, network, until, ve
from tests.support.fleet import fleet as made_fleet

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("ve-distributions"), pytest.mark.timeout(1800)]

BOOT_S = 120.0
PACKAGES = ["openssh-server", "cron"]
SUITES = {"debian-12": "bookworm", "debian-13": "trixie"}

ADDRESSES = {"deb12": "10.93.0.12/24", "deb13": "10.93.0.13/24", "twin": "10.93.0.14/24", "busy": "10.93.0.15/24"}
DEBIAN = {"deb12": "debian-12", "deb13": "debian-13", "twin": "debian-13"}


def template(name: str, suite: str) -> Document:
    source = {"debootstrap": {"suite": suite, "packages": PACKAGES}}
    return {"apiVersion": "ve/v1", "kind": "Template", "metadata": {"name": name}, "spec": {"source": source}}


def build_here(instance: Instance) -> None:
    """Build the templates from where packages can be had, which the agent's network namespace is not."""
    ground.prepare_directories(instance)
    site = Site(instance)
    for name, suite in SUITES.items():
        source = DebootstrapSource(suite=suite, packages=tuple(sorted(PACKAGES)))
        asyncio.run(templates.build(site, BuildTemplate(template=template_spec(TemplateName(name), source))))
    site.close()


def debian(name: str, made_from: str, **more: Value) -> Document:
    size: dict[str, Value] = {"memory": {"limit": "512Mi"}, "disk": {"size": "512Mi"}}
    return ve(name, ADDRESSES[name], template=made_from, **size, **more)


def documents(suspended: str = "") -> list[Document]:
    power = {suspended: {"power": "suspended"}}
    return [
        network("lan", "10.93.0.0/24", gateway=["10.93.0.1"]),
        *(template(name, suite) for name, suite in SUITES.items()),
        *(debian(name, made_from, **power.get(name, {})) for name, made_from in DEBIAN.items()),
        ve("busy", ADDRESSES["busy"]),
    ]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp(), *documents(), pool={"size": "3Gi"}) as made:
        build_here(made.instance)
        made.start_agent()
        made.await_ready(*ADDRESSES)
        yield made


def banner(fleet: Fleet, name: str) -> bytes:
    """Read what an ssh server says first."""
    address = ADDRESSES[name].partition("/")[0]

    def connect() -> bytes:
        with socket.create_connection((address, 22), timeout=10) as connection:
            return connection.recv(64)

    return netns.call_in(fleet.namespace, connect)


@pytest.mark.parametrize("name", DEBIAN)
def test_systemd_comes_up_without_a_failed_unit(fleet: Fleet, name: str) -> None:
    one = fleet.ve(name)

    def is_up() -> str:
        seen = one.try_run("systemctl", "is-system-running", "--wait")[1].strip()
        return seen if seen in ("running", "degraded") else ""  # asked too early it has no bus yet

    seen = until(is_up, "systemd to be up", deadline_s=BOOT_S)
    assert seen == "running", one.run("systemctl", "--failed", "--no-legend")


@pytest.mark.parametrize("name", DEBIAN)
def test_ssh_answers(fleet: Fleet, name: str) -> None:
    assert until(lambda: banner(fleet, name), f"ssh of {name}", deadline_s=BOOT_S).startswith(b"SSH-2.0-OpenSSH")


def test_each_is_what_its_template_says(fleet: Fleet) -> None:
    assert "VERSION_CODENAME=bookworm" in fleet.ve("deb12").run("cat", "/etc/os-release")
    assert "VERSION_CODENAME=trixie" in fleet.ve("deb13").run("cat", "/etc/os-release")
    assert "ID=busybox" in fleet.ve("busy").run("cat", "/etc/os-release")


def test_two_of_one_template_are_not_each_other(fleet: Fleet) -> None:
    one, other = fleet.ve("deb13"), fleet.ve("twin")
    for identity in ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"):
        mine, theirs = one.run("cat", identity), other.run("cat", identity)
        assert mine.strip()
        assert mine != theirs


@pytest.mark.parametrize("name", DEBIAN)
def test_no_service_has_what_keeps_it_from_being_saved(fleet: Fleet, name: str) -> None:
    one = fleet.ve(name)
    assert one.run("stat", "-c", "%F", "/etc/localtime").strip() == "regular file"
    shown = one.run("systemctl", "show", "systemd-journald", "systemd-logind", "-p", "ProtectHostname")
    assert set(shown.split()) == {"ProtectHostname=no"}


@pytest.mark.parametrize("name", ["deb12", "deb13"])
def test_a_stock_system_with_ssh_and_cron_is_suspended_and_goes_on(fleet: Fleet, name: str) -> None:
    until(lambda: banner(fleet, name), f"ssh of {name}", deadline_s=BOOT_S)
    asked = ("systemctl", "show", "ssh", "cron", "-p", "MainPID", "-p", "ActiveEnterTimestampMonotonic")
    before = fleet.ve(name).run(*asked)
    fleet.put("all.yaml", *documents(suspended=name))
    fleet.vectl("wait", name, "--for", "power=suspended")
    assert not fleet.ve(name).runs
    fleet.put("all.yaml", *documents())
    fleet.await_ready(name)
    one = fleet.ve(name)
    assert one.run(*asked) == before
    assert one.run("systemctl", "is-system-running").strip() == "running"
    one.run("systemctl", "restart", "cron")
    assert until(lambda: banner(fleet, name), f"ssh of {name}").startswith(b"SSH-2.0-OpenSSH")
