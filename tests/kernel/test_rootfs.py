"""Writing into and reading from a root directory whose owner wants us to write elsewhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import KernelError
from reconciler.kernel import mount, rootfs
from tests.support.storage import bind, in_private_namespace, read, write

pytestmark = pytest.mark.kernel


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    write(f"{tmp_path}/outside/hostname", "the host's")
    return tmp_path / "outside"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(f"{tmp_path}/root/etc/hostname", "old\n")
    return tmp_path / "root"


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def put(root_fd: int, path: str, data: bytes = b"new\n", *, mode: int = 0o644, uid: int = 0) -> bool:
    return rootfs.write_in_root(root_fd, path, data, mode=mode, uid=uid, gid=uid)


def test_a_file_gets_content_mode_and_owner(root: Path, root_fd: int) -> None:
    assert put(root_fd, "/etc/hostname", mode=0o640, uid=1234)
    info = (root / "etc/hostname").stat()
    assert (root / "etc/hostname").read_bytes() == b"new\n"
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o640, 1234, 1234)
    assert os.listdir(root / "etc") == ["hostname"]


def test_what_is_already_so_is_not_written(root: Path, root_fd: int) -> None:
    assert put(root_fd, "/etc/hostname")
    before = (root / "etc/hostname").stat()
    assert not put(root_fd, "/etc/hostname")
    assert (root / "etc/hostname").stat() == before


@pytest.mark.parametrize("change", [{"mode": 0o600}, {"uid": 7}, {"data": b"NEW\n"}], ids=["mode", "owner", "content"])
def test_any_difference_is_written(root_fd: int, change: dict[str, int | bytes]) -> None:
    put(root_fd, "/etc/hostname")
    assert put(root_fd, "/etc/hostname", **change)  # type: ignore[arg-type]  # each value fits its own keyword
    assert not put(root_fd, "/etc/hostname", **change)  # type: ignore[arg-type]  # the same


def test_missing_parents_are_made_with_the_owner(root: Path, root_fd: int) -> None:
    assert put(root_fd, "/root/.ssh/authorized_keys", uid=1234)
    info = (root / "root/.ssh").stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o755, 1234, 1234)
    assert (root / "root/.ssh/authorized_keys").read_bytes() == b"new\n"


@pytest.mark.parametrize("target", ["{outside}/hostname", "../../outside/hostname", "/etc/absent"])
def test_a_link_in_the_files_place_is_replaced_not_followed(
    root: Path, root_fd: int, outside: Path, target: str
) -> None:
    (root / "etc/hostname").unlink()
    (root / "etc/hostname").symlink_to(target.format(outside=outside))
    assert put(root_fd, "/etc/hostname", b"the host's")
    assert not (root / "etc/hostname").is_symlink()
    assert read(f"{outside}/hostname") == "the host's"
    assert os.listdir(outside) == ["hostname"]
    assert not (root / "etc/absent").exists()


@pytest.mark.parametrize("target", ["{outside}", "../outside", "../../../../../../{outside}"])
def test_a_link_among_the_parents_does_not_lead_out(root: Path, root_fd: int, outside: Path, target: str) -> None:
    (root / "conf").symlink_to(target.format(outside=outside))
    with pytest.raises(KernelError, match="No such file or directory"):
        put(root_fd, "/conf/hostname")
    assert read(f"{outside}/hostname") == "the host's"


def test_a_link_among_the_parents_counts_from_the_root_directory(root: Path, root_fd: int) -> None:
    (root / "conf").symlink_to("/etc")
    assert put(root_fd, "/conf/hostname")
    assert (root / "etc/hostname").read_bytes() == b"new\n"


def test_dots_stop_at_the_root_directory(root: Path, root_fd: int, outside: Path) -> None:
    assert put(root_fd, "/../../etc/hostname")
    assert (root / "etc/hostname").read_bytes() == b"new\n"
    assert rootfs.read_in_root(root_fd, "../outside/hostname") is None
    assert read(f"{outside}/hostname") == "the host's"


@pytest.mark.parametrize("path", ["", "/", "/etc/", "/etc/..", "."])
def test_a_path_without_a_file_name_is_refused(root_fd: int, path: str) -> None:
    with pytest.raises(KernelError, match="expected a path that ends with a file name"):
        put(root_fd, path)


def test_what_a_crash_left_is_cleared_by_the_next_write(root: Path, root_fd: int, outside: Path) -> None:
    (root / "etc/.hostname.vectl-new").symlink_to(outside / "hostname")
    assert put(root_fd, "/etc/hostname")
    assert os.listdir(root / "etc") == ["hostname"]
    assert read(f"{outside}/hostname") == "the host's"


def test_a_failed_write_leaves_nothing(root: Path, root_fd: int) -> None:
    def attempt() -> str:
        write(f"{root}/busy", "")
        bind(f"{root}/busy", f"{root}/etc/hostname")
        with pytest.raises(KernelError) as caught:
            put(root_fd, "/etc/hostname")
        return str(caught.value)

    assert in_private_namespace(attempt) == "write /etc/hostname: Device or resource busy"
    assert os.listdir(root / "etc") == ["hostname"]


@pytest.mark.parametrize("place", ["motd", ".motd.vectl-new"])
def test_an_empty_directory_in_the_files_place_is_replaced(root: Path, root_fd: int, place: str) -> None:
    (root / "etc" / place).mkdir()
    assert put(root_fd, "/etc/motd")
    assert (root / "etc/motd").read_bytes() == b"new\n"
    assert sorted(os.listdir(root / "etc")) == ["hostname", "motd"]


@pytest.mark.parametrize("place", ["motd", ".motd.vectl-new"])
def test_what_is_in_a_directory_in_the_files_place_is_kept(root: Path, root_fd: int, place: str) -> None:
    write(f"{root}/etc/{place}/precious", "the tenant's")
    assert put(root_fd, "/etc/motd")
    assert (root / "etc/motd").read_bytes() == b"new\n"
    (kept,) = (name for name in os.listdir(root / "etc") if name.startswith(f"{place}.replaced-"))
    assert read(f"{root}/etc/{kept}/precious") == "the tenant's"


def test_links_are_followed_inside_when_reading(root: Path, root_fd: int, outside: Path) -> None:
    (root / "link").symlink_to("/etc/hostname")
    (root / "escape").symlink_to(outside / "hostname")
    assert rootfs.read_in_root(root_fd, "/link") == b"old\n"
    assert rootfs.read_in_root(root_fd, "/escape") is None
    assert rootfs.read_in_root(root_fd, "/etc/absent") is None
    assert rootfs.read_in_root(root_fd, "/etc/hostname/below") is None


def test_a_fifo_does_not_hold_us_up(root: Path, root_fd: int) -> None:
    os.mkfifo(root / "etc/motd")
    signal.alarm(10)
    try:
        with pytest.raises(KernelError, match=r"^read /etc/motd: expected a regular file$"):
            rootfs.read_in_root(root_fd, "/etc/motd")
        assert put(root_fd, "/etc/motd")
    finally:
        signal.alarm(0)
    assert (root / "etc/motd").read_bytes() == b"new\n"


def test_a_huge_file_is_refused_not_read(root: Path, root_fd: int) -> None:
    with open(root / "etc/motd", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(KernelError, match="expected at most 1048576 bytes"):
        rootfs.read_in_root(root_fd, "/etc/motd")
    assert put(root_fd, "/etc/motd")


def test_a_mount_inside_is_not_entered(root: Path, root_fd: int) -> None:
    def attempt() -> tuple[str, str, list[str]]:
        mount.mount_tmpfs(f"{root}/etc", size=1 << 16)
        fd = os.open(root, os.O_PATH)
        with pytest.raises(KernelError) as writing:
            put(fd, "/etc/hostname")
        with pytest.raises(KernelError) as reading:
            rootfs.read_in_root(fd, "/etc/hostname")
        return str(writing.value), str(reading.value), os.listdir(f"{root}/etc")

    writing, reading, names = in_private_namespace(attempt)
    assert (writing, reading) == (
        "open /etc: Invalid cross-device link",
        "open /etc/hostname: Invalid cross-device link",
    )
    assert names == []


def test_no_magic_link_is_followed() -> None:
    root_fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(KernelError, match="Too many levels of symbolic links"):
            rootfs.open_in_root(root_fd, "root/etc/hostname", os.O_RDONLY)
    finally:
        os.close(root_fd)
