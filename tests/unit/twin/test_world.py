"""What happens to the twin behind our back is seen, and goes no further than on a real host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from reconciler.model.compute import ComputeObservation, ComputeUse, CreateCgroup, Limit
from reconciler.model.effects import Effect
from reconciler.model.facts import Unknown
from reconciler.model.identity import bridge_name
from reconciler.model.network import (
    AddAddress,
    FilterObservation,
    FilterRules,
    LoadFilter,
    Masquerade,
    VeNetworkObservation,
)
from reconciler.model.observation import HostObservation
from reconciler.model.power import End, EndCause, PowerState, StopRuntime
from reconciler.model.volume import CreateVolume, VolumeObservation, WriteRecord
from reconciler.twin.world import World
from tests.support.effect_choices import LAN, TEMPLATE
from tests.support.twins import (
    ADDRESS,
    DEFAULT,
    DEFAULT_SIX,
    INSTANCE,
    SETTING,
    SIX,
    A,
    B,
    created,
    data,
    launch,
    link_of,
    look,
    perform,
    running,
    see,
    see_power,
    twin_after,
)

FILTER = FilterRules(masquerades=frozenset({Masquerade(subnet=ADDRESS.network, bridge="tw-lan")}))
STRANGE = ip_interface("192.0.2.1/24")

CHANGES: dict[str, Callable[[World], None]] = {
    "end": lambda world: world.end_init(A, EndCause.HALT),
    "limit": lambda world: world.set_limit(A, Limit.PROCESSES, 1),
    "cgroup": lambda world: world.remove_cgroup(A),
    "size": lambda world: world.set_volume_size(A, 1),
    "record": lambda world: world.damage_record(A),
    "hostname": lambda world: world.set_hostname(A, "strange"),
    "loopback": lambda world: world.set_loopback_down(A),
    "link-down": lambda world: world.set_link_down(A, "eth0"),
    "host-end-down": lambda world: world.set_host_end_down(A, "eth0"),
    "mac": lambda world: world.change_link(A, "eth0", lambda seen: replace(seen, mac="02:00:00:00:00:99")),
    "address": lambda world: world.add_address(A, "eth0", STRANGE),
    "no-address": lambda world: world.remove_address(A, "eth0", ADDRESS),
    "no-link": lambda world: world.delete_link(A, "eth0"),
}


def without_ve_a(seen: HostObservation) -> HostObservation:
    return replace(seen, ves={uid: ve for uid, ve in seen.ves.items() if uid != A})


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_to_one_ve_is_seen_there_and_nowhere_else(change: Callable[[World], None]) -> None:
    twin = twin_after(*running(A), *running(B))
    before = look(twin)
    change(World(twin))
    after = look(twin)
    assert after.ves[A] != before.ves[A]
    assert without_ve_a(after) == without_ve_a(before)


@pytest.mark.parametrize(
    ("cause", "value"),
    [(EndCause.REBOOT, 1), (EndCause.HALT, 2), (EndCause.KILLED, 9), (EndCause.EXITED, 0), (EndCause.UNKNOWN, None)],
)
def test_an_init_ends_with_its_cause(cause: EndCause, value: int | None) -> None:
    twin = twin_after(*running(A))
    World(twin).end_init(A, cause)
    seen = see_power(twin, A)
    assert (seen.state, seen.last_end, seen.stop_requested) == (
        PowerState.STOPPED,
        End(cause=cause, value=value),
        False,
    )
    assert see(twin, A).network is None


def test_a_link_that_is_down_already_loses_nothing_more() -> None:
    twin = twin_after(*running(A))
    World(twin).set_link_down(A, "eth0")
    perform(twin, AddAddress(uid=A, interface="eth0", address=SIX))
    World(twin).set_link_down(A, "eth0")
    assert link_of(twin.machine, A).addresses == {ADDRESS, SIX}


def test_a_link_set_down_loses_its_routes_and_ipv6_addresses() -> None:
    twin = twin_after(*running(A))
    World(twin).set_link_down(A, "eth0")
    link = link_of(twin.machine, A)
    assert not link.up
    assert link.addresses == {ADDRESS}
    assert not link.routes


def test_the_hosts_end_set_down_costs_the_ve_nothing_but_its_carrier() -> None:
    twin = twin_after(*running(A))
    World(twin).set_host_end_down(A, "eth0")
    link = link_of(twin.machine, A)
    assert not link.host_up
    assert link.addresses == {ADDRESS, SIX}
    assert link.routes == {DEFAULT, DEFAULT_SIX}


def test_a_bridge_set_down_keeps_its_ipv4_gateways() -> None:
    twin = twin_after(*running(A))
    World(twin).change_network(LAN, lambda seen: replace(seen, addresses=seen.addresses | {SIX}))
    World(twin).set_network_down(LAN)
    seen = twin.machine.networks[LAN]
    assert not seen.up
    assert seen.addresses == {ip_interface("10.77.0.1/24")}


def test_a_deleted_bridge_leaves_its_ports_without_one() -> None:
    twin = twin_after(*running(A))
    World(twin).delete_network(LAN)
    assert look(twin).networks == {}
    assert link_of(twin.machine, A).bridge is None


def test_a_deleted_uplink_is_no_uplink() -> None:
    twin = twin_after(*running(A))
    world = World(twin)
    world.add_host_link("eno1", master=bridge_name(INSTANCE.name, LAN))
    world.change_network(LAN, lambda seen: replace(seen, uplink="eno1"))
    world.delete_host_link("eno1")
    assert twin.machine.networks[LAN].uplink is None


def test_a_reboot_of_the_host_leaves_records_data_and_templates_only() -> None:
    twin = twin_after(*running(A), LoadFilter(rules=FILTER), *running(B), StopRuntime(uid=B, timeout_s=1))
    World(twin).reboot_host()
    bare = twin_after(*data(A), *data(B))
    assert look(twin) == look(bare)


def test_after_a_reboot_a_pid_comes_again_but_not_the_same_init() -> None:
    twin = twin_after(*running(A))
    first = see_power(twin, A)
    World(twin).reboot_host()
    perform(twin, *running(A))
    second = see_power(twin, A)
    assert first.pid == second.pid
    assert first.start_time != second.start_time


def test_a_new_agent_sees_the_same_machine() -> None:
    twin = twin_after(*running(A), StopRuntime(uid=A, timeout_s=1))
    world = World(twin)
    again = world.restart_agent()
    assert again is not twin
    assert look(again) == look(twin)
    world.set_volume_size(A, 1)
    assert see(again, A).volume == VolumeObservation(present=True, size=1)


def test_use_is_seen_but_makes_no_difference() -> None:
    twin = twin_after(*running(A))
    before = look(twin)
    World(twin).set_use(A, use=ComputeUse(memory=5), disk=1 << 20)
    after = look(twin)
    assert before == after
    compute = after.ves[A].compute
    assert isinstance(compute, ComputeObservation)
    assert compute.use.memory == 5
    assert not isinstance(after.pool, Unknown)
    assert after.pool.free == INSTANCE.pool_size - (1 << 20)


def test_a_resolver_that_is_not_ours_is_none() -> None:
    twin = twin_after(*running(A))
    World(twin).overwrite_resolver(A)
    seen = see(twin, A).network
    assert isinstance(seen, VeNetworkObservation)
    assert seen.resolver is None


def test_a_host_that_routes_already_forwards_for_new_networks() -> None:
    twin = twin_after()
    World(twin).forward_by_default()
    perform(twin, *running(A))
    assert twin.machine.networks[LAN].forwarding


INTERRUPTED: dict[str, tuple[tuple[Effect, ...], Effect]] = {
    "cgroup": (data(A), CreateCgroup(uid=A, limits={Limit.PROCESSES: 9})),
    "volume": (data(A)[:2], CreateVolume(uid=A, size=1 << 26)),
    "runtime": (created(A)[:-1], launch(A)),
    "stop": (running(A), StopRuntime(uid=A, timeout_s=1)),
    "filter": ((), LoadFilter(rules=FILTER)),
    "record": (data(A)[:1], WriteRecord(record=SETTING.record(A), template_key=TEMPLATE.key)),
}


@pytest.mark.parametrize(("before", "effect"), INTERRUPTED.values(), ids=INTERRUPTED.keys())
def test_an_interrupted_effect_is_neither_done_nor_harmful(before: tuple[Effect, ...], effect: Effect) -> None:
    done, twin = twin_after(*before, effect), twin_after(*before)
    World(twin).interrupt(effect)
    assert look(twin) != look(done)
    if isinstance(effect, type(launch(A))):
        assert see_power(twin, A).holdings
        return
    perform(twin, effect)
    assert look(twin) == look(done)


def test_an_interrupted_volume_is_not_present_yet_and_an_interrupted_load_makes_the_filter_unsure() -> None:
    twin = twin_after(*data(A)[:2])
    World(twin).interrupt(CreateVolume(uid=A, size=1))
    World(twin).interrupt(LoadFilter(rules=FILTER))
    assert see(twin, A).volume == VolumeObservation(present=False)
    assert look(twin).filter == FilterObservation(rules=None)


def test_a_mistaken_test_is_told_so() -> None:
    world = World(twin_after())
    for change in CHANGES.values():
        if change is not CHANGES["record"]:
            with pytest.raises(KeyError):
                change(world)
