"""Claims about what a VE may do beyond the usual: containers inside it, and file systems of its own programs."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve

pytestmark = pytest.mark.xdist_group("ve-nesting")

SOURCE = Path(__file__).parent / "fuse" / "serve.c"
CONTAINER = "unshare --user --map-root-user --mount --pid --net --fork sh -euc"
ROOTED = """
mount -t tmpfs layers /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/srv/image,upperdir=/mnt/upper,workdir=/mnt/work,userxattr root /mnt/root
mount -t proc proc /mnt/root/proc
mount -t sysfs -o ro sysfs /mnt/root/sys
echo inner > /mnt/root/etc/motd
exec chroot /mnt/root /bin/busybox sh -c "cat /etc/motd /proc/1/comm; ls /sys/class/net"
"""
IMAGE = "mkdir -p /srv/image/bin /srv/image/etc /srv/image/proc /srv/image/sys && cp /bin/busybox /srv/image/bin"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    documents = ve("plain"), ve("nests", features={"nesting": True, "fuse": True})
    with made_fleet(tmp_path_factory.getbasetemp(), *documents) as made:
        made.start_agent()
        made.await_ready("plain", "nests")
        yield made


def test_a_container_inside_has_a_root_of_its_own_on_an_overlay_with_proc_and_sys(fleet: Fleet) -> None:
    one = fleet.ve("nests")
    one.shell(IMAGE)
    status, said = one.try_run("sh", "-c", f"{CONTAINER} '{ROOTED}'", nesting=True)
    assert (status, said.split()) == (0, ["inner", "busybox", "lo"]), said
    assert one.run("ls", "/srv/image/etc") == ""


def test_without_nesting_there_is_no_container_inside(fleet: Fleet) -> None:
    status, said = fleet.ve("plain").try_run("sh", "-c", f"{CONTAINER} true")
    assert status != 0
    assert "Operation not permitted" in said


def test_init_makes_containers_too_and_not_only_what_is_executed(fleet: Fleet) -> None:
    script = f"while :; do {CONTAINER} true && echo made > /run/made; sleep 60; done"
    one = fleet.ve("nests")
    one.shell(f"echo '::respawn:/bin/sh -c \"{script}\"' >> /etc/inittab && kill -HUP 1")
    one.shell("until [ -e /run/made ]; do sleep 0.1; done")


def test_cgroups_inside_are_the_ves_to_part(fleet: Fleet) -> None:
    one = fleet.ve("nests")
    inside = "mkdir /sys/fs/cgroup/inner && echo $$ > /sys/fs/cgroup/inner/cgroup.procs && cat /proc/self/cgroup"
    assert "0::/inner" in one.shell(inside).splitlines()


def test_what_nesting_keeps_aside_shows_nothing_of_the_host(fleet: Fleet) -> None:
    one = fleet.ve("nests")
    assert one.run("cat", "/dev/.nesting/proc/1/comm") == one.run("cat", "/proc/1/comm")
    assert one.run("ls", "/dev/.nesting/sys/class/net") == "lo\n"
    for file in ("kcore", "sysrq-trigger", "sys/kernel/core_pattern"):
        refused = one.try_run("sh", "-c", f"echo h > /dev/.nesting/proc/{file}")
        assert refused[0] != 0, file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A program that serves a FUSE file system, mounts it, and looks at it."""
    program, compiler = tmp_path_factory.mktemp("fuse") / "serve", shutil.which("gcc")
    command = [compiler or "gcc", "-O1", "-static", "-o", str(program), str(SOURCE)]
    if compiler is None or subprocess.run(command, capture_output=True, timeout=60).returncode:
        pytest.skip("needs gcc and the static C library; install build-essential")
    return program.read_bytes()


def serves(one: Ve, server: bytes) -> tuple[int, str]:
    """Serve a file system in a VE; give 0 or the errno of what failed."""
    one.as_host("sh", "-c", "cat > /root/serve && chmod 755 /root/serve", given=server)
    return one.try_run("/root/serve")


def test_a_program_inside_serves_a_file_system_only_with_the_feature(fleet: Fleet, server: bytes) -> None:
    assert serves(fleet.ve("nests"), server) == (0, "")
    assert serves(fleet.ve("plain"), server)[0] == errno.ENOENT


def test_the_feature_comes_and_goes_while_the_ve_runs(fleet: Fleet, server: bytes) -> None:
    plain = fleet.ve("plain")
    init = plain.init
    fleet.put("plain.yaml", ve("plain", features={"fuse": True}))
    fleet.put("all.yaml", ve("nests", features={"nesting": True, "fuse": True}))
    fleet.await_ready("plain")
    assert serves(plain, server) == (0, "")
    fleet.put("plain.yaml", ve("plain"))
    fleet.await_ready("plain")
    assert serves(plain, server)[0] != 0
    assert plain.init == init


def test_a_node_of_its_own_making_gives_a_ve_nothing(fleet: Fleet, server: bytes) -> None:
    plain = fleet.ve("plain")
    assert plain.try_run("mknod", "/dev/fuse", "c", "10", "229")[0] != 0
    assert serves(plain, server)[0] != 0
