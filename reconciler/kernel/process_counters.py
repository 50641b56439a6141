"""What processes hold that no cgroup counts: open files, locks, private and locked memory, signals, sockets' buffers.

Every number is a snapshot put together from many files: processes come and go meanwhile.
Source: proc_pid_status(5); proc_locks(5); proc_pid_net(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_PROC = "/proc"
_READ_MAX = 8 << 20
"""The root of a VE may have as many sockets as his memory holds: more of a file is not read. Units: bytes."""

_TIME_WAIT = "06"
_TCP = ("tcp", "tcp6")
_DATAGRAM = ("udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessCounters:
    """Sums over processes. ``signals``: queued for the users of them. Units: bytes; numbers of things."""

    files: int = 0
    locks: int = 0
    private: int = 0
    locked: int = 0
    signals: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketCounters:
    """Sockets of a network namespace, with the data that waits in them. Units: bytes; numbers of sockets."""

    tcp: int = 0
    other: int = 0
    tcp_send: int = 0
    tcp_receive: int = 0
    other_send: int = 0
    datagram_receive: int = 0


def read_locks() -> Mapping[int, int]:
    """Count the file locks that are held on this host, by process."""
    counts: dict[int, int] = {}
    for line in _lines(f"{_PROC}/locks"):
        words = line.split()
        if "->" not in words and len(words) > 4 and words[4].isdecimal():
            counts[int(words[4])] = counts.get(int(words[4]), 0) + 1
    return counts


def count_processes(pids: Iterable[int], locks: Mapping[int, int]) -> ProcessCounters:
    """Add up what processes hold. ``locks``: as `read_locks` gives them."""
    files = held_locks = private = locked = 0
    signals: dict[str, int] = {}
    for pid in pids:
        status = dict(_status(pid))
        files += _open_files(pid)
        held_locks += locks.get(pid, 0)
        private += _kilobytes(status.get("VmData")) + _kilobytes(status.get("VmStk"))
        locked += _kilobytes(status.get("VmLck"))
        user = status.get("Uid", "").partition("\t")[0]
        queued = status.get("SigQ", "0/").partition("/")[0]
        signals[user] = max(signals.get(user, 0), int(queued) if queued.isdecimal() else 0)
    return ProcessCounters(files=files, locks=held_locks, private=private, locked=locked, signals=sum(signals.values()))


def _status(pid: int) -> Iterator[tuple[str, str]]:
    for line in _lines(f"{_PROC}/{pid}/status"):
        name, _, value = line.partition(":")
        yield name, value.strip()


def _kilobytes(text: str | None) -> int:
    number = (text or "").partition(" ")[0]
    return int(number) << 10 if number.isdecimal() else 0


def _open_files(pid: int) -> int:
    """Count descriptors; since Linux 6.2 the directory's size is their number."""
    try:
        size = os.stat(f"{_PROC}/{pid}/fd").st_size
        return size or len(os.listdir(f"{_PROC}/{pid}/fd"))
    except OSError:  # it has ended
        return 0


def count_sockets(pid: int) -> SocketCounters:
    """Count the IPv4 and IPv6 sockets in the network namespace of a process, which is not entered.

    TCP connections that have no owner any more are not counted.
    """
    tcp = [queues for name in _TCP for queues in _queues(pid, name)]
    other = [queues for name in _DATAGRAM for queues in _queues(pid, name)]
    return SocketCounters(
        tcp=len(tcp),
        other=len(other),
        tcp_send=sum(send for send, _ in tcp),
        tcp_receive=sum(receive for _, receive in tcp),
        other_send=sum(send for send, _ in other),
        datagram_receive=sum(receive for _, receive in other),
    )


def _queues(pid: int, name: str) -> Iterator[tuple[int, int]]:
    """Yield what waits to be sent and to be read, socket by socket."""
    for line in _lines(f"{_PROC}/{pid}/net/{name}")[1:]:
        words = line.split()
        if len(words) > 4 and words[3] != _TIME_WAIT and ":" in words[4]:
            send, _, receive = words[4].partition(":")
            yield int(send, 16), int(receive, 16)


def count_links(pid: int) -> int:
    """Count the network interfaces in the network namespace of a process, which is not entered; loopback is one."""
    return max(0, len(_lines(f"{_PROC}/{pid}/net/dev")) - 2)


def _lines(path: str) -> list[str]:
    """Read the lines of a file, of a huge one the first; none, if its process has ended."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(_READ_MAX).splitlines()
    except OSError:
        return []
