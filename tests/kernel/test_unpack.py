"""Unpacking what strangers made: the same tree comes out, nothing outside of it is touched, and the rest is refused."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import KernelError, TemplateError, TimeLimitError
from reconciler.kernel.unpack_child import Job, unpack, unpack_here
from reconciler.kernel.unpack_marks import Rules, Setuid, Totals
from tests.support.archives import Entry, entry, file, tar

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

DIR, LINK, HARD, PIPE = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # revision 2, effective, CAP_NET_BIND_SERVICE

Part = Entry | tuple[Entry, bytes]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def unpacked(
    tree: Path, *layers: bytes | tuple[Part, ...], rules: Rules | None = None, seconds: float = 60.0
) -> Totals:
    archives = []
    for number, layer in enumerate(layers):
        path = tree.parent / f"archive{number}"
        path.write_bytes(layer if isinstance(layer, bytes) else tar(*layer))
        archives.append(str(path))
    return unpack_here(
        Job(archives=archives, tree=str(tree), what="the archive", rules=rules or Rules(), seconds=seconds)
    )


def names(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


# What comes out


def make_original(directory: Path) -> None:
    (directory / "usr/bin").mkdir(parents=True)
    (directory / "usr/bin/tool").write_bytes(os.urandom(300_000))
    (directory / "usr/bin/tool").chmod(0o4755)
    os.link(directory / "usr/bin/tool", directory / "usr/bin/other")
    os.symlink("usr/bin", directory / "bin")
    os.symlink("/etc/absolute", directory / "usr/absolute")
    os.mkfifo(directory / "pipe")
    with open(directory / "usr/sparse", "wb") as sparse:
        sparse.seek(4 << 20)
        sparse.write(b"end")
    os.chown(directory / "usr/sparse", 33, 65535)
    os.setxattr(directory / "usr/bin/tool", "security.capability", CAPABILITY)
    os.utime(directory / "usr/bin", (1_000_000_000, 1_000_000_000))


def look(tree: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(tree.rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else None
        link = os.readlink(path) if path.is_symlink() else None
        found[str(path.relative_to(tree))] = (info.st_mode, info.st_uid, info.st_gid, int(info.st_mtime), content, link)
    return found


@pytest.mark.parametrize("option", ["--gzip", "--xz", "--zstd", "--bzip2", "--no-auto-compress"])
def test_a_tree_comes_out_as_tar_packed_it(tree: Path, tmp_path: Path, option: str) -> None:
    make_original(tmp_path / "original")
    words = ["tar", "-C", f"{tmp_path}/original", "--sparse", "--xattrs", "--xattrs-include=*", "--format=pax"]
    packed = subprocess.run([*words, option, "-c", "."], stdout=subprocess.PIPE, check=True, timeout=60).stdout
    unpacked(tree, packed)
    assert look(tree) == look(tmp_path / "original")
    assert os.getxattr(tree / "usr/bin/tool", "security.capability") == CAPABILITY
    assert (tree / "usr/bin/other").stat().st_ino == (tree / "usr/bin/tool").stat().st_ino
    assert (tree / "usr/sparse").stat().st_blocks < 100


def test_a_squashfs_image_comes_out_as_it_was_packed(tree: Path, tmp_path: Path) -> None:
    make_original(tmp_path / "original")
    packed = subprocess.run(
        ["tar", "-C", f"{tmp_path}/original", "-c", "."], stdout=subprocess.PIPE, check=True, timeout=60
    )
    image = tmp_path / "image.squashfs"
    subprocess.run(["tar2sqfs", "-q", str(image)], input=packed.stdout, check=True, timeout=60, capture_output=True)
    unpacked(tree, image.read_bytes())
    assert look(tree) == look(tmp_path / "original")


def test_only_what_lies_below_a_prefix_is_unpacked(tree: Path) -> None:
    parts = (entry("rootfs", DIR), file("rootfs/etc/a"), file("metadata.yaml"), file("rootfsx/b"))
    hard = entry("rootfs/etc/b", HARD, linkname="rootfs/etc/a")
    unpacked(tree, (*parts, hard), rules=Rules(prefix="rootfs"))
    assert names(tree) == {"etc", "etc/a", "etc/b"}


def test_the_devices_that_every_ve_has_are_left_out(tree: Path) -> None:
    null = entry("./dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3)
    unpacked(tree, (null, file("etc/a")))
    assert names(tree) == {"dev", "etc", "etc/a"}


def test_a_later_entry_replaces_an_earlier_one_of_whatever_kind(tree: Path) -> None:
    unpacked(
        tree, (file("a/b/c"), file("d"), entry("e", LINK, linkname="a"), file("a/b", b"now a file"), entry("d", DIR))
    )
    assert (tree / "a/b").read_bytes() == b"now a file"
    assert (tree / "d").is_dir()


def test_attributes_that_are_not_a_ves_own_are_left_out(tree: Path) -> None:
    odd = ("trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "security.selinux")
    headers = {f"SCHILY.xattr.{name}": "y" for name in odd}
    unpacked(tree, (entry("d", DIR, pax_headers=headers), entry("f", pax_headers=headers)))
    assert os.listxattr(tree / "d") == os.listxattr(tree / "f") == []


# What is refused


OUT = "../../../../../../../../tmp/vectl-escaped"


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        pytest.param((file("../out"),), "'../out' is refused: a path with '..'", id="dotdot"),
        pytest.param((file("a/../../out"),), "'a/../../out' is refused", id="dotdot-inside"),
        pytest.param((file("/etc/out"),), "'/etc/out' is refused: an absolute path", id="absolute"),
        pytest.param(
            (entry("in", HARD, linkname="/etc/passwd"),),
            "'in' is refused: a hard link to '/etc/passwd'",
            id="hard-absolute",
        ),
        pytest.param((entry("in", HARD, linkname="../x"),), "which leads out of the tree", id="hard-dotdot"),
        pytest.param(
            (entry("in", HARD, linkname="later"), file("later")), "no file that came before", id="hard-forward"
        ),
        pytest.param(
            (entry("l", LINK, linkname="/etc"), entry("in", HARD, linkname="l/passwd")),
            "a hard link",
            id="hard-by-link",
        ),
        pytest.param((file("f"), file("f/g")), "on the way is no directory", id="below-a-file"),
        pytest.param((entry("l", LINK, linkname=OUT), file("l/f")), "on the way is no directory", id="dangling"),
        pytest.param(
            (entry("dev/sda", tarfile.BLKTYPE, devmajor=8),), "'dev/sda' is refused: a device node", id="block-device"
        ),
        pytest.param(
            (entry("x/null", tarfile.CHRTYPE, devmajor=1, devminor=3),), "'x/null' is refused: a device", id="elsewhere"
        ),
        pytest.param(
            (entry("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=1),), "a device node", id="mem-called-null"
        ),
        pytest.param((file("f", uid=65536),), "'f' is refused: owner 65536:0", id="owner"),
        pytest.param((file("f", gid=1 << 31),), "'f' is refused: owner", id="group"),
        pytest.param((file("/".join("d" * 300)),), "more than 256 directories", id="deep"),
        pytest.param((entry("./", LINK, linkname="/etc"),), "the top of a tree", id="top"),
        pytest.param((entry("f", b"Q"),), "unknown type", id="unknown-type"),
    ],
)
def test_what_no_tree_needs_is_refused_by_name(tree: Path, parts: tuple[Part, ...], said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        unpacked(tree, (file("good"), *parts))
    assert said in str(caught.value)
    assert not os.path.lexists("/tmp/vectl-escaped")


def test_a_symbolic_link_leads_to_where_it_does_inside(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    links = (entry("by-root", LINK, linkname=str(outside)), entry("by-dots", LINK, linkname="../" * 40 + str(outside)))
    inside = file(f"{str(outside).lstrip('/')}/seen")
    unpacked(tree, (inside, *links, file("by-root/a"), file("by-dots/b")))
    assert list(outside.iterdir()) == []
    assert {path.name for path in (tree / str(outside).lstrip("/")).iterdir()} == {"seen", "a", "b"}


def test_a_link_that_is_replaced_meanwhile_is_not_gone_through(tree: Path) -> None:
    unpacked(tree, (file("real/x"), entry("d", LINK, linkname="real"), file("d/a"), entry("d", DIR), file("d/b")))
    assert names(tree) == {"real", "real/x", "real/a", "d", "d/b"}


def test_more_than_the_allowed_size_is_refused_before_it_is_written(tree: Path) -> None:
    with pytest.raises(TemplateError, match="'big' is refused: more than 1000 bytes"):
        unpacked(tree, (file("small", b"x" * 900), file("big", b"x" * 101)), rules=Rules(size=1000))
    assert names(tree) == {"small"}


def test_holes_count_as_what_they_seem(tree: Path) -> None:
    headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "bomb"}
    sparse = entry("bomb", pax_headers=headers | {"GNU.sparse.size": str(1 << 50), "GNU.sparse.map": "0,0"})
    with pytest.raises(TemplateError, match="'bomb' is refused: more than"):
        unpacked(tree, (sparse,))


def test_more_files_than_allowed_are_refused(tree: Path) -> None:
    with pytest.raises(TemplateError, match="at most 3 files"):
        unpacked(tree, tuple(file(f"f{n}") for n in range(4)), rules=Rules(entries=3))


def test_the_process_that_unpacks_tells_what_it_did_and_what_it_refused(tree: Path) -> None:
    good, bad = tree.parent / "good", tree.parent / "bad"
    good.write_bytes(tar(file("a"), file("b", mtime=77)))
    bad.write_bytes(tar(file("../a")))
    job = Job(archives=[str(good)], tree=str(tree), what="the archive", rules=Rules(), seconds=60.0)
    assert unpack(job) == Totals(entries=2, size=16, newest=77)
    with pytest.raises(TemplateError, match=r"'\.\./a' is refused"):
        unpack(replace(job, archives=[str(bad)]))
    with pytest.raises(TimeLimitError):
        unpack(replace(job, seconds=0.0))


def test_a_bomb_of_headers_is_refused(tree: Path) -> None:
    huge = entry("x", tarfile.XHDTYPE, size=1 << 33)
    with pytest.raises(TemplateError, match="a header of 8589934592 bytes"):
        unpacked(tree, huge.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096)


def test_it_ends_when_its_time_is_over(tree: Path) -> None:
    with pytest.raises(TimeLimitError, match="not done in the time allowed"):
        unpacked(tree, (file("f"),), seconds=0.0)


@pytest.mark.parametrize("compression", ["gzip", "xz", "zstd", "bzip2"])
def test_a_cut_archive_is_an_error(tree: Path, compression: str) -> None:
    data = tar(file("f", os.urandom(100_000)), file("g", os.urandom(100_000)))
    packed = subprocess.run([compression, "-c"], input=data, stdout=subprocess.PIPE, check=True, timeout=60).stdout
    with pytest.raises(TemplateError, match="unpack the archive"):
        unpacked(tree, packed[: len(packed) * 2 // 3])


@pytest.mark.parametrize("compression", ["gzip", "xz", "zstd"])
def test_an_archive_with_a_wrong_checksum_is_an_error(tree: Path, compression: str) -> None:
    words = [compression, "-c", *(["--check"] if compression == "zstd" else [])]
    packed = bytearray(
        subprocess.run(words, input=tar(file("f")), stdout=subprocess.PIPE, check=True, timeout=60).stdout
    )
    packed[-6 if compression == "gzip" else -3] ^= 0xFF
    with pytest.raises(TemplateError, match=f"corrupt or cut off, {compression} says"):
        unpacked(tree, bytes(packed))


def test_a_damaged_header_in_the_middle_is_no_end(tree: Path) -> None:
    data = bytearray(tar(file("a"), file("b"), file("c")))
    data[1024 + 5] ^= 0xFF  # in the header of b
    with pytest.raises(TemplateError, match="damaged header"):
        unpacked(tree, bytes(data))


@pytest.mark.parametrize(
    "data", [b"", b"no archive at all" * 100, b"\x1f\x8bno gzip"], ids=["empty", "text", "no-gzip"]
)
def test_what_is_no_archive_is_an_error(tree: Path, data: bytes) -> None:
    with pytest.raises((TemplateError, KernelError), match="unpack the archive"):
        unpacked(tree, data)


# Programs with other rights than their caller's

SUID = (file("su", mode=0o4755), file("wall", mode=0o2755), entry("mail", DIR, mode=0o2775))
CAPABLE = (entry("ping", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": CAPABILITY.decode("latin1")}),)


def modes(tree: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in tree.iterdir()}


def test_set_user_id_bits_and_capabilities_are_kept_as_a_system_needs_them(tree: Path) -> None:
    unpacked(tree, (*SUID, *CAPABLE))
    assert modes(tree) == {"su": 0o4755, "wall": 0o2755, "mail": 0o2775, "ping": 0o755}
    assert os.getxattr(tree / "ping", "security.capability") == CAPABILITY


def test_they_are_dropped_from_programs_where_the_template_says_so(tree: Path) -> None:
    unpacked(tree, (*SUID, *CAPABLE), rules=Rules(setuid=Setuid.DROP))
    assert modes(tree) == {"su": 0o755, "wall": 0o755, "mail": 0o2775, "ping": 0o755}
    assert os.listxattr(tree / "ping") == []


@pytest.mark.parametrize(("parts", "name"), [(SUID, "su"), (CAPABLE, "ping")])
def test_they_are_refused_by_name_where_the_template_says_so(tree: Path, parts: tuple[Part, ...], name: str) -> None:
    with pytest.raises(TemplateError, match=f"'{name}' is refused: .*which its template forbids"):
        unpacked(tree, parts, rules=Rules(setuid=Setuid.REFUSE))


# Layers

LAYERS = Rules(whiteouts=True)


def test_a_whiteout_removes_what_lies_below_and_nothing_else(tree: Path) -> None:
    low = (file("etc/gone"), file("etc/stays"), file("dir/a/b"), file("dir2/c"))
    unpacked(tree, low, (file("etc/.wh.gone", b""), file(".wh.dir", b""), file("dir2/d")), rules=LAYERS)
    assert names(tree) == {"etc", "etc/stays", "dir2", "dir2/c", "dir2/d"}


@pytest.mark.parametrize("first", [True, False], ids=["marked-first", "marked-last"])
def test_an_opaque_directory_keeps_what_its_own_layer_has_in_whatever_order(tree: Path, first: bool) -> None:
    mark, own = file("d/.wh..wh..opq", b""), (file("d/new"), file("d/sub/new"))
    layer = (entry("d", DIR), mark, *own) if first else (entry("d", DIR), *own, mark)
    unpacked(tree, (file("d/old"), file("d/sub/old"), file("other")), layer, rules=LAYERS)
    assert names(tree) == {"d", "d/new", "d/sub", "d/sub/new", "other"}


@pytest.mark.parametrize("first", [True, False], ids=["whiteout-first", "whiteout-last"])
def test_a_directory_that_is_replaced_keeps_nothing_of_the_old_one(tree: Path, first: bool) -> None:
    mark, own = file(".wh.d", b""), (entry("d", DIR), file("d/new"))
    unpacked(tree, (file("d/old"),), (mark, *own) if first else (*own, mark), rules=LAYERS)
    assert names(tree) == {"d", "d/new"}


def test_a_whiteout_goes_through_links_as_a_ve_would(tree: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("stays")
    low = (file("usr/lib/x"), entry("lib", LINK, linkname="usr/lib"), entry("out", LINK, linkname=str(tmp_path)))
    unpacked(
        tree,
        (*low, entry(str(tmp_path).lstrip("/"), DIR)),
        (file("lib/.wh.x", b""), file("out/.wh.victim", b"")),
        rules=LAYERS,
    )
    assert victim.read_text() == "stays"
    assert not (tree / "usr/lib/x").exists()


@pytest.mark.parametrize("name", [".wh.", ".wh...", "d/.wh.."])
def test_a_whiteout_of_a_directory_itself_is_refused(tree: Path, name: str) -> None:
    with pytest.raises(TemplateError, match="a whiteout of nothing"):
        unpacked(tree, (file("d/f"), file(name, b"")), rules=LAYERS)


def test_without_layers_a_name_like_a_whiteouts_is_a_name(tree: Path) -> None:
    unpacked(tree, (file("a"), file(".wh.a")))
    assert names(tree) == {"a", ".wh.a"}
