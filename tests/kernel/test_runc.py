"""Claims about the OCI runtime's commands, its log and its FIFO; whole VEs are in test_keeper."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.errors import KernelError, TimeLimitError
from reconciler.kernel import runc
from reconciler.kernel.runc import Runtime

RUNTIME = Runtime(program="runc", root="/r", log="/l")


def write_later(fifo: Path, data: bytes) -> int:
    """Open the FIFO in a child, as a waiting init does, and write once somebody reads."""
    pid = os.fork()
    if pid == 0:
        try:
            descriptor = os.open(fifo, os.O_WRONLY)
            os.write(descriptor, data)
        finally:
            os._exit(0)
    return pid


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "exec.fifo"
    os.mkfifo(path)
    return path


def test_a_waiting_init_is_let_go_once(fifo: Path) -> None:
    child = write_later(fifo, b"0")
    assert runc.release(str(fifo))
    assert os.waitpid(child, 0)[1] == 0
    assert not fifo.exists()
    assert not runc.release(str(fifo))


def test_an_init_that_never_comes_is_not_waited_for(fifo: Path) -> None:
    with pytest.raises(TimeLimitError):
        runc.release(str(fifo), timeout_s=0.05)
    assert fifo.exists()


def test_an_init_that_dies_waiting_is_told(fifo: Path) -> None:
    child = write_later(fifo, b"")
    with pytest.raises(KernelError, match="before it was let go"):
        runc.release(str(fifo))
    os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", None),
        ('{"level":"info","msg":"a"}\n', None),
        ('{"level":"error","msg":"first"}\n{"level":"error","msg":"last"}\n{"level":"warning","msg":"b"}\n', "last"),
        ('not json\n{"level":"error","msg":" with \\"quotes\\" "}\n[1]\n', 'with "quotes"'),
        ('{"msg":"crun says no level"}\n', None),
    ],
    ids=["empty", "no error", "several", "noise", "no level"],
)
def test_the_last_error_of_a_log_is_found(text: str, message: str | None) -> None:
    assert runc.parse_error(text) == message


def test_a_log_that_was_never_written_has_no_error(tmp_path: Path) -> None:
    assert runc.read_error(str(tmp_path / "log")) is None


def test_deleting_what_the_runtime_does_not_know_is_success(tmp_path: Path) -> None:
    runc.delete(Runtime(program="runc", root=str(tmp_path), log=str(tmp_path / "log")), "none")


def test_every_command_names_its_own_root_and_log() -> None:
    head = ("runc", "--root", "/r", "--log", "/l", "--log-format", "json")
    create = RUNTIME.create_argv("u1", bundle="/b", pid_file="/p")
    assert create == (*head, "create", "--bundle", "/b", "--pid-file", "/p", "u1")
    assert RUNTIME.start_argv("u1") == (*head, "start", "u1")
    assert RUNTIME.delete_argv("u1") == (*head, "delete", "--force", "u1")
