"""Effects drawn without regard to the state of the host: most of them must fail, each for a reason of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from reconciler.model.compute import CreateCgroup, Limit, RemoveCgroup, SetInstanceLimit, SetLimit
from reconciler.model.devices import AddDevice, AddNic, RemoveDevice, RemoveNic
from reconciler.model.effects import Effect
from reconciler.model.identity import NetworkName, SnapshotName, Uid, bridge_name
from reconciler.model.mounts import AddMount, RemoveMount
from reconciler.model.network import (
    AddAddress,
    AddGateway,
    AddHostRoute,
    AddRoute,
    AnnounceAddress,
    AttachInterface,
    CreateInterface,
    CreateNetwork,
    Interface,
    LoadFilter,
    NetworkSpec,
    RemoveAddress,
    RemoveGateway,
    RemoveHostRoute,
    RemoveInterface,
    RemoveNetwork,
    RemoveRoute,
    Resolver,
    Route,
    SetForwarding,
    SetHostname,
    SetInterfaceMac,
    SetInterfaceMtu,
    SetInterfaceRate,
    SetInterfaceUp,
    SetLoopbackUp,
    SetNetworkMtu,
    SetNetworkUp,
    SetResolver,
    SetUplink,
)
from reconciler.model.placement import ClearMove, CutParcel, EndHeld, HoldRuntime, OpenRuntime, PlaceArrival, ResumeHeld
from reconciler.model.power import (
    CreateRuntime,
    DeleteRuntime,
    DiscardMemory,
    ForgetEnd,
    StartRuntime,
    StopRuntime,
    SuspendRuntime,
)
from reconciler.model.quota import LoadQuotas, SetInodes, SetQuota
from reconciler.model.reach import HeldAddress, RestoreAddress, RestoreRoute
from reconciler.model.settings import SetSetting
from reconciler.model.snapshots import CloneVolume, DeleteSnapshot, ReplaceVolume, RollBack, TakeSnapshot
from reconciler.model.views import ShowViews, Views
from reconciler.model.volume import (
    BuildTemplate,
    CaptureTemplate,
    CreateVolume,
    PurgeTrash,
    RemoveTemplate,
    RestoreVe,
    SetVolumeSize,
    TrashVe,
    WriteRecord,
)
from reconciler.model.vxlan import RemoveTunnel, SetTunnel
from tests.support import effect_choices as pool
from tests.support.contract import MOVES, STOP_TIMEOUT_S
from tests.support.effect_choices import Choices

_NO_CPUS = frozenset({4095})
_MALFORMED_TRASH_IDS = ("../ves", "..", "", "a/b")


NOT_DRAWN = frozenset({CaptureTemplate})


def draw(choices: Choices, kind: type) -> Effect:
    """Draw an effect of one type."""
    return _DRAWS[kind](choices)


def _uid(choices: Choices) -> Uid:
    return choices.random.choice((*choices.setting.uids, pool.GHOST))


def _link(choices: Choices) -> tuple[Uid, str]:
    """Draw a VE and a link of it; the loopback is never ours."""
    return _uid(choices), choices.random.choice((*pool.INTERFACES, "lo"))


def _network(choices: Choices) -> NetworkName:
    names = (pool.LAN, pool.VENET, choices.setting.taken or pool.LAN)
    return choices.random.choice(names)


def _address(choices: Choices, uid: Uid, interface: str) -> Interface:
    return choices.random.choice(choices.setting.addresses(uid, interface))


def _route(choices: Choices, interface: str) -> Route:
    return choices.random.choice((*pool.routes(interface), pool.NOWHERE))


def _mtu(choices: Choices) -> int:
    return choices.random.choice((*pool.MTUS, *pool.BAD_MTUS))


def _mac(choices: Choices) -> str:
    return choices.random.choice((*pool.MACS, *pool.BAD_MACS))


def _trash_id(choices: Choices, uid: Uid) -> str:
    return choices.random.choice((f"{uid}.0", f"{uid}.99", *_MALFORMED_TRASH_IDS))


def _template(choices: Choices) -> BuildTemplate:
    return BuildTemplate(template=choices.random.choice((pool.TEMPLATE, pool.NO_TEMPLATE)))


def _remove_template(choices: Choices) -> RemoveTemplate:
    return RemoveTemplate(key=choices.random.choice((pool.TEMPLATE, pool.NO_TEMPLATE)).key)


def _record(choices: Choices) -> WriteRecord:
    key = choices.random.choice((pool.TEMPLATE.key, pool.NO_TEMPLATE.key))
    uid = choices.random.choice(choices.setting.uids)
    return WriteRecord(record=choices.setting.record(uid), template_key=key)


def _restore(choices: Choices) -> RestoreVe:
    return RestoreVe(uid=_uid(choices), trash_id=_trash_id(choices, _uid(choices)))


def _cgroup(choices: Choices) -> CreateCgroup:
    """Draw a cgroup; one that cannot be is asked for only where it is there already, so that nothing is half made."""
    uid = _uid(choices)
    if uid in choices.machine.cgroups and Limit.CPUS in choices.setting.capabilities.enforceable:
        return CreateCgroup(uid=uid, limits={Limit.CPUS: _NO_CPUS})
    return choices.cgroup(uid)


def _instance_limit(choices: Choices) -> SetInstanceLimit:
    """Draw a limit of all VEs together; a cgroup of the instance has no limit of processes."""
    bad = SetInstanceLimit(limit=Limit.PROCESSES, value=100)
    return choices.random.choice((choices.instance_limit(), bad))


def _limit(choices: Choices) -> SetLimit:
    uid = _uid(choices)
    bad = SetLimit(uid=uid, limit=Limit.CPUS, value=_NO_CPUS)
    slow = SetLimit(uid=uid, limit=Limit.CPU_LIMIT, value=10)
    barrier = SetLimit(uid=uid, limit=Limit.MEMORY_BARRIER, value=96 << 20)
    return choices.random.choice((bad, slow, barrier, choices.limit(uid)))


def _runtime(choices: Choices) -> CreateRuntime:
    made = choices.runtime(_uid(choices), nesting=choices.random.random() < 0.5)
    return replace(made, resume=not made.resume) if choices.random.random() < 0.1 else made


def _create_interface(choices: Choices) -> CreateInterface:
    uid, interface = _link(choices)
    name = choices.random.choice((interface, pool.LONG_NAME))
    return CreateInterface(uid=uid, interface=name, mac=_mac(choices), mtu=_mtu(choices))


def _remove_interface(choices: Choices) -> RemoveInterface:
    return RemoveInterface(uid=_uid(choices), interface=choices.random.choice(pool.INTERFACES))


def _attach(choices: Choices) -> AttachInterface:
    uid, interface = _link(choices)
    network = choices.random.choice((pool.LAN, pool.VENET))
    return AttachInterface(uid=uid, interface=interface, network=network, mode=pool.MODES[network])


def _hostname(choices: Choices) -> SetHostname:
    return SetHostname(uid=_uid(choices), hostname=choices.random.choice(("three", "x" * 65)))


def _filter(choices: Choices) -> LoadFilter:
    return LoadFilter(rules=choices.rules(choices.random.choice(("", pool.LONG_NAME))))


def _create_network(choices: Choices) -> CreateNetwork:
    name = _network(choices)
    mode = pool.MODES.get(name, pool.MODES[pool.LAN])
    mtu = _mtu(choices) if name not in choices.machine.networks else 1500
    return CreateNetwork(network=NetworkSpec(name=name, mode=mode, mtu=mtu))


def _gateway(kind: type[AddGateway] | type[RemoveGateway]) -> Callable[[Choices], Effect]:
    def draw_gateway(choices: Choices) -> Effect:
        name = _network(choices)
        gateways = pool.GATEWAYS.get(name, pool.GATEWAYS[pool.LAN])
        return kind(network=name, address=choices.random.choice(gateways))

    return draw_gateway


def _restored_address(choices: Choices) -> RestoreAddress:
    name = choices.random.choice(tuple(pool.GATEWAYS))
    link = choices.random.choice((bridge_name(choices.setting.instance.name, name), "no-such-link"))
    return RestoreAddress(held=HeldAddress(link=link, address=choices.random.choice(pool.GATEWAYS[name])))


def _restored_route(choices: Choices) -> RestoreRoute:
    link = choices.random.choice((bridge_name(choices.setting.instance.name, pool.LAN), "no-such-link"))
    return RestoreRoute(route=replace(choices.random.choice(pool.WAYS[pool.LAN]), link=link))


def _on_address(kind: type[AddAddress] | type[RemoveAddress]) -> Callable[[Choices], Effect]:
    def draw_address(choices: Choices) -> Effect:
        uid, interface = _link(choices)
        return kind(uid=uid, interface=interface, address=_address(choices, uid, interface))

    return draw_address


def _on_ip(kind: type[AddHostRoute] | type[RemoveHostRoute] | type[AnnounceAddress]) -> Callable[[Choices], Effect]:
    def draw_ip(choices: Choices) -> Effect:
        uid, interface = _link(choices)
        return kind(uid=uid, interface=interface, address=_address(choices, uid, interface).ip)

    return draw_ip


def _on_route(kind: type[AddRoute] | type[RemoveRoute]) -> Callable[[Choices], Effect]:
    def draw_route(choices: Choices) -> Effect:
        uid, interface = _link(choices)
        return kind(uid=uid, interface=interface, route=_route(choices, interface))

    return draw_route


def _name(choices: Choices) -> SnapshotName:
    return choices.random.choice((*pool.SNAPSHOTS, *pool.SAFETIES, *pool.BAD_NAMES))


def _snapshot(choices: Choices) -> TakeSnapshot:
    uid = _uid(choices)
    # One that runs would be asked for its memory, which not every host can write.
    memory = uid not in choices.machine.runtimes and choices.random.random() < 0.3
    return TakeSnapshot(uid=uid, name=_name(choices), memory=memory)


def _rollback(choices: Choices) -> RollBack:
    return replace(choices.rollback(_uid(choices)), to=_name(choices), safety=_name(choices))


def _replacement(choices: Choices) -> ReplaceVolume:
    key = choices.random.choice((pool.TEMPLATE.key, pool.NO_TEMPLATE.key))
    return replace(choices.replacement(_uid(choices)), template_key=key, safety=_name(choices))


def _clone(choices: Choices) -> CloneVolume:
    name = choices.random.choice((None, _name(choices)))
    return replace(choices.clone(_uid(choices)), source=_uid(choices), snapshot=name)


def _move(choices: Choices) -> str:
    return choices.random.choice((*MOVES, *pool.BAD_MOVES))


def _cut(choices: Choices) -> CutParcel:
    return CutParcel(uid=_uid(choices), move=_move(choices), number=choices.random.choice((0, 1, -1)))


def _placed(choices: Choices) -> PlaceArrival:
    return PlaceArrival(record=choices.setting.record(_uid(choices)), move=_move(choices))


def _on_link(choices: Choices, make: Callable[[Uid, str], Effect]) -> Effect:
    return make(*_link(choices))


_DRAWS: Mapping[type, Callable[[Choices], Effect]] = {
    BuildTemplate: _template,
    RemoveTemplate: _remove_template,
    WriteRecord: _record,
    CreateVolume: lambda c: c.volume(_uid(c)),
    SetVolumeSize: lambda c: c.size(_uid(c)),
    LoadQuotas: lambda c: c.quota(_uid(c)),
    SetQuota: lambda c: c.quota(_uid(c)),
    SetInodes: lambda c: c.quota(_uid(c)),
    TakeSnapshot: _snapshot,
    DeleteSnapshot: lambda c: DeleteSnapshot(uid=_uid(c), name=_name(c)),
    RollBack: _rollback,
    ReplaceVolume: _replacement,
    CloneVolume: _clone,
    CutParcel: _cut,
    PlaceArrival: _placed,
    HoldRuntime: lambda c: HoldRuntime(uid=_uid(c), move=_move(c), number=c.random.choice((0, 1, -1))),
    ResumeHeld: lambda c: ResumeHeld(uid=_uid(c), move=_move(c)),
    EndHeld: lambda c: EndHeld(uid=_uid(c), move=_move(c)),
    OpenRuntime: lambda c: OpenRuntime(uid=_uid(c)),
    ClearMove: lambda c: ClearMove(uid=_uid(c), move=_move(c)),
    TrashVe: lambda c: TrashVe(uid=_uid(c)),
    RestoreVe: _restore,
    PurgeTrash: lambda c: PurgeTrash(trash_id=_trash_id(c, _uid(c))),
    CreateCgroup: _cgroup,
    SetLimit: _limit,
    SetInstanceLimit: _instance_limit,
    RemoveCgroup: lambda c: RemoveCgroup(uid=_uid(c)),
    CreateRuntime: _runtime,
    StartRuntime: lambda c: StartRuntime(uid=_uid(c), closed=c.random.random() < 0.3),
    StopRuntime: lambda c: StopRuntime(uid=_uid(c), timeout_s=STOP_TIMEOUT_S),
    SuspendRuntime: lambda c: SuspendRuntime(uid=_uid(c)),
    DiscardMemory: lambda c: DiscardMemory(uid=_uid(c)),
    DeleteRuntime: lambda c: DeleteRuntime(uid=_uid(c)),
    ForgetEnd: lambda c: ForgetEnd(uid=_uid(c)),
    CreateNetwork: _create_network,
    SetNetworkMtu: lambda c: SetNetworkMtu(network=_network(c), mtu=_mtu(c)),
    SetNetworkUp: lambda c: SetNetworkUp(network=_network(c)),
    AddGateway: _gateway(AddGateway),
    RemoveGateway: _gateway(RemoveGateway),
    SetForwarding: lambda c: SetForwarding(network=_network(c)),
    SetUplink: lambda c: SetUplink(network=_network(c), uplink=c.random.choice((None, "no-such-link"))),
    RemoveNetwork: lambda c: RemoveNetwork(network=_network(c)),
    SetTunnel: lambda c: c.tunnel(_network(c)),
    RemoveTunnel: lambda c: RemoveTunnel(network=_network(c)),
    RestoreAddress: _restored_address,
    RestoreRoute: _restored_route,
    LoadFilter: _filter,
    CreateInterface: _create_interface,
    RemoveInterface: _remove_interface,
    AttachInterface: _attach,
    SetInterfaceUp: lambda c: _on_link(c, lambda uid, name: SetInterfaceUp(uid=uid, interface=name)),
    SetLoopbackUp: lambda c: SetLoopbackUp(uid=_uid(c)),
    SetInterfaceMtu: lambda c: _on_link(c, lambda uid, name: SetInterfaceMtu(uid=uid, interface=name, mtu=_mtu(c))),
    SetInterfaceRate: lambda c: _on_link(c, c.rate),
    SetInterfaceMac: lambda c: _on_link(c, lambda uid, name: SetInterfaceMac(uid=uid, interface=name, mac=_mac(c))),
    AddAddress: _on_address(AddAddress),
    RemoveAddress: _on_address(RemoveAddress),
    AddRoute: _on_route(AddRoute),
    RemoveRoute: _on_route(RemoveRoute),
    AddHostRoute: _on_ip(AddHostRoute),
    RemoveHostRoute: _on_ip(RemoveHostRoute),
    AnnounceAddress: _on_ip(AnnounceAddress),
    SetHostname: _hostname,
    SetResolver: lambda c: SetResolver(uid=_uid(c), resolver=Resolver(servers=("10.77.0.1",))),
    AddDevice: lambda c: c.device(_uid(c), c.random.choice((*pool.DEVICES, pool.NO_DEVICE))),
    RemoveDevice: lambda c: RemoveDevice(uid=_uid(c), path=c.random.choice(pool.DEVICES)),
    AddNic: lambda c: AddNic(uid=_uid(c), nic=c.random.choice((pool.NIC, "no-nic"))),
    RemoveNic: lambda c: RemoveNic(uid=_uid(c), nic=pool.NIC),
    AddMount: lambda c: c.mount(_uid(c), c.random.choice((*pool.SOURCES, pool.NO_SOURCE))),
    SetSetting: lambda c: c.setting_of(_uid(c), c.random.choice((*pool.SETTINGS, pool.NO_SETTING))),
    RemoveMount: lambda c: RemoveMount(uid=_uid(c), target=c.random.choice(pool.TARGETS)),
    ShowViews: lambda c: ShowViews(uid=_uid(c), views=c.random.choice((Views.OWN, Views.HOST))),
}
