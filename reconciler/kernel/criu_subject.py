"""The program that tries criu out: the first process of namespaces of its own, in which all that it makes is gone
with it.

Run as a file by `criu_proof`, with nothing of ours imported: it is copied into the image that criu makes of it. Prints
one JSON object: how long dump and restore took, or at which of them it ended and what criu said.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from typing import NoReturn

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_LOOPBACK = "127.0.0.1"

_ANSWER_S = 5.0
_END_S = 1.0
_SHARED = ("--tcp-established", "--network-lock", "nftables", "--manage-cgroups=ignore", "--no-default-config")
# It wants more descriptors than root may have where CAP_SYS_RESOURCE is missing, and does without.
_NOT_THE_CAUSE = ("RLIMIT_NOFILE for self: Operation not permitted", "FAILED.")


class _FailedError(Exception):
    """A step did not succeed: its name, and why."""


def main(criu: str, place: str, deadline_s: float) -> None:
    """Dump and restore a process with an established connection to this one. ``place``: an empty directory."""
    try:
        found = _prove(criu, place, time.monotonic() + deadline_s)
    except _FailedError as err:
        step, said = err.args
        found = {"step": step, "said": said}
    except OSError as err:
        found = {"step": "prepare", "said": str(err)}
    json.dump(found, sys.stdout)


def _prove(criu: str, place: str, end: float) -> dict[str, object]:
    _mount_memory(place)
    _set_loopback_up()
    with socket.create_server((_LOOPBACK, 0)) as listener:
        subject = _fork_subject(listener)
        peer, _ = listener.accept()
    with peer:
        peer.settimeout(_ANSWER_S)
        _expect_answer(peer, "1", step="prepare")
        dump = _run(criu, "dump", place, end, "--tree", str(subject))
        _expect_end(subject)
        restore = _run(criu, "restore", place, end, "--restore-detached")
        _expect_answer(peer, "2", step="restore")
    return {"dump_s": dump, "restore_s": restore}


def _mount_memory(place: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", ctypes.c_ulong(0), b"mode=700,size=256m") != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {place}: {os.strerror(number)}")


def _set_loopback_up() -> None:
    """Set up the loopback of this network namespace. Source: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def _fork_subject(listener: socket.socket) -> int:
    """Fork the process that will be dumped; it leads a session, as one with its parent's session could not be."""
    address = listener.getsockname()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            _be_subject(address)
        os._exit(1)
    return pid


def _be_subject(address: tuple[str, int]) -> NoReturn:
    os.setsid()
    os.chdir("/")
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
    with socket.create_connection(address) as connection:
        count = 0
        while connection.recv(1):
            count += 1
            connection.sendall(str(count).encode())
    os._exit(0)


def _expect_end(subject: int) -> None:
    """Wait until the subject, which criu has killed, is gone: it gets its pid again."""
    process = os.pidfd_open(subject)
    if not select.select([process], [], [], _END_S)[0]:
        raise _FailedError("dump", "the process lives on")
    os.waitpid(subject, 0)


def _expect_answer(peer: socket.socket, expected: str, *, step: str) -> None:
    """Ask the subject how often it was asked."""
    try:
        peer.sendall(b"?")
        said = peer.recv(16).decode()
    except OSError as err:
        raise _FailedError(step, f"the connection does not answer: {err}") from err
    if said != expected:
        raise _FailedError(step, f"expected the answer {expected!r} over the connection, got {said!r}")


def _run(criu: str, step: str, place: str, end: float, *options: str) -> float:
    """Run criu; give the seconds that it took."""
    argv = [criu, step, "--images-dir", place, "--log-file", f"{step}.log", "-v2", *_SHARED, *options]
    began = time.monotonic()
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=max(0.1, end - began)
        )
    except subprocess.TimeoutExpired:
        raise _FailedError(step, f"not ended in time, last said {_last_words(place, step, b'')!r}") from None
    if done.returncode != 0:
        raise _FailedError(step, _last_words(place, step, done.stderr) or f"exit status {done.returncode}")
    return time.monotonic() - began


def _last_words(place: str, step: str, errors: bytes) -> str:
    """Give what criu says first of what is wrong; what follows it are consequences."""
    text = errors.decode(errors="replace")
    with suppress(OSError), open(f"{place}/{step}.log", encoding="utf-8", errors="replace") as log:
        text = log.read(1 << 16) + text
    lines = [line for line in text.splitlines() if line.strip()]
    wrong = [line.partition("): ")[2] for line in lines if "Error (" in line and not line.endswith(_NOT_THE_CAUSE)]
    return (wrong or lines[-1:] or [""])[0].strip()[:300]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
