"""How the host is reached, read from a real kernel: addresses, routes, sessions, and the cgroup of whoever looks."""

from __future__ import annotations

import os
import socket
import subprocess
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from reconciler.errors import BusyError, KernelError, StateError
from reconciler.host import reach
from reconciler.host.host import RealHost
from reconciler.kernel import answering
from reconciler.kernel.sessions import SessionSocket
from reconciler.model.identity import Uid
from reconciler.model.reach import HeldAddress, HostRoute, ReachObservation, RestoreAddress, RestoreRoute
from tests.support import storage
from tests.support.real_host import enter_private_namespaces, make_nic, on_real_host

pytestmark = pytest.mark.kernel

HOST, NIC = "192.0.2.11", "nic0"
HELD = HeldAddress(link=NIC, address=ip_interface(f"{HOST}/24"))
WAY = HostRoute(to=ip_network("0.0.0.0/0"), link=NIC, via=ip_address("192.0.2.1"), metric=7, protocol=4)
PREFERRED = HostRoute(to=ip_network("198.51.100.0/24"), link=NIC, source=ip_address(HOST), protocol=4)


def ip(*argv: str) -> None:
    subprocess.run(("ip", *argv), check=True, timeout=20)


def seen(host: RealHost) -> ReachObservation:
    return reach.observe(host.site, host.site.rtnl.dump_links())


def test_what_a_link_lost_comes_back_as_it_was() -> None:
    async def work(host: RealHost) -> None:
        make_nic(host, NIC)
        ip("link", "set", NIC, "up")
        await host.perform(RestoreAddress(held=HELD))
        for route in (PREFERRED, WAY):
            await host.perform(RestoreRoute(route=route))
        before = seen(host)
        assert before.addresses == {HELD}
        assert before.routes == {WAY, PREFERRED}
        ip("address", "del", f"{HOST}/24", "dev", NIC)
        assert seen(host) == ReachObservation()
        for _ in range(2):
            await host.perform(RestoreAddress(held=HELD))
            await host.perform(RestoreRoute(route=PREFERRED))
            await host.perform(RestoreRoute(route=WAY))
        assert seen(host) == before

    on_real_host(work)


def test_what_cannot_come_back_is_an_error() -> None:
    async def work(host: RealHost) -> None:
        make_nic(host, NIC)
        with pytest.raises(StateError, match="no such link"):
            await host.perform(RestoreAddress(held=HeldAddress(link="gone0", address=HELD.address)))
        await host.perform(RestoreAddress(held=HELD))
        with pytest.raises(KernelError):
            await host.perform(RestoreRoute(route=WAY))  # the link is down
        ip("link", "set", NIC, "up")
        ip("route", "add", "default", "via", "192.0.2.9", "metric", "7")
        with pytest.raises(BusyError, match="another route"):
            await host.perform(RestoreRoute(route=WAY))

    on_real_host(work)


def test_sessions_are_the_addresses_at_which_somebody_is_connected() -> None:
    def work() -> frozenset[str]:
        enter_private_namespaces()
        ip("address", "add", f"{HOST}/32", "dev", "lo")
        asking = SessionSocket()
        with socket.create_server((HOST, 22)) as listener, socket.create_server((HOST, 23)) as other:
            assert asking.local_ends(22) == frozenset()
            with socket.create_connection((HOST, 23)), other.accept()[0]:
                assert asking.local_ends(22) == frozenset()
            with socket.create_connection((HOST, 22)), listener.accept()[0]:
                return frozenset(map(str, asking.local_ends(22)))

    assert storage.in_child(work) == {HOST}


def test_who_answers_is_told_from_who_does_not() -> None:
    def work() -> list[bool]:
        enter_private_namespaces()
        ip("address", "add", f"{HOST}/32", "dev", "lo")
        with socket.create_server((HOST, 0)) as listener:
            port = listener.getsockname()[1]
            connected = answering.accepts_connections(HOST, port, timeout_s=5.0)
        return [
            connected,
            answering.accepts_connections(HOST, port, timeout_s=5.0),
            answering.answers_echo(ip_address(HOST), timeout_s=5.0),
            answering.answers_echo(ip_address("::1"), timeout_s=5.0),
            answering.answers_echo(ip_address("192.0.2.99"), timeout_s=5.0),
        ]

    assert storage.in_child(work) == [True, False, True, True, False]


def test_a_process_in_a_ves_cgroup_knows_that_it_is_there() -> None:
    uid = Uid("11111111-1111-4111-8111-111111111111")

    async def work(host: RealHost) -> None:
        assert reach.find_own_ve(host.site) is None
        hierarchy = host.site.layout.hierarchies()[0]
        below = hierarchy.path(f"{host.site.instance.cgroup}/{uid}/ve")
        os.makedirs(below)
        try:
            assert _in_cgroup(host, below) == uid
        finally:
            for directory in (below, os.path.dirname(below)):
                os.rmdir(directory)

    on_real_host(work)


def _in_cgroup(host: RealHost, directory: str) -> Uid | None:
    """Look from a process in a cgroup."""

    def look() -> Uid | None:
        with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
        return reach.find_own_ve(host.site)

    return storage.in_child(look)
