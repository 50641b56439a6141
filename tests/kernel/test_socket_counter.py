"""Counting sockets by BPF: what a cgroup may open, what it is refused, and that closing gives it back."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from reconciler.kernel import cgroup_layout, socket_counter
from reconciler.kernel.socket_counter import OTHER, TCP

_PROGRAM = """
import os, socket, sys
open(sys.argv[1], "w").write("0")
kinds = {"tcp": (socket.AF_INET, socket.SOCK_STREAM), "udp6": (socket.AF_INET6, socket.SOCK_DGRAM)}
held = {name: [] for name in kinds}
for line in sys.stdin:
    word, name, number = line.split()
    errors = set()
    for _ in range(int(number)):
        try:
            if word == "open":
                held[name].append(socket.socket(*kinds[name]))
            elif word == "close":
                held[name].pop().close()
            else:
                listening = held[name][0]
                listening.listen()
                far = socket.create_connection(listening.getsockname())
                listening.accept()[0].close()
                far.close()
        except OSError as error:
            errors.add(error.errno)
    print(len(held[name]), *errors, flush=True)
"""


class _Opener:
    """A process in a cgroup that opens and closes sockets as it is told."""

    def __init__(self, directory: str) -> None:
        argv = [sys.executable, "-c", _PROGRAM, f"{directory}/ve/cgroup.procs"]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def do(self, word: str, name: str, number: int) -> list[int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word} {name} {number}\n")
        self.process.stdin.flush()
        return [int(answer) for answer in self.process.stdout.readline().split()]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)


@pytest.fixture
def directory() -> Iterator[str]:
    unified = cgroup_layout.detect().unified
    assert unified is not None
    path = f"{unified}/vt{secrets.token_hex(4)}"
    os.makedirs(f"{path}/ve")
    try:
        yield path
    finally:
        os.rmdir(f"{path}/ve")
        os.rmdir(path)


@pytest.fixture
def opener(directory: str) -> Iterator[_Opener]:
    opener = _Opener(directory)
    try:
        yield opener
    finally:
        opener.end()


def test_sockets_above_the_limit_are_refused_and_counted(directory: str, opener: _Opener) -> None:
    with closing(socket_counter.ensure(directory)) as counters:
        counters.set_limit(TCP, 3)
        assert opener.do("open", "tcp", 5) == [3, 105]
        assert opener.do("open", "udp6", 4) == [4]
        found = counters.read()
        assert (found[TCP].held, found[TCP].peak, found[TCP].limit, found[TCP].failures) == (3, 3, 3, 2)
        assert (found[OTHER].held, found[OTHER].limit, found[OTHER].failures) == (4, None, 0)


def test_a_closed_socket_makes_room_for_another(directory: str, opener: _Opener) -> None:
    with closing(socket_counter.ensure(directory)) as counters:
        counters.set_limit(OTHER, 2)
        assert opener.do("open", "udp6", 2) == [2]
        assert opener.do("close", "udp6", 1) == [1]
        assert opener.do("open", "udp6", 2) == [2, 105]
        assert counters.read()[OTHER].peak == 2


def test_accepted_connections_are_neither_counted_nor_taken_off(directory: str, opener: _Opener) -> None:
    with closing(socket_counter.ensure(directory)) as counters:
        opener.do("open", "tcp", 1)
        opener.do("accept", "tcp", 4)
        assert counters.read()[TCP].held == 1


def test_the_limit_changes_while_sockets_are_open(directory: str, opener: _Opener) -> None:
    with closing(socket_counter.ensure(directory)) as counters:
        counters.set_limit(TCP, 1)
        assert opener.do("open", "tcp", 2) == [1, 105]
        counters.set_limit(TCP, None)
        assert opener.do("open", "tcp", 2) == [3]


def test_the_counters_outlive_whoever_made_them(directory: str, opener: _Opener) -> None:
    socket_counter.ensure(directory).close()
    opener.do("open", "tcp", 2)
    with closing(socket_counter.ensure(directory)) as found:
        assert found.read()[TCP].held == 2
    opener.end()
    with closing(socket_counter.ensure(directory)) as found:
        assert found.read()[TCP].held == 0


def test_a_cgroup_without_counters_has_none(directory: str) -> None:
    assert socket_counter.find(directory) is None
