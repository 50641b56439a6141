"""Claims about limits of disk traffic, with processes of a cgroup that write and read a btrfs, on either cgroup."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import pytest

from reconciler.errors import KernelError
from reconciler.kernel import cgroup_io, cgroup_layout, cgroup_limits, disks
from reconciler.kernel.cgroup import CgroupTree
from reconciler.kernel.cgroup_layout import Layout
from reconciler.kernel.cgroup_values import LimitValue
from tests.support import storage

pytestmark = pytest.mark.kernel

T = TypeVar("T")

LIMIT = 2 << 20
BLOCK = 64 << 10
COUNT = 64
FAIR = COUNT * BLOCK / LIMIT
DIRECTLY, SYNCED = ("oflag=direct",), ("conv=fsync",)


@dataclass(frozen=True, slots=True)
class Place:
    """A btrfs on a loop device, and a cgroup with processes that use it."""

    pool: str
    layout: Layout
    tree: CgroupTree

    def limit(self, **limits: int | None) -> None:
        """Set limits, by the last part of their names, and read them back."""
        named = {f"io.{name}": value for name, value in limits.items()}
        self.tree.write_limits(named)
        read = self.tree.read_limits() or {}
        assert {name: read[name] for name in named} == named

    def seconds(self, *arguments: str) -> float:
        """Run dd in the cgroup, and give what it takes."""
        joined = "; ".join(f"echo $$ > {directory}/cgroup.procs" for directory in self.tree.inner_directories())
        begun = time.monotonic()
        subprocess.run(["sh", "-c", f'{joined}; exec dd "$@" status=none', "sh", *arguments], check=True, timeout=120)
        return time.monotonic() - begun

    def write(self, *flags: str) -> float:
        """Write a file."""
        return self.seconds("if=/dev/zero", f"of={self.pool}/f", f"bs={BLOCK}", f"count={COUNT}", *flags)

    def read(self) -> float:
        """Read it past the cache."""
        return self.seconds(f"if={self.pool}/f", "of=/dev/null", f"bs={BLOCK}", "iflag=direct")


def in_place(work: Callable[[Place], T]) -> T:
    """Do something on a pool and with a cgroup of its own."""

    def made() -> T:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, storage.pool(directory) as pool:
            layout = replace(cgroup_layout.detect(), disks=disks.examine(pool, cost_model=None))
            with cgroup_of(layout) as tree:
                return work(Place(pool, layout, tree))

    return storage.in_private_namespace(made)


@contextmanager
def cgroup_of(layout: Layout) -> Iterator[CgroupTree]:
    instance = f"/vectl-test-{os.getpid()}-{secrets.token_hex(3)}"
    tree = CgroupTree(layout, f"{instance}/ve1")
    tree.create()
    try:
        yield tree
    finally:
        tree.kill()
        tree.remove()
        for hierarchy in layout.hierarchies():
            os.rmdir(hierarchy.path(instance))


@pytest.mark.parametrize("flags", [DIRECTLY, SYNCED], ids=["direct", "synced"])
def test_writing_takes_the_time_of_the_limit(flags: tuple[str, ...]) -> None:
    def work(place: Place) -> None:
        free = place.write(*flags)
        place.limit(write=LIMIT)
        assert max(free, 0.7 * FAIR) < place.write(*flags)
        place.limit(write=None)
        assert place.write(*flags) < 0.7 * FAIR + 2 * free

    in_place(work)


def test_reading_takes_the_time_of_the_limit() -> None:
    def work(place: Place) -> None:
        place.write(*DIRECTLY)
        free = place.read()
        place.limit(read=LIMIT)
        assert max(free, 0.7 * FAIR) < place.read()

    in_place(work)


def test_operations_take_the_time_of_the_limit() -> None:
    def work(place: Place) -> None:
        place.limit(writeOps=COUNT // 2)
        assert place.write(*DIRECTLY) > 0.7 * 2

    in_place(work)


def test_a_limit_of_nothing_is_refused() -> None:
    def work(place: Place) -> None:
        for limit in cgroup_io.LIMITS[1:]:
            with pytest.raises(KernelError):
                cgroup_limits.write_limit(place.layout, place.tree.cgroup, limit, 0)

    in_place(work)


def test_a_cgroup_that_is_half_made_is_not_remembered_so() -> None:
    def work(place: Place) -> None:
        reader = cgroup_limits.LimitReader(place.layout, name=str)
        try:
            for directory in place.tree.inner_directories():
                os.rmdir(directory)
            reader.read(place.tree.cgroup)
            place.tree.create()
            assert set(cgroup_io.LIMITS) - {cgroup_io.WEIGHT} <= (reader.read(place.tree.cgroup) or {}).keys()
        finally:
            reader.close()

    in_place(work)


def test_a_weight_is_held_once_the_disk_is_shared_by_it() -> None:
    def work(place: Place) -> str:
        (number,) = place.layout.disks.numbers
        has_scheduler(number, "none")  # a loop device keeps what it had when it held another file
        assert "io.weight" not in limits_now(place)
        if not has_scheduler(number, "bfq"):
            return "no BFQ"
        try:
            for weight in (1, 1000, 100):
                CgroupTree(layout_now(place), place.tree.cgroup).write_limits({"io.weight": weight})
                assert limits_now(place)["io.weight"] == weight
        finally:
            has_scheduler(number, "none")
        return ""

    if in_place(work):
        pytest.skip("this kernel has no BFQ")


def layout_now(place: Place) -> Layout:
    return replace(place.layout, disks=disks.examine(place.pool, cost_model=None))


def limits_now(place: Place) -> Mapping[str, LimitValue]:
    return CgroupTree(layout_now(place), place.tree.cgroup).read_limits() or {}


def has_scheduler(number: str, name: str) -> bool:
    """Give a disk its scheduler; False, if the kernel cannot."""
    try:
        with open(f"/sys/dev/block/{number}/queue/scheduler", "w") as file:
            file.write(name)
    except OSError:
        return False
    return True


def test_the_disk_of_a_pool_in_a_file_is_its_loop_device() -> None:
    def work(place: Place) -> None:
        source = next(line.split()[-2] for line in mounts() if line.split()[4] == place.pool)
        device = os.stat(source).st_rdev
        assert place.layout.disks.numbers == (f"{os.major(device)}:{os.minor(device)}",)

    in_place(work)


def mounts() -> list[str]:
    with open("/proc/self/mountinfo") as file:
        return file.read().splitlines()
