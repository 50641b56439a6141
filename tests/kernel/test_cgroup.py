"""Claims about control groups, on this kernel's own layout; and what the text of other layouts means."""

from __future__ import annotations

import gc
import os
import resource
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from reconciler.errors import BusyError, InUseError, KernelError, KernelFormatError, TerminalError
from reconciler.kernel import (
    cgroup_file,
    cgroup_layout,
    cgroup_limits,
    cgroup_processes,
    cgroup_v1,
    cgroup_v2,
    inotify,
    pidfd,
)
from reconciler.kernel import cgroup_values as values
from reconciler.kernel.cgroup import CgroupTree
from reconciler.kernel.cgroup_layout import Layout
from tests.support import storage

MIB = 1 << 20

# Takes a number of MiB from stdin, touches as many, says so, and goes on.
HOG = """
import sys
kept = []
for line in sys.stdin:
    kept.append(bytearray(int(line) << 20))
    print("done", flush=True)
"""

SYSTEMD_V2 = """\
24 1 0:21 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
"""
SYSTEMD_V1 = """\
25 24 0:22 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
26 25 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
27 25 0:24 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
29 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:13 - cgroup cgroup rw,cpu,cpuacct
31 25 0:28 /docker/1 /var/lib/x/memory rw,nosuid shared:15 - cgroup cgroup rw,memory
32 25 0:28 / /sys/fs/cgroup/memory rw,nosuid shared:16 - cgroup cgroup rw,memory
"""


@pytest.fixture(scope="module")
def layout() -> Layout:
    return cgroup_layout.detect()


@pytest.fixture
def tree(layout: Layout) -> Iterator[CgroupTree]:
    instance = f"/vectl-test-{os.getpid()}-{secrets.token_hex(3)}"
    os.mkdir(f"{tempfile.gettempdir()}{instance}")  # by its name the next run finds what we leave if we are killed
    made = CgroupTree(layout, f"{instance}/ve1")
    made.create()
    yield made
    made.kill()
    made.remove()
    os.rmdir(f"{tempfile.gettempdir()}{instance}")
    for hierarchy in layout.hierarchies():
        with suppress(FileNotFoundError):
            os.rmdir(hierarchy.path(instance))


@pytest.fixture
def member(tree: CgroupTree) -> Iterator[subprocess.Popen[str]]:
    process = start([sys.executable, "-c", HOG], tree)
    yield process
    end(process)


def start(argv: list[str], tree: CgroupTree) -> subprocess.Popen[str]:
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for directory in tree.inner_directories():
        cgroup_file.write(f"{directory}/cgroup.procs", str(process.pid))
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(10)
    assert process.stdin
    assert process.stdout
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()


def take(process: subprocess.Popen[str], mib: int) -> None:
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{mib}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


@pytest.mark.parametrize(
    ("text", "legacy", "unified"),
    [
        (SYSTEMD_V2, {}, "/sys/fs/cgroup"),
        (
            SYSTEMD_V1,
            {
                "name=systemd": "/sys/fs/cgroup/systemd",
                "cpu": "/sys/fs/cgroup/cpu,cpuacct",
                "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
                "memory": "/sys/fs/cgroup/memory",
            },
            "/sys/fs/cgroup/unified",
        ),
        ("20 1 0:5 / /dev rw - devtmpfs dev rw\n", {}, None),
    ],
    ids=["v2", "hybrid", "none"],
)
def test_every_layout_is_read_from_the_mounts(text: str, legacy: dict[str, str], unified: str | None) -> None:
    assert cgroup_layout.parse_mounts(text) == (legacy, unified)


def test_a_controller_is_found_in_the_version_that_holds_it() -> None:
    hybrid = Layout(unified="/u", unified_controllers=frozenset({"pids"}), legacy={"memory": "/m", "freezer": "/f"})
    assert [hybrid.of(name) and hybrid.of(name).directory for name in ("memory", "pids", "freezer", "cpu")] == [  # type: ignore[union-attr]  # reason: `and` has ruled None out
        "/m",
        "/u",
        "/f",
        None,
    ]
    assert not hybrid.is_pure_v2
    pure = Layout(unified="/u", unified_controllers=frozenset({"cpu"}), legacy={})
    freezer = pure.of("freezer")
    assert pure.is_pure_v2
    assert freezer is not None
    assert freezer.unified


@pytest.mark.parametrize("weight", [1, 2, 39, 99, 100, 101, 5000, 9999, 10000])
def test_a_weight_survives_the_way_through_shares(weight: int) -> None:
    assert values.weight_of_shares(values.shares_of_weight(weight)) == weight


def test_weights_keep_their_ratio_and_their_default_as_shares() -> None:
    assert values.shares_of_weight(100) == 1024
    assert values.shares_of_weight(300) == 3 * 1024


@pytest.mark.parametrize(
    ("text", "value"),
    [("max 100000", None), ("150000 100000", 150_000), ("5000 10000", 50_000), ("-1 100000", None)],
)
def test_a_cpu_limit_is_normalised_to_one_period(text: str, value: int | None) -> None:
    assert values.parse_cpu_max(text) == value


@pytest.mark.parametrize("text", ["", "max", "1 2 3", "x 100000", "100 max"])
def test_a_cpu_limit_of_another_shape_is_an_error(text: str) -> None:
    with pytest.raises(KernelFormatError):
        values.parse_cpu_max(text)


@pytest.mark.parametrize(
    ("text", "numbers"), [("", set()), ("0\n", {0}), ("0-3,8,10-11\n", {0, 1, 2, 3, 8, 10, 11}), ("1,3", {1, 3})]
)
def test_cpu_lists_are_read_and_printed(text: str, numbers: set[int]) -> None:
    assert values.parse_list(text) == numbers
    assert values.format_list(numbers) == text.strip()


@pytest.mark.parametrize("cgroup", ["/", "/vectl", "", "vectl/x", "/vectl/../x", "/vectl//x", "/vectl/x/"])
def test_only_a_path_of_a_ve_is_taken(cgroup: str) -> None:
    with pytest.raises(TerminalError):
        CgroupTree(Layout(unified="/u", unified_controllers=frozenset(), legacy={}), cgroup)


@pytest.mark.kernel
def test_limits_written_are_read_back(layout: Layout, tree: CgroupTree) -> None:
    wanted: dict[str, values.LimitValue] = {
        "cpu.weight": 250,
        "cpu.limit": 150_000,
        "cpu.cpus": frozenset({0}),
        "memory.limit": 64 * MIB,
        "memory.barrier": 48 * MIB,
        "memory.guarantee": 16 * MIB,
        "memory.swap": 8 * MIB,
        "processes": 77,
    }
    able = {name: value for name, value in wanted.items() if name in cgroup_limits.enforceable(layout)}
    tree.write_limits(able)
    read = tree.read_limits()
    assert read is not None
    assert {name: read[name] for name in able} == able
    assert set(read) <= cgroup_limits.enforceable(layout)


@pytest.mark.kernel
def test_a_fresh_cgroup_is_unlimited_and_unlimited_can_be_restored(layout: Layout, tree: CgroupTree) -> None:
    fresh = tree.read_limits()
    assert fresh is not None
    assert fresh["memory.limit"] is None
    assert fresh["cpu.weight"] == 100
    assert fresh["cpu.cpus"] is None
    changed: dict[str, values.LimitValue] = {"memory.limit": 32 * MIB, "cpu.limit": 20_000, "cpu.cpus": frozenset({0})}
    tree.write_limits(changed)
    assert tree.read_limits() != fresh
    tree.write_limits(dict.fromkeys(changed))
    assert tree.read_limits() == fresh


@pytest.mark.kernel
def test_the_limits_are_out_of_reach_of_the_delegated_part(layout: Layout, tree: CgroupTree) -> None:
    tree.delegate(uid=100_000, gid=100_000)
    for path in cgroup_limits.limit_paths(layout, tree.cgroup):
        assert os.stat(path).st_uid == 0
    for hierarchy in layout.hierarchies():
        assert os.stat(hierarchy.path(tree.cgroup)).st_uid == 0
        assert os.stat(hierarchy.path(tree.inner)).st_uid == (100_000 if hierarchy.unified else 0)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("first", "second"),
    [((64, 0), (128, 16)), ((128, 16), (64, 0)), ((64, 64), (128, 0)), ((128, 0), (64, 200)), ((64, None), (128, 0))],
)
def test_memory_and_swap_change_together_in_any_direction(
    layout: Layout, tree: CgroupTree, first: tuple[int, int | None], second: tuple[int, int | None]
) -> None:
    if "memory.swap" not in cgroup_limits.enforceable(layout):
        pytest.skip("this kernel does not account swap")
    for memory, swap in (first, second):
        wanted = {"memory.limit": memory * MIB, "memory.swap": None if swap is None else swap * MIB}
        tree.write_limits(wanted)
        read = tree.read_limits()
        assert read is not None
        assert {name: read[name] for name in wanted} == wanted


@pytest.mark.kernel
def test_the_swap_limit_stays_when_only_memory_changes(layout: Layout, tree: CgroupTree) -> None:
    if "memory.swap" not in cgroup_limits.enforceable(layout):
        pytest.skip("this kernel does not account swap")
    tree.write_limits({"memory.limit": 64 * MIB, "memory.swap": 16 * MIB})
    for mib in (128, 32):
        cgroup_limits.write_limit(layout, tree.cgroup, "memory.limit", mib * MIB)
        read = tree.read_limits()
        assert read is not None
        assert (read["memory.limit"], read["memory.swap"]) == (mib * MIB, 16 * MIB)


@pytest.mark.kernel
def test_memory_is_stored_in_whole_pages(layout: Layout, tree: CgroupTree) -> None:
    tree.write_limits({"memory.limit": 64 * MIB + 1000})
    read = tree.read_limits()
    assert read is not None
    assert read["memory.limit"] == cgroup_limits.stored_value(layout, "memory.limit", 64 * MIB + 1000) == 64 * MIB


@pytest.mark.kernel
def test_a_limit_below_what_can_be_reclaimed_is_refused_and_nobody_dies(
    layout: Layout, tree: CgroupTree, member: subprocess.Popen[str]
) -> None:
    able = {"memory.limit", "memory.swap"} & cgroup_limits.enforceable(layout)
    tree.write_limits({name: {"memory.limit": 128 * MIB, "memory.swap": 0}[name] for name in able})
    take(member, 40)
    before = tree.read_limits()
    with pytest.raises(InUseError, match=r"lower memory\.limit to 16Mi: .* are in use .*; 128Mi stays in force"):
        tree.write_limits({"memory.limit": 16 * MIB})
    assert tree.read_limits() == before
    take(member, 40)
    assert member.poll() is None


@pytest.mark.kernel
def test_want_of_memory_is_told_at_once_on_v1(layout: Layout, tree: CgroupTree, member: subprocess.Popen[str]) -> None:
    memory = layout.of("memory")
    if memory is None or memory.unified:
        pytest.skip("needs cgroup v1's memory controller")
    able = {"memory.limit", "memory.swap"} & cgroup_limits.enforceable(layout)
    tree.write_limits({name: {"memory.limit": 32 * MIB, "memory.swap": 0}[name] for name in able})
    event = cgroup_v1.watch_oom(memory.path(tree.cgroup))
    try:
        assert not select.select([event], [], [], 0)[0]
        assert member.stdin
        member.stdin.write("64\n")
        member.stdin.flush()
        assert member.wait(10) == -signal.SIGKILL
        assert select.select([event], [], [], 10)[0]
    finally:
        os.close(event)


@pytest.mark.kernel
def test_page_cache_gives_way_to_a_lower_limit(tree: CgroupTree) -> None:
    tree.write_limits({"memory.limit": 256 * MIB})
    # Not below /tmp, which may be a tmpfs: that is memory, not page cache.
    write = (
        "import os, sys, tempfile\n"
        "file = tempfile.TemporaryFile(dir='/var/tmp')\n"
        f"[file.write(bytes({MIB})) for _ in range(96)]\n"
        "file.flush(); os.fsync(file.fileno())\n"
        "print('done', flush=True); sys.stdin.read()"
    )
    writer = start(["sh", "-c", 'read _; exec "$0" -c "$1"', sys.executable, write], tree)
    try:
        assert writer.stdin
        assert writer.stdout
        writer.stdin.write("go\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "done\n"
        before = tree.use().memory
        assert before is not None
        assert before > 64 * MIB
        tree.write_limits({"memory.limit": 32 * MIB})
        read = tree.read_limits()
        assert read is not None
        assert read["memory.limit"] == 32 * MIB
    finally:
        end(writer)


@pytest.mark.kernel
def test_the_cpu_set_of_a_used_cgroup_shrinks_and_grows(
    layout: Layout, tree: CgroupTree, member: subprocess.Popen[str]
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    tree.write_limits({"cpu.cpus": frozenset({1})})
    assert os.sched_getaffinity(member.pid) == {1}
    tree.write_limits({"cpu.cpus": frozenset({0})})
    assert os.sched_getaffinity(member.pid) == {0}
    tree.write_limits({"cpu.cpus": None})
    assert len(os.sched_getaffinity(member.pid)) >= 2
    read = tree.read_limits()
    assert read is not None
    assert read["cpu.cpus"] is None


@pytest.mark.kernel
def test_a_set_of_all_cpus_is_no_limit(layout: Layout, tree: CgroupTree) -> None:
    everything = cgroup_limits.all_members(layout, "cpu.cpus")
    tree.write_limits({"cpu.cpus": everything})
    read = tree.read_limits()
    assert read is not None
    assert read["cpu.cpus"] is cgroup_limits.stored_value(layout, "cpu.cpus", everything) is None


@pytest.mark.kernel
def test_the_limit_of_processes_binds(layout: Layout, tree: CgroupTree) -> None:
    tree.write_limits({"processes": 4})
    shell = start(["sh", "-c", "read _; for i in 1 2 3 4 5 6 7 8; do sleep 60 & done; wait"], tree)
    try:
        assert shell.stdin
        shell.stdin.write("go\n")
        shell.stdin.flush()
        shell.wait(10)
        assert tree.use().processes is not None
        assert (tree.use().processes or 0) <= 4
    finally:
        end(shell)


@pytest.mark.kernel
def test_use_counts_memory_cpu_and_processes(tree: CgroupTree, member: subprocess.Popen[str]) -> None:
    take(member, 20)
    use = tree.use()
    assert (use.memory or 0) >= 20 * MIB
    assert use.processes == 1
    assert (use.cpu_us or 0) > 0


@pytest.mark.kernel
def test_use_of_a_missing_cgroup_is_an_error_not_zero(layout: Layout) -> None:
    with pytest.raises(KernelError):
        CgroupTree(layout, "/vectl-test-none/ve1").use()


@pytest.mark.kernel
def test_a_frozen_process_stands_still_until_it_is_thawed(tree: CgroupTree, member: subprocess.Popen[str]) -> None:
    take(member, 1)
    tree.freeze()
    tree.freeze()
    assert tree.is_frozen()
    assert member.stdin
    member.stdin.write("1\n")
    member.stdin.flush()
    assert not _readable(member, 0.1)
    tree.thaw()
    tree.thaw()
    assert not tree.is_frozen()
    assert _readable(member, 10)


def _readable(process: subprocess.Popen[str], timeout_s: float) -> bool:
    assert process.stdout
    return bool(select.select([process.stdout], [], [], timeout_s)[0])


@pytest.mark.kernel
@pytest.mark.parametrize("frozen", [False, True])
def test_kill_ends_everything_inside_and_nothing_else(tree: CgroupTree, frozen: bool) -> None:
    outside = subprocess.Popen(["sleep", "60"])
    inside = start(["sh", "-c", "read _; sleep 60 & sleep 60 & sleep 60"], tree)
    try:
        assert inside.stdin
        inside.stdin.write("go\n")
        inside.stdin.flush()
        while len(tree.processes()) < 4:
            assert inside.poll() is None
        if frozen:
            tree.freeze()
        tree.kill()
        assert inside.wait(10) == -signal.SIGKILL
        assert tree.processes() == frozenset()
        assert outside.poll() is None
    finally:
        end(inside)
        outside.kill()
        outside.wait(10)


@pytest.mark.kernel
def test_a_process_that_moved_away_is_not_killed(
    layout: Layout, tree: CgroupTree, member: subprocess.Popen[str]
) -> None:
    other = CgroupTree(layout, f"{tree.cgroup}x")
    cgroup_processes._kill_member(other.cgroup, member.pid)
    take(member, 1)
    assert member.poll() is None


@pytest.mark.kernel
def test_removal_waits_for_processes_and_names_what_is_busy(tree: CgroupTree, member: subprocess.Popen[str]) -> None:
    with pytest.raises(BusyError, match=tree.inner):
        tree.remove(timeout_s=0.05)
    assert member.poll() is None
    tree.kill()
    tree.remove()
    tree.remove()
    assert not tree.exists()
    tree.create()
    assert tree.exists()


@pytest.mark.kernel
def test_create_twice_changes_nothing(tree: CgroupTree) -> None:
    tree.write_limits({"memory.limit": 64 * MIB, "cpu.cpus": frozenset({0})})
    before = tree.read_limits()
    tree.create()
    assert tree.read_limits() == before


@pytest.mark.kernel
def test_kept_descriptors_notice_a_cgroup_that_was_made_anew(layout: Layout, tree: CgroupTree) -> None:
    reader = cgroup_limits.LimitReader(layout, name=str)
    try:
        tree.write_limits({"memory.limit": 64 * MIB})
        first = reader.read(tree.cgroup)
        assert first is not None
        assert first["memory.limit"] == 64 * MIB
        tree.write_limits({"memory.limit": 32 * MIB})
        assert reader.read(tree.cgroup) == {**first, "memory.limit": 32 * MIB}
        tree.remove()
        tree.create()
        second = reader.read(tree.cgroup)
        assert second is not None
        assert second["memory.limit"] is None
        tree.remove()
        assert reader.read(tree.cgroup) is None
        assert reader.read(tree.cgroup) is None
    finally:
        reader.close()


@pytest.mark.kernel
@pytest.mark.parametrize("keep", [0, 1, 256])
def test_the_reader_keeps_no_more_descriptors_than_asked(layout: Layout, tree: CgroupTree, keep: int) -> None:
    reader = cgroup_limits.LimitReader(layout, name=str, keep=keep)
    gc.collect()  # else what other tests dropped may be closed meanwhile
    before = len(os.listdir("/proc/self/fd"))
    other = CgroupTree(layout, f"{tree.cgroup}x")
    other.create()
    try:
        assert reader.read(tree.cgroup) == reader.read(other.cgroup) == tree.read_limits()
        files = len(set(cgroup_limits.limit_paths(layout, tree.cgroup))) * min(keep, 2)
        kept = len(os.listdir("/proc/self/fd")) - before
        assert (kept >= files) if keep else (kept == 0)
    finally:
        reader.close()
        other.remove()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.kernel
def test_without_descriptors_left_the_reader_still_reads(layout: Layout, tree: CgroupTree) -> None:
    expected = tree.read_limits()
    other = CgroupTree(layout, f"{tree.cgroup}x")
    other.create()
    files = len(set(cgroup_limits.limit_paths(layout, tree.cgroup)))
    pid = os.fork()
    if pid == 0:
        try:
            reader = cgroup_limits.LimitReader(layout, name=str)
            first = reader.read(tree.cgroup)
            highest = max(map(int, os.listdir("/proc/self/fd")))
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + files // 2, hard))
            same = first == reader.read(other.cgroup) == reader.read(tree.cgroup) == expected
            os._exit(0 if same else 1)
        finally:
            os._exit(2)
    status = os.waitpid(pid, 0)[1]
    other.remove()
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.kernel
def test_exactly_the_limits_that_this_host_enforces_are_read_and_taken(layout: Layout, tree: CgroupTree) -> None:
    tree.write_limits({"memory.limit": 64 * MIB})
    read = tree.read_limits()
    assert read is not None
    enforceable = cgroup_limits.enforceable(layout)
    assert set(read) == enforceable
    for name in set(cgroup_v2.FILES) - enforceable:
        with pytest.raises((TerminalError, KernelError)):
            cgroup_limits.write_limit(layout, tree.cgroup, name, MIB)


@pytest.mark.kernel
def test_inotify_sees_a_changed_limit(layout: Layout, tree: CgroupTree) -> None:
    with inotify.Inotify() as watcher:
        names = {watcher.add(path, inotify.MODIFY): path for path in tree.watch_paths()}
        assert watcher.read() == []
        cgroup_limits.write_limit(layout, tree.cgroup, "processes", 55)
        changed = {names[event.watch] for event in watcher.wait(timeout_s=10)}
        assert any(path.endswith("pids.max") for path in changed)


@pytest.mark.kernel
def test_a_listed_process_can_be_held_by_descriptor(tree: CgroupTree, member: subprocess.Popen[str]) -> None:
    (pid,) = tree.processes()
    process = pidfd.identify(pid)
    assert process is not None
    assert pid == member.pid


def test_what_stands_still_for_a_block_goes_on_after_it(tree: CgroupTree, member: subprocess.Popen[str]) -> None:
    with tree.standing_still():
        assert tree.is_frozen()
    assert not tree.is_frozen()
    with pytest.raises(ZeroDivisionError), tree.standing_still():
        raise ZeroDivisionError
    assert not tree.is_frozen()
    assert member.poll() is None


def test_what_stands_still_goes_on_when_who_froze_it_is_killed(tree: CgroupTree, member: subprocess.Popen[str]) -> None:
    def freeze_and_die() -> None:
        with tree.standing_still():
            assert tree.is_frozen()
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(AssertionError, match="the child ended without an answer"):
        storage.in_child(freeze_and_die)
    deadline = time.monotonic() + 20
    while tree.is_frozen():
        assert time.monotonic() < deadline, "nobody thaws it"
        time.sleep(0.005)
    assert member.poll() is None
