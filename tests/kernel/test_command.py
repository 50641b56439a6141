"""Commands end, and end with what the caller must know."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from reconciler.errors import CommandError, MissingToolError, TimeLimitError, TooLargeError
from reconciler.kernel import command

pytestmark = pytest.mark.kernel


class Run(Protocol):
    def __call__(
        self, argv: Sequence[str], *, timeout_s: float, input: bytes | None = None, env: Mapping[str, str] | None = None
    ) -> str: ...


def run_async(
    argv: Sequence[str], *, timeout_s: float, input: bytes | None = None, env: Mapping[str, str] | None = None
) -> str:
    return asyncio.run(command.run_async(argv, timeout_s=timeout_s, input=input, env=env))


@pytest.fixture(params=[command.run, run_async], ids=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Run:
    chosen: Run = request.param
    return chosen


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_input_goes_in_and_stdout_comes_back_without_stderr(run: Run) -> None:
    assert run(["sh", "-c", "cat; echo noise >&2"], timeout_s=10, input=b"caf\xc3\xa9 \xff") == "café �"


def test_a_command_without_input_reads_nothing(run: Run) -> None:
    assert run(["cat"], timeout_s=10) == ""


def test_a_command_starts_at_the_root_in_its_own_group_with_no_descriptor_of_ours(run: Run, tmp_path: Path) -> None:
    inherited = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        script = "import os; print(os.getcwd(), os.getpid() == os.getpgrp(), sorted(os.listdir('/proc/self/fd')))"
        cwd, leads, *descriptors = run([sys.executable, "-c", script], timeout_s=10).split(maxsplit=2)
    finally:
        os.close(inherited)
    assert (cwd, leads, descriptors) == ("/", "True", ["['0', '1', '2', '3']\n"])  # 3 is the directory being listed


def test_variables_are_added_and_the_service_managers_are_kept_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("KEPT", "1")
    told = run(["env"], timeout_s=10, env={"ADDED": "2"}).splitlines()
    assert {"KEPT=1", "ADDED=2", "LC_ALL=C.UTF-8"} <= set(told)
    assert not [line for line in told if line.startswith("NOTIFY_SOCKET")]


def test_a_failure_carries_the_status_and_the_end_of_the_output(run: Run) -> None:
    script = "head -c 5000 /dev/zero | tr '\\0' x; echo; echo why >&2; exit 7"
    with pytest.raises(CommandError, match=r"^run sh: exit status 7: why$") as caught:
        run(["sh", "-c", script], timeout_s=10)
    assert caught.value.status == 7
    assert len(caught.value.output) == command.OUTPUT_KEPT
    assert caught.value.output.endswith("xxx\nwhy\n")


def test_death_by_a_signal_is_a_failure_with_its_number(run: Run) -> None:
    with pytest.raises(CommandError, match="killed by SIGTERM") as caught:
        run(["sh", "-c", "kill -TERM $$"], timeout_s=10)
    assert caught.value.status == -signal.SIGTERM


def test_a_missing_program_names_the_package_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(
        MissingToolError, match=r"^run mkfs\.erofs: no such program; install the Debian package erofs-utils$"
    ):
        run(["mkfs.erofs"], timeout_s=10)


def test_a_program_that_may_not_be_executed_is_said_to_be_so(run: Run, tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(MissingToolError, match="not executable"):
        run([str(program)], timeout_s=10)


def test_at_the_deadline_the_whole_group_is_killed(run: Run, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 300 & echo $! $$ > {pids}; echo waiting; wait"
    with pytest.raises(TimeLimitError, match=r"^run sh: not ended after 2 s, last said 'waiting'$"):
        run(["sh", "-c", script], timeout_s=2)
    for pid in map(int, pids.read_text().split()):
        wait_until(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]  # mypy cannot infer a default's lambda


def test_a_background_process_that_holds_the_output_is_killed_with_the_group(run: Run, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(TimeLimitError):
        run(["sh", "-c", f"sleep 300 & echo $! > {pids}"], timeout_s=2)
    wait_until(lambda: not is_alive(int(pids.read_text())))


def test_a_cancelled_command_is_killed_with_its_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    async def cancel_it() -> None:
        task = asyncio.create_task(
            command.run_async(["sh", "-c", f"sleep 300 & echo $! $$ > {pids}; wait"], timeout_s=60)
        )
        await asyncio.to_thread(wait_until, lambda: pids.exists() and pids.read_text().endswith("\n"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_it())
    started = [int(word) for word in pids.read_text().split()]
    assert len(started) == 2
    wait_until(lambda: not any(is_alive(pid) for pid in started))


def test_a_command_that_prints_more_than_is_wanted_is_ended() -> None:
    assert command.run_bounded(["cat"], output_max=6, timeout_s=10, input=b"12345") == b"12345"
    with pytest.raises(TooLargeError, match="expected 5 bytes at most"):
        command.run_bounded(["sh", "-c", "while :; do echo 1; done"], output_max=5, timeout_s=60)


def test_a_bounded_command_ends_by_its_deadline_and_with_its_status() -> None:
    with pytest.raises(TimeLimitError, match=r"last said 'so far'"):
        command.run_bounded(["sh", "-c", "echo so far >&2; sleep 60"], output_max=5, timeout_s=0.3)
    with pytest.raises(CommandError, match="broken") as caught:
        command.run_bounded(["sh", "-c", "echo broken >&2; exit 3"], output_max=5, timeout_s=10)
    assert caught.value.status == 3


def test_of_a_flood_of_complaints_the_end_is_kept() -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i of many >&2; i=$((i+1)); done; exit 1"
    with pytest.raises(CommandError, match="line 19999 of many"):
        asyncio.run(command.run_async(["sh", "-c", script], timeout_s=60))
