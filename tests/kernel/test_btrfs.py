"""btrfs subvolumes, space and quota groups, on a file system of our own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.errors import BusyError, CommandError, KernelError, NoSpaceError, VectlError
from reconciler.kernel import btrfs, files, qgroup
from reconciler.kernel.qgroup import Qgroup, QuotaTable
from tests.support.storage import POOL_BYTES, commit, mounted, pool, read, snapshot, write

pytestmark = pytest.mark.kernel

MIB = 1 << 20
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def shared_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pool(str(tmp_path_factory.mktemp("btrfs"))) as path:
        yield path


@pytest.fixture
def place(shared_pool: str, tmp_path: Path) -> str:
    """A directory of the test's own in the pool, with quotas that count."""
    path = f"{shared_pool}/{tmp_path.name}"
    os.mkdir(path)
    counted(shared_pool)
    return path


def fill(path: str, size: int) -> None:
    with open(path, "wb", buffering=0) as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
            os.fsync(file.fileno())


def counted(path: str) -> QuotaTable:
    """The quota table once it is consistent, as of now."""
    deadline = time.monotonic() + DEADLINE_S
    commit(path)
    if not qgroup.read_qgroups(path).consistent:
        qgroup.start_rescan(path)
    while not (table := qgroup.read_qgroups(path)).consistent:
        assert time.monotonic() < deadline, "the rescan did not end"
        time.sleep(0.01)
        commit(path)
    return table


def eventually(work: Callable[[], None], path: str) -> None:
    """Do what is refused as long as a deleted subvolume is being cleaned up."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return work()
        except BusyError:
            assert time.monotonic() < deadline, "still being cleaned up"
        commit(path)
        time.sleep(0.01)


def group_of(subvolume: str) -> Qgroup:
    return counted(subvolume).groups[btrfs.subvolume_id(subvolume)]


def test_a_path_on_btrfs_is_told_from_one_that_is_not(place: str) -> None:
    assert btrfs.is_btrfs(place)
    assert not btrfs.is_btrfs("/proc")
    with pytest.raises(KernelError, match="No such file"):
        btrfs.is_btrfs(f"{place}/absent")


def test_a_file_system_is_not_made_over_another(shared_pool: str) -> None:
    with pytest.raises(CommandError, match=r"mkfs\.btrfs"):
        btrfs.make_filesystem(f"{os.path.dirname(shared_pool)}/pool.img", label="again")


def test_an_image_keeps_its_allocated_place(tmp_path: Path) -> None:
    files.allocate(f"{tmp_path}/image", 128 * MIB)
    btrfs.make_filesystem(f"{tmp_path}/image", label="vectl-test")
    assert (tmp_path / "image").stat().st_blocks * 512 >= 128 * MIB


def test_a_subvolume_is_made_once_and_has_an_id_of_its_own(place: str) -> None:
    for _ in range(2):
        btrfs.create_subvolume(f"{place}/v")
    btrfs.create_subvolume(f"{place}/w")
    assert btrfs.is_subvolume(f"{place}/v")
    assert btrfs.subvolume_id(f"{place}/v") != btrfs.subvolume_id(f"{place}/w")


def test_a_plain_directory_is_no_subvolume_and_is_not_deleted_as_one(place: str) -> None:
    write(f"{place}/plain/f", "kept")
    os.symlink(place, f"{place}/link")
    assert not btrfs.is_subvolume(f"{place}/plain")
    assert not btrfs.is_subvolume(f"{place}/absent")
    for path in ("plain", "link", "plain/f"):
        with pytest.raises(KernelError, match="expected a btrfs subvolume"):
            btrfs.delete_subvolume(f"{place}/{path}")
    assert read(f"{place}/plain/f") == "kept"
    with pytest.raises(KernelError, match="File exists"):
        btrfs.create_subvolume(f"{place}/plain")


def test_off_btrfs_an_operation_says_so(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"^create subvolume .*: expected a path on btrfs$"):
        btrfs.create_subvolume(f"{tmp_path}/v")


def test_a_subvolume_is_deleted_with_its_files_and_absent_is_success(place: str) -> None:
    btrfs.create_subvolume(f"{place}/v")
    write(f"{place}/v/a/b/f", "x")
    snapshot(f"{place}/v", f"{place}/frozen", "-r")
    for path in ("v", "frozen", "v"):
        btrfs.delete_subvolume(f"{place}/{path}")
    assert os.listdir(place) == []


def test_a_subvolume_with_another_in_it_is_not_deleted(place: str) -> None:
    btrfs.create_subvolume(f"{place}/v")
    btrfs.create_subvolume(f"{place}/v/inner")
    with pytest.raises(BusyError, match="another subvolume is in it"):
        btrfs.delete_subvolume(f"{place}/v")
    btrfs.delete_subvolume(f"{place}/v/inner")
    btrfs.delete_subvolume(f"{place}/v")


def test_quotas_that_are_off_are_an_error_not_an_empty_table(tmp_path: Path) -> None:
    image = f"{tmp_path}/image"
    files.allocate(image, 128 * MIB)
    btrfs.make_filesystem(image, label="vectl-test")
    with mounted(image, f"{tmp_path}/pool", fstype="btrfs", read_only=False) as path:
        btrfs.create_subvolume(f"{path}/v")
        for off in (lambda: qgroup.read_qgroups(path), lambda: qgroup.set_limit(f"{path}/v", MIB)):
            with pytest.raises(KernelError, match="quotas are not on"):
                off()
        for _ in range(2):
            qgroup.enable_quota(path)
        assert btrfs.subvolume_id(f"{path}/v") in counted(path).groups


def test_a_limit_is_read_back_enforced_and_lifted_even_when_it_is_reached(place: str) -> None:
    btrfs.create_subvolume(f"{place}/v")
    assert group_of(f"{place}/v").max_referenced is None
    qgroup.set_limit(f"{place}/v", 8 * MIB)
    assert group_of(f"{place}/v").max_referenced == 8 * MIB
    with pytest.raises(OSError, match="Disk quota exceeded"):
        fill(f"{place}/v/big", 16 * MIB)
    assert 7 * MIB < group_of(f"{place}/v").referenced <= 8 * MIB
    with pytest.raises(NoSpaceError, match=r"^write .*/record: Disk quota exceeded$"):
        files.write_atomic(f"{place}/v/record", os.urandom(MIB))
    qgroup.set_limit(f"{place}/v", 1 * MIB)
    qgroup.set_limit(f"{place}/v", None)
    assert group_of(f"{place}/v").max_referenced is None
    fill(f"{place}/v/big", 16 * MIB)


def test_a_deleted_subvolume_is_counted_out_however_large_it_was(shared_pool: str) -> None:
    asked = subprocess.run(["findmnt", "-no", "UUID", shared_pool], check=True, capture_output=True, text=True)
    threshold = Path(f"/sys/fs/btrfs/{asked.stdout.strip()}/qgroups/drop_subtree_threshold")
    qgroup.count_large_deletions(shared_pool)
    assert not threshold.exists() or threshold.read_text() == "8\n"


def test_a_limit_is_set_on_subvolumes_only(place: str) -> None:
    btrfs.create_subvolume(f"{place}/v")
    os.mkdir(f"{place}/v/plain")
    with pytest.raises(KernelError, match="expected a btrfs subvolume"):
        qgroup.set_limit(f"{place}/v/plain", MIB)
    assert group_of(f"{place}/v").max_referenced is None


def test_a_table_that_has_become_inconsistent_says_so_and_a_rescan_mends_it(place: str) -> None:
    subprocess.run(["btrfs", "qgroup", "create", "1/3", place], check=True, timeout=20)
    btrfs.create_subvolume(f"{place}/v")
    fill(f"{place}/v/f", 2 * MIB)
    snapshot(f"{place}/v", f"{place}/clone", "-i", "1/3")
    assert not qgroup.read_qgroups(place).consistent
    for _ in range(2):
        qgroup.start_rescan(place)
    table = counted(place)
    assert table.groups[btrfs.subvolume_id(f"{place}/clone")].referenced >= 2 * MIB


def test_a_quota_group_is_removed_once_its_subvolume_is_gone(place: str) -> None:
    btrfs.create_subvolume(f"{place}/v")
    number = btrfs.subvolume_id(f"{place}/v")
    with pytest.raises(BusyError, match="its subvolume is there"):
        qgroup.remove_qgroup(place, number)
    btrfs.delete_subvolume(f"{place}/v")
    eventually(lambda: qgroup.remove_qgroup(place, number), place)
    assert number not in qgroup.read_qgroups(place).groups
    qgroup.remove_qgroup(place, number)


def test_a_group_above_holds_a_volume_and_its_snapshots_to_one_limit(place: str) -> None:
    above = qgroup.group_of_level_1(77)
    for _ in range(2):
        qgroup.create_qgroup(place, above)
    btrfs.create_subvolume(f"{place}/v")
    qgroup.assign_qgroup(place, btrfs.subvolume_id(f"{place}/v"), above)
    qgroup.set_limit(f"{place}/v", 8 * MIB)
    qgroup.set_group_limit(place, above, 12 * MIB)
    assert group_of(f"{place}/v").parents == {above}
    fill(f"{place}/v/f", 6 * MIB)
    snapshot(f"{place}/v", f"{place}/kept", "-r", "-i", f"1/{above & 0xFFFF}")
    assert counted(place).groups[above].max_referenced == 12 * MIB
    with pytest.raises(OSError, match="Disk quota exceeded"):
        fill(f"{place}/v/f", 8 * MIB)
    assert group_of(f"{place}/v").referenced < 8 * MIB, "it was not the volume's own limit"
    assert 11 * MIB < counted(place).groups[above].referenced <= 12 * MIB


def test_one_group_is_read_with_its_parents(place: str) -> None:
    above = qgroup.group_of_level_1(78)
    qgroup.create_qgroup(place, above)
    btrfs.create_subvolume(f"{place}/v")
    number = btrfs.subvolume_id(f"{place}/v")
    assert qgroup.read_qgroups(place, {number}).groups[number].parents == frozenset()
    for _ in range(2):
        qgroup.assign_qgroup(place, number, above)
    with pytest.raises(BusyError, match="it has members"):
        qgroup.remove_qgroup(place, above)
    everything = counted(place).groups
    read_alone = qgroup.read_qgroups(place, {number}).groups
    assert read_alone == {key: group for key, group in everything.items() if key in (number, above)}
    assert read_alone[number].parents == qgroup.read_parents(place, number) == {above}
    for _ in range(2):
        qgroup.release_qgroup(place, number, above)
    qgroup.remove_qgroup(place, above)
    assert above not in counted(place).groups


def test_the_whole_table_is_read_however_many_calls_it_takes(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        btrfs.create_subvolume(f"{place}/{number}")
        qgroup.set_limit(f"{place}/{number}", (number + 1) * MIB)
    at_once = counted(place)
    monkeypatch.setattr("reconciler.kernel.btrfs_call._BUFFER", 256)
    assert qgroup.read_qgroups(place) == at_once
    limits = [at_once.groups[btrfs.subvolume_id(f"{place}/{number}")].max_referenced for number in range(20)]
    assert limits == [(number + 1) * MIB for number in range(20)]


def test_every_refusal_is_one_of_our_errors(place: str) -> None:
    for wrong in (
        lambda: btrfs.create_subvolume(f"{place}/absent/v"),
        lambda: btrfs.read_space(f"{place}/absent"),
        lambda: btrfs.is_btrfs(f"{place}/absent"),
    ):
        with pytest.raises(VectlError, match="No such file"):
            wrong()


def test_the_pool_has_the_size_of_its_image(shared_pool: str) -> None:
    space = btrfs.read_space(shared_pool)
    assert space.size == POOL_BYTES
    assert 0 < space.free < POOL_BYTES


def test_a_snapshot_has_the_limit_and_the_group_of_its_source_from_the_first_byte_and_all_stays_counted(
    place: str,
) -> None:
    above = qgroup.group_of_level_1(79)
    qgroup.create_qgroup(place, above)
    btrfs.create_subvolume(f"{place}/v")
    qgroup.assign_qgroup(place, btrfs.subvolume_id(f"{place}/v"), above)
    qgroup.set_limit(f"{place}/v", 8 * MIB)
    fill(f"{place}/v/f", 4 * MIB)
    commit(place)
    btrfs.snapshot(f"{place}/v", f"{place}/kept", read_only=True, group=above)
    btrfs.snapshot(f"{place}/kept", f"{place}/again", read_only=False, group=above)
    table = qgroup.read_qgroups(place)
    if not table.consistent:
        pytest.skip("before Linux 6.9 a snapshot in a group makes a rescan necessary")
    again = table.groups[btrfs.subvolume_id(f"{place}/again")]
    assert (again.max_referenced, again.parents) == (8 * MIB, frozenset({above}))
    assert again.referenced > 4 * MIB > table.groups[above].referenced - 4 * MIB
    with pytest.raises(OSError, match="Disk quota exceeded"):
        fill(f"{place}/again/g", 8 * MIB)
    with pytest.raises(OSError, match="Read-only"):
        os.unlink(f"{place}/kept/f")


def test_a_snapshot_of_a_volume_without_a_group_may_go_to_anybody_and_all_stays_counted(place: str) -> None:
    btrfs.create_subvolume(f"{place}/v")
    fill(f"{place}/v/f", 4 * MIB)
    btrfs.snapshot(f"{place}/v", f"{place}/kept", read_only=True)
    btrfs.snapshot(f"{place}/kept", f"{place}/clone", read_only=False)
    btrfs.snapshot(f"{place}/clone", f"{place}/clone.kept", read_only=True)
    fill(f"{place}/clone/f", 2 * MIB)
    commit(place)
    table = qgroup.read_qgroups(place)
    assert table.consistent
    assert table.groups[btrfs.subvolume_id(f"{place}/clone")].exclusive >= 2 * MIB
    assert table.groups[btrfs.subvolume_id(f"{place}/v")].exclusive < MIB


def test_a_snapshot_never_replaces_anything(place: str) -> None:
    btrfs.create_subvolume(f"{place}/v")
    write(f"{place}/taken", "kept")
    for target, reason in (("taken", "File exists"), ("absent/s", "No such file")):
        with pytest.raises(KernelError, match=reason):
            btrfs.snapshot(f"{place}/v", f"{place}/{target}", read_only=True)
    with pytest.raises(KernelError):
        btrfs.snapshot(f"{place}/taken", f"{place}/s", read_only=True)
    assert read(f"{place}/taken") == "kept"


def test_a_subvolume_that_was_made_read_only_takes_no_change(place: str) -> None:
    btrfs.create_subvolume(f"{place}/v")
    write(f"{place}/v/f", "kept")
    for _ in range(2):
        btrfs.make_read_only(f"{place}/v")
    with pytest.raises(OSError, match="Read-only"):
        os.unlink(f"{place}/v/f")
    os.mkdir(f"{place}/plain")
    with pytest.raises(KernelError, match="expected a btrfs subvolume"):
        btrfs.make_read_only(f"{place}/plain")
    btrfs.delete_subvolume(f"{place}/v")
