"""Claims about packing: nothing outside of the tree gets in, and what is in it is what a template takes."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from reconciler.errors import TemplateError
from reconciler.kernel import pack, repack
from reconciler.kernel.unpack_child import Job, unpack_here
from reconciler.kernel.unpack_marks import Rules
from tests.support.archives import entry, file, tar

BASE = 500_000
CAPABILITY = "security.capability"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    (made / "etc").mkdir(parents=True)
    (made / "sbin").mkdir()
    (made / "sbin/init").write_text("init")
    return made


def packed(tree: Path, *, id_base: int = 0) -> tuple[pack.Packed, dict[str, tarfile.TarInfo]]:
    found = pack.pack_directory(str(tree), f"{tree}.tar", id_base=id_base)
    with tarfile.open(f"{tree}.tar") as read:
        return found, {member.name: member for member in read.getmembers()}


def unpacked(archive: Path, tmp_path: Path) -> Path:
    target = tmp_path / "unpacked"
    target.mkdir()
    unpack_here(Job(archives=[str(archive)], tree=str(target), what="it", rules=Rules(), seconds=60.0))
    return target


def test_a_symbolic_link_is_packed_and_never_followed(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("secret")
    (tree / "out").symlink_to(tmp_path / "secret")
    (tree / "etc/key").symlink_to(tmp_path / "secret/key")
    _, members = packed(tree)
    assert members["out"].issym()
    assert members["etc/key"].issym()
    assert b"secret\n" not in Path(f"{tree}.tar").read_bytes()
    assert "out/key" not in members


def test_another_file_system_is_not_entered(tree: Path) -> None:
    (tree / "proc").mkdir()
    script = f'mount --bind /proc/sys {tree}/proc && exec {sys.executable} -c "$0" {tree}'
    code = (
        "import sys; from reconciler.kernel import pack;"
        "found = pack.pack_directory(sys.argv[1], sys.argv[1] + '.tar');"
        "print(found.left_out, found.entries)"
    )
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "[('proc', 'another file system is mounted there')] 4\n"


def test_owners_and_capabilities_are_those_of_a_ve(tree: Path, tmp_path: Path) -> None:
    program = tree / "ping"
    program.write_text("ping")
    subprocess.run(["setcap", "-n", str(BASE), "cap_net_raw+ep", str(program)], check=True, timeout=30)
    subprocess.run(["chown", "-hR", f"{BASE + 5}:{BASE + 6}", str(tree / "etc"), str(tree / "sbin")], check=True)
    os.chown(tree, BASE, BASE)
    os.setxattr(program, "user.kept", b"\xff\x00raw")
    found, members = packed(tree, id_base=BASE)
    assert (members["etc"].uid, members["etc"].gid) == (5, 6)
    assert (members["ping"].uid, found.strangers) == (pack.NOBODY, 1)
    target = unpacked(Path(f"{tree}.tar"), tmp_path)
    assert os.getxattr(target / "ping", "user.kept") == b"\xff\x00raw"
    assert os.getxattr(target / "ping", CAPABILITY)[:4] in (b"\x01\x00\x00\x02", b"\x01\x00\x00\x03")
    assert (
        "cap_net_raw" in subprocess.run(["getcap", "-n", str(target / "ping")], capture_output=True, text=True).stdout
    )


def test_the_same_tree_gives_the_same_archive(tree: Path) -> None:
    for name in ("z", "a", "m"):
        (tree / name).write_text(name)
    os.link(tree / "a", tree / "b")
    packed(tree)
    first = Path(f"{tree}.tar").read_bytes()
    packed(tree)
    assert Path(f"{tree}.tar").read_bytes() == first


def test_a_file_of_holes_is_left_out_and_named(tree: Path) -> None:
    with (tree / "lastlog").open("wb") as sparse:
        sparse.truncate(300 << 30)
    found, members = packed(tree)
    assert "lastlog" not in members
    assert found.left_out == [("lastlog", "nearly all of its 300 GiB are holes")]


def test_a_name_of_any_bytes_comes_through(tree: Path, tmp_path: Path) -> None:
    name = os.fsencode(tree) + b"/\xff\xfe" + b"n" * 200
    Path(os.fsdecode(name)).write_text("odd")
    packed(tree)
    assert b"\xff\xfe" + b"n" * 200 in os.listdir(os.fsencode(unpacked(Path(f"{tree}.tar"), tmp_path)))


@pytest.mark.parametrize(
    "bad",
    [b"no archive at all" * 100, tar(file("../out")), tar(file("a/../../b"))[:-700], b""],
    ids=["garbage", "dots", "cut", "empty"],
)
def test_a_bad_archive_is_refused_or_empty_and_leaves_nothing(tmp_path: Path, bad: bytes) -> None:
    archive, target = tmp_path / "bad.tar", tmp_path / "out.tar"
    archive.write_bytes(bad)
    try:
        found = repack.repack(str(archive), str(target))
        assert found.entries == 0
    except TemplateError:
        assert os.listdir(tmp_path) == ["bad.tar"]


def test_an_export_of_incus_is_taken_from_where_its_files_are(tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar"
    rootfs = "backup/container/rootfs"
    archive.write_bytes(
        tar(
            file("backup/index.yaml"),
            entry(f"{rootfs}/etc", tarfile.DIRTYPE, mode=0o755),
            file(f"{rootfs}/usr/sbin/init"),
            entry(f"{rootfs}/other", tarfile.LNKTYPE, linkname=f"{rootfs}/usr/sbin/init"),
            entry(f"{rootfs}/usr/node", tarfile.CHRTYPE),
            entry(f"{rootfs}/usr/link", tarfile.LNKTYPE, linkname=f"{rootfs}/usr/node"),
        )
    )
    found, is_fit = repack.inspect(str(archive))
    assert (found.prefix, is_fit, found.init) == (rootfs, False, "/usr/sbin/init")
    again = repack.repack(str(archive), f"{tmp_path}/out.tar", prefix=found.prefix)
    assert again.left_out == [("usr/node", "a device")]
    target = unpacked(tmp_path / "out.tar", tmp_path)
    assert sorted(os.listdir(target)) == ["etc", "other", "usr"]
