"""An overlay whose volume was copied by a snapshot: it mounts once its index is renewed, and no file has changed."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from reconciler.errors import KernelError, KernelFormatError
from reconciler.host import image as volumes
from reconciler.kernel import btrfs, loop, overlay, overlay_index, quota, receiving, sending, userns
from reconciler.kernel.image import ImageMount
from reconciler.kernel.overlay import OverlayMount
from reconciler.kernel.receive_child import Reception
from tests.support.storage import in_private_namespace, pool, read, template, write

pytestmark = pytest.mark.kernel

T = TypeVar("T")

BASE = 1_000_000
IMAGE_BYTES = 48 << 20
DIRECTORIES, FILES = 30, 9


def fill(tree: str) -> None:
    for number in range(DIRECTORIES):
        for name in range(FILES):
            write(f"{tree}/lib/d{number}/f{name}", f"{number} {name}\n")
    write(f"{tree}/lib/h1", "lower\n")
    os.link(f"{tree}/lib/h1", f"{tree}/lib/h2")


def live() -> None:
    """What a VE does in its root directory: it copies up, links, renames, makes and deletes."""
    write("lib/h1", "changed\n")
    write("lib/d0/f0", "changed\n")
    os.chmod("lib/d1", 0o700)
    os.chown("lib/d2/f1", BASE + 33, BASE + 34)
    os.rename("lib/d3", "lib/renamed")
    os.unlink("lib/d4/f4")
    write("home/new/f", "new\n")
    os.link("home/new/f", "home/linked")


def seen() -> dict[str, tuple[int, int, int, int]]:
    """Each path with its number, its type and mode, and its owners as counted from 0."""
    found = {}
    for top, directories, names in os.walk("."):
        for name in (*directories, *names):
            info = os.lstat(f"{top}/{name}")
            found[f"{top}/{name}"] = info.st_ino, info.st_mode, info.st_uid, info.st_gid
    return found


def linked() -> tuple[str, str]:
    """Read a file that the template has by two names by each, after it was written to by one of them."""
    before = read("lib/h2")
    write("lib/h2", "again\n")
    return before, read("lib/h1")


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    directory = str(tmp_path_factory.mktemp("index"))
    with template(directory, fill) as lower, pool(directory) as upper:
        yield lower, upper


@pytest.fixture(params=[True, False], ids=["nfs_export", "index-only"])
def spec(layers: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[OverlayMount]:
    lower, upper = layers
    directory = f"{upper}/{tmp_path.name}"
    os.mkdir(directory)
    os.mkdir(f"{tmp_path}/root")
    btrfs.create_subvolume(f"{directory}/volume")
    yield OverlayMount(
        lower=lower,
        volume=f"{directory}/volume",
        target=f"{tmp_path}/root",
        id_base=BASE,
        id_count=65536,
        nfs_export=request.param,
    )
    for name in os.listdir(directory):
        btrfs.delete_subvolume(f"{directory}/{name}")


def within(spec: OverlayMount, work: Callable[[], T]) -> T:
    """Do work as the environment's root in its root directory."""

    def mounted() -> T:
        overlay.mount_overlay(spec)
        with userns.acting_as(spec.id_base, spec.id_base):
            os.chdir(spec.target)
            return work()

    return in_private_namespace(mounted)


def copied(spec: OverlayMount, name: str) -> OverlayMount:
    """Take a snapshot of the volume, and make another volume of the snapshot."""
    kept, copy = (f"{os.path.dirname(spec.volume)}/{one}" for one in (f"{name}.kept", name))
    btrfs.snapshot(spec.volume, kept, read_only=True)
    btrfs.snapshot(kept, copy, read_only=False)
    return replace(spec, volume=copy)


def test_without_renewal_a_copy_does_not_mount_and_says_why(spec: OverlayMount) -> None:
    overlay.make_layers(spec.volume)
    within(spec, live)
    copy = copied(spec, "copy")

    def refused() -> tuple[int, str]:
        with pytest.raises(KernelError) as caught:
            overlay.mount_overlay(copy)
        return caught.value.errno, str(caught.value)

    number, text = in_private_namespace(refused)
    assert number == errno.ESTALE
    assert "renew it" in text


def test_a_renewed_copy_has_the_same_numbers_modes_owners_and_links(spec: OverlayMount) -> None:
    overlay.make_layers(spec.volume)
    within(spec, live)
    before = within(spec, seen)
    copy = copied(spec, "copy")
    assert within(spec, linked) == ("changed\n", "again\n")
    assert overlay_index.renew(copy.volume) > 0
    assert overlay_index.renew(copy.volume) == 0
    assert len(before) >= 300
    assert within(copy, seen) == before
    assert within(copy, linked) == ("changed\n", "again\n")
    assert within(copy, lambda: (read("lib/renamed/f1"), read("lib/d0/f0"))) == ("3 1\n", "changed\n")


def test_renewal_takes_as_long_as_the_index_whatever_the_files_hold(spec: OverlayMount) -> None:
    overlay.make_layers(spec.volume)
    within(spec, live)
    few = overlay_index.renew(copied(spec, "few").volume)

    def more() -> None:
        for number in range(500):
            write(f"home/d{number}/f", "x")

    within(spec, more)
    assert overlay_index.renew(copied(spec, "many").volume) == few


def test_a_copy_of_a_copy_is_renewed_as_well(spec: OverlayMount) -> None:
    overlay.make_layers(spec.volume)
    within(spec, live)
    copy = copied(spec, "copy")
    overlay_index.renew(copy.volume)
    another = copied(copy, "another")
    overlay_index.renew(another.volume)
    assert within(another, linked) == ("changed\n", "again\n")


def test_a_clone_in_other_ids_goes_its_own_way_beside_the_original(spec: OverlayMount, tmp_path: Path) -> None:
    overlay.make_layers(spec.volume)
    within(spec, live)
    other = BASE + 65536
    clone = replace(copied(spec, "clone"), id_base=other, target=f"{tmp_path}/clone")
    os.mkdir(clone.target)
    overlay_index.renew(clone.volume)
    overlay_index.give_identity(f"{clone.volume}/upper")

    def both() -> tuple[str, str, int, bool]:
        overlay.mount_overlay(clone)
        overlay.mount_overlay(spec)
        with userns.acting_as(other, other):
            write(f"{clone.target}/lib/h2", "the clone's\n")
        own = os.statvfs(clone.target).f_fsid != os.statvfs(spec.target).f_fsid
        owner = os.stat(f"{clone.target}/lib/d2/f1").st_uid
        return read(f"{clone.target}/lib/h1"), read(f"{spec.target}/lib/h1"), owner - other, own

    assert in_private_namespace(both) == ("the clone's\n", "changed\n", 33, True)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pool(str(tmp_path_factory.mktemp("elsewhere"))) as path:
        yield path


def arrived(spec: OverlayMount, directory: str) -> OverlayMount:
    """Send the volume to another file system, in which numbers differ from the start, and make a volume of it there."""
    os.mkdir(directory)
    for number in range(5):
        write(f"{directory}/{number}", "x")
    sent = f"{os.path.dirname(spec.volume)}/sent"
    btrfs.snapshot(spec.volume, sent, read_only=True)
    job = Reception(directory=directory, target="volume")
    asyncio.run(receiving.receive(job, sending.send(sent, parent=None)))
    return replace(spec, volume=f"{directory}/volume")


def born_in_template(found: dict[str, tuple[int, int, int, int]]) -> dict[str, tuple[int, int, int, int]]:
    return {path: about for path, about in found.items() if not path.startswith("./home")}


def test_what_came_from_another_file_system_is_found_by_its_origin(
    spec: OverlayMount, elsewhere: str, tmp_path: Path
) -> None:
    overlay.make_layers(spec.volume)
    within(spec, live)
    before = within(spec, seen)
    there = arrived(spec, f"{elsewhere}/{tmp_path.name}")
    with pytest.raises(AssertionError, match="renew it"):
        within(there, seen)
    assert overlay_index.renew_received(there.volume) > 0
    assert overlay_index.renew_received(there.volume) == 0
    found = within(there, seen)
    assert born_in_template(found) == born_in_template(before)
    assert {path: about[1:] for path, about in found.items()} == {path: about[1:] for path, about in before.items()}
    assert within(there, linked) == ("changed\n", "again\n")
    assert within(there, lambda: (read("lib/renamed/f1"), read("lib/d0/f0"))) == ("3 1\n", "changed\n")
    copy = copied(there, "copy")
    assert overlay_index.renew(copy.volume) > 0
    assert within(copy, linked) == ("again\n", "again\n")


def test_the_copy_of_an_image_needs_no_renewal_and_both_mount_at_once(spec: OverlayMount, tmp_path: Path) -> None:
    quotas = quota.missing() is None
    volumes.create(f"{spec.volume}/disk.img", size=IMAGE_BYTES, room=None, owner=BASE)
    for name in ("root.disk", "copy", "copy.disk"):
        os.mkdir(f"{tmp_path}/{name}")

    def attached(volume: OverlayMount, work: Callable[[OverlayMount], T]) -> T:
        with loop.attached(f"{volume.volume}/disk.img", read_only=False, direct_io=True) as device:
            at = ImageMount(device=device, quotas=quotas, attached_at=f"{volume.target}.disk")
            return work(replace(volume, image=at))

    def both(original: OverlayMount, copy: OverlayMount) -> tuple[object, ...]:
        def work() -> tuple[object, ...]:
            overlay.mount_overlay(copy)
            with userns.acting_as(BASE, BASE):
                os.chdir(copy.target)
                found = seen(), *linked()
                os.chdir("/")
            overlay.mount_overlay(original)
            return *found, read(f"{original.target}/lib/h1")

        return in_private_namespace(work)

    attached(spec, lambda one: within(one, live))
    before = attached(spec, lambda one: within(one, seen))
    copy = replace(copied(spec, "copy"), target=f"{tmp_path}/copy")
    result = attached(spec, lambda one: attached(copy, lambda other: both(one, other)))
    assert result == (before, "changed\n", "again\n", "changed\n")


def test_a_volume_that_was_never_mounted_has_nothing_to_renew(spec: OverlayMount) -> None:
    assert overlay_index.renew(spec.volume) == 0
    overlay.make_layers(spec.volume)
    assert overlay_index.renew(spec.volume) == 0


def test_what_is_no_handle_of_btrfs_is_refused() -> None:
    good = bytes.fromhex("00fb29004d") + bytes(16) + (257).to_bytes(8, "little") + bytes(12)
    assert overlay_index.with_subvolume(good, 300, where="here")[29:37] == (300).to_bytes(8, "little")
    for wrong in (b"", good[:-1], b"\x01" + good[1:], good[:4] + b"\x01" + good[5:]):
        with pytest.raises(KernelFormatError, match="expected a handle of btrfs"):
            overlay_index.with_subvolume(wrong, 300, where="here")
