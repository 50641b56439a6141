"""Links: bridges, veths across namespaces and their settings, as the kernel shows them afterwards."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from reconciler.errors import KernelError
from reconciler.kernel import link, netns, rtnl
from reconciler.kernel.rtnlsocket import RtnlSocket

pytestmark = pytest.mark.kernel

BRIDGE_MAC, OTHER_MAC = "02:76:00:00:00:01", "02:76:00:00:00:02"
DEADLINE_S = 10.0
PAIR = link.VethPair(
    host_name="vx0",
    host_mac="02:76:00:00:01:01",
    peer_name="eth0",
    peer_mac="02:76:00:00:01:02",
    mtu=1400,
    alias="vectl:u1",
)


@dataclass(frozen=True)
class Place:
    """A namespace and a socket in it."""

    namespace: int
    sock: RtnlSocket

    def link(self, name: str) -> rtnl.Link:
        found = self.sock.link(name)
        assert found is not None, f"there is no link {name}"
        return found


def made_place() -> Iterator[Place]:
    namespace = netns.create()
    try:
        with RtnlSocket.open_in(namespace) as sock:
            yield Place(namespace, sock)
    finally:
        os.close(namespace)


@pytest.fixture
def host() -> Iterator[Place]:
    yield from made_place()


@pytest.fixture
def ve(host: Place) -> Iterator[Place]:
    for place in made_place():
        host.sock.assign_nsid(place.namespace)
        yield place


def bridged(host: Place, name: str = "br0") -> int:
    return link.create_bridge(host.sock, name, mac=BRIDGE_MAC, mtu=1500, alias="vectl:lan")


def paired(host: Place, ve: Place) -> tuple[int, int]:
    return link.create_veth(host.sock, ve.sock, ve.namespace, PAIR)


def test_a_bridge_is_made_as_asked(host: Place) -> None:
    index = link.create_bridge(host.sock, "br0", mac=BRIDGE_MAC, mtu=1400, alias="vectl:lan")
    made = host.link("br0")
    assert (made.index, made.kind, made.mac, made.mtu) == (index, "bridge", BRIDGE_MAC, 1400)
    assert (made.alias, made.up, made.bridge) == ("vectl:lan", False, link.PLAIN_SWITCH)


def test_a_bridge_made_twice_is_one(host: Place) -> None:
    assert bridged(host) == bridged(host)


def test_a_bridge_that_a_crash_left_without_alias_is_completed(host: Place) -> None:
    index = bridged(host)
    link.set_alias(host.sock, index, "")
    assert host.link("br0").alias is None
    assert bridged(host) == index
    assert host.link("br0").alias == "vectl:lan"


@pytest.mark.parametrize(
    ("mac", "alias"),
    [
        pytest.param(BRIDGE_MAC, "vectl:other", id="another-mark"),
        pytest.param(OTHER_MAC, "", id="no-mark-and-another-mac"),
    ],
)
def test_a_bridge_that_is_not_ours_is_not_taken_over(host: Place, mac: str, alias: str) -> None:
    link.set_alias(host.sock, link.create_bridge(host.sock, "br0", mac=mac, mtu=1500, alias="x"), alias)
    before = host.link("br0")
    with pytest.raises(KernelError, match="one of its names is taken") as caught:
        bridged(host)
    assert caught.value.errno == errno.EEXIST
    assert host.link("br0") == before


def test_a_veth_is_born_in_both_namespaces(host: Place, ve: Place) -> None:
    near_index, far_index = paired(host, ve)
    near, far = host.link("vx0"), ve.link("eth0")
    assert (near.index, far.index) == (near_index, far_index)
    assert (near.mac, near.mtu, near.alias) == (PAIR.host_mac, 1400, "vectl:u1")
    assert (far.mac, far.mtu, far.alias) == (PAIR.peer_mac, 1400, "vectl:u1")
    assert (near.peer_index, near.peer_nsid) == (far.index, host.sock.nsid(ve.namespace))
    assert not near.up
    assert not far.up


def test_a_veth_made_twice_is_one(host: Place, ve: Place) -> None:
    assert paired(host, ve) == paired(host, ve)


@pytest.mark.parametrize("forgotten", ["host", "ve", "both"])
def test_a_veth_that_a_crash_left_without_alias_is_completed(host: Place, ve: Place, forgotten: str) -> None:
    near, far = paired(host, ve)
    if forgotten in ("host", "both"):
        link.set_alias(host.sock, near, "")
    if forgotten in ("ve", "both"):
        link.set_alias(ve.sock, far, "")
    assert paired(host, ve) == (near, far)
    assert (host.link("vx0").alias, ve.link("eth0").alias) == ("vectl:u1", "vectl:u1")


@pytest.mark.parametrize("alias", [PAIR.alias, "vectl:u2"], ids=["same-mark", "another-mark"])
@pytest.mark.parametrize("occupied", [True, False], ids=["with-an-eth0", "without"])
def test_a_veth_into_another_namespace_is_not_taken_over(host: Place, ve: Place, alias: str, occupied: bool) -> None:
    paired(host, ve)
    before = host.link("vx0")
    for third in made_place():
        host.sock.assign_nsid(third.namespace)
        if occupied:
            link.create_veth(host.sock, third.sock, third.namespace, replace(PAIR, host_name="vx1"))
        with pytest.raises(KernelError, match="taken") as caught:
            link.create_veth(host.sock, third.sock, third.namespace, replace(PAIR, alias=alias))
        assert caught.value.errno == errno.EEXIST
        assert (third.sock.link("eth0") is not None) == occupied
    assert host.link("vx0") == before


def test_a_taken_name_in_the_ve_is_an_error_and_leaves_nothing_on_the_host(host: Place, ve: Place) -> None:
    bridge = link.create_bridge(ve.sock, "eth0", mac=OTHER_MAC, mtu=1500, alias="the tenant's")
    with pytest.raises(KernelError):
        paired(host, ve)
    assert host.sock.link("vx0") is None
    assert (ve.link("eth0").index, ve.link("eth0").alias) == (bridge, "the tenant's")


def test_a_veth_runs_when_both_ends_are_up(host: Place, ve: Place) -> None:
    near, far = paired(host, ve)
    link.set_up(host.sock, near)
    assert host.link("vx0").up
    assert not host.link("vx0").running
    link.set_up(ve.sock, far)
    wait_for(lambda: host.link("vx0").running)
    link.set_down(host.sock, near)
    assert not host.link("vx0").up


def test_a_deleted_veth_takes_its_peer_along_and_deleting_again_is_no_error(host: Place, ve: Place) -> None:
    near, _ = paired(host, ve)
    link.delete_link(host.sock, near)
    link.delete_link(host.sock, near)
    assert host.sock.link("vx0") is None
    assert ve.sock.link("eth0") is None


def test_a_dying_namespace_takes_its_veth_along_once_our_socket_is_closed(host: Place) -> None:
    for ve in made_place():
        host.sock.assign_nsid(ve.namespace)
        paired(host, ve)
    wait_for(lambda: host.sock.link("vx0") is None)


def test_settings_are_changed_and_changing_them_again_is_no_error(host: Place, ve: Place) -> None:
    _, far = paired(host, ve)
    for _ in range(2):
        link.set_mtu(ve.sock, far, 1300)
        link.set_mac(ve.sock, far, OTHER_MAC)
        link.set_alias(ve.sock, far, "vectl:u9")
    changed = ve.link("eth0")
    assert (changed.index, changed.mtu, changed.mac, changed.alias) == (far, 1300, OTHER_MAC, "vectl:u9")


def test_a_port_joins_and_leaves_a_bridge(host: Place, ve: Place) -> None:
    bridge, (near, _) = bridged(host), paired(host, ve)
    for _ in range(2):
        link.set_master(host.sock, near, bridge)
    assert host.link("vx0").master == bridge
    for _ in range(2):
        link.set_master(host.sock, near, None)
    assert host.link("vx0").master is None
    assert host.link("vx0").port is None


@pytest.mark.parametrize("flag", ["isolated", "hairpin", "learning", "flood"])
def test_each_flag_of_a_port_can_be_flipped(host: Place, ve: Place, flag: str) -> None:
    bridge, (near, _) = bridged(host), paired(host, ve)
    link.set_master(host.sock, near, bridge)
    before = host.link("vx0").port
    assert before is not None
    wanted = replace(before, **{flag: not getattr(before, flag)})
    link.set_port(host.sock, near, wanted)
    assert host.link("vx0").port == wanted
    assert host.link("vx0").master == bridge


def test_changing_a_link_that_is_gone_is_an_error(host: Place) -> None:
    with pytest.raises(KernelError, match="set link 4242 up") as caught:
        link.set_up(host.sock, 4242)
    assert caught.value.errno == errno.ENODEV


def test_a_refused_value_is_told_in_the_kernels_words(host: Place, ve: Place) -> None:
    near, _ = paired(host, ve)
    with pytest.raises(KernelError, match="mtu less than device minimum") as caught:
        link.set_mtu(host.sock, near, 10)
    assert caught.value.errno == errno.EINVAL


def test_links_can_be_changed_from_within_a_running_event_loop(host: Place, ve: Place) -> None:
    async def act() -> None:
        paired(host, ve)

    asyncio.run(act())
    assert host.link("vx0").peer_index == ve.link("eth0").index


def test_a_link_looks_the_same_alone_and_in_the_list(host: Place, ve: Place) -> None:
    paired(host, ve)
    bridged(host)
    for found in host.sock.dump_links():
        assert host.sock.link(found.name) == found


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)
