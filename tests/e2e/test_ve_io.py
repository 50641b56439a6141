"""Claims about disk traffic: what is written and read inside a VE takes the time that its limit gives it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kernel import cgroup_file, disks
from reconciler.model.condition import ConditionType
from tests.support.fleet import Document, Fleet, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve

pytestmark = pytest.mark.xdist_group("ve-io")

MIB = 1 << 20
LIMIT = 2 * MIB
TRANSFER = 5 * MIB
WRITE = f"dd if=/dev/zero of=/data bs=64k count={TRANSFER >> 16} oflag=direct 2>/dev/null"
READ = f"dd if=/data of=/dev/null bs=64k count={TRANSFER >> 16} iflag=direct 2>/dev/null"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp(), ve("free"), ve("slow"), pool={"size": "512Mi"}) as made:
        made.start_agent()
        made.await_ready("free", "slow")
        yield made


@pytest.fixture(autouse=True)
def _restored(fleet: Fleet) -> Iterator[None]:
    yield
    give(fleet)


def give(fleet: Fleet, **limits: int | str) -> None:
    """Give the slow VE these limits, and no others, while it runs."""
    slow: Document = ve("slow", io=limits) if limits else ve("slow")
    init = fleet.ve("slow").init
    fleet.put("all.yaml", ve("free"), slow)
    fleet.await_ready("slow")
    assert fleet.ve("slow").init == init


def limit_file(one: Ve, v1: str) -> Path:
    """Find the file of a limit: on cgroup v2 all are in one."""
    return one.limit_file(f"ve/blkio.throttle.{v1}_device", "io.max", controller=io_controller())


def io_controller() -> str:
    return "blkio" if os.path.isdir("/sys/fs/cgroup/blkio") else "io"


def pool_disk(fleet: Fleet) -> str:
    (disk,) = disks.examine(fleet.instance.pool, cost_model=None).numbers
    return disk


def scheduler_of(disk: str) -> Path:
    return Path(f"/sys/dev/block/{disk}/queue/scheduler")


def seconds(one: Ve, script: str) -> float:
    begun = time.monotonic()
    one.shell(script)
    return time.monotonic() - begun


def test_what_is_written_and_read_takes_the_time_that_the_limits_give_it(fleet: Fleet) -> None:
    slow, free = fleet.ve("slow"), fleet.ve("free")
    give(fleet, write="2Mi", read="2Mi")
    fair = TRANSFER / LIMIT
    for script in (WRITE, READ):
        assert 0.7 * fair < seconds(slow, script) < 3 * fair
        free.shell(WRITE)
    give(fleet)
    assert seconds(slow, WRITE) < 0.7 * fair
    assert seconds(slow, READ) < 0.7 * fair


def test_operations_are_limited_whatever_their_size(fleet: Fleet) -> None:
    give(fleet, writeOps=50)
    assert 0.7 * 2 < seconds(fleet.ve("slow"), "dd if=/dev/zero of=/ops bs=4k count=100 oflag=direct 2>/dev/null") < 9


def test_limits_are_written_for_the_pools_own_disk_and_taken_away_again(fleet: Fleet) -> None:
    give(fleet, write="2Mi", readOps=300)
    slow, disk = fleet.ve("slow"), pool_disk(fleet)
    written, operations = limit_file(slow, "write_bps"), limit_file(slow, "read_iops")
    if written == operations:
        assert written.read_text() == f"{disk} rbps=max wbps={LIMIT} riops=300 wiops=max\n"
    else:
        assert written.read_text() == f"{disk} {LIMIT}\n"
        assert operations.read_text() == f"{disk} 300\n"
    give(fleet)
    assert written.read_text() == operations.read_text() == ""


def test_a_limit_that_somebody_lifted_is_put_back(fleet: Fleet) -> None:
    give(fleet, write="2Mi")
    file, disk = limit_file(fleet.ve("slow"), "write_bps"), pool_disk(fleet)
    before = file.read_text()
    with fleet.puts_right("slow", "io.write"):
        cgroup_file.write(str(file), f"{disk} wbps=max" if file.name == "io.max" else f"{disk} 0")
    assert file.read_text() == before


def test_a_limit_that_nobody_asked_for_is_taken_away(fleet: Fleet) -> None:
    file, disk = limit_file(fleet.ve("free"), "read_bps"), pool_disk(fleet)
    with fleet.puts_right("free", "io.read"):
        cgroup_file.write(str(file), f"{disk} rbps={MIB}" if file.name == "io.max" else f"{disk} {MIB}")
    assert file.read_text() == ""


def test_the_ves_root_cannot_reach_the_files_of_its_limits(fleet: Fleet) -> None:
    give(fleet, write="2Mi")
    slow = fleet.ve("slow")
    before = limit_file(slow, "write_bps").read_text()
    script = "for f in $(find /sys/fs/cgroup -name 'io.max' -o -name 'blkio.throttle*'); do echo '7:0 0' > $f; done"
    slow.try_run("sh", "-c", f"{script} 2>/dev/null; true")
    assert limit_file(slow, "write_bps").read_text() == before
    assert seconds(slow, WRITE) > 0.7 * TRANSFER / LIMIT


def test_a_weight_that_nothing_shares_by_is_told_with_the_remedy(fleet: Fleet) -> None:
    scheduler_of(pool_disk(fleet)).write_text("none")  # a loop device keeps what it had when it held another file
    give(fleet, weight=500)
    told = fleet.conditions("slow")[ConditionType.NOT_ENFORCEABLE]
    assert "io.weight: " in told.message
    assert "echo bfq > /sys/block/loop" in told.message


@pytest.fixture
def shared_by_weight(fleet: Fleet) -> Iterator[None]:
    scheduler = scheduler_of(pool_disk(fleet))
    try:
        scheduler.write_text("bfq")  # which loads it, where it is a module
    except OSError:
        pytest.skip("this kernel has no BFQ")
    # What favours programs that just began would favour every reader here.
    scheduler.with_name("iosched").joinpath("low_latency").write_text("0")
    yield
    scheduler.write_text("none")


@pytest.mark.usefixtures("shared_by_weight")
def test_a_busy_disk_is_shared_by_weight(fleet: Fleet) -> None:
    give(fleet, weight=1000)
    until(lambda: weight_file(fleet.ve("slow")).read_text().split()[-1] == "1000", "the weight to be written")
    assert ConditionType.NOT_ENFORCEABLE not in fleet.conditions("slow")
    ves = [fleet.ve(name) for name in ("slow", "free")]
    for one in ves:
        one.shell(WRITE)
    before = [bytes_read(one, pool_disk(fleet)) for one in ves]
    endless = f"(while {READ}; do :; done) & " * 4
    running = [one.begin("sh", "-c", f"{endless} sleep 3; kill $(jobs -p); wait") for one in ves]
    for end in running:
        end.result()
    heavy, light = (bytes_read(one, pool_disk(fleet)) - start for one, start in zip(ves, before, strict=True))
    assert heavy > 1.5 * light


def bytes_read(one: Ve, disk: str) -> int:
    """Read how much was read from a disk in a VE: the kernel's own count."""
    stat = one.limit_file("ve/blkio.throttle.io_service_bytes", "io.stat", controller=io_controller())
    for words in map(str.split, stat.read_text().splitlines()):
        if words[:2] == [disk, "Read"]:
            return int(words[2])
        if words[0] == disk:
            return next(int(word[7:]) for word in words if word.startswith("rbytes="))
    return 0


def weight_file(one: Ve) -> Path:
    return one.limit_file("blkio.bfq.weight", "io.bfq.weight", controller=io_controller())
