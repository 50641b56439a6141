"""Images: the same tree, the same bytes; owners, links and times as they should be."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from reconciler.errors import CommandError, NoSpaceError
from reconciler.kernel import busybox, erofs, mount
from reconciler.model.instance import DEFAULT_LIB
from tests.support.storage import UUID, mounted, read, write

pytestmark = pytest.mark.kernel

NAMES = ["etc/hostname", "etc/passwd", "usr/bin/b", "usr/bin/a", "var/lib/x/y/z"]
OLD = 1_000_000_000


def make_tree(directory: Path, names: list[str]) -> str:
    """A tree with what templates have, its files made in the given order."""
    for name in names:
        write(f"{directory}/{name}", name * 1000)
    os.link(directory / "usr/bin/a", directory / "usr/bin/linked")
    os.symlink("../usr/bin/a", directory / "etc/link")
    os.chown(directory / "etc/passwd", 12, 34)
    os.chmod(directory / "usr/bin/b", 0o4755)
    os.utime(directory / "etc/hostname", (OLD, OLD))
    return str(directory)


@pytest.fixture
def tree(tmp_path: Path) -> str:
    return make_tree(tmp_path / "tree", NAMES)


def test_the_same_tree_made_in_another_order_gives_the_same_bytes(tree: str, tmp_path: Path) -> None:
    other = make_tree(tmp_path / "other", NAMES[::-1])
    erofs.make_image(tree, f"{tmp_path}/1", uuid=UUID)
    erofs.make_image(other, f"{tmp_path}/2", uuid=UUID)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_another_content_or_identity_gives_other_bytes(tree: str, tmp_path: Path) -> None:
    erofs.make_image(tree, f"{tmp_path}/1", uuid=UUID)
    erofs.make_image(tree, f"{tmp_path}/2", uuid=UUID.replace("6", "7"))
    write(f"{tree}/etc/hostname", "changed")
    erofs.make_image(tree, f"{tmp_path}/3", uuid=UUID)
    assert len({(tmp_path / name).read_bytes() for name in "123"}) == 3


def test_owners_links_and_modes_are_kept(tree: str, tmp_path: Path) -> None:
    erofs.make_image(tree, f"{tmp_path}/image", uuid=UUID)
    with mounted(f"{tmp_path}/image", f"{tmp_path}/mnt", fstype="erofs", read_only=True) as mnt:
        owner, mode = os.stat(f"{mnt}/etc/passwd"), os.stat(f"{mnt}/usr/bin/b").st_mode
        linked = os.stat(f"{mnt}/usr/bin/a")
        assert (owner.st_uid, owner.st_gid) == (12, 34)
        assert mode & 0o7777 == 0o4755
        assert (linked.st_nlink, linked.st_ino) == (2, os.stat(f"{mnt}/usr/bin/linked").st_ino)
        assert os.readlink(f"{mnt}/etc/link") == "../usr/bin/a"
        assert read(f"{mnt}/var/lib/x/y/z") == "var/lib/x/y/z" * 1000


def test_every_file_belongs_to_root_when_that_is_asked_for(tree: str, tmp_path: Path) -> None:
    erofs.make_image(tree, f"{tmp_path}/image", uuid=UUID, all_root=True)
    with mounted(f"{tmp_path}/image", f"{tmp_path}/mnt", fstype="erofs", read_only=True) as mnt:
        info = os.stat(f"{mnt}/etc/passwd")
    assert (info.st_uid, info.st_gid) == (0, 0)


@pytest.mark.parametrize(("epoch", "old", "new"), [(0, 0, 0), (OLD + 5, OLD, OLD + 5)], ids=["default", "given"])
def test_times_after_the_epoch_become_the_epoch(tree: str, tmp_path: Path, epoch: int, old: int, new: int) -> None:
    erofs.make_image(tree, f"{tmp_path}/image", uuid=UUID, epoch=epoch)
    with mounted(f"{tmp_path}/image", f"{tmp_path}/mnt", fstype="erofs", read_only=True) as mnt:
        times = [os.stat(f"{mnt}/{path}").st_mtime for path in ("etc/hostname", "etc/passwd", "usr")]
    assert times == [old, new, new]


def test_an_image_appears_only_whole(tree: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(f"{tmp_path}/out/image", "an older one")
    write(f"{tmp_path}/out/image.partial", "left by a crash")
    with pytest.raises(CommandError, match=r"^run mkfs\.erofs: "):
        erofs.make_image(f"{tree}/absent", f"{tmp_path}/out/image", uuid=UUID)
    assert read(f"{tmp_path}/out/image") == "an older one"
    erofs.make_image(tree, f"{tmp_path}/out/image", uuid=UUID)
    assert os.listdir(tmp_path / "out") == ["image"]


def test_the_built_in_template_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in "12":
        old = os.umask(0o077 if name == "1" else 0o002)
        try:
            (tmp_path / name).mkdir()
            busybox.build_tree(f"{tmp_path}/{name}", programs=f"{DEFAULT_LIB}/bin")
        finally:
            os.umask(old)
        erofs.make_image(f"{tmp_path}/{name}", f"{tmp_path}/{name}.erofs", uuid=UUID)
    assert (tmp_path / "1.erofs").read_bytes() == (tmp_path / "2.erofs").read_bytes()


def test_an_image_that_does_not_fit_is_told_as_such(tree: str, tmp_path: Path) -> None:
    write(f"{tree}/big", "x" * (4 << 20))
    (tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", f"{tmp_path}/small"], check=True, timeout=20)
    try:
        with pytest.raises(NoSpaceError, match="No space left"):
            erofs.make_image(tree, f"{tmp_path}/small/image", uuid=UUID)
        assert not (tmp_path / "small/image").exists()
    finally:
        mount.unmount(f"{tmp_path}/small")
