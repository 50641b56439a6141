"""A process that waits with a root file system, a mount table and ids of its own: what a VE has of those."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from reconciler.kernel import graft, mount, pidfd
from tests.support.patience import PATIENCE
from tests.support.storage import UUID

BASE = 3_000_000
IDS = 65_536

_ENTER_ROOT = """
set -e
mount -t tmpfs root "$1"
mkdir "$1/dev" "$1/proc" "$1/bin" "$1/old"
mount -t tmpfs dev "$1/dev"
mount --rbind /proc "$1/proc"
cp "$(command -v busybox)" "$1/bin/busybox"
cd "$1"
pivot_root . old
exec /bin/busybox sh -c '/bin/busybox umount -l /old; echo ready; read line'
"""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """``namespace`` and ``users``: open descriptors of its mount and its user namespace."""

    pid: int
    namespace: int
    users: int

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run an applet of busybox in it as its root."""
        enter = ("nsenter", "-t", str(self.pid), "-U", "-m", "-S", "0", "-G", "0", "--wd=/", "-r")
        return subprocess.run([*enter, "/bin/busybox", *command], capture_output=True, text=True, timeout=30 * PATIENCE)

    def mounts(self) -> list[mount.Mount]:
        """Give its mount table."""
        return mount.read_mounts(self.pid)

    def at(self, target: str) -> list[mount.Mount]:
        """Give what is mounted at a path in it, the topmost last."""
        return [found for found in self.mounts() if found.target == target]


@contextmanager
def sandbox(directory: str) -> Iterator[Sandbox]:
    """Make one, for the block; ``directory`` is an empty one that other ids can reach."""
    with subprocess.Popen(["unshare", "-U", "sleep", "600"]) as users:
        try:
            _map(users)
            enter = ("nsenter", "-t", str(users.pid), "-U", "-S", "0", "-G", "0", "unshare", "-m")
            script = ("--propagation", "private", "sh", "-c", _ENTER_ROOT, UUID, directory)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            with subprocess.Popen([*enter, *script], text=True, **pipes) as inside:  # type: ignore[call-overload]
                try:
                    assert inside.stdout.readline() == "ready\n"
                    yield from _opened(inside.pid)
                finally:
                    inside.kill()
        finally:
            users.kill()


def _map(users: subprocess.Popen[bytes]) -> None:
    while os.stat(f"/proc/{users.pid}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino:
        assert users.poll() is None
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{users.pid}/{name}", "w", encoding="ascii") as file:
            file.write(f"0 {BASE} {IDS}")


def _opened(pid: int) -> Iterator[Sandbox]:
    process = os.pidfd_open(pid)
    namespace = graft.open_of(pid, "mnt", pidfd=process)
    users = graft.open_of(pid, "user", pidfd=process)
    assert pidfd.identify(pid) is not None
    try:
        yield Sandbox(pid, namespace, users)
    finally:
        for descriptor in (process, namespace, users):
            os.close(descriptor)
