"""Counting and limiting the IPv4 and IPv6 sockets of a cgroup and all below it, by BPF on the unified hierarchy.

Counted is every socket that socket(2) makes, TCP apart from the rest, until it is closed; connections that a listening
socket accepts are made by the kernel without asking and are not counted. Sockets of other families never come by here.
A socket above the limit is refused with ENOBUFS. It works without any controller, and so on a hybrid host as well.

Source: Linux net/ipv4/af_inet.c, inet_create and inet_release; Documentation/bpf/map_sk_storage.rst.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from reconciler.kernel import bpf
from reconciler.kernel.syscalls import translated

TCP = "tcp"
OTHER = "other"

_PROGRAM = "vectl_sockets"
_COUNTS = "vectl_counts"
_LIMITS = "vectl_limits"
_UNLIMITED = (1 << 64) - 1
_COUNT = struct.Struct("=QQQ")
_LIMIT = struct.Struct("=Q")
_NAMES = (TCP, OTHER)
_HELD, _PEAK, _FAILURES = 0, 8, 16

_TYPE_AT, _PROTOCOL_AT = 8, 12  # in struct bpf_sock
_SOCK_STREAM = 1
_IPPROTO_SCTP = 132
_SK_STORAGE_GET = 107
_SET_RETVAL = 187
_STORAGE_CREATE = 1
_OF_TCP, _OF_OTHER = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketCount:
    """One counter. ``limit`` None: unlimited. ``failures``: sockets that were refused."""

    held: int
    peak: int
    limit: int | None
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketCounters:
    """The counters of one cgroup, as open maps. Limits are apart, so that writing one loses nothing that is counted."""

    counts: int
    limits: int

    def close(self) -> None:
        """Close the maps; what is counted goes on being counted."""
        os.close(self.counts)
        os.close(self.limits)

    def read(self) -> dict[str, SocketCount]:
        """Read both counters, by `TCP` and `OTHER`.

        Raises: KernelError.
        """
        counts = _COUNT.iter_unpack(bpf.read_array(self.counts, 2 * _COUNT.size))
        limits = _LIMIT.iter_unpack(bpf.read_array(self.limits, 2 * _LIMIT.size))
        return {
            name: SocketCount(held=held, peak=peak, limit=None if limit == _UNLIMITED else limit, failures=failures)
            for name, (held, peak, failures), (limit,) in zip(_NAMES, counts, limits, strict=True)
        }

    def set_limit(self, name: str, limit: int | None) -> None:
        """Set the limit of one counter; sockets above it that are there already stay.

        Raises: KernelError.
        """
        content = bytearray(bpf.read_array(self.limits, 2 * _LIMIT.size))
        _LIMIT.pack_into(content, _NAMES.index(name) * _LIMIT.size, _UNLIMITED if limit is None else limit)
        bpf.write_array(self.limits, bytes(content))


def find(directory: str) -> SocketCounters | None:
    """Open the counters of a cgroup; None, if it has none. The caller closes them.

    Raises: KernelError, with ENOENT if the cgroup is not there.
    """
    with _opened(directory) as cgroup:
        found = bpf.find_maps(cgroup, bpf.CGROUP_INET_SOCK_CREATE, program=_PROGRAM, names=(_COUNTS, _LIMITS))
    return None if found is None else SocketCounters(counts=found[0], limits=found[1])


def ensure(directory: str) -> SocketCounters:
    """Open the counters of a cgroup, which count from now on if there were none. The caller closes them.

    Raises: KernelError.
    """
    found = find(directory)
    return _install(directory) if found is None else found


def try_out() -> None:
    """Make, and drop, what only a kernel that can count sockets makes for a process that may.

    Raises: KernelError.
    """
    os.close(bpf.create_socket_storage("vectl_counted"))


def _install(directory: str) -> SocketCounters:
    with ExitStack() as undo:
        made = SocketCounters(
            counts=_kept(undo, bpf.create_array(_COUNTS, 2 * _COUNT.size)),
            limits=_kept(undo, bpf.create_array(_LIMITS, 2 * _LIMIT.size)),
        )
        bpf.write_array(made.limits, 2 * _LIMIT.pack(_UNLIMITED))
        with _closing(bpf.create_socket_storage("vectl_counted")) as marks, _opened(directory) as cgroup:
            # Release first: a socket that was counted must not go uncounted.
            for kind, code in (
                (bpf.CGROUP_INET_SOCK_RELEASE, _release(made, marks)),
                (bpf.CGROUP_INET_SOCK_CREATE, _create(made, marks)),
            ):
                with _closing(bpf.load(bpf.Program(_PROGRAM, kind, code))) as program:
                    bpf.attach(program, cgroup, kind)
        undo.pop_all()
    return made


def _kept(undo: ExitStack, descriptor: int) -> int:
    undo.callback(os.close, descriptor)
    return descriptor


def _create(counters: SocketCounters, marks: int) -> bytes:
    """Count a new socket and mark it; above the limit, refuse it."""
    return bpf.assemble(
        [
            bpf.move(bpf.R6, bpf.R1),
            bpf.value_of(bpf.R8, counters.counts),
            bpf.value_of(bpf.R5, counters.limits),
            bpf.put(bpf.R7, _OF_TCP),
            bpf.load_word(bpf.R2, bpf.R6, _PROTOCOL_AT),
            bpf.load_word(bpf.R3, bpf.R6, _TYPE_AT),
            bpf.jump_equal(bpf.R2, _IPPROTO_SCTP, "other"),
            bpf.jump_equal(bpf.R3, _SOCK_STREAM, "count"),
            "other",
            bpf.put(bpf.R7, _OF_OTHER),
            bpf.add(bpf.R8, _COUNT.size),
            bpf.add(bpf.R5, _LIMIT.size),
            "count",
            bpf.put(bpf.R9, 1),
            bpf.fetch_and_add(bpf.R8, _HELD, bpf.R9),
            bpf.add(bpf.R9, 1),
            bpf.load_long(bpf.R2, bpf.R5, 0),
            bpf.jump_greater(bpf.R9, bpf.R2, "refuse"),
            bpf.map_of(bpf.R1, marks),
            bpf.move(bpf.R2, bpf.R6),
            bpf.put(bpf.R3, 0),
            bpf.put(bpf.R4, _STORAGE_CREATE),
            bpf.call_helper(_SK_STORAGE_GET),
            bpf.jump_equal(bpf.R0, 0, "refuse"),
            bpf.jump_equal(bpf.R7, _OF_TCP, "mark tcp"),
            bpf.store_word(bpf.R0, 0, _OF_OTHER),
            bpf.jump("peak"),
            "mark tcp",
            bpf.store_word(bpf.R0, 0, _OF_TCP),
            "peak",
            bpf.put(bpf.R0, 1),
            bpf.load_long(bpf.R1, bpf.R8, _PEAK),
            bpf.jump_greater(bpf.R1, bpf.R9, "allow"),
            bpf.store_long(bpf.R8, _PEAK, bpf.R9),
            "allow",
            bpf.leave(),
            "refuse",
            bpf.put(bpf.R1, 1),
            bpf.add_in_place(bpf.R8, _FAILURES, bpf.R1),
            bpf.put(bpf.R1, -1),
            bpf.add_in_place(bpf.R8, _HELD, bpf.R1),
            bpf.put(bpf.R1, -errno.ENOBUFS),
            bpf.call_helper(_SET_RETVAL),
            bpf.put(bpf.R0, 0),
            bpf.leave(),
        ]
    )


def _release(counters: SocketCounters, marks: int) -> bytes:
    """Take a socket that carries the mark off its counter, once."""
    return bpf.assemble(
        [
            bpf.move(bpf.R2, bpf.R1),
            bpf.map_of(bpf.R1, marks),
            bpf.put(bpf.R3, 0),
            bpf.put(bpf.R4, 0),
            bpf.call_helper(_SK_STORAGE_GET),
            bpf.jump_equal(bpf.R0, 0, "leave"),
            bpf.load_word(bpf.R1, bpf.R0, 0),
            bpf.store_word(bpf.R0, 0, 0),
            bpf.value_of(bpf.R8, counters.counts),
            bpf.put(bpf.R2, -1),
            bpf.jump_equal(bpf.R1, _OF_TCP, "release"),
            bpf.jump_unequal(bpf.R1, _OF_OTHER, "leave"),
            bpf.add(bpf.R8, _COUNT.size),
            "release",
            bpf.add_in_place(bpf.R8, _HELD, bpf.R2),
            "leave",
            bpf.put(bpf.R0, 1),
            bpf.leave(),
        ]
    )


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    with translated("open", directory):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with _closing(descriptor):
        yield descriptor


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
