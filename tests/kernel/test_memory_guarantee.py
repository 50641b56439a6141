"""Claims about memory under pressure on cgroup v2: a guarantee is kept, and the barrier is felt before the limit."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from reconciler.kernel import cgroup_file, cgroup_instance, cgroup_layout, cgroup_v2
from reconciler.kernel.cgroup import CgroupTree
from reconciler.kernel.cgroup_layout import Layout
from reconciler.kernel.cgroup_values import parse_counters

pytestmark = pytest.mark.kernel

MIB = 1 << 20
ROOM, GUARANTEE, HELD = 96 * MIB, 40 * MIB, 36 * MIB

# Fills the page cache with a file, says so, and goes on. Not below /tmp, which may be a tmpfs.
CACHE = """
import os, sys, tempfile
with tempfile.TemporaryFile(dir="/var/tmp") as file:
    sys.stdin.readline()
    for _ in range(int(sys.argv[1])):
        file.write(bytes(1 << 20))
    file.flush()
    os.fsync(file.fileno())
    print("done", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def layout() -> Layout:
    found = cgroup_layout.detect()
    memory = found.of("memory")
    if memory is None or not memory.unified:
        pytest.skip("needs cgroup v2's memory controller")
    return found


@pytest.fixture
def host(layout: Layout) -> Iterator[str]:
    """Make a cgroup that stands for the whole of a small host; under it are an instance and what is beside that."""
    name = f"/vectl-test-{os.getpid()}-{secrets.token_hex(3)}"
    os.mkdir(f"{tempfile.gettempdir()}{name}")  # by its name the next run finds what we leave if we are killed
    assert layout.unified is not None
    cgroup_v2.create(layout.unified, name)
    cgroup_file.write(f"{layout.unified}{name}/memory.max", str(ROOM))
    yield name
    for path in reversed(cgroup_file.directories(f"{layout.unified}{name}")):
        with suppress(FileNotFoundError):
            os.rmdir(path)
    os.rmdir(f"{tempfile.gettempdir()}{name}")


@contextmanager
def member(layout: Layout, cgroup: str, mebibytes: int, *, guarantee: int = 0) -> Iterator[CgroupTree]:
    """Make a cgroup in which a process has filled the page cache."""
    tree = CgroupTree(layout, cgroup)
    tree.create()
    tree.write_limits({"memory.guarantee": guarantee})
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", CACHE, str(mebibytes)], stdin=pipe, stdout=pipe, text=True) as process:
        try:
            for directory in tree.inner_directories():
                cgroup_file.write(f"{directory}/cgroup.procs", str(process.pid))
            assert process.stdin
            assert process.stdout
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
            yield tree
        finally:
            process.kill()
            process.wait(10)
            tree.remove()


def cached(tree: CgroupTree) -> int:
    unified = tree.layout.unified
    return parse_counters(cgroup_file.read(f"{unified}{tree.cgroup}/memory.stat"))["file"]


def pressed(layout: Layout, host: str, *, passed_down: int) -> int:
    """Give what a VE with a guarantee still has cached, after another VE and the host have filled all the room."""
    cgroup_instance.write_limit(layout, f"{host}/instance", "memory.guarantee", passed_down)
    with member(layout, f"{host}/instance/kept", HELD // MIB, guarantee=GUARANTEE) as kept:
        assert cached(kept) >= HELD * 9 // 10
        with member(layout, f"{host}/instance/pusher", 80), member(layout, f"{host}/beside/pusher", 80):
            return cached(kept)


def test_what_is_guaranteed_is_kept_from_reclaim_for_other_ves_and_for_the_host(layout: Layout, host: str) -> None:
    assert pressed(layout, host, passed_down=GUARANTEE) >= HELD * 8 // 10


def test_a_guarantee_is_worth_nothing_where_the_instance_does_not_pass_it_down(layout: Layout, host: str) -> None:
    assert pressed(layout, host, passed_down=0) < HELD * 8 // 10


def test_the_barrier_is_felt_before_the_limit_and_kills_nobody(layout: Layout, host: str) -> None:
    tree = CgroupTree(layout, f"{host}/instance/slow")
    tree.create()
    tree.write_limits({"memory.limit": 64 * MIB, "memory.barrier": 24 * MIB})
    with member(layout, tree.cgroup, 48):
        events = parse_counters(cgroup_file.read(f"{layout.unified}{tree.cgroup}/memory.events"))
        assert events["high"] > 0
        assert events["max"] == events["oom_kill"] == 0
        assert (tree.use().memory or 0) < 32 * MIB
