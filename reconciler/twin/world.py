"""What happens to a host behind our back: administrators, tenants, crashes, full disks and power cuts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from reconciler.errors import VectlError
from reconciler.model import views
from reconciler.model.compute import ComputeUse, CreateCgroup, Limit, LimitValue
from reconciler.model.effects import Effect
from reconciler.model.facts import Unknown
from reconciler.model.identity import NetworkName, SnapshotName, Uid
from reconciler.model.network import (
    FilterRules,
    HostNetworkObservation,
    Interface,
    InterfaceObservation,
    LoadFilter,
    VeNetworkObservation,
)
from reconciler.model.observation import Facet
from reconciler.model.placement import HoldRuntime, OpenRuntime
from reconciler.model.power import CreateRuntime, End, EndCause, StartRuntime, StopRuntime, SuspendRuntime
from reconciler.model.snapshots import CloneVolume, DeleteSnapshot, ReplaceVolume, RollBack
from reconciler.model.volume import CreateVolume, WriteRecord
from reconciler.twin import compute, devices, holding, link, mounts, network, power, snapshots, ve_network
from reconciler.twin.host import TwinHost
from reconciler.twin.machine import FIRST_PID, Cgroup, Ending, Machine, Volume

_VALUES = {EndCause.REBOOT: 1, EndCause.HALT: 2, EndCause.KILLED: 9, EndCause.EXITED: 0, EndCause.UNKNOWN: None}


class World:
    """Changes a machine without asking. What does not exist cannot be changed: KeyError is a mistake in the test."""

    def __init__(self, host: TwinHost) -> None:
        self._host = host

    @property
    def _machine(self) -> Machine:
        return self._host.machine

    def restart_agent(self) -> TwinHost:
        """Give what a new agent process sees: the same machine, and nothing that the old process had in memory."""
        self._host = TwinHost.of(self._machine)
        return self._host

    def reboot_host(self) -> None:
        """Lose all that lives in memory: inits, cgroups, networks, filter, ends. Records and data stay."""
        machine = self._machine
        for table in (machine.runtimes, machine.cgroups, machine.holdings, machine.endings, machine.networks):
            table.clear()
        machine.host_links = dict.fromkeys(machine.host_links, "")
        machine.instance_limits.clear()
        machine.filter, machine.filter_intact = FilterRules(), True
        machine.forwards_ipv6 = False
        machine.next_pid = FIRST_PID
        machine.lxcfs = None

    def end_init(self, uid: Uid, cause: EndCause, value: int | None = None) -> None:
        """End a VE's init. ``value``: exit status or signal, by default the usual one of the cause."""
        end = End(cause=cause, value=_VALUES[cause] if value is None else value)
        power.end_init(self._machine, uid, end)

    def end_lxcfs(self) -> None:
        """End lxcfs: what it served is broken."""
        self._machine.lxcfs = None

    def break_views(self, uid: Uid) -> None:
        """Leave a VE with the files of an lxcfs that is gone."""
        self._machine.runtimes[uid] = replace(self._machine.runtimes[uid], views=0)

    def forbid_lxcfs(self, reason: str = "lxcfs is not installed") -> None:
        """End lxcfs, and let none be started."""
        machine = self._machine
        machine.lxcfs = None
        machine.capabilities = replace(
            machine.capabilities, why_not={**machine.capabilities.why_not, views.PATH: reason}
        )

    def allow_lxcfs(self) -> None:
        """Let lxcfs be started again."""
        machine = self._machine
        why_not = {path: why for path, why in machine.capabilities.why_not.items() if path != views.PATH}
        machine.capabilities = replace(machine.capabilities, why_not=why_not)

    def interrupt(self, effect: Effect) -> None:
        """Leave what a kill in the middle of an effect leaves; most effects are one step, of which nothing is left."""
        machine = self._machine
        match effect:
            case WriteRecord() if effect.record.uid not in machine.records:
                machine.records[effect.record.uid] = Unknown(f"read record of VE {effect.record.uid}: there is none")
            case CreateCgroup() if effect.uid not in machine.cgroups:
                machine.cgroups[effect.uid] = Cgroup(limits=compute.fresh_limits(machine.capabilities))
            case CreateVolume() if effect.uid not in machine.volumes:
                machine.volumes[effect.uid] = Volume(size=None, complete=False)
            case CreateRuntime() if effect.uid not in machine.runtimes:
                power.leave_runtime_record(machine, effect.uid)
            case StopRuntime() if effect.uid in machine.runtimes:
                machine.endings[effect.uid] = Ending(requested=True)
            case SuspendRuntime() if effect.uid in machine.runtimes and effect.uid not in machine.memories:
                machine.memories[effect.uid] = snapshots.remember(machine, effect.uid)
            case StartRuntime() if effect.uid in machine.memories:
                power.end_init(machine, effect.uid, End(cause=EndCause.KILLED, value=9))
            case LoadFilter():
                machine.filter_intact = False
            case CloneVolume() | RollBack() | ReplaceVolume() | DeleteSnapshot() | HoldRuntime() | OpenRuntime():
                self._interrupt_decided(effect)
            case _:
                return

    def _interrupt_decided(
        self, effect: CloneVolume | RollBack | ReplaceVolume | DeleteSnapshot | HoldRuntime | OpenRuntime
    ) -> None:
        """Leave half a clone, and a VE held that is not cut yet; of all else one step decides, and what follows from it
        is made up for."""
        if isinstance(effect, HoldRuntime):
            with suppress(VectlError):
                holding.hold(self._machine, effect)
        elif isinstance(effect, OpenRuntime):
            with suppress(VectlError):
                holding.perform(self._machine, effect)
        elif not isinstance(effect, CloneVolume):
            snapshots.perform(self._machine, effect)
        elif effect.uid not in self._machine.volumes:
            self._machine.volumes[effect.uid] = Volume(size=None, complete=False)

    def end_keeper(self) -> None:
        """End the keeper: what is to leave stays held, and what has arrived and not run is no more, but for its
        memory."""
        for uid, runtime in list(self._machine.runtimes.items()):
            if runtime.arrived:
                self.end_init(uid, EndCause.KILLED)

    def corrupt_memory(self, uid: Uid) -> None:
        """Make the memory of a suspended VE such that nothing can go on from it."""
        self._machine.memories[uid] = replace(self._machine.memories[uid], is_whole=False)

    def forbid_suspension(self, uid: Uid, reason: str = "") -> None:
        """Let a VE do what keeps it from being suspended, or without a reason end that."""
        self._machine.obstacles[uid] = reason

    def fill_pool(self) -> None:
        """Leave no space on the pool."""
        self._machine.pool_is_full = True

    def free_pool(self) -> None:
        """Make space on the pool again."""
        self._machine.pool_is_full = False

    def hide(self, facet: Facet, uid: Uid | None = None, reason: str = "input/output error") -> None:
        """Make a facet of a VE unreadable, or, without a VE, that of the host's own objects."""
        self._machine.unreadable[uid, facet] = reason

    def hide_listing(self, reason: str = "input/output error") -> None:
        """Let nobody list the VEs."""
        self._machine.unlisted = reason

    def reveal(self) -> None:
        """Make everything readable again; a damaged record stays so."""
        self._machine.unreadable.clear()
        self._machine.unlisted = ""

    def damage_record(self, uid: Uid) -> None:
        """Make nonsense of a VE's record."""
        self._machine.records[uid] = Unknown(f"read record of VE {uid}: expected JSON")

    def delete_record(self, uid: Uid) -> None:
        """Delete a VE's directory with all its data; what runs goes on."""
        del self._machine.records[uid]
        self._machine.volumes.pop(uid, None)

    def set_volume_size(self, uid: Uid, size: int | None) -> None:
        """Change the limit of a VE's volume."""
        self._machine.volumes[uid] = replace(self._machine.volumes[uid], size=size)

    def write_file(self, uid: Uid, path: str) -> None:
        """Make a file in a VE's data."""
        present = self._machine.volumes[uid]
        self._machine.volumes[uid] = replace(present, content=(*present.content, path))

    def lose_snapshot(self, uid: Uid, name: SnapshotName) -> None:
        """Delete a snapshot with its data."""
        kept = self._machine.snapshots[uid]
        self._machine.snapshots[uid] = {other: one for other, one in kept.items() if other != name}

    def set_use(self, uid: Uid, *, use: ComputeUse | None = None, disk: int | None = None) -> None:
        """Let a VE use something. Units: ``disk`` bytes."""
        if use is not None:
            self._machine.cgroups[uid] = replace(self._machine.cgroups[uid], use=use)
        if disk is not None:
            self._machine.volumes[uid] = replace(self._machine.volumes[uid], used=disk)

    def set_instance_limit(self, limit: Limit, value: int) -> None:
        """Change a limit of all VEs together."""
        self._machine.instance_limits[limit] = value

    def set_limit(self, uid: Uid, limit: Limit, value: LimitValue) -> None:
        """Write into a file of a VE's cgroup."""
        cgroup = self._machine.cgroups[uid]
        self._machine.cgroups[uid] = replace(cgroup, limits={**cgroup.limits, limit: value})

    def remove_cgroup(self, uid: Uid) -> None:
        """Remove a cgroup, and with it, as it must be empty, whatever ran in it."""
        if uid in self._machine.runtimes:
            self.end_init(uid, EndCause.KILLED)
        del self._machine.cgroups[uid]

    def set_hostname(self, uid: Uid, hostname: str) -> None:
        """Set the hostname inside a VE."""
        self._change_inside(uid, lambda seen: replace(seen, hostname=hostname))

    def overwrite_resolver(self, uid: Uid) -> None:
        """Write a resolv.conf that is not ours."""
        machine = self._machine
        machine.volumes[uid] = replace(machine.volumes[uid], resolver=None)
        if uid in machine.runtimes:
            self._change_inside(uid, lambda seen: replace(seen, resolver=None))

    def set_loopback_down(self, uid: Uid) -> None:
        """Set the loopback of a VE down."""
        self._change_inside(uid, lambda seen: replace(seen, loopback_up=False))

    def _change_inside(self, uid: Uid, change: Callable[[VeNetworkObservation], VeNetworkObservation]) -> None:
        runtime = self._machine.runtimes[uid]
        self._machine.runtimes[uid] = replace(runtime, network=change(runtime.network))

    def change_link(
        self, uid: Uid, interface: str, change: Callable[[InterfaceObservation], InterfaceObservation]
    ) -> None:
        """Change a link of a VE in whatever way, for example ``lambda seen: replace(seen, mac=...)``."""
        present = self._machine.runtimes[uid].network.interfaces[interface]
        ve_network.put_link(self._machine, uid, interface, change(present))

    def set_link_down(self, uid: Uid, interface: str) -> None:
        """Set a VE's end of a link down, with all that the kernel then takes away."""
        self.change_link(uid, interface, link.set_down)

    def set_host_end_down(self, uid: Uid, interface: str) -> None:
        """Set the host's end of a link down, with the routes through it."""
        self.change_link(uid, interface, link.set_host_end_down)

    def add_address(self, uid: Uid, interface: str, address: Interface) -> None:
        """Add an address in a VE."""
        self.change_link(uid, interface, lambda seen: replace(seen, addresses=seen.addresses | {address}))

    def remove_address(self, uid: Uid, interface: str, address: Interface) -> None:
        """Remove an address in a VE, with the routes that the kernel then takes away."""
        self.change_link(uid, interface, lambda seen: link.without_address(seen, address))

    def delete_link(self, uid: Uid, interface: str) -> None:
        """Delete a link of a VE."""
        if interface not in self._machine.runtimes[uid].network.interfaces:
            raise KeyError(interface)
        ve_network.drop_link(self._machine, uid, interface)

    def unmount(self, uid: Uid, target: str) -> None:
        """Unmount a directory of the host inside a VE."""
        if target not in self._machine.runtimes[uid].mounts:
            raise KeyError(target)
        mounts.drop(self._machine, uid, target)

    def unmount_device(self, uid: Uid, path: str) -> None:
        """Unmount a device file inside a VE."""
        if path not in self._machine.runtimes[uid].nodes:
            raise KeyError(path)
        devices.drop(self._machine, uid, path)

    def add_foreign_link(self, uid: Uid, interface: str) -> None:
        """Make a link in a VE that is not ours."""
        runtime = self._machine.runtimes[uid]
        self._machine.runtimes[uid] = replace(runtime, foreign_links=runtime.foreign_links | {interface})

    def add_host_link(self, name: str, master: str = "") -> None:
        """Make a link on the host that is not ours, under whatever name."""
        self._machine.host_links[name] = master

    def delete_host_link(self, name: str) -> None:
        """Delete a link of the host that is not ours."""
        del self._machine.host_links[name]
        for key, seen in self._machine.networks.items():
            if seen.uplink == name:
                self._machine.networks[key] = replace(seen, uplink=None)

    def change_network(
        self, name: NetworkName, change: Callable[[HostNetworkObservation], HostNetworkObservation]
    ) -> None:
        """Change a network of the host in whatever way."""
        self._machine.networks[name] = change(self._machine.networks[name])

    def set_network_down(self, name: NetworkName) -> None:
        """Set a bridge down: its IPv6 addresses go, the IPv4 ones stay."""
        self.change_network(
            name,
            lambda seen: replace(seen, up=False, addresses=frozenset(a for a in seen.addresses if a.version == 4)),
        )

    def delete_network(self, name: NetworkName) -> None:
        """Delete the bridge of a network; its ports stay without one."""
        del self._machine.networks[name]
        network.release_ports(self._machine, name)

    def flush_filter(self) -> None:
        """Flush the host's whole ruleset, ours included."""
        self._machine.filter_intact = self._machine.filter == FilterRules()

    def edit_filter(self) -> None:
        """Change something in our tables."""
        self._machine.filter_intact = False

    def forward_by_default(self) -> None:
        """Let the kernel forward on every network that is made from now on, as on a host that is a router."""
        self._machine.forwarding_default = True
