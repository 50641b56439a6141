"""Claims about runs of tests that were killed: the next run ends what lives on of them, and nothing else."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.kernel import cgroup_layout
from reconciler.kernel.cgroup import CgroupTree
from tests.support import deadruns, scratch

pytestmark = pytest.mark.kernel

DEADLINE_S = 30.0


@dataclass(frozen=True)
class Left:
    """What a run left: a mount, an agent, a keeper, a VE's init; and a process of somebody who looks at its files."""

    run: Path
    mounted: Path
    cgroup: CgroupTree
    agent: subprocess.Popen[bytes]
    keeper: subprocess.Popen[bytes]
    init: subprocess.Popen[bytes]
    reader: subprocess.Popen[bytes]


@pytest.fixture
def left(tmp_root: Path, instance_name: str) -> Iterator[Left]:
    run = tmp_root / "vectl-tests-x"
    directory = run / "t" / "gw0" / instance_name
    mounted = directory / "pool"
    mounted.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", mounted], check=True, timeout=10)
    cgroup = CgroupTree(cgroup_layout.detect(), f"/{instance_name}/ve")
    with ExitStack() as stack:
        stack.callback(deadruns.sweep, str(run))
        cgroup.create()
        agent, keeper, init, reader = started = [
            stack.enter_context(waiting(*words))
            for words in (
                ("reconciler.agent", f'{{"config": "{directory}/config.yaml"}}'),
                ("reconciler.host.keeper", "--run-dir", f"{directory}/run"),
                (),
                (f"{directory}/agent.log",),
            )
        ]
        for process in started:
            stack.callback(process.kill)
        for inner in cgroup.inner_directories():
            Path(inner, "cgroup.procs").write_text(str(init.pid))
        yield Left(run, mounted, cgroup, agent, keeper, init, reader)


def waiting(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()", *words])


def test_what_a_killed_run_left_is_ended_and_its_files_stay(left: Left, tmp_root: Path) -> None:
    deadruns.sweep_place(str(tmp_root))
    for process in (left.agent, left.keeper, left.init):
        assert process.wait(DEADLINE_S) != 0
    assert left.reader.poll() is None
    assert scratch.mounts_below(str(left.run)) == []
    assert not left.cgroup.exists()
    assert left.mounted.is_dir()


def test_a_run_that_is_carried_on_is_left_alone(left: Left, tmp_root: Path) -> None:
    descriptor = os.open(left.run, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        deadruns.sweep_place(str(tmp_root))
    finally:
        os.close(descriptor)
    assert [process.poll() for process in (left.agent, left.keeper, left.init)] == [None] * 3
    assert scratch.mounts_below(str(left.run)) == [str(left.mounted)]
    assert left.cgroup.exists()
