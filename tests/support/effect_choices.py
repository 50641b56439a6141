"""Which effects make sense next on a twin, and which could be drawn blindly: the raw material of sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from random import Random

from reconciler.errors import KernelError
from reconciler.model.compute import CreateCgroup, Limit, LimitValue, RemoveCgroup, SetInstanceLimit, SetLimit
from reconciler.model.devices import AddDevice, AddNic, RemoveDevice, RemoveNic
from reconciler.model.effects import Effect
from reconciler.model.identity import (
    Digest,
    NetworkName,
    SnapshotName,
    TemplateName,
    Uid,
    VeName,
    bridge_name,
    host_link_name,
)
from reconciler.model.instance import Instance
from reconciler.model.mounts import AddMount, MountSpec, RemoveMount
from reconciler.model.network import (
    AddAddress,
    AddGateway,
    AddHostRoute,
    Address,
    AddRoute,
    AnnounceAddress,
    AttachInterface,
    CreateInterface,
    CreateNetwork,
    Direction,
    FilterRules,
    HostNetworkObservation,
    Interface,
    InterfaceObservation,
    LoadFilter,
    Masquerade,
    NetworkMode,
    NetworkSpec,
    Port,
    PortForward,
    RemoveAddress,
    RemoveGateway,
    RemoveHostRoute,
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
    TunnelGuard,
)
from reconciler.model.observation import Capabilities
from reconciler.model.placement import (
    ClearMove,
    CutParcel,
    EndHeld,
    HoldRuntime,
    OpenRuntime,
    PlaceArrival,
    ResumeHeld,
)
from reconciler.model.power import (
    CreateRuntime,
    DeleteRuntime,
    DiscardMemory,
    ForgetEnd,
    Launch,
    StartRuntime,
    StopRuntime,
    SuspendRuntime,
)
from reconciler.model.quota import WEEK_S, LoadQuotas, QuotaKind, QuotaLimit, Quotas, SetInodes, SetQuota
from reconciler.model.reach import HeldAddress, HostRoute, RestoreAddress, RestoreRoute
from reconciler.model.settings import OTHER_SOCKETS, TERMINALS, SetSetting
from reconciler.model.snapshots import (
    CloneVolume,
    DeleteSnapshot,
    ReplaceVolume,
    RollBack,
    SnapshotKind,
    TakeSnapshot,
)
from reconciler.model.views import ShowViews, Views
from reconciler.model.volume import (
    BuildTemplate,
    BuiltinSource,
    CreateVolume,
    PurgeTrash,
    Record,
    RestoreVe,
    SetVolumeSize,
    TemplateSpec,
    TrashVe,
    WriteRecord,
)
from reconciler.model.vxlan import RemoveTunnel, SetTunnel, Tunnel
from reconciler.twin import link
from reconciler.twin.host import ALL_CAPABILITIES
from reconciler.twin.machine import Machine, Runtime
from tests.support.contract import MOVES, STOP_TIMEOUT_S

LAN, VENET = NetworkName("lan"), NetworkName("venet")
MODES = {LAN: NetworkMode.BRIDGED, VENET: NetworkMode.ROUTED}
INTERFACES = ("eth0", "eth1")
GATEWAYS: Mapping[NetworkName, tuple[Interface, ...]] = {
    LAN: (ip_interface("10.77.0.1/24"), ip_interface("fd77::1/64")),
    VENET: (ip_interface("10.79.0.1/32"),),
}
WAYS: Mapping[NetworkName, tuple[HostRoute, ...]] = {
    LAN: (
        HostRoute(to=ip_network("198.51.100.0/24"), link="", via=ip_address("10.77.0.77")),
        HostRoute(to=ip_network("2001:db8:7::/48"), link="", via=ip_address("fd77::77"), metric=1024),
    ),
}
TEMPLATE = TemplateSpec(name=TemplateName("busybox"), key=Digest("b" * 64), source=BuiltinSource())
NO_TEMPLATE = TemplateSpec(name=TemplateName("none"), key=Digest("0" * 64), source=BuiltinSource(name="no-such"))
"""One that cannot be built."""

GHOST = Uid("99999999-9999-4999-8999-999999999999")
"""A VE that is never born."""

REMOTES = ((), ("192.0.2.1",), ("192.0.2.1", "192.0.2.2"), ("192.0.2.3",))
MTUS = (1200, 1280, 1400, 1500)
RATES = (None, 8000, 100_000_000, 50_000_000_000)
BAD_MTUS = (60, 70_000)
MACS = ("02:00:00:00:07:01", "02:00:00:00:07:02")
BAD_MACS = ("01:00:00:00:07:01", "00:00:00:00:00:00")
_MIB = 1 << 20
SIZES = (64 * _MIB, 128 * _MIB, 256 * _MIB, None)
TOTALS = (256 * _MIB, 384 * _MIB, None)
IMAGE_SIZES = (16 * _MIB, 24 * _MIB)
SNAPSHOTS = (SnapshotName("s1"), SnapshotName("s2"))
SAFETIES = (SnapshotName("before-1"), SnapshotName("before-2"))
BAD_NAMES = (SnapshotName("../volume"), SnapshotName(".s1"), SnapshotName(""))
NOWHERE = Route(to="198.51.100.0/24", via="203.0.113.1")
DEVICES = ("/dev/net/tun", "/dev/fuse")
NO_DEVICE = "/dev/no-such-device"
NIC = "nic0"
SOURCES = ("/srv", "/usr")
NO_SOURCE = "/no/such/directory"
SETTINGS = {
    "net.core.somaxconn": ("100", "200"),
    "kernel.shmall": ("1000", "2000"),
    OTHER_SOCKETS: ("500", "600"),
    TERMINALS: ("30", "40"),
}
NO_SETTING = "net.ipv4.no_such_parameter"
TARGETS = ("/data", "/srv/a.b/c d")
BAD_MOVES = ("../ves", ".one", "")
LONG_NAME = "a-link-name-of-too-many-letters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What sequences are about. ``taken``: a network whose bridge's name a foreign link has on both hosts.

    The host needs an address range of its own for each of ``uids`` from ``first_id`` on.
    """

    instance: Instance
    uids: tuple[Uid, ...]
    capabilities: Capabilities = ALL_CAPABILITIES
    taken: NetworkName | None = None
    first_id: int = 1 << 20

    def record(self, uid: Uid) -> Record:
        """Give the record of a VE."""
        return Record(
            uid=uid,
            name=self.name(uid),
            id_base=self.first_id + (self._number(uid) << 16),
            template=TEMPLATE.name,
            template_digest=None,
            init=TEMPLATE.init,
            source="contract",
            created_at=0.0,
        )

    def name(self, uid: Uid) -> VeName:
        """Give the name of a VE."""
        return VeName(f"ve{self._number(uid)}")

    def addresses(self, uid: Uid, interface: str) -> tuple[Interface, ...]:
        """Give the addresses that a VE's interface may get; no two VEs share one, nor do two interfaces a subnet."""
        number = 10 + self._number(uid)
        texts: tuple[str, ...]
        if interface == "eth0":
            texts = (f"10.77.0.{number}/24", f"10.77.0.{number + 50}/24", f"fd77::{number}/64", f"fd77::{number}/48")
        else:
            texts = (f"10.79.0.{number}/32", f"10.78.0.{number}/24", f"fd78::{number}/64")
        return tuple(ip_interface(text) for text in texts)

    def _number(self, uid: Uid) -> int:
        return (*self.uids, GHOST).index(uid)


def routes(interface: str) -> tuple[Route, ...]:
    """Give the routes that an interface may get; the later ones need the addresses or routes before."""
    if interface == "eth0":
        return (
            Route(to="0.0.0.0/0", via="10.77.0.1"),
            Route(to="::/0", via="fd77::1"),
            Route(to="10.99.0.0/16", via="10.77.0.254"),
            Route(to="fd99::/64", via=""),
        )
    return (Route(to="10.79.0.1/32"), Route(to="0.0.0.0/0", via="10.79.0.1"), Route(to="fd98::/64", via="fd78::1"))


def legal_values(capabilities: Capabilities) -> Mapping[Limit, tuple[LimitValue, ...]]:
    """Give values that this kernel takes and gives back as they are, by enforceable limit.

    Memory always has a limit: on cgroup v1 swap cannot be limited without it.
    """
    values: dict[Limit, tuple[LimitValue, ...]] = {
        Limit.CPU_WEIGHT: (50, 100, 1000),
        Limit.CPU_LIMIT: (None, 50_000, 150_000),
        Limit.CPUS: (frozenset({min(capabilities.cpus)}), capabilities.cpus),
        Limit.NODES: (capabilities.nodes,),
        Limit.MEMORY_LIMIT: (128 * _MIB, 256 * _MIB),
        Limit.MEMORY_BARRIER: (None, 96 * _MIB),
        Limit.MEMORY_GUARANTEE: (0, 32 * _MIB),
        Limit.SWAP: (0, 64 * _MIB),
        Limit.PROCESSES: (None, 256, 4096),
        Limit.IO_WEIGHT: (50, 100, 1000),
        Limit.IO_READ: (None, 64 * _MIB),
        Limit.IO_WRITE: (None, 32 * _MIB, 64 * _MIB),
        Limit.IO_READ_OPS: (None, 2000),
        Limit.IO_WRITE_OPS: (None, 1000),
    }
    return {limit: choices for limit, choices in values.items() if limit in capabilities.enforceable}


def _fits(links: Mapping[str, InterfaceObservation], interface: str, route: Route) -> bool:
    try:
        link.require_route_fits(links, interface, route, "")
    except KernelError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Choices:
    """Draws effects for the state in which a machine is now."""

    setting: Setting
    machine: Machine
    random: Random

    def likely(self) -> Effect:
        """Draw an effect that is the obvious thing to do next to one of the VEs."""
        return self.random.choice(list(self._of_ve(self.random.choice(self.setting.uids))))

    def of_host(self) -> Effect:
        """Draw an effect that makes sense on what all VEs share: mostly their networks."""
        if self.random.random() < 0.1:
            return self.instance_limit()
        ways = list(self._ways_that_fit())
        if ways and self.random.random() < 0.5:  # few networks get as far as to have one
            return self.random.choice(ways)
        return self.random.choice(list(self._of_network(self.random.choice((LAN, VENET)))))

    def _of_ve(self, uid: Uid) -> Iterator[Effect]:
        machine = self.machine
        if uid not in machine.records:
            yield from self._births(uid)
        elif uid not in machine.volumes:
            yield self.volume(uid)
            yield self.clone(uid)
        elif uid in machine.runtimes:
            yield from self._of_live(uid, machine.runtimes[uid])
        elif uid in machine.cgroups:
            yield from self._of_stopped(uid)
        else:
            yield self.cgroup(uid)
            yield self.cgroup(uid)
            yield TrashVe(uid=uid) if uid not in machine.holdings else DeleteRuntime(uid=uid)

    def _births(self, uid: Uid) -> Iterator[Effect]:
        if any(entry.record.uid == uid for entry in self.machine.trash.values()):
            yield RestoreVe(uid=uid, trash_id=f"{uid}.0")
            yield PurgeTrash(trash_id=f"{uid}.0")
        if TEMPLATE.key in self.machine.templates or self.random.random() < 0.1:
            yield WriteRecord(record=self.setting.record(uid), template_key=TEMPLATE.key)
        else:
            yield BuildTemplate(template=TEMPLATE)

    def _of_stopped(self, uid: Uid) -> Iterator[Effect]:
        if uid in self.machine.holdings:
            yield DeleteRuntime(uid=uid)
            return
        for _ in range(3):
            yield self.runtime(uid)
        if uid in self.machine.memories:
            yield DiscardMemory(uid=uid)
        yield RemoveCgroup(uid=uid)
        yield ForgetEnd(uid=uid)
        if self.random.random() < 0.2:
            yield TrashVe(uid=uid)  # which is refused: what still has a cgroup may still run
        yield self.limit(uid)
        yield self.size(uid)
        yield self.snapshot(uid)
        yield self.parcel(uid)
        yield self.rollback(uid)
        yield self.replacement(uid)
        yield from (DeleteSnapshot(uid=uid, name=name) for name in self.machine.snapshots.get(uid, {}))

    def _of_live(self, uid: Uid, runtime: Runtime) -> Iterator[Effect]:
        if runtime.leaving is not None:
            yield from self._of_leaving(uid, runtime.leaving)
            return
        if not runtime.network.loopback_up:
            yield SetLoopbackUp(uid=uid)
        if not runtime.is_running:
            yield StartRuntime(uid=uid)
            if runtime.resumed:
                yield from (StartRuntime(uid=uid, closed=True) for _ in range(5))
                if runtime.arrived:
                    yield from (OpenRuntime(uid=uid) for _ in range(4))
                    yield from (DeleteRuntime(uid=uid) for _ in range(3))
                yield from (DiscardMemory(uid=uid) for _ in range(3))
        elif self.random.random() < 0.15:
            yield SuspendRuntime(uid=uid)
        elif self.random.random() < 0.3:
            yield from (self.hold(uid, self.random.choice(MOVES)) for _ in range(3))
        elif self.random.random() < 0.5:
            yield StopRuntime(uid=uid, timeout_s=STOP_TIMEOUT_S)
        yield self.limit(uid)
        yield self.names(uid)
        if self.random.random() < 0.5:
            yield self.snapshot(uid)
        if self.random.random() < 0.2:
            yield self.parcel(uid)
        if self.random.random() < 0.4:
            yield self.mount(uid, self.random.choice(SOURCES))
            yield self.setting_of(uid, self.random.choice(tuple(SETTINGS)))
            yield from (RemoveMount(uid=uid, target=target) for target in runtime.mounts)
        yield ShowViews(uid=uid, views=self.random.choice((Views.OWN, Views.HOST)))
        if self.random.random() < 0.4:
            yield self.device(uid, self.random.choice(DEVICES))
            yield RemoveNic(uid=uid, nic=NIC) if NIC in runtime.nics else AddNic(uid=uid, nic=NIC)
            yield from (RemoveDevice(uid=uid, path=path) for path in runtime.nodes)
        if self._is_image(uid) and self.random.random() < 0.5:
            yield self.quota(uid)
        for interface in INTERFACES:
            present = runtime.network.interfaces.get(interface)
            if present is None:
                yield self.interface(uid, interface)
            elif not (present.up and present.host_up):
                yield from self._of_new_link(uid, interface, present)
            else:
                yield from self._of_link(uid, interface, present)

    def _of_leaving(self, uid: Uid, move: str) -> Iterator[Effect]:
        yield from (ResumeHeld(uid=uid, move=move) for _ in range(3))
        yield from (EndHeld(uid=uid, move=move) for _ in range(3))
        yield self.hold(uid, move)
        yield self.hold(uid, self.random.choice(MOVES))
        yield self.parcel(uid)
        yield StopRuntime(uid=uid, timeout_s=STOP_TIMEOUT_S)
        yield self.limit(uid)

    def hold(self, uid: Uid, move: str) -> HoldRuntime:
        """Draw the number under which the data go as they are when the VE stands still."""
        return HoldRuntime(uid=uid, move=move, number=self.random.choice((1, 2, 3)))

    def _of_new_link(self, uid: Uid, interface: str, present: InterfaceObservation) -> Iterator[Effect]:
        for _ in range(2):
            if not present.host_up:
                yield self.attach(uid, interface)
            if not present.up:
                yield SetInterfaceUp(uid=uid, interface=interface)
            yield self._toggle_address(uid, interface, present)
        if not present.up and self.random.random() < 0.3:
            yield AddRoute(uid=uid, interface=interface, route=self.random.choice(routes(interface)))
        if not present.host_up and self.random.random() < 0.3:
            own = self.setting.addresses(uid, interface)[0]
            yield AddHostRoute(uid=uid, interface=interface, address=own.ip)

    def _of_link(self, uid: Uid, interface: str, present: InterfaceObservation) -> Iterator[Effect]:
        for _ in range(3):
            yield self._toggle_address(uid, interface, present)
        for route in routes(interface):
            if route in present.routes:
                yield RemoveRoute(uid=uid, interface=interface, route=route)
            elif _fits(self.machine.runtimes[uid].network.interfaces, interface, route) or self.random.random() < 0.1:
                yield AddRoute(uid=uid, interface=interface, route=route)
        if present.bridge is None:
            for led in self.setting.addresses(uid, interface)[:1]:
                lead = RemoveHostRoute if led.ip in present.host_routes else AddHostRoute
                yield lead(uid=uid, interface=interface, address=led.ip)
        for own in sorted(present.addresses, key=str)[:1]:
            yield AnnounceAddress(uid=uid, interface=interface, address=own.ip)
        yield self.rate(uid, interface)
        yield SetInterfaceMtu(uid=uid, interface=interface, mtu=self.random.choice(MTUS))
        yield SetInterfaceMac(uid=uid, interface=interface, mac=self.random.choice(MACS))

    def _toggle_address(self, uid: Uid, interface: str, present: InterfaceObservation) -> Effect:
        address = self.random.choice(self.setting.addresses(uid, interface))
        change = RemoveAddress if address in present.addresses else AddAddress
        return change(uid=uid, interface=interface, address=address)

    def _of_network(self, name: NetworkName) -> Iterator[Effect]:
        present = self.machine.networks.get(name)
        if present is None:
            yield CreateNetwork(network=NetworkSpec(name=name, mode=MODES[name]))
            return
        yield from self._of_present_network(name, present)
        yield LoadFilter(rules=self.rules())

    def _of_present_network(self, name: NetworkName, present: HostNetworkObservation) -> Iterator[Effect]:
        if not present.up:
            yield SetNetworkUp(network=name)
        for gateway in GATEWAYS[name]:
            change = RemoveGateway if gateway in present.addresses else AddGateway
            yield change(network=name, address=gateway)
        yield SetForwarding(network=name)
        yield SetNetworkMtu(network=name, mtu=self.random.choice(MTUS))
        yield SetUplink(network=name, uplink=None)
        for _ in range(2):
            yield self.tunnel(name)
        if present.tunnel is not None:
            yield RemoveTunnel(network=name)
        yield self.restoration(name)
        yield RemoveNetwork(network=name)

    def tunnel(self, name: NetworkName) -> SetTunnel:
        """Draw a link to other hosts."""
        remotes = frozenset(map(ip_address, self.random.choice(REMOTES)))
        local = ip_address(self.random.choice(("127.0.0.1", "127.0.0.1", "127.0.0.2", "203.0.113.99")))
        port, number = self.random.choice((4789, 8472)), self.random.choice((7, 7, 8))
        isolated = self.random.random() < 0.3
        return SetTunnel(
            network=name, tunnel=Tunnel(id=number, port=port, local=local, remotes=remotes, isolated=isolated)
        )

    def _ways_that_fit(self) -> Iterator[RestoreRoute]:
        for name, present in sorted(self.machine.networks.items()):
            link = bridge_name(self.setting.instance.name, name)
            for way in WAYS.get(name, ()) if present.up else ():
                if any(way.via is not None and way.via in held.network for held in present.addresses):
                    yield RestoreRoute(route=replace(way, link=link))

    def restoration(self, name: NetworkName) -> RestoreAddress | RestoreRoute:
        """Draw an address or a route that a network's link is to have again, possible or not."""
        link = bridge_name(self.setting.instance.name, name)
        if name in WAYS and self.random.random() < 0.6:
            return RestoreRoute(route=replace(self.random.choice(WAYS[name]), link=link))
        return RestoreAddress(held=HeldAddress(link=link, address=self.random.choice(GATEWAYS[name])))

    def volume(self, uid: Uid) -> CreateVolume:
        """Draw a volume; one in four is an image."""
        if self._is_image(uid) or (uid not in self.machine.volumes and self.random.random() < 0.25):
            return CreateVolume(uid=uid, size=self._image_size(uid), is_image=True, room=1000)
        return CreateVolume(uid=uid, size=self.random.choice(SIZES), total=self.random.choice(TOTALS))

    def size(self, uid: Uid) -> SetVolumeSize:
        """Draw a size for a volume."""
        if self._is_image(uid):
            return SetVolumeSize(uid=uid, size=self._image_size(uid))
        return SetVolumeSize(uid=uid, size=self.random.choice(SIZES), total=self.random.choice(TOTALS))

    def snapshot(self, uid: Uid) -> TakeSnapshot:
        """Draw a snapshot."""
        kind = self.random.choice((SnapshotKind.NAMED, SnapshotKind.SCHEDULED))
        return TakeSnapshot(uid=uid, name=self.random.choice(SNAPSHOTS), kind=kind)

    def rollback(self, uid: Uid) -> RollBack:
        """Draw a return to a snapshot, or to one that is not there."""
        return RollBack(
            uid=uid,
            to=self.random.choice((*self.machine.snapshots.get(uid, {}), SNAPSHOTS[0])),
            request=self.random.choice(("one", "two", "three")),
            safety=self.random.choice(SAFETIES),
            size=self.random.choice(SIZES),
            total=self.random.choice(TOTALS),
        )

    def replacement(self, uid: Uid) -> ReplaceVolume:
        """Draw a new volume in the place of a VE's."""
        is_image = self.random.random() < 0.3
        return ReplaceVolume(
            uid=uid,
            template=TEMPLATE.name,
            template_key=TEMPLATE.key,
            safety=self.random.choice(SAFETIES),
            size=self.random.choice(IMAGE_SIZES if is_image else SIZES),
            keep=self.random.choice(((), ("/home", "/no/such"))),
            total=None if is_image else self.random.choice(TOTALS),
            is_image=is_image,
            room=1000 if is_image else None,
        )

    def clone(self, uid: Uid) -> CloneVolume:
        """Draw a volume from another VE's data."""
        source = self.random.choice([other for other in self.setting.uids if other != uid] or [uid])
        name = self.random.choice((None, *self.machine.snapshots.get(source, {})))
        total = self.random.choice((None, None, None, *TOTALS))
        return CloneVolume(uid=uid, source=source, snapshot=name, size=self.random.choice(SIZES), total=total)

    def parcel(self, uid: Uid) -> CutParcel | ClearMove | PlaceArrival:
        """Draw a step of a move: what nothing has arrived for cannot be placed."""
        move = self.random.choice(MOVES)
        choices: tuple[CutParcel | ClearMove | PlaceArrival, ...] = (
            CutParcel(uid=uid, move=move, number=self.random.choice((0, 1))),
            ClearMove(uid=uid, move=move),
            PlaceArrival(record=self.setting.record(uid), move=move),
        )
        return self.random.choice(choices)

    def _is_image(self, uid: Uid) -> bool:
        present = self.machine.volumes.get(uid)
        return present is not None and present.is_image

    def _image_size(self, uid: Uid) -> int:
        """Draw a size; one that is in use does not grow everywhere: the kernel wants a capability for it."""
        present = self.machine.volumes.get(uid)
        most = present.size if present is not None and uid in self.machine.runtimes else None
        return self.random.choice([size for size in IMAGE_SIZES if most is None or size <= most])

    def quota(self, uid: Uid) -> Effect:
        """Draw a change of the quotas of a VE."""
        limit = QuotaLimit(soft=_MIB, hard=self.random.choice((None, 2 * _MIB)), hard_files=9, grace_s=WEEK_S)
        number, kind = self.random.choice((0, 1000, 65_535)), self.random.choice([*QuotaKind])
        choices: tuple[Effect, ...] = (
            LoadQuotas(uid=uid, quotas=Quotas(inodes=500, users={number: limit})),
            SetQuota(uid=uid, kind=kind, number=number, limit=limit),
            SetQuota(uid=uid, kind=kind, number=number, limit=None),
            SetInodes(uid=uid, inodes=self.random.choice((None, 400, 800))),
        )
        return self.random.choice(choices)

    def cgroup(self, uid: Uid) -> CreateCgroup:
        """Draw a cgroup with all limits."""
        values = legal_values(self.setting.capabilities)
        return CreateCgroup(uid=uid, limits={limit: self.random.choice(choices) for limit, choices in values.items()})

    def limit(self, uid: Uid) -> SetLimit:
        """Draw a limit that can be set."""
        limit, choices = self.random.choice(list(legal_values(self.setting.capabilities).items()))
        return SetLimit(uid=uid, limit=limit, value=self.random.choice(choices))

    def instance_limit(self) -> SetInstanceLimit:
        """Draw a limit of all VEs together."""
        values = {Limit.CPU_WEIGHT: (100, 250, 10_000), Limit.MEMORY_GUARANTEE: (0, (64 << 20) + 1)}
        limit = self.random.choice([limit for limit in values if limit in self.setting.capabilities.enforceable])
        return SetInstanceLimit(limit=limit, value=self.random.choice(values[limit]))

    def runtime(self, uid: Uid, *, nesting: bool = False) -> CreateRuntime:
        """Give the launch of a VE, from its memory if it is suspended."""
        launch, memory = (
            Launch(id_base=self.setting.record(uid).id_base, nesting=nesting),
            self.machine.memories.get(uid),
        )
        made = CreateRuntime(uid=uid, name=self.setting.name(uid), hostname=self.setting.name(uid), launch=launch)
        return made if memory is None else replace(made, launch=memory.launch, resume=True)

    def device(self, uid: Uid, path: str) -> AddDevice:
        """Draw what a VE may do with a device of the host."""
        return AddDevice(uid=uid, path=path, access=self.random.choice(("r", "rw")))

    def setting_of(self, uid: Uid, name: str) -> SetSetting:
        """Draw a value of a setting, or its return to what it was."""
        return SetSetting(uid=uid, name=name, value=self.random.choice((None, *SETTINGS.get(name, ("1", "2")))))

    def mount(self, uid: Uid, source: str) -> AddMount:
        """Draw where a directory of the host is seen, and how."""
        mount = MountSpec(source=source, read_only=self.random.random() < 0.5)
        return AddMount(uid=uid, target=self.random.choice(TARGETS), mount=mount)

    def names(self, uid: Uid) -> Effect:
        """Draw a change of hostname or resolver."""
        host = SetHostname(uid=uid, hostname=self.random.choice(("one", "two.example.org")))
        return self.random.choice(
            (host, SetResolver(uid=uid, resolver=Resolver(servers=("10.77.0.1",), search=("x",))))
        )

    def interface(self, uid: Uid, interface: str) -> CreateInterface:
        """Draw an interface."""
        mtu, mac = self.random.choice(MTUS), self.random.choice(MACS)
        return CreateInterface(uid=uid, interface=interface, mac=mac, mtu=mtu)

    def rate(self, uid: Uid, interface: str) -> SetInterfaceRate:
        """Draw a rate of one direction, or none."""
        direction, rate = self.random.choice(list(Direction)), self.random.choice(RATES)
        return SetInterfaceRate(uid=uid, interface=interface, direction=direction, rate=rate)

    def attach(self, uid: Uid, interface: str) -> AttachInterface:
        """Give the attachment of an interface to the network that it belongs to."""
        network = LAN if interface == "eth0" else VENET
        isolated = self.random.random() < 0.5
        return AttachInterface(uid=uid, interface=interface, network=network, mode=MODES[network], isolated=isolated)

    def rules(self, port: str = "") -> FilterRules:
        """Draw a filter; ``port`` is a link, by default that of a VE."""
        if not port and self.random.random() < 0.3:
            return FilterRules()
        uid = self.random.choice(self.setting.uids)
        addresses: frozenset[Address] = frozenset(address.ip for address in self.setting.addresses(uid, "eth0"))
        port = port or host_link_name(self.setting.instance.name, uid, "eth0")
        bridge = bridge_name(self.setting.instance.name, LAN)
        subnet = GATEWAYS[LAN][0].network
        forward = PortForward(listen=18_080, protocol="tcp", to=IPv4Address("10.77.0.10"), port=80)
        remotes = frozenset(map(ip_address, self.random.choice(REMOTES)))
        guard = TunnelGuard(link="vx-any", mac=MACS[1], id=7, port=4789, remotes=remotes)
        return FilterRules(
            ports=frozenset({Port(link=port, mac=MACS[0], addresses=addresses)}),
            masquerades=frozenset({Masquerade(subnet=subnet, bridge=bridge)}),
            forwards=frozenset({forward}) if self.random.random() < 0.5 else frozenset(),
            tunnels=frozenset({guard}) if self.random.random() < 0.5 else frozenset(),
        )
