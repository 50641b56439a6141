"""The overlay of a shared template and a volume: owners from 0 on disk, links and numbers kept, nothing on the host."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from reconciler.errors import BusyError, KernelError
from reconciler.kernel import btrfs, mount, overlay, rootfs, userns
from reconciler.kernel.overlay import OverlayMount
from tests.support.storage import in_private_namespace, pool, read, snapshot, template, write

pytestmark = pytest.mark.kernel

T = TypeVar("T")

BASE = 1_000_000
FS_IOC_SETFLAGS = 0x40086602
FS_IMMUTABLE = 0x10


def fill(tree: str) -> None:
    write(f"{tree}/etc/hostname", "template\n")
    write(f"{tree}/lib/dir/below/f", "below\n")
    write(f"{tree}/lib/h1", "lower\n")
    os.link(f"{tree}/lib/h1", f"{tree}/lib/h2")
    write(f"{tree}/lib/owned", "daemon's\n")
    os.chown(f"{tree}/lib/owned", 1, 1)
    write(f"{tree}/lib/su", "")
    os.chmod(f"{tree}/lib/su", 0o4755)
    os.mknod(f"{tree}/lib/null", 0o20666, os.makedev(1, 3))


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    directory = str(tmp_path_factory.mktemp("overlay"))
    with template(directory, fill) as lower, pool(directory) as upper:
        yield lower, upper


@pytest.fixture(params=[True, False], ids=["nfs_export", "index-only"])
def spec(layers: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[OverlayMount]:
    lower, upper = layers
    volume = f"{upper}/{tmp_path.name}"
    btrfs.create_subvolume(volume)
    overlay.make_layers(volume)
    yield OverlayMount(
        lower=lower,
        volume=volume,
        target=str(tmp_path),
        id_base=BASE,
        id_count=65536,
        nfs_export=request.param,
    )
    btrfs.delete_subvolume(volume)


def within(spec: OverlayMount, work: Callable[[], T]) -> T:
    """Do work as the environment's root with the overlay mounted, in a private mount namespace."""

    def mounted() -> T:
        overlay.mount_overlay(spec)
        with userns.acting_as(BASE, BASE):
            os.chdir(spec.target)
            return work()

    return in_private_namespace(mounted)


def refused(spec: OverlayMount) -> KernelError:
    def attempt() -> tuple[str, int, bool]:
        with pytest.raises(KernelError) as caught:
            overlay.mount_overlay(spec)
        return str(caught.value), caught.value.errno, mount.is_mounted(spec.target)

    message, number, mounted = in_private_namespace(attempt)
    assert not mounted
    return KernelError(message, errno=number)


def test_what_the_mapped_root_writes_belongs_to_root_on_disk(spec: OverlayMount) -> None:
    def work() -> tuple[int, int]:
        write("new/f", "x")
        write("etc/hostname", "changed\n")
        os.chown("new/f", BASE + 33, BASE + 34)
        return os.stat("etc/hostname").st_uid, os.stat("lib/owned").st_uid

    assert within(spec, work) == (BASE, BASE + 1)
    upper = f"{spec.volume}/upper"
    assert read(f"{upper}/etc/hostname") == "changed\n"
    on_disk = [os.stat(f"{upper}/{path}") for path in ("new", "new/f", "etc/hostname")]
    assert [(info.st_uid, info.st_gid) for info in on_disk] == [(0, 0), (33, 34), (0, 0)]
    assert read(f"{spec.lower}/etc/hostname") == "template\n"


def test_nothing_of_it_shows_in_the_hosts_mount_table(spec: OverlayMount) -> None:
    parent = os.getpid()

    def shown(pid: int | None) -> list[str]:
        return [found.target for found in mount.read_mounts(pid) if found.target.startswith(spec.target)]

    assert within(spec, lambda: (shown(None), shown(parent))) == ([spec.target], [])
    assert shown(parent) == []


def test_only_the_overlay_is_left_in_the_private_table_writable_and_without_devices(spec: OverlayMount) -> None:
    outside = {found.target for found in mount.read_mounts()}
    new = [found for found in within(spec, mount.read_mounts) if found.target not in outside]
    (found,) = new
    assert (found.target, found.fstype) == (spec.target, "overlay")
    assert "nodev" in found.options
    assert "nosuid" not in found.options
    wanted = {"rw", "lowerdir=lower", "upperdir=volume/upper", "workdir=volume/work", "index=on", "xino=on"}
    assert wanted | {"redirect_dir=on"} <= set(found.super_options)
    assert ("nfs_export=on" in found.super_options) == spec.nfs_export


def test_set_user_id_programs_keep_their_bit_and_device_nodes_do_not_open(spec: OverlayMount) -> None:
    def work() -> tuple[int, int]:
        with pytest.raises(PermissionError):
            os.open("lib/null", os.O_RDONLY)
        return os.stat("lib/su").st_mode & 0o7777, os.statvfs(".").f_flag & os.ST_NOSUID

    assert within(spec, work) == (0o4755, 0)


def test_the_mounting_process_is_as_before(spec: OverlayMount) -> None:
    def state() -> tuple[str, str, set[str]]:
        lines = [line for line in read("/proc/self/status").splitlines() if line.startswith(("Uid", "Gid", "Cap"))]
        return "\n".join(lines), os.getcwd(), set(os.listdir("/proc/self/fd"))

    def mounting() -> tuple[object, object]:
        before = state()
        overlay.mount_overlay(spec)
        return before, state()

    before, after = in_private_namespace(mounting)
    assert before == after


def test_a_directory_of_the_template_can_be_renamed_and_is_there_after_a_remount(spec: OverlayMount) -> None:
    within(spec, lambda: os.rename("lib/dir", "lib/renamed"))
    assert within(spec, lambda: (read("lib/renamed/below/f"), os.path.exists("lib/dir"))) == ("below\n", False)


def test_hard_links_of_the_template_stay_links(spec: OverlayMount) -> None:
    within(spec, lambda: write("lib/h1", "written through one name\n"))
    assert within(spec, lambda: read("lib/h2")) == "written through one name\n"


def test_numbers_are_unique_and_stay_the_same_over_a_remount(spec: OverlayMount) -> None:
    def numbers() -> dict[str, int]:
        found = {}
        for top, directories, files in os.walk("."):
            for name in directories + files:
                found[f"{top}/{name}"] = os.lstat(f"{top}/{name}").st_ino
        return found

    def change() -> dict[str, int]:
        write("etc/hostname", "copied up\n")
        for number in range(50):
            write(f"new/{number}", "x")
        return numbers()

    before = within(spec, change)
    assert within(spec, numbers) == before
    linked = before.pop("./lib/h1")
    assert before["./lib/h2"] == linked
    assert len(set(before.values())) == len(before)


def test_a_volume_in_use_cannot_be_mounted_twice(spec: OverlayMount, tmp_path_factory: pytest.TempPathFactory) -> None:
    second = replace(spec, target=str(tmp_path_factory.mktemp("second")))

    def mount_both() -> str:
        overlay.mount_overlay(spec)
        with pytest.raises(BusyError) as caught:
            overlay.mount_overlay(second)
        return str(caught.value)

    assert (
        in_private_namespace(mount_both) == f"mount overlay of {spec.volume}: the volume is in use by another overlay"
    )


def test_an_overlay_that_came_out_read_only_is_an_error(spec: OverlayMount) -> None:
    work = os.open(f"{spec.volume}/work", os.O_RDONLY)
    try:
        fcntl.ioctl(work, FS_IOC_SETFLAGS, struct.pack("l", FS_IMMUTABLE))
        error = refused(replace(spec, nfs_export=False))
        fcntl.ioctl(work, FS_IOC_SETFLAGS, struct.pack("l", 0))
    finally:
        os.close(work)
    assert "the kernel made it read-only" in str(error)


def test_a_copy_of_a_used_volume_is_refused_until_its_index_is_renewed(spec: OverlayMount) -> None:
    within(spec, lambda: write("lib/h1", "x"))
    copy = f"{spec.volume}.copy"
    snapshot(spec.volume, copy)
    try:
        error = refused(replace(spec, volume=copy))
    finally:
        btrfs.delete_subvolume(copy)
    assert error.errno == errno.ESTALE
    assert "its index belongs to another subvolume, renew it" in str(error)


def test_a_volume_without_its_directories_is_an_error_that_leaves_nothing_mounted(spec: OverlayMount) -> None:
    os.rmdir(f"{spec.volume}/work")
    assert refused(spec).errno == errno.ENOENT


def test_making_the_directories_again_changes_nothing(spec: OverlayMount) -> None:
    os.chmod(f"{spec.volume}/upper", 0o711)
    overlay.make_layers(spec.volume)
    assert os.stat(f"{spec.volume}/upper").st_mode & 0o7777 == 0o711


def test_the_hostname_is_written_into_the_environment_as_its_root(spec: OverlayMount) -> None:
    def work() -> tuple[bool, bool, str]:
        root = os.open(".", os.O_PATH)
        written = [
            rootfs.write_in_root(root, "/etc/hostname", b"web1\n", mode=0o644, uid=BASE, gid=BASE) for _ in range(2)
        ]
        return written[0], written[1], read("etc/hostname")

    assert within(spec, work) == (True, False, "web1\n")
    assert os.stat(f"{spec.volume}/upper/etc/hostname").st_uid == 0
