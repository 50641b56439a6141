"""The networks and the filter of the twin."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_interface

import pytest

from reconciler.errors import BusyError, KernelError
from reconciler.model.effects import Effect
from reconciler.model.identity import NetworkName, bridge_name, host_link_name
from reconciler.model.network import (
    AddGateway,
    CreateNetwork,
    FilterObservation,
    FilterRules,
    HostNetworkObservation,
    LoadFilter,
    NetworkMode,
    NetworkSpec,
    Port,
    RemoveGateway,
    RemoveNetwork,
    SetForwarding,
    SetNetworkMtu,
    SetNetworkUp,
    SetUplink,
)
from reconciler.twin.host import TwinHost
from reconciler.twin.world import World
from tests.support.effect_choices import LAN
from tests.support.twins import INSTANCE, A, link_of, look, perform, running, twin_after

CREATE = CreateNetwork(network=NetworkSpec(name=LAN, mtu=1400))
ROUTED = NetworkName("venet")
CREATE_ROUTED = CreateNetwork(network=NetworkSpec(name=ROUTED, mode=NetworkMode.ROUTED))
GATEWAY, SIX = ip_interface("10.77.0.1/24"), ip_interface("fd77::1/64")
PORT = Port(link=host_link_name("tw", A, "eth0"), mac="02:00:00:00:00:01", addresses=frozenset({IPv4Address(1)}))
RULES = FilterRules(ports=frozenset({PORT}))


def network(twin: TwinHost, name: NetworkName = LAN) -> HostNetworkObservation:
    networks = look(twin).networks
    assert isinstance(networks, dict)
    seen = networks[name]
    assert isinstance(seen, HostNetworkObservation)
    return seen


def test_a_network_begins_down_and_empty_and_creating_it_again_changes_nothing() -> None:
    twin = twin_after(CREATE)
    expected = HostNetworkObservation(mode=NetworkMode.BRIDGED, mtu=1400, up=False, forwarding=False)
    assert network(twin) == expected
    perform(twin, CreateNetwork(network=NetworkSpec(name=LAN, mtu=9000)))
    assert network(twin) == expected


def test_a_network_becomes_what_its_effects_say() -> None:
    changes: tuple[Effect, ...] = (
        SetNetworkUp(network=LAN),
        SetNetworkMtu(network=LAN, mtu=1300),
        AddGateway(network=LAN, address=GATEWAY),
        AddGateway(network=LAN, address=SIX),
        RemoveGateway(network=LAN, address=SIX),
        SetForwarding(network=LAN),
    )
    twin = twin_after(CREATE, *changes, *changes)
    assert network(twin) == HostNetworkObservation(
        mode=NetworkMode.BRIDGED, mtu=1300, up=True, addresses=frozenset({GATEWAY}), forwarding=True
    )


def test_ipv6_is_forwarded_for_all_networks_or_for_none() -> None:
    add_six = AddGateway(network=LAN, address=SIX)
    twin = twin_after(CREATE, SetForwarding(network=LAN), add_six)
    assert not network(twin).forwarding
    perform(twin, SetForwarding(network=LAN))
    assert network(twin).forwarding
    perform(twin, RemoveNetwork(network=LAN), CREATE, add_six)
    assert not network(twin).forwarding
    perform(twin, RemoveGateway(network=LAN, address=SIX), SetForwarding(network=LAN), add_six)
    assert network(twin).forwarding


@pytest.mark.parametrize(
    "effect",
    [
        SetNetworkUp(network=LAN),
        SetNetworkMtu(network=LAN, mtu=1300),
        AddGateway(network=LAN, address=GATEWAY),
        RemoveGateway(network=LAN, address=GATEWAY),
        SetForwarding(network=LAN),
        SetUplink(network=LAN, uplink=None),
    ],
    ids=lambda effect: type(effect).__name__,
)
def test_nothing_can_be_changed_on_a_network_that_is_not_there(effect: Effect) -> None:
    with pytest.raises(KernelError):
        perform(twin_after(), effect)


def test_an_mtu_that_no_link_takes_is_an_error() -> None:
    with pytest.raises(KernelError):
        perform(twin_after(CREATE), SetNetworkMtu(network=LAN, mtu=67))


def test_a_foreign_link_of_our_bridges_name_is_left_alone() -> None:
    twin = twin_after()
    World(twin).add_host_link(bridge_name(INSTANCE.name, LAN))
    for effect in (CREATE, RemoveNetwork(network=LAN)):
        with pytest.raises(BusyError):
            perform(twin, effect)
    assert look(twin).networks == {}


def test_a_removed_network_leaves_its_ports_without_a_bridge() -> None:
    twin = twin_after(*running(A), RemoveNetwork(network=LAN), RemoveNetwork(network=LAN))
    assert link_of(twin.machine, A).bridge is None
    assert link_of(twin.machine, A).host_up


def test_an_uplink_is_taken_exchanged_and_released() -> None:
    twin, bridge = twin_after(CREATE), bridge_name(INSTANCE.name, LAN)
    for name in ("eno1", "eno2"):
        World(twin).add_host_link(name)
    perform(twin, SetUplink(network=LAN, uplink="eno1"), SetUplink(network=LAN, uplink="eno2"))
    assert network(twin).uplink == "eno2"
    assert twin.machine.host_links == {"eno1": "", "eno2": bridge}
    perform(twin, SetUplink(network=LAN, uplink=None))
    assert twin.machine.host_links["eno2"] == ""


def test_an_uplink_that_is_absent_or_somebody_elses_port_is_refused() -> None:
    twin = twin_after(CREATE, CREATE_ROUTED)
    World(twin).add_host_link("eno1", master="br0")
    with pytest.raises(KernelError):
        perform(twin, SetUplink(network=LAN, uplink="eno9"))
    with pytest.raises(BusyError):
        perform(twin, SetUplink(network=LAN, uplink="eno1"))
    with pytest.raises(KernelError):
        perform(twin, SetUplink(network=ROUTED, uplink="eno1"))


def test_the_filter_is_known_only_while_it_is_exactly_what_was_loaded() -> None:
    twin = twin_after(LoadFilter(rules=RULES))
    assert look(twin).filter == FilterObservation(rules=RULES)
    World(twin).edit_filter()
    assert look(twin).filter == FilterObservation(rules=None)
    perform(twin, LoadFilter(rules=RULES))
    World(twin).flush_filter()
    assert look(twin).filter == FilterObservation(rules=None)


def test_no_filter_and_an_empty_one_are_the_same() -> None:
    twin = twin_after()
    assert look(twin).filter == FilterObservation(rules=FilterRules())
    perform(twin, LoadFilter(rules=RULES), LoadFilter(rules=FilterRules()))
    World(twin).flush_filter()
    assert look(twin).filter == FilterObservation(rules=FilterRules())


def test_a_filter_that_nft_refuses_leaves_the_old_one() -> None:
    twin = twin_after(LoadFilter(rules=RULES))
    bad = Port(link="a-name-that-is-too-long", mac=PORT.mac, addresses=frozenset())
    with pytest.raises(KernelError):
        perform(twin, LoadFilter(rules=FilterRules(ports=frozenset({bad}))))
    assert look(twin).filter == FilterObservation(rules=RULES)
