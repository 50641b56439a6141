"""What a criu leaves behind that was killed.

Nothing is removed recursively: below a directory of criu's all hierarchies of the host's cgroups may be mounted.

Source: criu, criu/cr-dump.c, criu/net.c, criu/cgroup.c ("cgyard"); tcp(7); pidfd_getfd(2).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection, Iterator
from contextlib import suppress

from reconciler.errors import BusyError, KernelError, VectlError
from reconciler.kernel import command, mount, netns, pidfd
from reconciler.kernel.syscalls import file_errors, syscall

_SYS_PIDFD_GETFD = 438
_TCP_REPAIR = 19
_TCP_REPAIR_OFF_SILENTLY = -1
_NFT_S = 10.0
_LOCK = re.compile(r"^table inet (CRIU-[A-Za-z0-9-]+)$", re.MULTILINE)


def empty_directory(path: str, *, keep: Collection[str] = ()) -> None:
    """Make a directory, or remove the plain files and empty directories in it.

    Raises: BusyError, if something is mounted below it; KernelError.
    """
    below = f"{os.path.realpath(path)}/"
    if any(found.target.startswith(below) for found in mount.read_mounts()):
        raise BusyError(f"empty {path}: something is mounted in it; unmount it first")
    with file_errors("empty", path):
        os.makedirs(path, mode=0o700, exist_ok=True)
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    os.rmdir(entry.path)
                elif entry.name not in keep:
                    os.unlink(entry.path)


def unlock(init: int, processes: Collection[int]) -> None:
    """Let a VE's connections go on that a criu cut off and did not live to give back.

    Raises: KernelError, if the kernel lists no locks; nothing, if the VE has ended.
    """
    for pid in processes:
        for sock in _tcp_sockets(pid):
            with sock:
                _end_repair(sock)
    with suppress(KernelError):  # which has ended
        _remove_lock(init)


def _tcp_sockets(pid: int) -> Iterator[socket.socket]:
    """Give copies of the TCP sockets of a process."""
    try:
        process = os.pidfd_open(pid)
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    try:
        for name in names:
            with suppress(OSError, VectlError):
                if os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    made = socket.socket(fileno=syscall(_SYS_PIDFD_GETFD, "copy", "a socket", process, int(name), 0))
                    if made.family in (socket.AF_INET, socket.AF_INET6) and made.type == socket.SOCK_STREAM:
                        yield made
                    else:
                        made.close()
    finally:
        os.close(process)


def _end_repair(sock: socket.socket) -> None:
    with suppress(OSError):
        if sock.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR):
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _TCP_REPAIR_OFF_SILENTLY)


def _remove_lock(init: int) -> None:
    process = pidfd.identify(init)
    descriptor = None if process is None else pidfd.open_process(process)
    if descriptor is None:
        return
    try:
        namespace = netns.open_of(init, pidfd=descriptor)
    finally:
        os.close(descriptor)
    try:
        netns.call_in(namespace, _delete_tables)
    finally:
        os.close(namespace)


def _delete_tables() -> None:
    listed = command.run(["nft", "list", "tables", "inet"], timeout_s=_NFT_S)
    for name in _LOCK.findall(listed):
        command.run(["nft", "delete", "table", "inet", name], timeout_s=_NFT_S)
