"""Claims about processes by descriptor, with real ones."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from reconciler.errors import KernelFormatError
from reconciler.kernel import pidfd
from reconciler.kernel.pidfd import ProcessId

pytestmark = pytest.mark.kernel

DEADLINE_S = 10.0


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(["sleep", "1000"])
    yield started
    started.kill()
    started.wait(DEADLINE_S)


@pytest.fixture
def identity(process: subprocess.Popen[bytes]) -> ProcessId:
    found = pidfd.identify(process.pid)
    assert found is not None
    return found


def test_a_process_is_found_again_by_pid_and_start_time(identity: ProcessId) -> None:
    descriptor = pidfd.open_process(identity)
    assert descriptor is not None
    assert os.get_inheritable(descriptor) is False
    os.close(descriptor)


def test_another_process_of_the_same_pid_is_not_taken_for_it(identity: ProcessId) -> None:
    before = set(os.listdir("/proc/self/fd"))
    assert pidfd.open_process(replace(identity, start_time=identity.start_time - 1)) is None
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_pid_that_nobody_has_is_no_process() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert pidfd.identify(pid) is None
    assert pidfd.open_process(ProcessId(pid=pid, start_time=1)) is None
    assert pidfd.namespace_inode(pid, "net") is None


def test_a_zombie_still_has_its_name(identity: ProcessId, process: subprocess.Popen[bytes]) -> None:
    descriptor = pidfd.open_process(identity)
    assert descriptor is not None
    process.kill()
    assert pidfd.has_ended(descriptor, timeout_s=DEADLINE_S)
    assert pidfd.identify(process.pid) == identity
    os.close(descriptor)


def test_a_running_child_has_no_end_yet(identity: ProcessId) -> None:
    descriptor = pidfd.open_process(identity)
    assert descriptor is not None
    assert not pidfd.has_ended(descriptor)
    os.close(descriptor)


def test_a_signal_is_sent_and_to_the_dead_it_is_not(identity: ProcessId, process: subprocess.Popen[bytes]) -> None:
    descriptor = pidfd.open_process(identity)
    assert descriptor is not None
    assert pidfd.send_signal(descriptor, signal.SIGTERM)
    assert process.wait(DEADLINE_S) == -signal.SIGTERM
    assert not pidfd.send_signal(descriptor, signal.SIGTERM)
    os.close(descriptor)


def test_a_name_with_blanks_and_parentheses_hides_no_field() -> None:
    text = "7 (a) b (c) 1) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 123456 0 0\n"
    assert pidfd.parse_start_time(text) == 123456


@pytest.mark.parametrize("text", ["", "7 (x) S 1", "7 (x) S " + "x " * 40])
def test_a_stat_of_another_shape_is_an_error(text: str) -> None:
    with pytest.raises(KernelFormatError):
        pidfd.parse_start_time(text)


def test_a_namespace_has_the_number_that_its_link_shows(identity: ProcessId) -> None:
    assert f"net:[{pidfd.namespace_inode(identity.pid, 'net')}]" == os.readlink(f"/proc/{identity.pid}/ns/net")
