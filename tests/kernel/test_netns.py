"""Network namespaces: entering them, naming them, and sockets that live in them."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from reconciler.errors import KernelError
from reconciler.kernel import netlink, netns, nlsocket, rtnlsocket, sysctl
from reconciler.kernel.rtnlsocket import RtnlSocket

pytestmark = pytest.mark.kernel

DEADLINE_S = 10.0


@pytest.fixture
def namespace() -> Iterator[int]:
    descriptor = netns.create()
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def other() -> Iterator[int]:
    descriptor = netns.create()
    yield descriptor
    os.close(descriptor)


def our_inode() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def started_in_own_namespace() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["unshare", "--net", "sleep", "60"])
    deadline = time.monotonic() + DEADLINE_S
    while os.stat(f"/proc/{process.pid}/ns/net").st_ino == our_inode():
        assert time.monotonic() < deadline, "unshare did not get its own network namespace"
        time.sleep(0.002)
    return process


def ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(DEADLINE_S)


def test_the_caller_stays_in_its_own_namespace(namespace: int) -> None:
    before = our_inode()
    inside = netns.call_in(namespace, our_inode)
    assert inside == os.fstat(namespace).st_ino != before
    assert our_inode() == before


def test_the_thread_that_entered_is_gone(namespace: int) -> None:
    thread = netns.call_in(namespace, threading.current_thread)
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_what_a_function_raises_inside_comes_out(namespace: int) -> None:
    with pytest.raises(ZeroDivisionError):
        netns.call_in(namespace, lambda: 1 // 0)


def test_a_descriptor_that_is_no_namespace_is_not_entered() -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        with pytest.raises(KernelError) as caught:
            netns.call_in(null, our_inode)
    finally:
        os.close(null)
    assert caught.value.errno == errno.EINVAL


def test_the_namespace_of_a_process_is_opened() -> None:
    process = started_in_own_namespace()
    try:
        pidfd = os.pidfd_open(process.pid)
        descriptor = netns.open_of(process.pid, pidfd=pidfd)
        assert os.fstat(descriptor).st_ino == os.stat(f"/proc/{process.pid}/ns/net").st_ino
        os.close(descriptor)
        os.close(pidfd)
    finally:
        ended(process)


def test_a_pid_that_went_to_another_process_is_refused() -> None:
    """The pidfd is of a process that is gone, the pid is one that lives: as after a reuse of the number."""
    process = subprocess.Popen(["true"])
    pidfd = os.pidfd_open(process.pid)
    process.wait(DEADLINE_S)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(KernelError) as caught:
        netns.open_of(os.getpid(), pidfd=pidfd)
    assert caught.value.errno == errno.ESRCH
    assert set(os.listdir("/proc/self/fd")) <= before
    os.close(pidfd)


def test_a_socket_keeps_to_the_namespace_it_was_opened_in(namespace: int) -> None:
    with RtnlSocket.open_in(namespace) as sock:
        assert [link.name for link in sock.dump_links() if link.kind is None] == ["lo"]
        assert sock.link("lo") == sock.dump_links()[0]
        assert not any(link.up for link in sock.dump_links())


def test_a_parameter_is_that_of_the_namespace_entered(namespace: int) -> None:
    ours = sysctl.read("net.ipv4.ip_default_ttl")
    netns.call_in(namespace, lambda: sysctl.write("net.ipv4.ip_default_ttl", "77"))
    assert netns.call_in(namespace, lambda: sysctl.read("net.ipv4.ip_default_ttl")) == "77"
    assert sysctl.read("net.ipv4.ip_default_ttl") == ours


def test_a_parameter_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KernelError) as caught:
        sysctl.read("net.ipv4.no_such_parameter")
    assert caught.value.errno == errno.ENOENT


def test_a_value_that_the_kernel_refuses_is_an_error(namespace: int) -> None:
    with pytest.raises(KernelError) as caught:
        netns.call_in(namespace, lambda: sysctl.write("net.ipv4.ip_default_ttl", "many"))
    assert caught.value.errno == errno.EINVAL


def test_a_namespace_gets_one_number_and_keeps_it(namespace: int, other: int) -> None:
    with RtnlSocket.open_in(namespace) as sock:
        assert sock.nsid(other) is None
        number = sock.assign_nsid(other)
        assert number >= 0
        assert sock.assign_nsid(other) == number == sock.nsid(other)


def test_a_forged_answer_is_not_believed(namespace: int) -> None:
    """Root of a VE may send to any netlink port of its namespace, ours included."""
    sock = netns.open_socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, rtnlsocket.NETLINK_ROUTE)
    sock.bind((0, 0))
    with RtnlSocket(sock) as reader, forger_in(namespace) as forger:
        # The next sequence number of the reader is easily guessed.
        lie = netlink.encode_message(netlink.NLMSG_ERROR, 0, sequence=1, payload=b"\xff\xff\xff\xff" + bytes(16))
        forger.sendto(lie, sock.getsockname())
        assert [link.name for link in reader.dump_links() if link.kind is None] == ["lo"]


def test_a_late_answer_is_not_taken_for_the_next_one(namespace: int, other: int) -> None:
    sock = netns.open_socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, rtnlsocket.NETLINK_ROUTE)
    with RtnlSocket(sock) as reader:
        late = bytes(4) + netlink.encode_attribute(3, netlink.U32.pack(other))
        flags = netlink.NLM_F_REQUEST | netlink.NLM_F_ACK
        sock.send(netlink.encode_message(90, flags, sequence=4711, payload=late))
        assert [link.name for link in reader.dump_links() if link.kind is None] == ["lo"]


def test_a_flood_of_forged_answers_ends_in_an_error(namespace: int) -> None:
    sock = netns.open_socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, rtnlsocket.NETLINK_ROUTE)
    nlsocket.enlarge_buffer(sock, 4 * 1024 * 1024)
    sock.bind((0, 0))
    with RtnlSocket(sock) as reader, forger_in(namespace) as forger:
        for _ in range(1100):
            forger.sendto(b"x", sock.getsockname())
        with pytest.raises(KernelError, match="flooded"):
            reader.dump_links()
        assert reader.dump_links() == reader.dump_links(), "the socket is usable again"


def test_a_table_beyond_the_limit_is_an_error_and_no_partial_listing(namespace: int) -> None:
    with RtnlSocket.open_in(namespace, dump_limit=0) as sock:
        with pytest.raises(KernelError, match="more than 0 entries"):
            sock.dump_links()
        assert sock.fileno() == -1, "the rest of the listing would be taken for the next answer"


def test_a_refusal_carries_the_kernels_words(namespace: int) -> None:
    with RtnlSocket.open_in(namespace) as sock, pytest.raises(KernelError, match="nvalid") as caught:
        # An address mask of 33 bits: the strict check answers it in words.
        sock.dump(22, bytes((2, 33, 0, 0, 0, 0, 0, 0)), doing="list addresses")
    assert caught.value.errno == errno.EINVAL
    assert len(str(caught.value)) > len("list addresses: Invalid argument")


def forger_in(namespace: int) -> socket.socket:
    forger = netns.open_socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, rtnlsocket.NETLINK_ROUTE)
    forger.bind((0, 0))
    return forger
