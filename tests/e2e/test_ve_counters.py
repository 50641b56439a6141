"""Claims about beancounters: what a VE holds is counted, what is beyond its limits is refused, and both are told.

The load comes from inside. Programs of one system call stand in for those that a tenant would bring.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from reconciler.model.condition import ConditionType
from tests.support.fleet import Document, Fleet, network, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve
from tests.support.probe import WRITABLE, syscalls_program

pytestmark = pytest.mark.xdist_group("ve-counters")

MIB = 1 << 20
EAGAIN, ENOMEM, ENOSPC, ENOBUFS = 11, 12, 28, 105
SHMGET, MLOCKALL, TIMER_CREATE = 29, 151, 222
IPC_CREAT_RW = 0o1600
DATAGRAM_SOCKET = (41, 2, 2)

COUNTERS: Document = {
    "numtcpsock": {"limit": 6},
    "numothersock": {"limit": 3},
    "numpty": {"limit": 2},
    "numfile": {"barrier": 60, "limit": 80},
    "shmpages": {"limit": "8Mi"},
    "lockedpages": {"limit": "64Ki"},
    "numsiginfo": {"limit": 1},
}

HOLD = "while [ ! -e /tmp/go ]; do sleep 0.2; done"

SYSCTLS: Document = {"net.core.somaxconn": "99"}


def full(**spec: object) -> Document:
    merged: dict[str, Any] = {
        "processes": 60,
        "beancounters": COUNTERS,
        "sysctls": SYSCTLS,
        **spec,
    }
    return ve("full", "10.191.14.11/24", **merged)


OTHERS = (network("lan", "10.191.14.0/24", gateway=["10.191.14.1"]), ve("calm", "10.191.14.12/24"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp(), *OTHERS, full()) as made:
        made.start_agent()
        made.await_ready("full", "calm")
        yield made


@pytest.fixture
def one(fleet: Fleet) -> Iterator[Ve]:
    """A VE that runs on, whatever is done in it; so does its neighbour, who never met a limit."""
    inits = {name: fleet.ve(name).init for name in ("full", "calm")}
    yield fleet.ve("full")
    assert {name: fleet.ve(name).init for name in inits} == inits
    assert ConditionType.LIMITED not in fleet.conditions("calm")


def let_go(one: Ve, held: Future[str]) -> None:
    """Let a program go on that waits by HOLD, until it ends."""
    one.shell("touch /tmp/go")
    held.result()
    one.shell("rm /tmp/go")


def counter(fleet: Fleet, resource: str, name: str = "full") -> dict[str, Any]:
    """Read a row, as a script would."""
    found = json.loads(fleet.vectl("beancounters", name, "-o", "json"))
    (item,) = found["items"]
    return next(row for row in item["counters"] if row["resource"] == resource)


def errno_of(fleet: Fleet, one: Ve, *calls: tuple[int, ...]) -> int:
    """Make system calls in a VE; give the errno of the last, 0 for success."""
    if platform.machine() != "x86_64":
        pytest.skip("the programs of one system call are x86-64 only")
    path = one.upper / "call"
    path.write_bytes(syscalls_program(*calls))
    path.chmod(0o755)
    os.utime(path)
    return int(fleet.vectl("exec", "full", "--", "sh", "-c", "/call; echo $?"))


def fork_too_often(fleet: Fleet, one: Ve) -> None:
    """Fork until that is refused, which ends the shell that does it, and wait until there is room again."""
    one.try_run("sh", "-c", "(for i in $(seq 80); do sleep 3 & done) 2>/dev/null")
    until(lambda: counter(fleet, "numproc")["held"] < 20, "the processes to end")


def is_told(fleet: Fleet, resource: str) -> None:
    """Expect an event and the condition that name a resource."""
    limited = fleet.conditions("full")[ConditionType.LIMITED]
    assert limited.reason in ("BeancounterHit", "OutOfMemory")  # the worse one, where both are so
    assert resource in limited.message
    assert any(event.reason == "BeancounterHit" and resource in event.message for event in fleet.events())


def test_processes_beyond_the_limit_are_refused_counted_and_told(fleet: Fleet, one: Ve) -> None:
    before = counter(fleet, "numproc")
    fork_too_often(fleet, one)
    row = counter(fleet, "numproc")
    assert (row["maxheld"], row["limit"]) == (60, 60)
    assert row["failcnt"] > before["failcnt"]
    is_told(fleet, "numproc")


def test_tcp_sockets_beyond_the_limit_are_refused_and_counted(fleet: Fleet, one: Ve) -> None:
    before = counter(fleet, "numtcpsock")
    said = one.shell("for i in $(seq 8); do nc -l -p 50$((i + 10)) & done 2>&1; sleep 1; killall nc; true")
    row = counter(fleet, "numtcpsock")
    assert "No buffer space available" in said
    assert (row["maxheld"], row["enforcement"]) == (6, "enforced")
    assert row["failcnt"] >= before["failcnt"] + 2
    until(lambda: counter(fleet, "numtcpsock")["held"] == before["held"], "the sockets to be closed")
    is_told(fleet, "numtcpsock")


def test_other_sockets_are_counted_apart(fleet: Fleet, one: Ve) -> None:
    tcp, before = counter(fleet, "numtcpsock")["failcnt"], counter(fleet, "numothersock")["failcnt"]
    assert errno_of(fleet, one, *3 * (DATAGRAM_SOCKET,)) == 0
    assert errno_of(fleet, one, *4 * (DATAGRAM_SOCKET,)) == ENOBUFS
    row = counter(fleet, "numothersock")
    assert (row["held"], row["maxheld"], row["failcnt"]) == (0, 3, before + 1)
    assert counter(fleet, "numtcpsock")["failcnt"] == tcp


def test_a_limit_of_sockets_is_raised_while_the_ve_runs(fleet: Fleet, one: Ve) -> None:
    assert errno_of(fleet, one, *4 * (DATAGRAM_SOCKET,)) == ENOBUFS
    fleet.put("all.yaml", *OTHERS, full(beancounters={**COUNTERS, "numothersock": {"limit": 4}}))
    until(lambda: one_limit(fleet) == 4, "the limit to be raised")
    assert errno_of(fleet, one, *4 * (DATAGRAM_SOCKET,)) == 0
    fleet.put("all.yaml", *OTHERS, full())
    until(lambda: one_limit(fleet) == 3, "the limit to be lowered")
    assert errno_of(fleet, one, *4 * (DATAGRAM_SOCKET,)) == ENOBUFS


def one_limit(fleet: Fleet) -> object:
    limit: object = counter(fleet, "numothersock")["limit"]
    return limit


def test_pseudo_terminals_beyond_the_limit_are_refused(fleet: Fleet, one: Ve) -> None:
    open_two = "exec 3<>/dev/ptmx; exec 4<>/dev/ptmx; echo two"
    said = one.shell(f"({open_two}; exec 5<>/dev/ptmx; echo three) 2>&1; true")
    assert "two" in said
    assert "No space left on device" in said
    held = one.begin("sh", "-c", f"{open_two}; {HOLD}")
    until(lambda: counter(fleet, "numpty")["held"] == 2, "two terminals to be open")
    let_go(one, held)


def test_shared_memory_beyond_the_limit_is_refused(fleet: Fleet, one: Ve) -> None:
    assert errno_of(fleet, one, (SHMGET, 0, 9 * MIB, IPC_CREAT_RW)) == ENOSPC
    assert errno_of(fleet, one, (SHMGET, 0, 7 * MIB, IPC_CREAT_RW)) == 0


def test_memory_that_is_locked_beyond_the_limit_is_refused(fleet: Fleet, one: Ve) -> None:
    assert errno_of(fleet, one, (MLOCKALL, 1)) == ENOMEM


def test_signals_that_are_queued_beyond_the_limit_are_refused(fleet: Fleet, one: Ve) -> None:
    timer = (TIMER_CREATE, 1, 0, WRITABLE)  # which sets a signal aside for when it expires
    assert errno_of(fleet, one, timer) == 0
    assert errno_of(fleet, one, timer, timer) == EAGAIN


def test_memory_that_runs_out_is_counted_and_told(fleet: Fleet, one: Ve) -> None:
    before = counter(fleet, "physpages"), counter(fleet, "oomguarpages")
    one.shell("dd if=/dev/zero of=/dev/shm/fill bs=1M count=100 2>&1; rm -f /dev/shm/fill; true")
    after = counter(fleet, "physpages"), counter(fleet, "oomguarpages")
    assert after[0]["failcnt"] > before[0]["failcnt"]
    assert after[1]["failcnt"] > before[1]["failcnt"]
    assert 60 * MIB <= after[0]["maxheld"] <= after[0]["limit"] == 64 * MIB
    is_told(fleet, "physpages")


def test_an_observed_resource_above_its_barrier_is_one_failure_until_it_was_below(fleet: Fleet, one: Ve) -> None:
    before = counter(fleet, "numfile")
    assert (before["enforcement"], before["held"] < 60) == ("observed", True)
    opened = "; ".join(f"exec {number}</dev/null" for number in range(3, 10))
    held = one.begin("sh", "-c", f"for i in $(seq 8); do ({opened}; {HOLD}) & done; wait")
    until(lambda: counter(fleet, "numfile")["held"] > 60, "many files to be open")
    again = counter(fleet, "numfile")
    assert again["failcnt"] == before["failcnt"] + 1
    let_go(one, held)
    is_told(fleet, "numfile")


def test_a_parameter_that_the_ve_changes_is_put_right_and_one_that_is_dropped_returns(fleet: Fleet, one: Ve) -> None:
    def somaxconn() -> str:
        return one.net("cat", "/proc/sys/net/core/somaxconn").strip()

    assert somaxconn() == "99"
    one.net("sh", "-c", "echo 7 > /proc/sys/net/core/somaxconn")
    fleet.ask("reconcile", ve="full")
    until(lambda: somaxconn() == "99", "the parameter to be put right")
    fleet.put("all.yaml", *OTHERS, full(sysctls={}))
    fleet.await_ready("full")
    assert somaxconn() == fleet.ve("calm").net("cat", "/proc/sys/net/core/somaxconn").strip()
    fleet.put("all.yaml", *OTHERS, full())
    fleet.await_ready("full")
    assert somaxconn() == "99"


def test_the_beancounters_file_reads_as_openvzs_does(fleet: Fleet, one: Ve) -> None:
    lines = fleet.vectl("beancounters", "-o", "ubc").splitlines()
    tables = [line.split() for line in lines[2:]]
    assert lines[0] == "Version: 2.5"
    assert lines[1].split() == ["uid", "resource", "held", "maxheld", "barrier", "limit", "failcnt"]
    assert len(tables) == 2 * 24
    assert [len(words) for words in tables] == 2 * [7, *23 * [6]]
    numbers = {words[0] for words in tables if len(words) == 7}
    assert numbers == {f"{record.id_base >> 16}:" for record in fleet.records().values()}
    assert all(word.isdecimal() for words in tables for word in words[-5:])


def test_peaks_and_failures_outlive_the_agent_and_the_cgroup(fleet: Fleet) -> None:
    one = fleet.ve("full")
    fork_too_often(fleet, one)
    assert errno_of(fleet, one, *4 * (DATAGRAM_SOCKET,)) == ENOBUFS
    before = {name: counter(fleet, name) for name in ("numproc", "numothersock", "physpages")}
    fleet.end_agent()
    fleet.start_agent()
    fleet.vectl("stop", "full")
    assert not one.cgroup.exists()
    fleet.vectl("start", "full")
    fleet.await_ready("full")
    after = {name: counter(fleet, name) for name in before}
    assert after["numproc"]["held"] < after["numproc"]["maxheld"] == before["numproc"]["maxheld"] == 60
    for name, row in before.items():
        assert after[name]["failcnt"] >= row["failcnt"] >= (name != "physpages")
        assert after[name]["maxheld"] >= row["maxheld"] > 0
