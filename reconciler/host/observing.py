"""Observing: one look at the host and its VEs, at as much of them as is asked for.

What all VEs share (links, quotas, hostnames) is read once for all of them. For a single VE only its own part is asked
for, so that looking at it costs the same however many others there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from reconciler.errors import VectlError
from reconciler.host import (
    attachment,
    compute,
    devices,
    ending,
    filter,
    host_compute,
    host_network,
    images,
    mounts,
    network,
    nics,
    power,
    reach,
    settings,
    snapshots,
    templates,
    trash,
    views,
    volume,
)
from reconciler.host.attachment import HostSide
from reconciler.host.lxcfs import Running
from reconciler.host.namespaces import Inside, read_hostnames
from reconciler.host.site import Site
from reconciler.kernel import rtnl
from reconciler.kernel.pidfd import ProcessId
from reconciler.model.compute import ComputeObservation, HostComputeObservation
from reconciler.model.devices import DevicesObservation
from reconciler.model.facts import Unknown
from reconciler.model.identity import NetworkName, Uid
from reconciler.model.mounts import MountsObservation
from reconciler.model.network import HostNetworkObservation, VeNetworkObservation
from reconciler.model.observation import Capabilities, Facet, HostObservation, Scope, VeObservation
from reconciler.model.power import EndCause, PowerObservation
from reconciler.model.reach import ReachObservation
from reconciler.model.settings import SettingsObservation
from reconciler.model.snapshots import SnapshotsObservation
from reconciler.model.views import Views
from reconciler.model.volume import TrashEntry, VolumeObservation

_Fact = TypeVar("_Fact")

_NOT_ASKED = Unknown("not looked at")
_OF_LIVE = frozenset(Facet) - {Facet.COMPUTE, Facet.VOLUME, Facet.SNAPSHOTS}
"""What there is to see depends on whether the VE runs."""


async def observe(site: Site, capabilities: Capabilities, scope: Scope, facets: frozenset[Facet]) -> HostObservation:
    """Look at the host. What it keeps on disk (templates, trash, pool) is looked at whatever the facets."""
    present = _known(site.uids) if scope.uids is None else _known(site.those_here, scope.uids)
    uids = [] if isinstance(present, Unknown) else present
    if scope.uids is None and not isinstance(present, Unknown):
        site.namespaces.keep_only(uids)
    look = _Look(site=site, scope=scope, facets=facets, uids=uids)
    links, quotas = look.links(), look.quotas()
    powers = {uid: await _power(site, uid) for uid in uids} if facets & _OF_LIVE else {}
    built = _known(templates.read_index, site) if scope.host else _NOT_ASKED
    networks, lxcfs = look.networks_of(powers, links), _known(site.lxcfs.running)
    return HostObservation(
        capabilities=capabilities,
        complete=scope.uids is None and not isinstance(present, Unknown),
        ves={
            uid: VeObservation(
                uid=uid,
                record=_known(site.need_record, uid),
                power=powers[uid] if Facet.POWER in facets else _NOT_ASKED,
                compute=look.compute_of(uid),
                volume=look.volume_of(uid, quotas),
                network=networks.get(uid, _NOT_ASKED),
                mounts=look.mounts_of(uid, powers.get(uid)),
                views=look.views_of(uid, powers.get(uid, _NOT_ASKED), lxcfs),
                devices=look.devices_of(uid, powers.get(uid)),
                settings=look.settings_of(uid, powers.get(uid)),
                snapshots=look.snapshots_of(uid),
            )
            for uid in uids
        },
        compute=look.host_compute(),
        networks=look.host_networks(links),
        filter=_known(filter.observe, site) if scope.host and Facet.NETWORK in facets else _NOT_ASKED,
        templates=built,
        images={} if isinstance(built, Unknown) else images.observe(site, built),
        trash=look.trash(quotas),
        pool=_known(volume.observe_pool, site) if scope.host else _NOT_ASKED,
        reach=look.reach(links),
        within=site.own_ve,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What is looked at: ``uids`` are those in scope that are here. ``notes``: the files in VEs' run directories."""

    site: Site
    scope: Scope
    facets: frozenset[Facet]
    uids: list[Uid]
    notes: dict[Uid, frozenset[str] | Unknown] = field(default_factory=dict)

    @property
    def is_single(self) -> bool:
        """Whether it is a look at one VE and nothing else."""
        return len(self.uids) <= 1 and self.scope.uids is not None and not self.scope.host

    def links(self) -> list[rtnl.Link] | Unknown:
        """Read all links of the host, unless nobody will look at them."""
        if self.is_single or Facet.NETWORK not in self.facets:
            return _NOT_ASKED
        return _known(self.site.rtnl.dump_links)

    def quotas(self) -> volume.Quotas | Unknown:
        """Read the quotas of the VEs in scope, with the host those of the trash as well."""
        if Facet.VOLUME not in self.facets or not (self.uids or self.scope.host):
            return _NOT_ASKED
        return _known(volume.read_quotas, self.site, self.uids if self.is_single else None)

    def compute_of(self, uid: Uid) -> ComputeObservation | Unknown | None:
        """Look at a VE's limits, and at its use of them if that is asked for."""
        return _known(compute.observe, self.site, uid, self.scope.use) if Facet.COMPUTE in self.facets else _NOT_ASKED

    def host_compute(self) -> HostComputeObservation | Unknown:
        """Look at what bounds all VEs together."""
        if not self.scope.host or Facet.COMPUTE not in self.facets:
            return _NOT_ASKED
        return _known(host_compute.observe, self.site)

    def mounts_of(self, uid: Uid, seen: PowerObservation | Unknown | None) -> MountsObservation | Unknown | None:
        """Look at what of the host is mounted in a VE."""
        if seen is None or Facet.MOUNTS not in self.facets:
            return _NOT_ASKED
        init = _init_of(seen)
        if not isinstance(init, ProcessId):
            return init
        return _known(mounts.observe, self.site, uid, init) if self._has(uid, mounts.NOTES) else mounts.NOTHING

    def views_of(
        self, uid: Uid, power: PowerObservation | Unknown, lxcfs: Running | Unknown | None
    ) -> Views | Unknown | None:
        """Look at what a VE sees of itself."""
        if Facet.VIEWS not in self.facets:
            return _NOT_ASKED
        if isinstance(power, Unknown):
            return power
        if isinstance(lxcfs, Unknown):
            return lxcfs
        return _known(views.observe, self.site, uid, power, lxcfs)

    def devices_of(self, uid: Uid, seen: PowerObservation | Unknown | None) -> DevicesObservation | Unknown | None:
        """Look at what devices of the host a VE has."""
        if seen is None or Facet.DEVICES not in self.facets:
            return _NOT_ASKED
        init = _init_of(seen)
        if not isinstance(init, ProcessId):
            return init
        return _known(devices.observe, self.site, uid, init) if self._has(uid, devices.NOTES) else devices.NOTHING

    def volume_of(self, uid: Uid, quotas: volume.Quotas | Unknown) -> VolumeObservation | Unknown:
        """Look at a VE's volume."""
        return quotas if isinstance(quotas, Unknown) else _known(volume.observe, self.site, uid, quotas, self.scope.use)

    def settings_of(self, uid: Uid, power: PowerObservation | Unknown | None) -> SettingsObservation | Unknown | None:
        """Look at what was set of a VE; one that set nothing is not looked into."""
        if Facet.SETTINGS not in self.facets or power is None:
            return _NOT_ASKED
        init = _init_of(power)
        if not isinstance(init, ProcessId):
            return init
        return _known(settings.observe, self.site, uid, init) if self._has(uid, settings.NOTES) else settings.NOTHING

    def _has(self, uid: Uid, names: frozenset[str]) -> bool:
        """Say whether there is any of these files of a VE: what nobody wrote down was not done, and costs no look."""
        if uid not in self.notes:
            self.notes[uid] = _known(self.site.parsed.names, self.site.instance.ve_run_dir(uid))
        found = self.notes[uid]
        return isinstance(found, Unknown) or not names.isdisjoint(found)

    def snapshots_of(self, uid: Uid) -> SnapshotsObservation | Unknown:
        """Look at what is kept of a VE."""
        if Facet.SNAPSHOTS not in self.facets:
            return _NOT_ASKED
        return _known(snapshots.observe, self.site, uid, self.scope.use)

    def host_networks(self, links: list[rtnl.Link] | Unknown) -> Mapping[NetworkName, HostNetworkObservation] | Unknown:
        """Look at the host's own networks."""
        if not self.scope.host or isinstance(links, Unknown):
            return links if isinstance(links, Unknown) else _NOT_ASKED
        return _known(host_network.observe, self.site, links)

    def reach(self, links: list[rtnl.Link] | Unknown) -> ReachObservation | Unknown:
        """Look at how the host is reached."""
        if not self.scope.host or isinstance(links, Unknown):
            return links if isinstance(links, Unknown) else _NOT_ASKED
        return _known(reach.observe, self.site, links)

    def trash(self, quotas: volume.Quotas | Unknown) -> tuple[TrashEntry, ...] | Unknown:
        """Look at the trash; without quotas nobody can tell what its entries use."""
        if not self.scope.host:
            return _NOT_ASKED
        return _known(trash.observe, self.site, volume.Quotas({}) if isinstance(quotas, Unknown) else quotas)

    def networks_of(
        self, powers: Mapping[Uid, PowerObservation | Unknown], links: list[rtnl.Link] | Unknown
    ) -> Mapping[Uid, VeNetworkObservation | Unknown | None]:
        """Look into the namespaces of all VEs that have some, with one visit for all their hostnames."""
        if Facet.NETWORK not in self.facets:
            return {}
        found: dict[Uid, VeNetworkObservation | Unknown | None] = {}
        insides: dict[Uid, Inside] = {}
        for uid, seen in powers.items():
            inside = self._inside(uid, seen)
            if isinstance(inside, Inside):
                insides[uid] = inside
            else:
                found[uid] = inside
        if insides:
            found.update(self._look_inside(insides, links))
        return found

    def _inside(self, uid: Uid, power: PowerObservation | Unknown) -> Inside | Unknown | None:
        init = _init_of(power)
        if not isinstance(init, ProcessId):
            if init is None:
                nics.leave(self.site, uid)
            return init
        return _known(self.site.namespaces.of, uid, init, self.site.rtnl)

    def _look_inside(
        self, insides: Mapping[Uid, Inside], links: list[rtnl.Link] | Unknown
    ) -> Mapping[Uid, VeNetworkObservation | Unknown]:
        hostnames = _known(read_hostnames, list(insides.values()))
        side = self._host_side(links)
        if isinstance(hostnames, Unknown) or isinstance(side, Unknown):
            reason = side if isinstance(side, Unknown) else hostnames
            assert isinstance(reason, Unknown)
            return dict.fromkeys(insides, reason)
        return {
            uid: _known(network.observe, self.site, uid, inside, side, hostname)
            for (uid, inside), hostname in zip(insides.items(), hostnames, strict=True)
        }

    def _host_side(self, links: list[rtnl.Link] | Unknown) -> HostSide | Unknown:
        if self.is_single:
            return attachment.AskedSide(self.site.rtnl)
        return links if isinstance(links, Unknown) else _known(attachment.read_host_side, self.site, links)


def _init_of(power: PowerObservation | Unknown) -> ProcessId | Unknown | None:
    if isinstance(power, Unknown):
        return power
    if power.pid is None or power.start_time is None:
        return None
    return ProcessId(pid=power.pid, start_time=power.start_time)


async def _power(site: Site, uid: Uid) -> PowerObservation | Unknown:
    """Look at a VE's power; at the moment of an end, look again once it can be known how that came."""
    seen = _known(power.observe, site, uid)
    if isinstance(seen, PowerObservation) and seen.pid is not None and ending.is_ending(seen.pid):
        await ending.await_end(site, uid)
        seen = _known(power.observe, site, uid)
    if isinstance(seen, Unknown) or seen.last_end is None or seen.last_end.cause is not EndCause.UNKNOWN:
        return seen
    try:
        await ending.await_collected(site, uid)
    except VectlError as err:
        return Unknown(str(err))
    return _known(power.observe, site, uid)


def _known(look: Callable[..., _Fact], *arguments: object) -> _Fact | Unknown:
    """Look; what cannot be read is unknown, also what makes no sense: a VE's root must not blind us to the others."""
    try:
        return look(*arguments)
    except (VectlError, OSError, ValueError) as err:
        return Unknown(str(err))
