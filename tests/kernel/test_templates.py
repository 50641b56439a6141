"""Templates of every source: the image is what the source says, whole or not there, and built once."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from reconciler.errors import (
    BusyError,
    CommandError,
    DownloadError,
    NoSpaceError,
    StateError,
    TemplateError,
    UsageError,
    VectlError,
)
from reconciler.host import images, templates, trees
from reconciler.host.site import Site
from reconciler.kernel import erofs, files, mount
from reconciler.manifests.canonical import template_spec
from reconciler.model.identity import Digest, HostName, TemplateName
from reconciler.model.instance import Instance
from reconciler.model.volume import (
    BuildTemplate,
    OciSource,
    RemoveTemplate,
    SimplestreamsSource,
    TarballSource,
    TemplateSource,
    TemplateSpec,
)
from tests.support import storage
from tests.support.archives import (
    ARCHITECTURE,
    Answer,
    entry,
    file,
    http_server,
    oci_layout,
    send,
    sha256,
    simplestreams,
    tar,
)

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

INIT = file("sbin/init", b"#!/bin/sh\n", mode=0o755)
TREE = tar(INIT, file("etc/who", b"a tarball\n"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = make_site(tmp_path)
    yield made
    made.close()


def make_site(directory: Path) -> Site:
    instance = Instance(
        name="vt-templates",
        host=HostName("here"),
        state_dir=f"{directory}/state",
        run_dir=f"{directory}/run",
        cgroup="/vt-templates",
    )
    for path in (instance.templates, instance.ves, instance.trash, instance.run_dir):
        os.makedirs(path)
    return Site(instance)


def spec(source: TemplateSource, *, init: str = "/sbin/init") -> TemplateSpec:
    return template_spec(TemplateName("tried"), source, (init,))


def build(site: Site, source: TemplateSource, **options: str) -> Digest:
    made = spec(source, **options)
    asyncio.run(templates.build(site, BuildTemplate(template=made)))
    return templates.read_index(site)[made.key]


def tarball(path: Path, data: bytes = TREE) -> TarballSource:
    path.write_bytes(data)
    return TarballSource(path=str(path), sha256=sha256(data))


@contextmanager
def seen(site: Site, digest: Digest, target: Path) -> Iterator[Path]:
    with storage.mounted(site.instance.template_image(digest), str(target), fstype="erofs", read_only=True) as path:
        yield Path(path)


def left(site: Site) -> set[str]:
    """What is in the directory of templates beside the lock."""
    return set(os.listdir(site.instance.templates)) - {"index.lock"}


def files_of(digest: Digest) -> set[str]:
    """What lies there of one image."""
    return {f"{digest}.erofs", f"{digest}.json"}


# Each kind of source


def test_a_tarball_becomes_an_image(site: Site, tmp_path: Path) -> None:
    digest = build(site, tarball(tmp_path / "a.tar"))
    with seen(site, digest, tmp_path / "mnt") as tree:
        assert (tree / "etc/who").read_text() == "a tarball\n"
        assert {"dev", "proc", "run", "sys", "tmp"} <= set(os.listdir(tree))
        assert (tree / "proc/meminfo").is_file()
        assert (tree / "sys/fs/cgroup").is_dir()
    assert left(site) == {"index.json", *files_of(digest)}


def test_a_tarball_is_fetched_from_a_server(site: Site, tmp_path: Path) -> None:
    with http_server({"/a.tar": TREE}) as server:
        digest = build(site, TarballSource(url=f"{server}/a.tar", sha256=sha256(TREE)))
    assert digest == build(make_site(tmp_path / "other"), tarball(tmp_path / "a.tar")), (
        "the same content, another image"
    )


def test_a_tarball_is_fetched_from_a_file_url(site: Site, tmp_path: Path) -> None:
    tarball(tmp_path / "with space.tar")
    build(site, TarballSource(url=f"file://{tmp_path}/with%20space.tar", sha256=sha256(TREE)))


def test_an_image_of_several_layers_is_what_umoci_makes_of_it(site: Site, tmp_path: Path) -> None:
    layers = [
        tar(
            INIT,
            file("etc/gone"),
            file("opt/old/a"),
            file("usr/lib/x"),
            entry("lib", tarfile.SYMTYPE, linkname="usr/lib"),
        ),
        tar(file("etc/.wh.gone", b""), entry("opt/old", tarfile.DIRTYPE), file("opt/old/.wh..wh..opq", b"")),
        tar(file("opt/old/new", mode=0o4755, uid=33), entry("opt/hard", tarfile.LNKTYPE, linkname="usr/lib/x")),
    ]
    oci = tmp_path / "oci"
    digest = build(site, OciSource(image=f"oci:{oci}:latest", digest=oci_layout(oci, *layers)))
    umoci = ["umoci", "raw", "unpack", "--image", f"{oci}:latest", f"{tmp_path}/umoci"]
    subprocess.run(umoci, check=True, timeout=60, capture_output=True)
    with seen(site, digest, tmp_path / "mnt") as tree:
        ours = {str(path.relative_to(tree)) for path in tree.rglob("*")}
        theirs = {str(path.relative_to(tmp_path / "umoci")) for path in (tmp_path / "umoci").rglob("*")}
        assert theirs <= ours
        assert {name.partition("/")[0] for name in ours - theirs} <= {"dev", "proc", "run", "sys", "tmp"}
        assert (tree / "opt/old/new").stat().st_mode & 0o7777 == 0o4755


@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive", "dir"])
def test_an_image_is_taken_from_whatever_skopeo_reads(site: Site, tmp_path: Path, transport: str) -> None:
    oci_layout(tmp_path / "oci", tar(INIT))
    image = f"{transport}:{tmp_path}/image"
    skopeo = ["skopeo", "--insecure-policy"]
    copied = image + (":a/b:c" if transport == "docker-archive" else "")
    subprocess.run([*skopeo, "copy", "-q", f"oci:{tmp_path}/oci:latest", copied], check=True, timeout=60)
    raw = subprocess.run([*skopeo, "inspect", "--raw", image], stdout=subprocess.PIPE, check=True, timeout=60).stdout
    build(site, OciSource(image=image, digest=f"sha256:{sha256(raw)}"))


def split_image(fingerprint: str | None = None) -> tuple[dict[str, bytes | Answer], str]:
    """Serve an image in two files; give what the server answers, and the fingerprint."""
    metadata, root = tar(file("metadata.yaml", b"architecture: x86_64\n")), TREE
    right = sha256(metadata + root)
    items: list[Mapping[str, object]] = [
        {"ftype": "lxd.tar.xz", "path": "images/1/lxd.tar.xz", "combined_rootxz_sha256": fingerprint or right},
        {"ftype": "root.tar.xz", "path": "images/1/root.tar.xz", "sha256": sha256(root)},
    ]
    older: list[Mapping[str, object]] = [{"ftype": "lxd.tar.xz", "path": "x", "combined_rootxz_sha256": "0" * 64}]
    answers = {"/images/1/lxd.tar.xz": metadata, "/images/1/root.tar.xz": root}
    return {**simplestreams({"1": older, "2": items}), **answers}, right


def test_an_image_is_taken_from_an_image_server(site: Site, tmp_path: Path) -> None:
    answers, fingerprint = split_image()
    with http_server(answers) as server:
        digest = build(site, SimplestreamsSource(server=server, alias="tiny/1", fingerprint=fingerprint))
    with seen(site, digest, tmp_path / "mnt") as tree:
        assert (tree / "etc/who").read_text() == "a tarball\n"
    assert left(site) == {"index.json", *files_of(digest)}


def test_a_squashfs_image_of_an_image_server_becomes_an_image(site: Site, tmp_path: Path) -> None:
    image, metadata = tmp_path / "root.squashfs", b"whatever it says"
    subprocess.run(["tar2sqfs", "-q", str(image)], input=TREE, check=True, timeout=60, capture_output=True)
    root = image.read_bytes()
    fingerprint = sha256(metadata + root)
    items = [
        {"ftype": "incus.tar.xz", "path": "a/incus.tar.xz", "combined_squashfs_sha256": fingerprint},
        {"ftype": "squashfs", "path": "a/rootfs.squashfs"},
    ]
    answers: dict[str, bytes | Answer] = {"/base/a/incus.tar.xz": metadata, "/base/a/rootfs.squashfs": root}
    answers |= {f"/base{path}": answer for path, answer in simplestreams({"1": items}).items()}
    with http_server(answers) as server:
        build(site, SimplestreamsSource(server=f"{server}/base", alias="tiny/1/default", fingerprint=fingerprint))


def test_an_image_in_one_file_becomes_an_image(site: Site, tmp_path: Path) -> None:
    combined = tar(file("metadata.yaml"), file("rootfs/sbin/init", mode=0o755), file("templates/hostname.tpl"))
    items = [{"ftype": "lxd_combined.tar.gz", "path": "one.tar.gz", "sha256": sha256(combined)}]
    with http_server({**simplestreams({"1": items}), "/one.tar.gz": combined}) as server:
        digest = build(site, SimplestreamsSource(server=server, alias="tiny/1", fingerprint=sha256(combined)))
    with seen(site, digest, tmp_path / "mnt") as tree:
        assert not (tree / "rootfs").exists()
        assert not (tree / "templates").exists()


# What goes wrong leaves nothing behind, and says what was expected


def refused(site: Site, source: TemplateSource, error: type[VectlError] = TemplateError, **options: str) -> str:
    with pytest.raises(error) as caught:
        build(site, source, **options)
    assert left(site) == set()
    return str(caught.value)


def test_a_wrong_digest_is_named_with_the_right_one(site: Site, tmp_path: Path) -> None:
    wrong = TarballSource(path=tarball(tmp_path / "a.tar").path, sha256="0" * 64)
    said = refused(site, wrong)
    assert f"expected sha256 {'0' * 64}, got {sha256(TREE)}" in said


def test_a_hostile_tarball_leaves_nothing(site: Site, tmp_path: Path) -> None:
    assert "'../x' is refused" in refused(site, tarball(tmp_path / "a.tar", tar(INIT, file("../x"))))


def test_a_tree_without_its_init_is_refused(site: Site, tmp_path: Path) -> None:
    assert "its init /sbin/init is not there" in refused(site, tarball(tmp_path / "a.tar", tar(file("etc/a"))))
    assert "its init /etc/who is no program" in refused(site, tarball(tmp_path / "b.tar"), init="/etc/who")


def test_a_missing_tarball_is_an_error(site: Site, tmp_path: Path) -> None:
    assert "there is no such file" in refused(site, TarballSource(path=f"{tmp_path}/none", sha256="0" * 64))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"digest": f"sha256:{'0' * 64}"}, "expected the digest sha256:0000", id="digest"),
        pytest.param({"image": "oci:{}:other"}, "other", id="tag"),
    ],
)
def test_another_image_than_the_digest_says_is_refused(
    site: Site, tmp_path: Path, change: dict[str, str], said: str
) -> None:
    digest = oci_layout(tmp_path / "oci", tar(INIT))
    fields = {"image": "oci:{}:latest", "digest": digest} | change
    source = OciSource(image=fields["image"].format(tmp_path / "oci"), digest=fields["digest"])
    assert said in refused(site, source, VectlError)


def test_a_damaged_layer_is_refused(site: Site, tmp_path: Path) -> None:
    digest = oci_layout(tmp_path / "oci", tar(INIT, file("a", os.urandom(1 << 16))))
    biggest = max((tmp_path / "oci/blobs/sha256").iterdir(), key=lambda blob: blob.stat().st_size)
    data = bytearray(biggest.read_bytes())
    data[1000] ^= 0xFF
    biggest.write_bytes(data)
    refused(site, OciSource(image=f"oci:{tmp_path}/oci:latest", digest=digest), CommandError)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        pytest.param(tar(INIT, file("../../etc/x")), "'../../etc/x' is refused", id="escape"),
        pytest.param(
            tar(INIT, entry("sda", tarfile.BLKTYPE, devmajor=8)), "'sda' is refused: a device node", id="device"
        ),
        pytest.param(b"no archive", "no tar archive", id="garbage"),
    ],
)
def test_a_layer_is_checked(site: Site, tmp_path: Path, layer: bytes, said: str) -> None:
    digest = oci_layout(tmp_path / "oci", tar(INIT), layer)
    assert said in refused(site, OciSource(image=f"oci:{tmp_path}/oci:latest", digest=digest))


def test_setuid_programs_of_a_layer_go_by_the_template(site: Site, tmp_path: Path) -> None:
    digest = oci_layout(tmp_path / "oci", tar(INIT, file("bin/su", mode=0o4755)))
    image = f"oci:{tmp_path}/oci:latest"
    assert "'bin/su' is refused" in refused(site, OciSource(image=image, digest=digest, setuid="refuse"))
    with seen(site, build(site, OciSource(image=image, digest=digest, setuid="drop")), tmp_path / "mnt") as tree:
        assert (tree / "bin/su").stat().st_mode & 0o7777 == 0o755


def test_an_image_for_another_machine_is_refused(site: Site, tmp_path: Path) -> None:
    digest = oci_layout(tmp_path / "oci", tar(INIT), architecture="s390x")
    source = OciSource(image=f"oci:{tmp_path}/oci:latest", digest=digest)
    assert f"it is made for s390x, this machine is {ARCHITECTURE}" in refused(site, source)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"alias": "other/1"}, "no such alias .* it has tiny/1", id="alias"),
        pytest.param({"fingerprint": "1" * 64}, "no version of fingerprint 1111", id="fingerprint"),
    ],
)
def test_what_an_image_server_has_not_is_named(site: Site, fields: dict[str, str], said: str) -> None:
    answers, fingerprint = split_image()
    with http_server(answers) as server:
        wanted = {"server": server, "alias": "tiny/1", "fingerprint": fingerprint} | fields
        message = refused(site, SimplestreamsSource(**wanted))
    assert re.search(said, message), message


def test_files_that_are_not_what_the_fingerprint_says_are_refused(site: Site) -> None:
    answers, right = split_image(fingerprint="2" * 64)
    with http_server(answers) as server:
        said = refused(site, SimplestreamsSource(server=server, alias="tiny/1", fingerprint="2" * 64))
    assert f"expected the fingerprint {'2' * 64}, got {right}" in said


def test_an_index_that_is_none_is_an_error(site: Site) -> None:
    with http_server({"/streams/v1/index.json": b"<html>"}) as server:
        assert "expected JSON" in refused(site, SimplestreamsSource(server=server, alias="a", fingerprint="0" * 64))


# Downloads

BIG = tar(INIT, file("big", os.urandom(1 << 20)))


def flaky(data: bytes, *, cuts: int, ranges: bool) -> tuple[Callable[[BaseHTTPRequestHandler], None], list[str | None]]:
    """Answer with connections that end early, so many times; tell which ranges were asked for."""
    asked: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.headers.get("Range"))
        begin = int(str(asked[-1]).removeprefix("bytes=").removesuffix("-")) if asked[-1] and ranges else 0
        send(request, data, begin=begin, cut=len(data) // 3 if len(asked) <= cuts else None)

    return answer, asked


@pytest.mark.parametrize("ranges", [True, False], ids=["goes-on", "begins-anew"])
def test_a_cut_download_is_finished(site: Site, ranges: bool) -> None:
    answer, asked = flaky(BIG, cuts=2, ranges=ranges)
    with http_server({"/big.tar": answer}) as server:
        build(site, TarballSource(url=f"{server}/big.tar", sha256=sha256(BIG)))
    third = len(BIG) // 3
    assert asked == [None, f"bytes={third}-", f"bytes={2 * third if ranges else third}-"]


def test_a_download_that_is_cut_again_and_again_is_an_error(site: Site) -> None:
    answer, asked = flaky(BIG, cuts=99, ranges=False)
    with http_server({"/big.tar": answer}) as server:
        said = refused(site, TarballSource(url=f"{server}/big.tar?token=secret", sha256=sha256(BIG)), DownloadError)
        assert "the server says 404" in said
        assert "secret" not in said
        said = refused(site, TarballSource(url=f"{server}/big.tar", sha256=sha256(BIG)), DownloadError)
    assert "bytes before the end, after 4 attempts" in said
    assert len(asked) == 4


def test_a_server_that_is_not_there_is_an_error(site: Site) -> None:
    with http_server({}) as server:
        pass
    assert "refused" in refused(site, TarballSource(url=f"{server}/a", sha256="0" * 64), DownloadError)


def test_a_redirection_leads_to_no_file_of_the_host(site: Site, tmp_path: Path) -> None:
    tarball(tmp_path / "a.tar")

    def redirect(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", f"file://{tmp_path}/a.tar")
        request.end_headers()

    with http_server({"/a.tar": redirect}) as server:
        refused(site, TarballSource(url=f"{server}/a.tar", sha256=sha256(TREE)), DownloadError)


# No space


@contextmanager
def small_disk(path: str, size: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True, timeout=20)
    try:
        yield
    finally:
        mount.unmount(path)


def test_without_space_nothing_is_left_and_others_keep_some(site: Site, tmp_path: Path) -> None:
    data = tar(INIT, *(file(f"f{number}", os.urandom(1 << 20)) for number in range(12)))
    source = tarball(tmp_path / "a.tar", data)
    with small_disk(site.instance.templates, "10m"):
        refused(site, source, NoSpaceError)


# Built once


def test_requests_for_one_template_share_a_build_and_others_do_not_wait(site: Site, tmp_path: Path) -> None:
    asked, quick, done = [], tarball(tmp_path / "quick.tar"), []
    begun, proceed = threading.Event(), threading.Event()

    def hold(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        begun.set()
        proceed.wait(60)
        send(request, BIG)

    async def one(source: TemplateSource, name: str) -> None:
        await templates.build(site, BuildTemplate(template=spec(source)))
        done.append(name)

    async def all_of_them(big: TarballSource) -> None:
        building = [asyncio.create_task(one(big, "big")) for _ in range(3)]
        await asyncio.to_thread(begun.wait, 60)
        await one(quick, "quick")
        proceed.set()
        await asyncio.gather(*building)

    with http_server({"/big.tar": hold}) as server:
        asyncio.run(all_of_them(TarballSource(url=f"{server}/big.tar", sha256=sha256(BIG))))
    assert done == ["quick", "big", "big", "big"]
    assert asked == ["/big.tar"]


def test_a_build_that_is_killed_leaves_nothing_that_is_taken_for_a_template(site: Site, tmp_path: Path) -> None:
    asked: list[BaseHTTPRequestHandler] = []

    def stall(request: BaseHTTPRequestHandler) -> None:
        send(request, BIG, cut=1000)
        request.wfile.flush()
        asked.append(request)
        request.rfile.read(1)  # until the other side is gone

    with http_server({"/big.tar": stall}) as server:
        source = TarballSource(url=f"{server}/big.tar", sha256=sha256(BIG))
        pid = os.fork()
        if pid == 0:
            build(Site(site.instance), source)
            os._exit(0)
        while not asked:
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert templates.read_index(site) == {}
    assert [name.partition("-")[0] for name in left(site)] == ["build"]
    digest = build(site, tarball(tmp_path / "a.tar"))
    assert left(site) == {"index.json", *files_of(digest)}


STEPS = [
    pytest.param(trees, "build", "after", id="built"),
    pytest.param(erofs, "make_image", "after", id="made-the-image"),
    pytest.param(images, "write_note", "after", id="noted"),
    pytest.param(templates, "_write_index", "before", id="named"),
    pytest.param(templates, "_write_index", "after", id="known"),
]


@pytest.mark.parametrize(("place", "step", "when"), STEPS)
def test_a_build_that_is_killed_at_any_step_is_done_again(
    site: Site, tmp_path: Path, place: object, step: str, when: str
) -> None:
    source = tarball(tmp_path / "a.tar")
    done = getattr(place, step)

    def killed(*args: object, **options: object) -> None:
        if when == "after":
            done(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        setattr(place, step, killed)
        build(Site(site.instance), source)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    is_known = (step, when) == ("_write_index", "after")
    assert bool(templates.read_index(site)) is is_known
    templates.sweep(site)
    assert bool({name for name in left(site) if name != "index.json"}) is is_known
    digest = build(site, source)
    assert left(site) == {"index.json", *files_of(digest)}


def test_an_image_that_nothing_knows_stays_while_data_is_on_it(site: Site, tmp_path: Path) -> None:
    digest = build(site, tarball(tmp_path / "a.tar"))
    os.unlink(f"{site.instance.templates}/index.json")
    storage.write(f"{site.instance.ves}/u/record.json", json.dumps({"name": "web1", "template_digest": digest}))
    templates.sweep(site)
    assert left(site) == files_of(digest)
    storage.write(f"{site.instance.ves}/u/record.json", "damaged")
    templates.sweep(site)
    assert left(site) == files_of(digest)
    os.unlink(f"{site.instance.ves}/u/record.json")
    templates.sweep(site)
    assert left(site) == set()


def test_what_another_process_builds_is_not_swept_away(site: Site) -> None:
    with templates.scratch_of(site.instance.templates) as scratch:
        templates.sweep(site)
        assert os.path.isdir(scratch)
    assert left(site) == set()


# Removal


def test_an_image_is_removed_with_its_mount(site: Site, tmp_path: Path) -> None:
    source = tarball(tmp_path / "a.tar")

    def work() -> None:
        digest = build(site, source)
        templates.ensure_mounted(site, digest)
        templates.remove(site, RemoveTemplate(key=spec(source).key))
        templates.remove(site, RemoveTemplate(key=spec(source).key))

    storage.in_private_namespace(work)
    assert left(site) == {"index.json"}
    assert json.loads(files.read_bytes_if_exists(f"{site.instance.templates}/index.json") or b"{}")["images"] == {}


@pytest.mark.parametrize(
    "file",
    [
        "ves/u/record.json",
        "ves/u/volume/mark.json",
        "ves/u/snapshots/s/meta.json",
        "ves/u/snapshots/.s/meta.json",
        "ves/u/suspended/meta.json",
        "trash/u.1/record.json",
        "trash/u.1/snapshots/s/meta.json",
    ],
)
def test_an_image_that_data_is_on_is_not_removed(site: Site, tmp_path: Path, file: str) -> None:
    source = tarball(tmp_path / "a.tar")
    digest = build(site, source)
    storage.write(f"{site.instance.pool}/{file}", json.dumps({"name": "web1", "template_digest": digest}))
    with pytest.raises(BusyError, match=r"web1|snapshot|u\.1| u "):
        templates.remove(site, RemoveTemplate(key=spec(source).key))
    assert files_of(digest) <= left(site)


def test_an_image_is_not_removed_while_it_is_not_known_who_needs_it(site: Site, tmp_path: Path) -> None:
    source = tarball(tmp_path / "a.tar")
    build(site, source)
    storage.write(f"{site.instance.ves}/u/record.json", "damaged")
    with pytest.raises(StateError, match=r"record\.json"):
        templates.remove(site, RemoveTemplate(key=spec(source).key))


def test_what_is_known_of_an_image_is_observed(site: Site, tmp_path: Path) -> None:
    source, before = tarball(tmp_path / "a.tar"), time.time() - 1
    digest = build(site, source)
    [seen] = images.observe(site, templates.read_index(site)).values()
    assert (seen.name, seen.source, seen.is_original) == ("tried", f"tarball {source.path}", False)
    assert seen.size == os.path.getsize(site.instance.template_image(digest))
    assert seen.used_at == pytest.approx(seen.built_at, abs=5)
    assert seen.built_at > before
    os.utime(site.instance.template_image(digest), (1000, 1000))
    build(site, source)
    assert images.observe(site, templates.read_index(site))[digest].used_at > before


# Export


@pytest.mark.parametrize("kind", ["tar.zst", "erofs"])
def test_an_image_goes_into_a_file_and_comes_back(site: Site, tmp_path: Path, kind: str) -> None:
    digest = build(site, tarball(tmp_path / "a.tar", tar(INIT, file("bin/su", mode=0o4755, uid=7))))
    target = tmp_path / f"out.{kind}"
    erofs.export(site.instance.template_image(digest), str(target))
    assert not list(tmp_path.glob(".partial*"))
    if kind == "erofs":
        assert sha256(target.read_bytes()) == digest
        return
    again = build(site, TarballSource(path=str(target), sha256=sha256(target.read_bytes())))
    with seen(site, again, tmp_path / "mnt") as tree:
        found = (tree / "bin/su").stat()
        assert (found.st_mode & 0o7777, found.st_uid) == (0o4755, 7)


def test_an_export_into_another_kind_of_file_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected \.erofs, \.tar"):
        erofs.export("image", f"{tmp_path}/out.zip")
