"""Claims about which disks a limit of I/O is for, and who shares them by weight, by what sysfs shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.kernel.disks import Sharing, describe


def device(at: Path, number: str, *, scheduler: str = "", on: tuple[Path, ...] = (), partition: bool = False) -> Path:
    """Make what sysfs shows of a block device."""
    (at / "slaves").mkdir(parents=True)
    (at / "dev").write_text(f"{number}\n")
    for lower in on:
        (at / "slaves" / lower.name).symlink_to(lower)
    if partition:
        (at / "partition").write_text("1\n")
    elif scheduler:
        (at / "queue").mkdir()
        (at / "queue/scheduler").write_text(f"{scheduler}\n")
    return at


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return device(tmp_path / "sda", "8:0", scheduler="none [mq-deadline] bfq")


@pytest.fixture
def weighed(tmp_path: Path) -> Path:
    return device(tmp_path / "sdb", "8:16", scheduler="none [bfq]")


def test_of_a_partition_it_is_the_whole_disk(disk: Path) -> None:
    part = device(disk / "sda1", "8:1", partition=True)
    assert describe([str(part), str(disk)], cost_model=None).numbers == ("8:0",)


def test_a_mapped_device_holds_limits_itself_and_is_shared_as_what_it_is_made_of(disk: Path, weighed: Path) -> None:
    lower, other = (device(whole / f"{whole.name}1", "8:9", partition=True) for whole in (disk, weighed))
    mapped = device(disk.parent / "dm-0", "253:0", on=(lower, other))
    found = describe([str(mapped)], cost_model=None)
    assert found.numbers == ("253:0",)
    assert found.sharing is None
    assert "echo bfq > /sys/block/sda/queue/scheduler" in found.why_not
    good = device(disk.parent / "dm-1", "253:1", on=(other,))
    assert describe([str(good)], cost_model=None).sharing is Sharing.BFQ


def test_several_disks_are_shared_only_if_each_is(disk: Path, weighed: Path) -> None:
    both = describe([str(weighed), str(disk)], cost_model=None)
    assert both.numbers == ("8:0", "8:16")
    assert both.sharing is None
    assert describe([str(weighed)], cost_model=None).sharing is Sharing.BFQ


def test_a_disk_whose_cost_is_counted_is_shared_by_that(disk: Path, weighed: Path, tmp_path: Path) -> None:
    model = tmp_path / "io.cost.qos"
    model.write_text("8:0 enable=1 ctrl=auto\n8:16 enable=0 ctrl=auto\n")
    assert describe([str(disk)], cost_model=str(model)).sharing is Sharing.IOCOST
    assert describe([str(weighed)], cost_model=str(model)).sharing is Sharing.BFQ


def test_no_disks_hold_nothing() -> None:
    assert describe([], cost_model=None).sharing is None
