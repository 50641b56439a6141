"""The in-memory host: both sides of the seam over one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn, Self, TypeVar, assert_never

from reconciler.model.compute import Limit
from reconciler.model.counters import Counted
from reconciler.model.effects import Effect
from reconciler.model.facts import Unknown
from reconciler.model.identity import Digest, Uid
from reconciler.model.instance import Instance
from reconciler.model.migration import Obstacle
from reconciler.model.observation import (
    ALL_FACETS,
    EVERYTHING,
    Capabilities,
    Facet,
    HostObservation,
    Scope,
    VeObservation,
)
from reconciler.model.seam import Clock
from reconciler.model.settings import SetSetting
from reconciler.model.views import ShowViews
from reconciler.twin import (
    compute,
    counters,
    devices,
    holding,
    mounts,
    network,
    placement,
    power,
    reach,
    settings,
    snapshots,
    ve_network,
    views,
    volume,
)
from reconciler.twin.clock import StoppedClock
from reconciler.twin.machine import Machine

ALL_CAPABILITIES = Capabilities(
    cgroup="v2", enforceable=frozenset(Limit), memory=8 << 30, cpus=frozenset(range(4)), nodes=frozenset({0})
)

_Seen = TypeVar("_Seen")

_NOT_ASKED = Unknown("not asked for")


class Crash(BaseException):
    """The end of the process that performs effects, as a kill by SIGKILL would be: nothing may catch it."""


def crash() -> NoReturn:
    """End the process that a simulation stands for."""
    raise Crash


class TwinHost:
    """Implements `model.seam.Host`. The clock stands still unless one is given."""

    def __init__(
        self, instance: Instance, capabilities: Capabilities = ALL_CAPABILITIES, clock: Clock | None = None
    ) -> None:
        self.machine = Machine(instance=instance, capabilities=capabilities, clock=clock or StoppedClock())

    @classmethod
    def of(cls, machine: Machine) -> Self:
        """Give a host over a machine that is there already."""
        host = cls(machine.instance, machine.capabilities, machine.clock)
        host.machine = machine
        return host

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect, as the seam says; another task never sees half of it."""
        perform(self.machine, effect)

    async def count(self, uid: Uid, *, deep: bool, keep: bool = True) -> Counted:
        """Look at the counters of a VE, as the seam says; every look is a deep one."""
        return counters.count(self.machine, uid, keep=keep)

    async def find_obstacles(self, uid: Uid) -> tuple[Obstacle, ...]:
        """Name what keeps a running VE from being suspended, as the seam says."""
        return power.find_obstacles(self.machine, uid)

    def write_down(self) -> None:
        """Do nothing: what is remembered is never lost here."""

    async def observe(self, scope: Scope = EVERYTHING, facets: frozenset[Facet] = ALL_FACETS) -> HostObservation:
        """Read the machine's present state, as the seam says."""
        return observe(self.machine, scope, facets)


def perform(machine: Machine, effect: Effect) -> None:
    """Carry out one effect on a machine.

    Raises: VectlError.
    """
    holding.refuse_held(machine, effect)
    if isinstance(effect, compute.ComputeEffect):
        compute.perform(machine, effect)
    elif isinstance(effect, ve_network.AddressEffect):
        ve_network.perform_address(machine, effect)
    elif isinstance(effect, ve_network.LinkEffect):
        ve_network.perform_link(machine, effect)
    elif isinstance(effect, ve_network.NamesEffect):
        ve_network.perform_names(machine, effect)
    elif isinstance(effect, power.PowerEffect | holding.HoldingEffect):
        _change_power(machine, effect)
    elif isinstance(effect, volume.VolumeEffect | snapshots.SnapshotEffect | placement.PlacementEffect):
        _store(machine, effect)
    elif isinstance(effect, ShowViews | SetSetting):
        _show_or_set(machine, effect)
    elif isinstance(effect, network.HostNetworkEffect | reach.ReachEffect):
        _change_host(machine, effect)
    elif isinstance(effect, devices.DevicesEffect | mounts.MountsEffect):
        _lend(machine, effect)
    else:
        assert_never(effect)


def _change_power(machine: Machine, effect: power.PowerEffect | holding.HoldingEffect) -> None:
    if isinstance(effect, holding.HoldingEffect):
        holding.perform(machine, effect)
    else:
        power.perform(machine, effect)


def _change_host(machine: Machine, effect: network.HostNetworkEffect | reach.ReachEffect) -> None:
    if isinstance(effect, reach.ReachEffect):
        reach.perform(machine, effect)
    else:
        network.perform(machine, effect)


def _store(
    machine: Machine, effect: volume.VolumeEffect | snapshots.SnapshotEffect | placement.PlacementEffect
) -> None:
    if isinstance(effect, snapshots.SnapshotEffect):
        snapshots.perform(machine, effect)
    elif isinstance(effect, placement.PlacementEffect):
        placement.perform(machine, effect)
    else:
        volume.perform(machine, effect)


def _show_or_set(machine: Machine, effect: ShowViews | SetSetting) -> None:
    if isinstance(effect, SetSetting):
        settings.perform(machine, effect)
    else:
        views.perform(machine, effect)


def _lend(machine: Machine, effect: devices.DevicesEffect | mounts.MountsEffect) -> None:
    if isinstance(effect, devices.DevicesEffect):
        devices.perform(machine, effect)
    else:
        mounts.perform(machine, effect)


def observe(machine: Machine, scope: Scope, facets: frozenset[Facet]) -> HostObservation:
    """Read the present state of a machine; what the host keeps on disk is looked at whatever the facets."""
    there = [] if machine.unlisted else machine.uids()
    uids = there if scope.uids is None else [uid for uid in there if uid in scope.uids]
    of_host = frozenset({*facets, Facet.VOLUME}) if scope.host else frozenset()
    return HostObservation(
        capabilities=machine.capabilities,
        ves={uid: _observe_ve(machine, uid, facets) for uid in uids},
        complete=scope.uids is None and not machine.unlisted,
        compute=_look(machine, Facet.COMPUTE, of_host, compute.observe_host),
        networks=_look(machine, Facet.NETWORK, of_host, network.observe),
        filter=_look(machine, Facet.NETWORK, of_host, network.observe_filter),
        templates=_look(machine, Facet.VOLUME, of_host, _templates),
        images=dict(machine.images),
        trash=_look(machine, Facet.VOLUME, of_host, volume.observe_trash),
        pool=_look(machine, Facet.VOLUME, of_host, volume.observe_pool),
        reach=_look(machine, Facet.NETWORK, of_host, reach.observe),
        within=machine.within,
    )


def _observe_ve(machine: Machine, uid: Uid, facets: frozenset[Facet]) -> VeObservation:
    return VeObservation(
        uid=uid,
        record=machine.records[uid],
        power=_look_at(machine, uid, Facet.POWER, facets, power.observe),
        compute=_look_at(machine, uid, Facet.COMPUTE, facets, compute.observe),
        volume=_look_at(machine, uid, Facet.VOLUME, facets, volume.observe),
        network=_look_at(machine, uid, Facet.NETWORK, facets, ve_network.observe),
        mounts=_look_at(machine, uid, Facet.MOUNTS, facets, mounts.observe),
        views=_look_at(machine, uid, Facet.VIEWS, facets, views.observe),
        devices=_look_at(machine, uid, Facet.DEVICES, facets, devices.observe),
        settings=_look_at(machine, uid, Facet.SETTINGS, facets, settings.observe),
        snapshots=_look_at(machine, uid, Facet.SNAPSHOTS, facets, snapshots.observe),
    )


def _look(
    machine: Machine, facet: Facet, facets: frozenset[Facet], observe: Callable[[Machine], _Seen]
) -> _Seen | Unknown:
    if facet not in facets:
        return _NOT_ASKED
    reason = machine.unreadable.get((None, facet))
    return observe(machine) if reason is None else Unknown(reason)


def _look_at(
    machine: Machine, uid: Uid, facet: Facet, facets: frozenset[Facet], observe: Callable[[Machine, Uid], _Seen]
) -> _Seen | Unknown:
    if facet not in facets:
        return _NOT_ASKED
    reason = machine.unreadable.get((uid, facet))
    return observe(machine, uid) if reason is None else Unknown(reason)


def _templates(machine: Machine) -> Mapping[Digest, Digest]:
    return dict(machine.templates)
