"""Links, addresses and routes in the twin's VEs: what a kernel was seen to do with them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from reconciler.errors import BusyError, KernelError, NoSpaceError
from reconciler.model.effects import Effect
from reconciler.model.identity import NetworkName, bridge_name, host_link_name
from reconciler.model.network import (
    AddAddress,
    AddHostRoute,
    AddRoute,
    AnnounceAddress,
    AttachInterface,
    CreateInterface,
    CreateNetwork,
    Direction,
    InterfaceObservation,
    NetworkMode,
    NetworkSpec,
    RemoveAddress,
    RemoveHostRoute,
    RemoveInterface,
    RemoveRoute,
    Resolver,
    Route,
    SetHostname,
    SetInterfaceMac,
    SetInterfaceMtu,
    SetInterfaceRate,
    SetInterfaceUp,
    SetLoopbackUp,
    SetResolver,
    VeNetworkObservation,
)
from reconciler.model.power import DeleteRuntime, StopRuntime
from reconciler.twin.world import World
from tests.support.effect_choices import LAN
from tests.support.twins import (
    ADDRESS,
    DEFAULT,
    DEFAULT_SIX,
    INSTANCE,
    SIX,
    A,
    B,
    created,
    data,
    launch,
    link_of,
    linked,
    look,
    perform,
    running,
    see,
    twin_after,
)

MAC = "02:00:00:00:00:01"
VENET = NetworkName("venet")
OFF_LINK = Route(to="198.51.100.0/24", via="203.0.113.1")
ON_LINK = Route(to="203.0.113.1/32")
CREATE = CreateInterface(uid=A, interface="eth0", mac=MAC, mtu=1500)
RESOLVER = Resolver(servers=("10.77.0.1",))
SECOND = ip_interface("10.77.0.99/24")


def add_route(route: Route) -> AddRoute:
    return AddRoute(uid=A, interface="eth0", route=route)


ON_A_LINK: tuple[Effect, ...] = (
    AttachInterface(uid=A, interface="eth0", network=LAN, mode=NetworkMode.BRIDGED),
    SetInterfaceUp(uid=A, interface="eth0"),
    SetInterfaceMtu(uid=A, interface="eth0", mtu=1400),
    SetInterfaceRate(uid=A, interface="eth0", direction=Direction.EGRESS, rate=8000),
    SetInterfaceMac(uid=A, interface="eth0", mac=MAC),
    AddAddress(uid=A, interface="eth0", address=ADDRESS),
    RemoveAddress(uid=A, interface="eth0", address=ADDRESS),
    add_route(DEFAULT),
    RemoveRoute(uid=A, interface="eth0", route=DEFAULT),
    AddHostRoute(uid=A, interface="eth0", address=ADDRESS.ip),
    RemoveHostRoute(uid=A, interface="eth0", address=ADDRESS.ip),
    AnnounceAddress(uid=A, interface="eth0", address=ADDRESS.ip),
)
ON_A_VE: tuple[Effect, ...] = (
    CREATE,
    RemoveInterface(uid=A, interface="eth0"),
    SetLoopbackUp(uid=A),
    SetHostname(uid=A, hostname="new"),
    SetResolver(uid=A, resolver=RESOLVER),
)


@pytest.mark.parametrize("effect", [*ON_A_LINK, *ON_A_VE], ids=lambda effect: type(effect).__name__)
def test_a_stopped_ve_has_no_network_to_change(effect: Effect) -> None:
    with pytest.raises(KernelError):
        perform(twin_after(*data(A)), effect)


@pytest.mark.parametrize("effect", ON_A_LINK, ids=lambda effect: type(effect).__name__)
def test_an_absent_link_cannot_be_changed(effect: Effect) -> None:
    with pytest.raises(KernelError):
        perform(twin_after(*created(A), CreateNetwork(network=NetworkSpec(name=LAN))), effect)


@pytest.mark.parametrize(
    "effect",
    [
        replace(CREATE, interface="a-name-that-is-too-long"),
        replace(CREATE, interface="a/b"),
        replace(CREATE, mtu=67),
        replace(CREATE, mac="01:00:00:00:00:01"),
        replace(CREATE, mac="nonsense"),
    ],
    ids=["long-name", "slash", "mtu", "group-mac", "no-mac"],
)
def test_a_link_that_the_kernel_refuses_is_an_error(effect: Effect) -> None:
    with pytest.raises(KernelError):
        perform(twin_after(*created(A)), effect)


def test_a_new_link_is_down_and_unconnected() -> None:
    twin = twin_after(*created(A), CREATE)
    assert link_of(twin.machine, A) == InterfaceObservation(mac=MAC, mtu=1500, up=False, host_up=False)


def test_creating_a_link_again_makes_mac_and_mtu_so_and_keeps_the_rest() -> None:
    twin = twin_after(*running(A))
    before = link_of(twin.machine, A)
    perform(twin, CreateInterface(uid=A, interface="eth0", mac="02:00:00:00:00:02", mtu=1400))
    assert link_of(twin.machine, A) == replace(before, mac="02:00:00:00:00:02", mtu=1400)


def test_foreign_links_inside_and_on_the_host_are_left_alone() -> None:
    twin = twin_after(*created(A))
    World(twin).add_foreign_link(A, "tun0")
    World(twin).add_host_link(host_link_name(INSTANCE.name, A, "eth5"))
    for name in ("lo", "tun0", "eth5"):
        with pytest.raises(BusyError):
            perform(twin, replace(CREATE, interface=name))
    perform(twin, RemoveInterface(uid=A, interface="tun0"))
    assert "tun0" in twin.machine.runtimes[A].foreign_links


def test_a_removed_link_is_gone_and_removing_it_again_is_success() -> None:
    remove = RemoveInterface(uid=A, interface="eth0")
    seen = see(twin_after(*running(A), remove, remove), A).network
    assert isinstance(seen, VeNetworkObservation)
    assert seen.interfaces == {}


def test_a_link_is_connected_as_its_network_wants() -> None:
    attach = AttachInterface(uid=A, interface="eth0", network=LAN, mode=NetworkMode.BRIDGED, isolated=True)
    twin = twin_after(*running(A), CreateNetwork(network=NetworkSpec(name=VENET, mode=NetworkMode.ROUTED)), attach)
    assert (link_of(twin.machine, A).bridge, link_of(twin.machine, A).isolated) == (bridge_name("tw", LAN), True)
    with pytest.raises(KernelError):
        perform(twin, replace(attach, network=VENET))
    perform(twin, AttachInterface(uid=A, interface="eth0", network=VENET, mode=NetworkMode.ROUTED))
    assert (link_of(twin.machine, A).bridge, link_of(twin.machine, A).host_up) == (None, True)


def test_a_port_needs_its_bridge() -> None:
    with pytest.raises(KernelError):
        perform(twin_after(*created(A), CREATE), ON_A_LINK[0])


def test_routes_need_a_link_that_is_up_and_a_gateway_that_is_on_it() -> None:
    twin = twin_after(*created(A), CREATE, AddAddress(uid=A, interface="eth0", address=ADDRESS))
    with pytest.raises(KernelError, match="down"):
        perform(twin, add_route(DEFAULT))
    perform(twin, SetInterfaceUp(uid=A, interface="eth0"), add_route(DEFAULT))
    with pytest.raises(KernelError, match="not on the link"):
        perform(twin, add_route(OFF_LINK))
    perform(twin, add_route(ON_LINK), add_route(OFF_LINK))
    assert link_of(twin.machine, A).routes == {DEFAULT, ON_LINK, OFF_LINK}


def test_an_ipv6_gateway_is_not_the_links_own_address() -> None:
    with pytest.raises(KernelError):
        perform(twin_after(*running(A)), add_route(Route(to="fd99::/64", via=str(SIX.ip))))


def test_a_route_takes_the_place_of_one_to_the_same_destination_on_another_link() -> None:
    other = Route(to="0.0.0.0/0", via="10.78.0.1")
    twin = twin_after(
        *running(A),
        replace(CREATE, interface="eth1"),
        AddAddress(uid=A, interface="eth1", address=ip_interface("10.78.0.2/24")),
        SetInterfaceUp(uid=A, interface="eth1"),
        AddRoute(uid=A, interface="eth1", route=other),
    )
    assert link_of(twin.machine, A).routes == {DEFAULT_SIX}
    assert link_of(twin.machine, A, "eth1").routes == {other}


def test_with_the_last_ipv4_address_go_the_ipv4_routes_and_no_others() -> None:
    twin = twin_after(*running(A), AddAddress(uid=A, interface="eth0", address=SECOND))
    perform(twin, RemoveAddress(uid=A, interface="eth0", address=ADDRESS))
    assert link_of(twin.machine, A).routes == {DEFAULT, DEFAULT_SIX}
    perform(twin, RemoveAddress(uid=A, interface="eth0", address=SIX))
    assert link_of(twin.machine, A).routes == {DEFAULT, DEFAULT_SIX}
    perform(twin, RemoveAddress(uid=A, interface="eth0", address=SECOND))
    assert link_of(twin.machine, A).routes == {DEFAULT_SIX}


def test_removing_an_address_or_route_that_is_absent_changes_nothing() -> None:
    twin = twin_after(*running(A))
    before = look(twin)
    perform(twin, RemoveAddress(uid=A, interface="eth0", address=SECOND))
    perform(twin, RemoveRoute(uid=A, interface="eth0", route=ON_LINK))
    perform(twin, RemoveHostRoute(uid=A, interface="eth0", address=SECOND.ip))
    assert look(twin) == before


def test_an_ipv6_address_is_there_with_one_prefix_only() -> None:
    with pytest.raises(KernelError):
        perform(twin_after(*running(A)), AddAddress(uid=A, interface="eth0", address=ip_interface("fd77::10/48")))


def test_a_small_mtu_takes_all_of_ipv6_away_and_lets_none_back() -> None:
    twin = twin_after(*running(A), SetInterfaceMtu(uid=A, interface="eth0", mtu=1279))
    assert link_of(twin.machine, A).addresses == {ADDRESS}
    assert link_of(twin.machine, A).routes == {DEFAULT}
    for effect in (AddAddress(uid=A, interface="eth0", address=SIX), add_route(Route(to="fd99::/64"))):
        with pytest.raises(KernelError):
            perform(twin, effect)


def test_host_routes_need_the_hosts_end_and_lead_to_one_link_only() -> None:
    lead_a = AddHostRoute(uid=A, interface="eth0", address=ip_address("10.79.0.5"))
    twin = twin_after(*created(A), CREATE)
    with pytest.raises(KernelError):
        perform(twin, lead_a)
    perform(twin, CreateNetwork(network=NetworkSpec(name=VENET, mode=NetworkMode.ROUTED)), *created(B))
    for uid in (A, B):
        perform(twin, replace(CREATE, uid=uid))
        perform(twin, AttachInterface(uid=uid, interface="eth0", network=VENET, mode=NetworkMode.ROUTED))
    perform(twin, lead_a, lead_a)
    assert link_of(twin.machine, A).host_routes == {lead_a.address}
    perform(twin, replace(lead_a, uid=B))
    assert link_of(twin.machine, A).host_routes == frozenset()
    assert link_of(twin.machine, B).host_routes == {lead_a.address}


def test_an_announcement_leaves_nothing_that_could_be_seen() -> None:
    twin = twin_after(*running(A))
    before = look(twin)
    perform(twin, AnnounceAddress(uid=A, interface="eth0", address=ADDRESS.ip))
    assert look(twin) == before


def test_the_gateways_of_routed_ves_are_on_every_link_that_is_up() -> None:
    route = Route(to="0.0.0.0/0", via="169.254.0.1")
    twin = twin_after(*created(A), CREATE)
    with pytest.raises(KernelError):
        perform(twin, add_route(route))
    perform(twin, SetInterfaceUp(uid=A, interface="eth0"), add_route(route))
    assert link_of(twin.machine, A).routes == {route}


def test_names_are_set_and_the_resolver_outlives_the_init() -> None:
    twin = twin_after(
        *created(A), *linked(A), SetHostname(uid=A, hostname="new"), SetResolver(uid=A, resolver=RESOLVER)
    )
    seen = see(twin, A).network
    assert isinstance(seen, VeNetworkObservation)
    assert (seen.hostname, seen.resolver, seen.loopback_up) == ("new", RESOLVER, True)
    perform(twin, DeleteRuntime(uid=A), StopRuntime(uid=A, timeout_s=1), launch(A))
    again = see(twin, A).network
    assert isinstance(again, VeNetworkObservation)
    assert (again.hostname, again.resolver) == ("ve0", RESOLVER)


def test_a_hostname_of_65_letters_is_an_error() -> None:
    with pytest.raises(KernelError):
        perform(twin_after(*created(A)), SetHostname(uid=A, hostname="x" * 65))


@pytest.mark.parametrize("effect", [SetHostname(uid=A, hostname="n"), SetResolver(uid=A, resolver=RESOLVER)])
def test_names_cannot_be_written_on_a_full_pool(effect: Effect) -> None:
    twin = twin_after(*created(A))
    World(twin).fill_pool()
    with pytest.raises(NoSpaceError):
        perform(twin, effect)
