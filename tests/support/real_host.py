"""A real host for one test: an instance of its own, in network and mount namespaces of its own."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from reconciler.host import compute, ground
from reconciler.host.host import RealHost
from reconciler.host.keeper import protocol
from reconciler.host.site import Site
from reconciler.kernel import link, mount, netns, sysctl
from reconciler.kernel.rtnlsocket import RtnlSocket
from reconciler.kernel.syscalls import checked, libc
from reconciler.model.effects import Effect
from reconciler.model.identity import HostName
from reconciler.model.instance import Instance
from tests.support import storage

POOL_BYTES = 512 << 20

_Result = TypeVar("_Result")


def enter_private_namespaces() -> None:
    """Take this process, which must have one thread, into new network and mount namespaces.

    IPv6 is forwarded there from the start, as it is on any host that did so once.
    """
    mount.enter_private_namespace()
    checked(libc.unshare(netns.CLONE_NEWNET), "unshare", "network namespace")
    sysctl.write("net.ipv6.conf.all.forwarding", "1")
    _set_loopback_up()


def _set_loopback_up() -> None:
    """Make the new network namespace like any host's: criu asks the kernel by it what TCP sockets can do."""
    socket = RtnlSocket.open_here()
    try:
        loopback = socket.link("lo")
        assert loopback is not None
        link.set_up(socket, loopback.index)
    finally:
        socket.close()


def on_real_host(work: Callable[[RealHost], Awaitable[_Result]]) -> _Result:
    """Do work on a host of its own, in a process of its own."""

    async def there() -> _Result:
        async with real_host() as host:
            return await work(host)

    def in_namespaces() -> _Result:
        enter_private_namespaces()
        return asyncio.run(there())

    return storage.in_child(in_namespaces)


async def perform(host: RealHost, *effects: Effect) -> None:
    """Perform effects, one after the other."""
    for effect in effects:
        await host.perform(effect)


async def perform_all(host: RealHost, effects: tuple[Effect, ...]) -> None:
    """Perform effects, one after the other."""
    await perform(host, *effects)


@asynccontextmanager
async def real_host() -> AsyncIterator[RealHost]:
    """Make an instance in a new directory, and take away all of it afterwards, whatever runs in it."""
    name = f"vt{secrets.token_hex(3)}"
    directory = f"{tempfile.gettempdir()}/{name}"
    os.mkdir(directory, 0o711)  # a VE's root passes through it
    instance = Instance(
        name=name,
        host=HostName("here"),
        state_dir=f"{directory}/state",
        run_dir=f"{directory}/run",
        cgroup=f"/{name}",
        pool_size=POOL_BYTES,
    )
    ground.prepare(instance)
    site = Site(instance)
    try:
        yield RealHost(site)
    finally:
        await _take_down(site)
        os.rmdir(directory)


async def _take_down(site: Site) -> None:
    for uid in site.uids():
        cgroup = compute.tree(site, uid)
        if cgroup.exists():
            cgroup.kill()
            cgroup.remove()
    if os.path.exists(f"{site.instance.run_dir}/{protocol.SOCKET_NAME}"):  # or nothing has needed a keeper
        await (await site.keeper()).shut_down(force=True)
    site.close()
    for directory in (site.instance.ves, site.instance.trash):
        for name in os.listdir(directory):
            os.rename(f"{directory}/{name}", f"{site.instance.pool}/{name}")
    ground.remove(site.instance)


def make_nic(host: RealHost, name: str) -> None:
    """Make a link that can move into a VE: one end of a veth, as machines without spare hardware have."""
    here = netns.open_own()
    try:
        mac, other = "02:76:00:00:09:0a", "02:76:00:00:09:0b"
        pair = link.VethPair(
            host_name=name, host_mac=mac, peer_name=f"{name}x", peer_mac=other, mtu=1500, alias="spare"
        )
        link.create_veth(host.site.rtnl, host.site.rtnl, here, pair)
    finally:
        os.close(here)


def make_foreign_bridge(host: RealHost, name: str) -> None:
    """Make a link of that name with somebody else's mark."""
    link.create_bridge(host.site.rtnl, name, mac="02:76:00:00:09:09", mtu=1500, alias="somebody else's")
