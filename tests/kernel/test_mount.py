"""Mounts: the table, images on loop devices, binds, and private mount tables."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import BusyError, KernelError, KernelFormatError, MissingToolError
from reconciler.kernel import erofs, loop, mount, userns
from reconciler.kernel.syscalls import checked, libc
from tests.support.storage import UUID, in_private_namespace, read, write

pytestmark = pytest.mark.kernel

BASE = 1_000_000
MS_SHARED = 1 << 20
DEADLINE_S = 10.0


@pytest.fixture
def image(tmp_path: Path) -> str:
    write(f"{tmp_path}/tree/f", "in the image")
    erofs.make_image(f"{tmp_path}/tree", f"{tmp_path}/image", uuid=UUID)
    return f"{tmp_path}/image"


@pytest.fixture
def target(tmp_path: Path) -> Iterator[str]:
    path = f"{tmp_path}/a target"
    os.mkdir(path)
    yield path
    mount.unmount(path)


def table(path: str) -> list[mount.Mount]:
    return [found for found in mount.read_mounts() if found.target == path]


def is_freed(file: str) -> bool:
    """Tell whether no loop device keeps a file; udev may have one open for a moment after its last user."""
    deadline = time.monotonic() + DEADLINE_S
    while loop.find(file) and time.monotonic() < deadline:
        time.sleep(0.01)
    return loop.find(file) == []


def test_a_line_of_the_table_is_parsed_whole_and_unescaped() -> None:
    line = r"36 35 98:0 /mnt1\011x /mnt\0402 rw,noatime master:1 shared:2 - ext3 /dev/a\134b rw,errors=continue"
    assert mount.parse_mounts(line + "\n", path="x") == [
        mount.Mount(
            mount_id=36,
            parent_id=35,
            device="98:0",
            root="/mnt1\tx",
            target="/mnt 2",
            options=("rw", "noatime"),
            fstype="ext3",
            source="/dev/a\\b",
            super_options=("rw", "errors=continue"),
        )
    ]


@pytest.mark.parametrize("text", ["nonsense", "1 2 3:4 / /mnt rw", "1 2 3:4 / - ext4 /dev/x rw"])
def test_a_line_that_is_none_is_a_format_error(text: str) -> None:
    with pytest.raises(KernelFormatError, match=r"^read mountinfo: expected a line of mountinfo\(5\), got "):
        mount.parse_mounts(text, path="mountinfo")


def test_every_mount_of_the_table_is_known_as_mounted() -> None:
    paths = {found.target for found in mount.read_mounts()}
    assert "/" in paths
    assert {path for path in paths if not mount.is_mounted(path)} == set()


def test_an_image_is_mounted_once_without_devices_and_set_user_id(image: str, target: str) -> None:
    for _ in range(2):
        mount.mount_image(image, target, fstype="erofs", read_only=True)
    assert read(f"{target}/f") == "in the image"
    (found,) = table(target)
    assert {"ro", "nosuid", "nodev"} <= set(found.options)
    assert found.source in loop.find(image)


def test_the_loop_device_goes_with_the_mount(image: str, target: str) -> None:
    mount.mount_image(image, target, fstype="erofs", read_only=True)
    assert len(loop.find(image)) == 1
    mount.unmount(target)
    assert is_freed(image)


def test_another_image_in_the_place_is_an_error(image: str, target: str, tmp_path: Path) -> None:
    erofs.make_image(f"{tmp_path}/tree", f"{tmp_path}/other", uuid=UUID)
    mount.mount_image(image, target, fstype="erofs", read_only=True)
    with pytest.raises(KernelError, match=r"is mounted there$"):
        mount.mount_image(f"{tmp_path}/other", target, fstype="erofs", read_only=True)
    assert loop.find(f"{tmp_path}/other") == []


def test_what_is_no_file_system_is_an_error_and_frees_its_loop_device(target: str, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(bytes(1 << 20))
    with pytest.raises(KernelError, match=r"^mount /dev/loop\d+ \(erofs\) at "):
        mount.mount_image(f"{tmp_path}/noise", target, fstype="erofs", read_only=True)
    assert is_freed(f"{tmp_path}/noise")
    assert not mount.is_mounted(target)


def test_a_file_system_that_the_kernel_has_not_is_said_to_be_missing(image: str, target: str) -> None:
    with pytest.raises(MissingToolError, match="this kernel has no nosuchfs"):
        mount.mount_image(image, target, fstype="nosuchfs", read_only=True)


def test_nothing_to_unmount_is_success(tmp_path: Path) -> None:
    mount.unmount(str(tmp_path))
    mount.unmount(f"{tmp_path}/absent")
    assert not mount.is_mounted(f"{tmp_path}/absent")


def test_a_busy_mount_is_refused_and_goes_lazily(image: str, target: str) -> None:
    mount.mount_image(image, target, fstype="erofs", read_only=True)
    with open(f"{target}/f") as file:
        with pytest.raises(BusyError, match="in use"):
            mount.unmount(target)
        mount.unmount(target, lazy=True)
        assert table(target) == []
        assert file.read() == "in the image"


def test_a_private_namespace_keeps_its_mounts_to_itself_below_a_shared_mount_too(tmp_path: Path) -> None:
    shared, below = f"{tmp_path}/shared", f"{tmp_path}/shared/below"
    os.mkdir(shared)

    def share_and_enter_another() -> tuple[bool, bool]:
        parent = os.getpid()
        mount.mount_tmpfs(shared, size=1 << 16)
        checked(libc.mount(None, shared.encode(), None, MS_SHARED, None), "share", shared)
        os.mkdir(below)

        def mount_there() -> tuple[bool, bool]:
            mount.mount_tmpfs(below, size=1 << 16)
            return mount.is_mounted(below), below in [found.target for found in mount.read_mounts(parent)]

        return in_private_namespace(mount_there)

    assert in_private_namespace(share_and_enter_another) == (True, False)


def test_owners_are_shown_through_the_id_map(tmp_path: Path, target: str) -> None:
    write(f"{tmp_path}/tree/f", "x")
    os.chown(tmp_path / "tree/f", 33, 34)
    erofs.make_image(f"{tmp_path}/tree", f"{tmp_path}/image", uuid=UUID)
    mount.mount_image(f"{tmp_path}/image", target, fstype="erofs", read_only=True)
    (tmp_path / "place").mkdir()

    def shown() -> tuple[int, int]:
        id_map = userns.open_user_namespace(BASE, 65536)
        mount.attach(mount.clone(target, id_map=id_map), f"{tmp_path}/place")
        info = os.stat(f"{tmp_path}/place/f")
        return info.st_uid, info.st_gid

    assert in_private_namespace(shown) == (BASE + 33, BASE + 34)


def test_a_loop_device_is_found_by_its_file_whatever_its_name(image: str) -> None:
    with loop.attached(image, read_only=True) as device:
        os.rename(image, f"{image}.renamed")
        assert loop.find(f"{image}.renamed") == [device]
    assert is_freed(f"{image}.renamed")


def test_a_machine_without_device_nodes_is_told_what_to_do(image: str, tmp_path: Path) -> None:
    def attach() -> str:
        mount.mount_tmpfs("/dev", size=1 << 16)
        with pytest.raises(MissingToolError) as caught, loop.attached(image, read_only=True):
            pass
        return str(caught.value)

    assert in_private_namespace(attach).startswith("open /dev/loop-control: no such device; load the kernel module")
