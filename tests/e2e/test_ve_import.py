"""Claims about imported containers: they boot from their own files, with the limits that their configuration had."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kernel import busybox
from reconciler.model.instance import DEFAULT_LIB
from tests.support.fleet import Fleet, reaches
from tests.support.fleet import fleet as made_fleet
from tests.support.patience import PATIENCE

pytestmark = [pytest.mark.xdist_group("ve-import"), pytest.mark.timeout(180)]

MIB = 1 << 20
BASE = 300_000
CONF = """\
ONBOOT="yes"
NAME="web1"
HOSTNAME="web1.example.org"
VE_LAYOUT="ploop"
PHYSPAGES="0:64M"
SWAPPAGES="0:0"
DISKSPACE="32M:32M"
DISKINODES="10000:10000"
NUMPROC="40:40"
CPUUNITS="2000"
CPULIMIT="50"
IP_ADDRESS="10.191.77.5"
STOP_TIMEOUT="5"
OSTEMPLATE="centos-6-x86"
"""


def private_area(tree: Path) -> None:
    """Make what the files of an unprivileged container are on its host: shifted, with what no template takes."""
    tree.mkdir()
    busybox.build_tree(str(tree), programs=f"{DEFAULT_LIB}/bin")
    (tree / "etc/who").write_text("the container\n")
    os.link(tree / "etc/who", tree / "etc/who-else")
    (tree / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tree / "root/private").write_text("of its user\n")
    (tree / "root/set").write_text("#!/bin/sh\n")
    os.mknod(tree / "root/node", 0o20600, os.makedev(1, 1))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / "root/socket"))
    subprocess.run(["chown", "-hR", f"{BASE}:{BASE}", str(tree)], check=True, timeout=60 * PATIENCE)
    os.chown(tree / "root/private", BASE + 1000, BASE + 1000)
    (tree / "root/set").chmod(0o4755)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp()) as made:
        yield made


def put(fleet: Fleet, made: Path) -> None:
    """Let the agent follow what an import wrote."""
    texts = [path.read_text() for path in sorted(made.rglob("*.yaml"))]
    fleet.put_text("imported.yaml", "---\n".join(texts))


def test_an_imported_container_boots_from_its_own_files_with_its_limits(fleet: Fleet, tmp_path: Path) -> None:
    tree, made = tmp_path / "private", tmp_path / "made"
    private_area(tree)
    (tmp_path / "101.conf").write_text(CONF)
    told = fleet.vectl(
        "import", "--rootfs", str(tree), "--name", "web1-files", "--id-base", str(BASE), "--to", str(made)
    )
    assert "root/node: left out: a device" in told
    assert "root/socket: left out: a socket" in told
    fleet.vectl("import", "openvz", f"{tmp_path}/101.conf", "--template", "web1-files", "--to", str(made))
    fleet.vectl("validate", str(made))
    put(fleet, made)
    fleet.start_agent()
    fleet.await_ready("web1")
    one = fleet.ve("web1")
    assert one.run("cat", "/etc/who", "/etc/hostname").split() == ["the", "container", "web1.example.org"]
    assert one.run("stat", "-c", "%u:%g %a", "/root/private", "/root/set").split() == [
        "1000:1000",
        "644",
        "0:0",
        "4755",
    ]
    assert one.run("stat", "-c", "%h", "/etc/who").strip() == "2"
    assert "node" not in one.run("ls", "/root")
    assert one.run("sh", "-c", "cat /etc/machine-id 2>/dev/null || true").strip() != "0123456789abcdef" * 2
    reaches(fleet, "10.191.77.5")
    killed = one.oom_kills
    one.run("dd", "if=/dev/zero", "of=/dev/null", "bs=150M", "count=1", status=137)
    assert one.oom_kills == killed + 1
    assert "can't fork" in one.shell("i=0; while [ $i -lt 60 ]; do sleep 20 & i=$((i+1)); done 2>&1", status=2)
    one.shell("killall sleep; true")
    assert "quota exceeded" in one.shell("dd if=/dev/zero of=/fill bs=1M 2>&1; true")
    assert int(one.run("stat", "-c", "%s", "/fill")) <= 32 * MIB
    assert one.limit("cpu.limit") == 50_000


def test_an_archive_with_what_no_template_takes_is_packed_anew(fleet: Fleet, tmp_path: Path) -> None:
    tree, made = tmp_path / "rootfs", tmp_path / "made"
    private_area(tree)
    backup = tmp_path / "backup.tar.gz"
    subprocess.run(
        ["tar", "-C", str(tmp_path), "--numeric-owner", "-czf", str(backup), "rootfs"],
        check=True,
        timeout=60 * PATIENCE,
    )
    options = ("--name", "backup", "--id-base", str(BASE), "--to", str(made), "--image", f"{tmp_path}/image.tar")
    told = fleet.vectl("import", "--rootfs", str(backup), *options)
    assert "root/node: left out: a device" in told
    fleet.vectl("template", "build", "backup", "--manifests", str(made))
    listed = subprocess.run(["tar", "-tvf", f"{tmp_path}/image.tar"], capture_output=True, text=True, check=True).stdout
    assert "1000/1000" in next(line for line in listed.splitlines() if line.endswith(" root/private"))
    refused = fleet.complaint("import", "--rootfs", str(backup), *options, code=4)
    assert "--force" in refused


def test_an_archive_that_a_template_can_be_built_from_is_taken_as_it_is(fleet: Fleet, tmp_path: Path) -> None:
    tree, made = tmp_path / "tree", tmp_path / "made"
    tree.mkdir()
    busybox.build_tree(str(tree), programs=f"{DEFAULT_LIB}/bin")
    archive = tmp_path / "fit.tar"
    subprocess.run(["tar", "-C", str(tree), "-cf", str(archive), "."], check=True, timeout=60 * PATIENCE)
    fleet.vectl("import", "--rootfs", str(archive), "--name", "fit", "--to", str(made))
    assert f"path: {archive}" in (made / "templates/fit.yaml").read_text()


@pytest.mark.parametrize(("make", "said"), [("root.hdd", "vzctl mount"), ("fs", "/fs")])
def test_a_directory_that_is_no_root_file_system_is_refused_with_the_remedy(
    fleet: Fleet, tmp_path: Path, make: str, said: str
) -> None:
    (tmp_path / "tree" / make).mkdir(parents=True)
    words = ("import", "--rootfs", f"{tmp_path}/tree", "--name", "x", "--to", f"{tmp_path}/made")
    assert said in fleet.complaint(*words, code=64)
