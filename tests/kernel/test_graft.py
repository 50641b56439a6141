"""Mounts of the host in the mount namespace of somebody hostile: they come, stay as they are, and go."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.errors import KernelError
from reconciler.kernel import detached, graft, mount
from reconciler.kernel.graft import Target
from tests.support.sandbox import BASE, Sandbox, sandbox
from tests.support.storage import read, write

pytestmark = pytest.mark.kernel


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Sandbox]:
    for parent in (tmp_path, *tmp_path.parents):
        parent.chmod(parent.stat().st_mode | 0o011)
    (tmp_path / "root").mkdir()
    with sandbox(f"{tmp_path}/root") as made:
        yield made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write(f"{tmp_path}/source/f", "of the host")
    return tmp_path / "source"


@contextmanager
def tree_of(source: Path, inside: Sandbox, *, read_only: bool = False) -> Iterator[int]:
    directory = os.open(source, os.O_PATH | os.O_DIRECTORY)
    tree = detached.clone_at(directory, "", what=str(source))
    try:
        detached.restrict(tree, str(source), id_map=inside.users, read_only=read_only)
        yield tree
    finally:
        os.close(tree)
        os.close(directory)


def put(source: Path, inside: Sandbox, path: str = "data", *, read_only: bool = False) -> int:
    with tree_of(source, inside, read_only=read_only) as tree:
        return graft.graft_locked(inside.namespace, tree, Target(path=path, owner=BASE))


def test_a_directory_is_seen_and_written_in_with_the_owners_of_the_disk(source: Path, inside: Sandbox) -> None:
    number = put(source, inside, "srv/some/data")
    assert [found.mount_id for found in inside.at("/srv/some/data")] == [number]
    assert inside.run("cat", "/srv/some/data/f").stdout == "of the host"
    assert inside.run("touch", "/srv/some/data/new").returncode == 0
    assert (source / "new").stat().st_uid == 0


def test_nothing_but_the_one_mount_is_left(source: Path, inside: Sandbox) -> None:
    before = {found.mount_id for found in inside.mounts()}
    number = put(source, inside)
    assert {found.mount_id for found in inside.mounts()} - before == {number}


@pytest.mark.parametrize("flags", ["rw", "dev", "suid"])
def test_the_flags_cannot_be_taken_away_from_inside(source: Path, inside: Sandbox, flags: str) -> None:
    put(source, inside, read_only=True)
    before = inside.at("/data")[0].options
    inside.run("mount", "-o", f"remount,bind,{flags}", "/data")
    assert inside.at("/data")[0].options == before
    assert {"ro", "nosuid", "nodev"} <= set(before)
    assert inside.run("touch", "/data/new").returncode != 0


def test_a_copy_made_inside_cannot_be_written_either(source: Path, inside: Sandbox) -> None:
    put(source, inside, read_only=True)
    inside.run("mkdir", "/copy")
    assert inside.run("mount", "-o", "bind", "/data", "/copy").returncode == 0
    inside.run("mount", "-o", "remount,bind,rw", "/copy")
    assert inside.run("touch", "/copy/new").returncode != 0
    assert not (source / "new").exists()


def test_what_is_mounted_below_inside_does_not_show_on_the_host(source: Path, inside: Sandbox) -> None:
    put(source, inside)
    (source / "below").mkdir()
    assert inside.run("mount", "-t", "tmpfs", "x", "/data/below").returncode == 0
    assert not mount.is_mounted(f"{source}/below")


def test_it_is_taken_away_again(source: Path, inside: Sandbox) -> None:
    put(source, inside)
    graft.detach(inside.namespace, Target(path="data", owner=BASE))
    graft.detach(inside.namespace, Target(path="data", owner=BASE))
    graft.detach(inside.namespace, Target(path="not/there", owner=BASE))
    assert inside.at("/data") == []
    assert read(f"{source}/f") == "of the host"


def test_links_lead_nowhere_outside(source: Path, inside: Sandbox, tmp_path: Path) -> None:
    inside.run("ln", "-s", "/proc/1/root/../../..", "/srv")
    inside.run("mkdir", "-p", str(tmp_path))
    inside.run("ln", "-s", f"/../../..{tmp_path}", "/links")
    with pytest.raises(KernelError):
        put(source, inside, "srv/data")
    put(source, inside, "links/data")
    assert not (tmp_path / "data").exists()
    assert len(inside.at(f"{tmp_path}/data")) == 1


def test_what_the_ves_root_has_mounted_is_not_entered(source: Path, inside: Sandbox) -> None:
    inside.run("mkdir", "/srv")
    inside.run("mount", "-t", "tmpfs", "x", "/srv")
    for path in ("srv", "srv/data"):
        with pytest.raises(KernelError) as caught:
            put(source, inside, path)
        assert caught.value.errno == errno.EXDEV


def test_a_device_of_the_ve_works_and_the_hosts_own_stays_as_it_is(inside: Sandbox) -> None:
    before = os.stat("/dev/null")
    dev = inside.at("/dev")[0].mount_id
    node = graft.device(stat.S_IFCHR | 0o640, before.st_rdev, owner=BASE)
    try:
        number = graft.graft(inside.namespace, node, Target(path="some/null", owner=BASE, directory=False, dev=dev))
    finally:
        os.close(node)
    assert [found.mount_id for found in inside.at("/dev/some/null")] == [number]
    assert inside.run("sh", "-c", "echo x > /dev/some/null && chmod 666 /dev/some/null").stderr == ""
    assert inside.run("stat", "-c", "%a %u %t:%T", "/dev/some/null").stdout == "666 0 1:3\n"
    assert os.stat("/dev/null") == before


def test_nothing_is_put_below_another_dev_than_the_one_that_was_seen(inside: Sandbox) -> None:
    dev = inside.at("/dev")[0].mount_id
    inside.run("mount", "-t", "tmpfs", "x", "/dev")
    node = graft.device(stat.S_IFCHR | 0o600, os.makedev(1, 3), owner=BASE)
    try:
        with pytest.raises(KernelError, match=r"^open null below /dev: something is mounted over the VE's /dev$"):
            graft.graft(inside.namespace, node, Target(path="null", owner=BASE, directory=False, dev=dev))
    finally:
        os.close(node)
