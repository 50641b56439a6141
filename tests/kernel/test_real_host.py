"""What the host that is real meets and a twin does not: uplinks that move, and what a VE's root left in our way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_interface, ip_network
from typing import TypeVar

import pytest
import structlog
from structlog.testing import LogCapture

from reconciler.agent.session import open_session
from reconciler.errors import StateError
from reconciler.host.host import RealHost
from reconciler.kernel import address, link, route
from reconciler.model.effects import Effect
from reconciler.model.network import (
    AddHostRoute,
    Address,
    AttachInterface,
    CreateInterface,
    CreateNetwork,
    NetworkMode,
    NetworkSpec,
    Resolver,
    SetInterfaceUp,
    SetResolver,
    VeNetworkObservation,
)
from reconciler.model.power import DeleteRuntime
from reconciler.model.record import encode_record
from reconciler.model.volume import RestoreVe, TrashVe
from reconciler.state import layout
from reconciler.state.config import Config
from tests.support import real_host, storage
from tests.support.effect_choices import VENET
from tests.support.twins import SETTING, A, B, created, data

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

UPLINKS = {"up0": "192.0.2.2/24", "up1": "198.51.100.2/24"}
LED = ip_address("10.79.0.5")

_Result = TypeVar("_Result")


def on_real_host(work: Callable[[RealHost], Awaitable[_Result]]) -> _Result:
    """Do work on a host of its own, in a process of its own."""

    async def there() -> _Result:
        async with real_host.real_host() as host:
            return await work(host)

    def in_namespaces() -> _Result:
        real_host.enter_private_namespaces()
        return asyncio.run(there())

    return storage.in_child(in_namespaces)


async def perform(host: RealHost, *effects: Effect) -> None:
    for effect in effects:
        await host.perform(effect)


async def network_of(host: RealHost) -> VeNetworkObservation:
    network = (await host.observe()).ves[A].network
    assert isinstance(network, VeNetworkObservation), network
    return network


def add_uplinks(host: RealHost) -> None:
    for number, (name, held) in enumerate(UPLINKS.items()):
        index = link.create_bridge(host.site.rtnl, name, mac=f"02:76:00:00:06:0{number}", mtu=1500, alias="x")
        link.set_up(host.site.rtnl, index)
        address.add_address(host.site.rtnl, index, ip_interface(held))


def default_by(host: RealHost, name: str) -> None:
    found = host.site.rtnl.link(name)
    assert found is not None
    gateway = ip_interface(UPLINKS[name]).ip + 1
    route.replace_route(host.site.rtnl, route.via(ip_network("0.0.0.0/0"), gateway, index=found.index, protocol=3))


def answering(host: RealHost) -> set[tuple[str, Address]]:
    names = {entry.index: entry.name for entry in host.site.rtnl.dump_links()}
    return {(names[found.index], found.address) for found in host.site.rtnl.dump_neighbours(proxy=True)}


LEAD = AddHostRoute(uid=A, interface="eth0", address=LED)
ROUTED = (
    CreateNetwork(network=NetworkSpec(name=VENET, mode=NetworkMode.ROUTED)),
    CreateInterface(uid=A, interface="eth0", mac="02:00:00:00:00:01", mtu=1500),
    AttachInterface(uid=A, interface="eth0", network=VENET, mode=NetworkMode.ROUTED),
    SetInterfaceUp(uid=A, interface="eth0"),
    LEAD,
)


def test_a_ve_is_answered_for_where_the_host_is_connected_now() -> None:
    async def move(host: RealHost) -> list[object]:
        add_uplinks(host)
        default_by(host, "up0")
        await perform(host, *created(A), *ROUTED)
        seen: list[object] = [(await network_of(host)).interfaces["eth0"].host_routes, answering(host)]
        default_by(host, "up1")
        seen.append((await network_of(host)).interfaces["eth0"].host_routes)
        await perform(host, LEAD)
        seen += [(await network_of(host)).interfaces["eth0"].host_routes, answering(host)]
        await perform(host, DeleteRuntime(uid=A))
        return [*seen, answering(host)]

    assert on_real_host(move) == [{LED}, {("up0", LED)}, set(), {LED}, {("up1", LED)}, set()]


@pytest.mark.parametrize("left", ["a directory", "a full directory", "a fifo", "a link"])
def test_nothing_in_the_place_of_the_resolver_stops_a_ve(left: str) -> None:
    wanted = Resolver(servers=("192.0.2.53",))

    async def boot(host: RealHost) -> tuple[Resolver | None, Resolver | None]:
        await perform(host, *data(A))
        leave(left, f"{host.site.instance.volume(A)}/upper/etc")
        await perform(host, *created(A))
        before = (await network_of(host)).resolver
        await perform(host, SetResolver(uid=A, resolver=wanted))
        return before, (await network_of(host)).resolver

    assert on_real_host(boot) == (None, wanted)


def leave(what: str, etc: str) -> None:
    os.mkdir(etc)
    place = f"{etc}/resolv.conf"
    match what:
        case "a directory":
            os.mkdir(place)
        case "a full directory":
            storage.write(f"{place}/precious", "x")
        case "a fifo":
            os.mkfifo(place)
        case _:
            os.symlink("resolv.conf", place)


@pytest.mark.parametrize("record", ["another's", "none"])
def test_an_entry_of_the_trash_without_the_ves_own_record_is_not_restored(record: str) -> None:
    async def restore(host: RealHost) -> list[str]:
        await perform(host, *data(A), TrashVe(uid=A))
        (entry,) = os.listdir(host.site.instance.trash)
        path = f"{host.site.instance.trash}/{entry}/record.json"
        os.unlink(path)
        if record != "none":
            storage.write(path, encode_record(SETTING.record(B)).decode())
        with pytest.raises(StateError, match="is not its own"):
            await host.perform(RestoreVe(uid=A, trash_id=entry))
        with pytest.raises(StateError, match=f"no entry '{entry}' of it"):
            await host.perform(RestoreVe(uid=B, trash_id=entry))
        return os.listdir(host.site.instance.ves)

    assert on_real_host(restore) == []


def test_a_session_tells_the_log_of_each_effect_and_sweeps_what_crashes_left() -> None:
    async def open_one(host: RealHost) -> tuple[list[str], list[str]]:
        instance = host.site.instance
        left = [f"{layout.inventory_dir(instance)}/.{name}.json.0123abcd.tmp" for name in ("old", "new")]
        layout.prepare(instance)
        for path in left:
            storage.write(path, "")
        os.utime(left[0], (0, 0))
        lines = LogCapture()
        log = structlog.wrap_logger(None, processors=[lines], wrapper_class=structlog.make_filtering_bound_logger(0))
        async with open_session(Config(instance=instance), source="dir:/x", log=log) as session:
            await session.reconciler.effects.perform(data(A)[0])
        return [entry["effect"] for entry in lines.entries], [path for path in left if os.path.exists(path)]

    told, kept = on_real_host(open_one)
    assert told == ["BuildTemplate"]
    assert [os.path.basename(path) for path in kept] == [".new.json.0123abcd.tmp"]
