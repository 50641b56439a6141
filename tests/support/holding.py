"""Processes of a VE that hold one kind of state, and what criu itself says of a VE with them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from reconciler.host import externals, preflight
from reconciler.host.site import Site
from reconciler.kernel import criu
from reconciler.model.migration import Obstacle
from tests.support.fleet import until
from tests.support.inside import PROGRAM_S, Ve
from tests.support.patience import PATIENCE

SOURCE = Path(__file__).parents[1] / "e2e" / "hold" / "holder.c"
HOLDER = "/usr/local/bin/holder"
DUMP_S = 20.0 * PATIENCE

_START = "(setsid {command} >/tmp/said 2>&1 </dev/null &); until [ -s /tmp/said ]; do sleep 0.02; done; cat /tmp/said"


def compiled(directory: Path, source: Path = SOURCE) -> bytes:
    """Compile a program for any VE, by default the one that holds."""
    program, compiler = directory / "holder", shutil.which("gcc")
    command = [compiler or "gcc", "-O1", "-static", "-o", str(program), str(source), "-lrt"]
    if compiler is None or subprocess.run(command, capture_output=True, timeout=60).returncode:
        pytest.skip("needs gcc and the static C library; install build-essential")
    return program.read_bytes()


def put(one: Ve, program: bytes) -> None:
    """Put the program that holds into a VE."""
    one.as_host("sh", "-c", f"cat > {HOLDER} && chmod 755 {HOLDER}", given=program)


@contextmanager
def holding(one: Ve, *args: str, filtered: bool = True) -> Iterator[None]:
    """Let a process of the VE hold something during the block. ``filtered``: as far as its system call filter lets it.

    It is a child of the VE's init, as the process that starts it ends. Skips the test, if the kernel has no such thing.
    """
    script = _START.format(command=" ".join((HOLDER, *args)))
    try:
        said = one.try_run("sh", "-c", script, nesting=True)[1] if filtered else _unfiltered(one, script)
        if not said.startswith("ready"):
            pytest.skip(f"no process can hold {args[0]} with this kernel: {said.strip()}")
        yield
    finally:
        _end(one)


def _unfiltered(one: Ve, script: str) -> str:
    """Run a script in the VE's namespaces and cgroup, without its system call filter."""

    def join() -> None:
        for directory in one.cgroup.inner_directories():
            Path(directory, "cgroup.procs").write_text(str(os.getpid()))

    enter = ["nsenter", f"--target={one.pid}", "--all", "--root", "--wd", "--", "sh", "-c", script]
    return subprocess.run(
        enter, preexec_fn=join, stdout=subprocess.PIPE, text=True, check=True, timeout=PROGRAM_S
    ).stdout


def _end(one: Ve) -> None:
    for pid in holders(one):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not holders(one), "the holders to be gone")
    one.as_host("sh", "-c", "umount -l /tmp/held; rm -f /tmp/said /dev/mqueue/held; rmdir /tmp/held", check=False)


def holders(one: Ve) -> list[int]:
    """Find the processes of a VE that hold something; their own root may have given them another name."""
    found = []
    for pid in one.cgroup.processes():
        with suppress(OSError):
            if os.readlink(f"/proc/{pid}/exe").endswith(HOLDER):
                found.append(pid)
    return found


def obstacles(site: Site, one: Ve) -> tuple[Obstacle, ...]:
    """Look at a VE as it is before it is suspended."""
    return asyncio.run(preflight.find_obstacles(site, one.uid))


def refusal(site: Site, one: Ve) -> str | None:
    """Have criu dump a VE that goes on afterwards; give what it says when it cannot, None if it can."""
    images = Path(tempfile.mkdtemp(prefix="vectl-test-dump-"))
    argv = _command(site, one, str(images))
    one.cgroup.freeze()
    try:
        done = subprocess.run(argv, capture_output=True, timeout=DUMP_S, check=False)
        return None if done.returncode == 0 else criu.read_error(f"{images}/{criu.log_name('dump')}", {}) or "no reason"
    except subprocess.TimeoutExpired:
        return "hangs"
    finally:
        one.cgroup.thaw()
        _remove(images)


def _command(site: Site, one: Ve, images: str) -> list[str]:
    shown = externals.find(site, one.uid, one.init, one.cgroup.processes())
    spec = criu.DumpSpec(
        program=externals.program(site),
        pid=one.pid,
        images=images,
        work=images,
        freezer=one.cgroup.freezer_directory,
        externals={target: target for target in shown},
        hook="/bin/true",
        leave_running=True,
    )
    # A criu that is killed leaves the host's cgroups mounted below its directory, and the namespace takes them with it.
    return ["unshare", "--mount", "--propagation", "private", "--", *criu.dump_argv(spec)]


def _remove(images: Path) -> None:
    """Remove a directory of images without ever going into one below it."""
    for entry in images.iterdir():
        entry.rmdir() if entry.is_dir() else entry.unlink()
    images.rmdir()
