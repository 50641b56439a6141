"""Proving criu: a real dump and restore, and what is said of programs that only claim to be able to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.errors import KernelError, TimeLimitError
from reconciler.host import tools
from reconciler.kernel import criu_program, criu_proof
from reconciler.model.instance import DEFAULT_LIB
from reconciler.model.probe import Level
from tests.support.patience import PATIENCE

TIMEOUT_S = 15.0 * PATIENCE


def fake(directory: Path, script: str) -> str:
    """Make a criu of a few lines of shell."""
    path = directory / "bin" / "criu"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let temporary files lie in a directory of the test's own."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    return place


def test_criu_dumps_and_restores_a_process_with_a_connection(temporary: Path) -> None:
    program = os.path.join(os.environ.get("VECTL_LIB", DEFAULT_LIB), "bin")
    proof = criu_proof.prove(criu_program.find(program).path, timeout_s=TIMEOUT_S)
    assert min(proof.dump_s, proof.restore_s) > 0
    assert list(temporary.iterdir()) == []


def test_a_criu_that_claims_to_have_dumped_is_found_out(tmp_path: Path, temporary: Path) -> None:
    with pytest.raises(KernelError, match=r"dump a process with a TCP connection by .*: the process lives on"):
        criu_proof.prove(fake(tmp_path, "exit 0"), timeout_s=TIMEOUT_S)
    assert list(temporary.iterdir()) == []


def test_a_dump_that_fails_is_told_in_the_words_of_its_first_error(tmp_path: Path) -> None:
    log = r"""
for dir; do [ "$last" = --images-dir ] && place=$dir; last=$dir; done
echo "(00.01) Error (criu/rlimit.c:1): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.02) Error (criu/sockets.c:1): sockets: Can't get 1:16 opt: Operation not supported
(00.03) Error (criu/cr-dump.c:1): Dumping FAILED." >"$place/dump.log"
exit 1"""
    with pytest.raises(KernelError, match=r"criu: sockets: Can't get 1:16 opt: Operation not supported$"):
        criu_proof.prove(fake(tmp_path, log), timeout_s=TIMEOUT_S)


def test_a_criu_that_hangs_is_given_up_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises((KernelError, TimeLimitError), match="not ended"):
        criu_proof.prove(fake(tmp_path, f"readlink /proc/self/ns/pid >{pids}; sleep 1000"), timeout_s=1.0 * PATIENCE)
    assert list(temporary.iterdir()) == []
    namespace = pids.read_text().strip()
    assert namespace not in set(pid_namespaces())


def pid_namespaces() -> list[str]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                found.append(os.readlink(f"/proc/{name}/ns/pid"))
            except OSError:
                continue
    return found


def test_doctor_tells_of_a_criu_that_cannot_what_is_lost(tmp_path: Path) -> None:
    fake(tmp_path, '[ "$1" = --version ] && echo "Version: 4.2.1"; exit 0')
    found = tools._criu(f"{tmp_path}/bin")
    assert (found.level, bool(found.remedy)) == (Level.WARN, True)
    assert "the process lives on; no suspend" in found.found


def test_doctor_tells_how_long_a_criu_that_can_took() -> None:
    found = tools._criu(os.path.join(os.environ.get("VECTL_LIB", DEFAULT_LIB), "bin"))
    assert found.level is Level.OK, found
    assert "dumped a TCP connection" in found.found
