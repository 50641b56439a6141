"""A twin with VEs in the states that tests begin with."""

from __future__ import annotations

from ipaddress import ip_interface

from reconciler.model.compute import CreateCgroup, Limit
from reconciler.model.effects import Effect
from reconciler.model.identity import HostName, Uid
from reconciler.model.instance import Instance
from reconciler.model.network import (
    AddAddress,
    AddGateway,
    AddRoute,
    AttachInterface,
    CreateInterface,
    CreateNetwork,
    InterfaceObservation,
    NetworkMode,
    NetworkSpec,
    Route,
    SetInterfaceUp,
    SetLoopbackUp,
    SetNetworkUp,
)
from reconciler.model.observation import ALL_FACETS, EVERYTHING, HostObservation, VeObservation
from reconciler.model.power import CreateRuntime, Launch, PowerObservation, StartRuntime
from reconciler.model.volume import BuildTemplate, CreateVolume, WriteRecord
from reconciler.twin import host
from reconciler.twin.host import TwinHost
from reconciler.twin.machine import Machine
from tests.support.effect_choices import LAN, TEMPLATE, Setting

INSTANCE = Instance(
    name="tw", host=HostName("node"), state_dir="/var/lib/tw", run_dir="/run/tw", cgroup="/tw", pool_size=1 << 30
)
A = Uid("00000000-0000-4000-8000-00000000000a")
B = Uid("00000000-0000-4000-8000-00000000000b")
SETTING = Setting(instance=INSTANCE, uids=(A, B))
ADDRESS, SIX = ip_interface("10.77.0.10/24"), ip_interface("fd77::10/64")
DEFAULT, DEFAULT_SIX = Route(to="0.0.0.0/0", via="10.77.0.1"), Route(to="::/0", via="fd77::1")


def data(uid: Uid) -> tuple[Effect, ...]:
    """Give the effects that make a VE's data."""
    return (
        BuildTemplate(template=TEMPLATE),
        WriteRecord(record=SETTING.record(uid), template_key=TEMPLATE.key),
        CreateVolume(uid=uid, size=1 << 26),
    )


def launch(uid: Uid) -> CreateRuntime:
    """Give the effect that creates a VE's runtime."""
    name = SETTING.name(uid)
    return CreateRuntime(uid=uid, name=name, hostname=name, launch=Launch(id_base=SETTING.record(uid).id_base))


def created(uid: Uid) -> tuple[Effect, ...]:
    """Give the effects that bring a VE to the point where its init waits."""
    return (*data(uid), CreateCgroup(uid=uid, limits={Limit.MEMORY_LIMIT: 1 << 27}), launch(uid))


def linked(uid: Uid) -> tuple[Effect, ...]:
    """Give the effects that connect a created VE to a bridge, with addresses and default routes."""
    return (
        CreateNetwork(network=NetworkSpec(name=LAN)),
        SetNetworkUp(network=LAN),
        AddGateway(network=LAN, address=ip_interface("10.77.0.1/24")),
        SetLoopbackUp(uid=uid),
        CreateInterface(uid=uid, interface="eth0", mac="02:00:00:00:00:01", mtu=1500),
        AddAddress(uid=uid, interface="eth0", address=ADDRESS),
        AddAddress(uid=uid, interface="eth0", address=SIX),
        AttachInterface(uid=uid, interface="eth0", network=LAN, mode=NetworkMode.BRIDGED),
        SetInterfaceUp(uid=uid, interface="eth0"),
        AddRoute(uid=uid, interface="eth0", route=DEFAULT),
        AddRoute(uid=uid, interface="eth0", route=DEFAULT_SIX),
    )


def running(uid: Uid) -> tuple[Effect, ...]:
    """Give the effects that boot a VE with a network."""
    return (*created(uid), *linked(uid), StartRuntime(uid=uid))


def twin_after(*effects: Effect) -> TwinHost:
    """Make a twin on which effects were performed."""
    twin = TwinHost(INSTANCE)
    perform(twin, *effects)
    return twin


def perform(twin: TwinHost, *effects: Effect) -> None:
    """Perform effects, one after the other, without a loop."""
    for effect in effects:
        host.perform(twin.machine, effect)


def look(twin: TwinHost) -> HostObservation:
    """Observe everything, without a loop."""
    return host.observe(twin.machine, EVERYTHING, ALL_FACETS)


def see(twin: TwinHost, uid: Uid) -> VeObservation:
    """Observe one VE."""
    return look(twin).ves[uid]


def see_power(twin: TwinHost, uid: Uid) -> PowerObservation:
    """Observe a VE's power, which can be read."""
    power = see(twin, uid).power
    assert isinstance(power, PowerObservation)
    return power


def link_of(machine: Machine, uid: Uid, interface: str = "eth0") -> InterfaceObservation:
    """Give a link of a VE as it is."""
    return machine.runtimes[uid].network.interfaces[interface]
