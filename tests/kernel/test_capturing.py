"""Templates made of VEs: the image is what the VE saw at its snapshot, without what tells that VE from another."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tarfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import BusyError, NoSpaceError, StateError, TemplateError
from reconciler.host import debris, images, offline, templates
from reconciler.host.host import RealHost
from reconciler.host.site import Site
from reconciler.kernel import btrfs, erofs, qgroup, userns
from reconciler.manifests.canonical import template_spec
from reconciler.model.identity import Digest, SnapshotName, TemplateName, Uid
from reconciler.model.observation import HostObservation
from reconciler.model.power import PowerObservation, StartRuntime
from reconciler.model.snapshots import TakeSnapshot
from reconciler.model.volume import (
    BuildTemplate,
    CaptureTemplate,
    CreateVolume,
    ImageSource,
    RemoveTemplate,
    TarballSource,
    WriteRecord,
)
from tests.support import archives, real_host, storage
from tests.support.real_host import perform
from tests.support.twins import SETTING, A, B, created

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

MIB = 1 << 20
SIZE = 48 * MIB
BASE = SETTING.record(A).id_base
GOLDEN = SnapshotName("golden")
CAPTURE = CaptureTemplate(uid=A, snapshot=GOLDEN, name=TemplateName("gold"))
ORIGIN = archives.tar(
    archives.file("sbin/init", b"#!/bin/sh\n", mode=0o755),
    archives.file("etc/who"),
    archives.file("etc/machine-id", b""),
    archives.file("srv/gone"),
    archives.file("srv/stays"),
    archives.file("opt/old"),
    archives.file("lib/one", b"old"),
    archives.entry("lib/two", tarfile.LNKTYPE, linkname="lib/one"),
)

both_forms = pytest.mark.parametrize("is_image", [False, True], ids=["directory", "image"])


def on_a_host(story: Callable[[RealHost], Awaitable[None]]) -> None:
    """Let a story happen on a host of its own, at whose end nothing is left of a template that was being made."""

    async def told(host: RealHost) -> None:
        await story(host)
        assert_nothing_left(host)

    real_host.on_real_host(told)


def assert_nothing_left(host: RealHost) -> None:
    instance = host.site.instance
    assert sorted(os.listdir(instance.ve_dir(A))) == ["record.json", "snapshots", "volume"]
    assert [name for name in os.listdir(instance.templates) if name.startswith("build-")] == []
    assert qgroup.read_qgroups(instance.pool).consistent, "no limit of any VE holds any more"


async def lived(host: RealHost, *works: Callable[[Path], None], is_image: bool = False) -> None:
    """Make a VE that does works in its root directory, and keep a snapshot of it."""
    archive = Path(f"{host.site.instance.state_dir}/origin.tar")
    archive.write_bytes(ORIGIN)
    source = TarballSource(path=str(archive), sha256=archives.sha256(ORIGIN))
    origin = template_spec(TemplateName("origin"), source, ("/sbin/init",))
    record = replace(SETTING.record(A), template=origin.name, init=origin.init)
    await perform(
        host,
        BuildTemplate(template=origin),
        WriteRecord(record=record, template_key=origin.key),
        CreateVolume(uid=A, size=SIZE, is_image=is_image, room=2000 if is_image else None),
    )
    for work in works:
        within(host, work)
    await perform(host, TakeSnapshot(uid=A, name=GOLDEN))


def within(host: RealHost, work: Callable[[Path], None]) -> None:
    """Do work as the VE's root in its root directory."""
    lower = templates.ensure_mounted(host.site, host.site.need_record(A).template_digest or Digest(""))

    def mounted(place: str) -> None:
        prepared = offline.prepared(place, volume=host.site.instance.volume(A), lower=lower, id_base=BASE)
        with prepared as spec, offline.mounted(spec), userns.acting_as(BASE, BASE):
            work(Path(spec.target))

    offline.call(host.site, mounted)


def change(root: Path) -> None:
    """Make new and changed files, remove one, replace a directory, and have an identity."""
    for name in ("etc/ssh", "new"):
        (root / name).mkdir()
    (root / "etc/who").write_text("changed\n")
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (root / "etc/ssh/ssh_host_ed25519_key").write_text("secret")
    (root / "etc/ssh/sshd_config").write_text("kept")
    (root / "srv/new").write_text("new\n")
    os.chown(root / "srv/new", BASE + 1000, BASE + 1000)
    (root / "srv/gone").unlink()
    (root / "opt/old").unlink()
    (root / "opt").rmdir()
    (root / "opt").mkdir()
    (root / "opt/now").write_text("now")
    (root / "lib/one").write_text("new")


def fill_up(root: Path) -> None:
    """Write until there is room for nothing more."""
    with open(root / "filler", "wb", buffering=0) as file:
        for size in (MIB, 4096):
            with pytest.raises(OSError, match=r"quota exceeded|No space"):
                write_on(file, size)


def write_on(file: FileIO, size: int) -> None:
    while True:
        file.write(os.urandom(size))
        os.fsync(file.fileno())


async def captured(host: RealHost) -> Digest:
    await host.perform(CAPTURE)
    found = images.observe(host.site, templates.read_index(host.site))
    [(digest, note)] = [(digest, note) for digest, note in found.items() if note.name == "gold"]
    assert (note.source, note.is_original) == (f"VE {SETTING.name(A)}@golden", True)
    return digest


def read(host: RealHost, digest: Digest, look: Callable[[Path], None]) -> None:
    """Look into an image."""
    target = f"{host.site.instance.run_dir}/seen"
    with storage.mounted(host.site.instance.template_image(digest), target, fstype="erofs", read_only=True) as path:
        look(Path(path))
    os.rmdir(target)


def assert_changed(tree: Path) -> None:
    assert (tree / "etc/who").read_text() == "changed\n"
    assert (tree / "etc/machine-id").read_text() == ""
    assert os.listdir(tree / "etc/ssh") == ["sshd_config"]
    assert sorted(os.listdir(tree / "srv")) == ["new", "stays"]
    assert os.listdir(tree / "opt") == ["now"]
    owners = [(tree / name).stat().st_uid for name in ("srv/new", "etc/who", "srv/stays", "new", "")]
    assert owners == [1000, 0, 0, 0, 0]
    assert os.listxattr(tree / "opt") == []


@both_forms
def test_a_snapshot_becomes_an_image_without_the_ves_identity(is_image: bool) -> None:
    async def story(host: RealHost) -> None:
        await lived(host, change, is_image=is_image)
        within(host, lambda root: (root / "etc/who").unlink())
        read(host, await captured(host), assert_changed)

    on_a_host(story)


@both_forms
def test_a_file_of_several_names_shows_what_was_written_to_it_by_one_of_them(is_image: bool) -> None:
    def look(tree: Path) -> None:
        assert [(tree / name).read_text() for name in ("lib/one", "lib/two")] == ["new", "new"]
        assert (tree / "lib/one").samefile(tree / "lib/two")
        assert (tree / "lib/one").stat().st_nlink == 2

    async def story(host: RealHost) -> None:
        await lived(host, change, is_image=is_image)
        read(host, await captured(host), look)

    on_a_host(story)


@both_forms
def test_a_snapshot_of_a_full_disk_becomes_an_image_as_well(is_image: bool) -> None:
    async def story(host: RealHost) -> None:
        await lived(host, change, fill_up, is_image=is_image)
        read(host, await captured(host), assert_changed)

    on_a_host(story)


def test_a_captured_image_is_a_source_by_its_digest() -> None:
    async def story(host: RealHost) -> None:
        await lived(host, change)
        digest = await captured(host)
        made = template_spec(TemplateName("made"), ImageSource(digest=digest), ("/sbin/init",))
        await host.perform(BuildTemplate(template=made))
        assert templates.read_index(host.site)[made.key] == digest
        other = template_spec(TemplateName("made"), ImageSource(digest="0" * 64), ("/sbin/init",))
        with pytest.raises(TemplateError, match="not on this host"):
            await host.perform(BuildTemplate(template=other))

    on_a_host(story)


def test_what_is_no_snapshot_is_not_captured() -> None:
    async def story(host: RealHost) -> None:
        await lived(host)
        for name in ("none", "..", ".golden", "a/b", ""):
            with pytest.raises(StateError, match="snapshot"):
                await host.perform(replace(CAPTURE, snapshot=SnapshotName(name)))

    on_a_host(story)


# What goes wrong leaves nothing behind


@both_forms
def test_a_template_that_cannot_be_written_leaves_nothing(is_image: bool) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise NoSpaceError("write image: No space left on device")

    async def story(host: RealHost) -> None:
        await lived(host, change, is_image=is_image)
        for module, name in ((erofs, "make_image"), (btrfs, "snapshot")):
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(module, name, full)
                with pytest.raises(NoSpaceError, match="a copy of the snapshot"):
                    await host.perform(CAPTURE)
            assert_nothing_left(host)

    on_a_host(story)


def test_an_image_that_the_pool_could_not_hold_twice_is_not_captured() -> None:
    async def story(host: RealHost) -> None:
        await lived(host, is_image=True)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(btrfs, "read_space", lambda pool: btrfs.Space(size=1 << 30, free=SIZE - 1))
            with pytest.raises(NoSpaceError, match=r"make template gold .* needs as much room again"):
                await host.perform(CAPTURE)

    on_a_host(story)


@both_forms
def test_what_a_crash_has_left_of_a_template_is_swept(is_image: bool) -> None:
    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def story(host: RealHost) -> None:
        await lived(host, change, is_image=is_image)
        with pytest.MonkeyPatch.context() as patched, suppress(storage.NoAnswerError):
            patched.setattr(erofs, "make_image", die)
            storage.in_child(lambda: asyncio.run(RealHost(Site(host.site.instance)).perform(CAPTURE)))
        assert btrfs.is_subvolume(f"{host.site.instance.ve_dir(A)}/.capture/volume")
        debris.sweep(host.site)
        templates.sweep(host.site)

    on_a_host(story)


def test_what_a_template_is_being_made_from_is_neither_swept_nor_taken_by_another() -> None:
    make, met = erofs.make_image, []

    async def story(host: RealHost) -> None:
        other = RealHost(Site(host.site.instance))

        def meanwhile(*arguments: Any, **options: Any) -> None:
            debris.sweep(other.site)
            with pytest.raises(BusyError, match="another one is being made"):
                asyncio.run(other.perform(CAPTURE))
            met.append(True)
            make(*arguments, **options)

        await lived(host, change)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(erofs, "make_image", meanwhile)
            read(host, await captured(host), assert_changed)
        assert met == [True]
        other.site.close()

    on_a_host(story)


async def live_and_copy(host: RealHost) -> str:
    """Let one VE change a file, make a template of it, and start another from that; give what it has there."""
    for effect in (*created(A), StartRuntime(uid=A)):
        await host.perform(effect)
    pid = pid_of(await host.observe(), A)
    inside(pid, "echo from a >/etc/motd")
    await host.perform(TakeSnapshot(uid=A, name=GOLDEN))
    inside(pid, "echo later >/etc/motd")
    await host.perform(CAPTURE)
    [digest] = [digest for digest, image in (await host.observe()).images.items() if image.name == "gold"]
    made = template_spec(TemplateName("tried"), ImageSource(digest=digest), ("/sbin/init",))
    await host.perform(BuildTemplate(template=made))
    for effect in (WriteRecord(record=SETTING.record(B), template_key=made.key), *created(B), StartRuntime(uid=B)):
        await host.perform(effect)
    seen = await host.observe()
    with pytest.raises(BusyError, match="uses it"):
        await host.perform(RemoveTemplate(key=made.key))
    return inside(pid_of(seen, B), "cat /etc/motd")


def inside(pid: int, script: str) -> str:
    """Run a script in the VE of an init."""
    enter = ["nsenter", f"--target={pid}", "--all", "--root", "--wd", "--", "sh", "-c", script]
    return subprocess.run(enter, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


def pid_of(seen: HostObservation, uid: Uid) -> int:
    power = seen.ves[uid].power
    assert isinstance(power, PowerObservation)
    assert power.pid is not None
    return power.pid


def test_a_ve_starts_from_a_template_that_was_made_of_another() -> None:
    assert real_host.on_real_host(live_and_copy) == "from a\n"
