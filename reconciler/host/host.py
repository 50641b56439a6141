"""The real host: performs each effect by the facet that knows it, and observes all facets in one look."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from reconciler.host import (
    arrivals,
    attachment,
    capturing,
    cloning,
    compute,
    counters,
    devices,
    ending,
    filter,
    holding,
    host_compute,
    host_network,
    launching,
    memory,
    mounts,
    naming,
    network,
    nics,
    observing,
    parcels,
    preflight,
    quota,
    reach,
    resuming,
    rollback,
    settings,
    shaping,
    snapshots,
    templates,
    trash,
    views,
    volume,
)
from reconciler.host.site import Site
from reconciler.kernel.syscalls import file_errors
from reconciler.model import compute as compute_model
from reconciler.model import devices as devices_model
from reconciler.model import mounts as mounts_model
from reconciler.model import network as network_model
from reconciler.model import placement as placement_model
from reconciler.model import power as power_model
from reconciler.model import quota as quota_model
from reconciler.model import reach as reach_model
from reconciler.model import settings as settings_model
from reconciler.model import snapshots as snapshots_model
from reconciler.model import views as views_model
from reconciler.model import volume as volume_model
from reconciler.model import vxlan as vxlan_model
from reconciler.model.counters import Counted
from reconciler.model.effects import EFFECT_TYPES, Effect, effect_name
from reconciler.model.identity import Uid
from reconciler.model.migration import Obstacle
from reconciler.model.observation import ALL_FACETS, EVERYTHING, Facet, HostObservation, Scope

# Each handler takes exactly the effect that it stands beside; a mapping from types to functions of those types is
# more than the type system can say.
_Handler = Callable[[Site, Any], "Awaitable[None] | None"]

_HANDLERS: Mapping[type, _Handler] = {
    volume_model.BuildTemplate: templates.build,
    volume_model.CaptureTemplate: capturing.capture,
    volume_model.RemoveTemplate: templates.remove,
    volume_model.WriteRecord: volume.write_record,
    volume_model.CreateVolume: volume.create_volume,
    volume_model.SetVolumeSize: volume.set_size,
    volume_model.TrashVe: trash.remove,
    snapshots_model.TakeSnapshot: snapshots.take,
    snapshots_model.DeleteSnapshot: snapshots.delete,
    snapshots_model.RollBack: rollback.roll_back,
    snapshots_model.ReplaceVolume: rollback.replace_volume,
    snapshots_model.CloneVolume: cloning.clone,
    quota_model.LoadQuotas: quota.load,
    quota_model.SetQuota: quota.set_quota,
    quota_model.SetInodes: quota.set_inodes,
    volume_model.RestoreVe: trash.restore,
    volume_model.PurgeTrash: trash.purge,
    compute_model.CreateCgroup: compute.create_cgroup,
    compute_model.SetLimit: compute.set_limit,
    compute_model.SetInstanceLimit: host_compute.set_limit,
    compute_model.RemoveCgroup: counters.remove_cgroup,
    power_model.CreateRuntime: launching.create,
    power_model.StartRuntime: launching.start,
    power_model.StopRuntime: ending.stop,
    power_model.SuspendRuntime: memory.suspend,
    power_model.DiscardMemory: memory.discard,
    power_model.DeleteRuntime: ending.delete,
    power_model.ForgetEnd: ending.forget_end,
    network_model.CreateNetwork: host_network.create,
    network_model.SetNetworkMtu: host_network.set_mtu,
    network_model.SetNetworkUp: host_network.set_up,
    network_model.AddGateway: host_network.add_gateway,
    network_model.RemoveGateway: host_network.remove_gateway,
    network_model.SetForwarding: host_network.set_forwarding,
    network_model.SetUplink: host_network.set_uplink,
    network_model.RemoveNetwork: host_network.remove,
    vxlan_model.SetTunnel: host_network.set_tunnel,
    vxlan_model.RemoveTunnel: host_network.remove_tunnel,
    network_model.LoadFilter: filter.load,
    reach_model.RestoreAddress: reach.restore_address,
    reach_model.RestoreRoute: reach.restore_route,
    network_model.CreateInterface: network.create,
    network_model.RemoveInterface: network.remove,
    network_model.AttachInterface: attachment.attach,
    network_model.SetInterfaceUp: network.set_up,
    network_model.SetLoopbackUp: network.set_loopback_up,
    network_model.SetInterfaceMtu: network.set_mtu,
    network_model.SetInterfaceMac: network.set_mac,
    network_model.SetInterfaceRate: shaping.set_rate,
    network_model.AddAddress: network.add_address,
    network_model.RemoveAddress: network.remove_address,
    network_model.AddRoute: network.add_route,
    network_model.RemoveRoute: network.remove_route,
    network_model.AddHostRoute: attachment.add_host_route,
    network_model.RemoveHostRoute: attachment.remove_host_route,
    network_model.AnnounceAddress: network.announce_address,
    network_model.SetHostname: naming.set_hostname,
    network_model.SetResolver: naming.set_resolver,
    devices_model.AddDevice: devices.add,
    devices_model.RemoveDevice: devices.remove,
    devices_model.AddNic: nics.add,
    devices_model.RemoveNic: nics.remove,
    mounts_model.AddMount: mounts.add,
    mounts_model.RemoveMount: mounts.remove,
    views_model.ShowViews: views.show,
    settings_model.SetSetting: settings.set_setting,
    placement_model.CutParcel: parcels.cut,
    placement_model.HoldRuntime: holding.hold,
    placement_model.ResumeHeld: holding.resume,
    placement_model.EndHeld: holding.end,
    placement_model.OpenRuntime: resuming.open_closed,
    placement_model.PlaceArrival: arrivals.place,
    placement_model.ClearMove: parcels.clear,
}
assert set(_HANDLERS) == set(EFFECT_TYPES), "every effect has a handler"


class RealHost:
    """This machine, as far as one instance may touch it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.learn_disks()
        site.learn_criu()
        site.own_ve = reach.find_own_ve(site)
        self._capabilities = compute.capabilities(site)

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect.

        Raises: VectlError.
        """
        with file_errors("perform", effect_name(effect)):
            holding.refuse_held(self.site, effect)
            result = _HANDLERS[type(effect)](self.site, effect)
            if inspect.isawaitable(result):
                await result

    async def count(self, uid: Uid, *, deep: bool, keep: bool = True) -> Counted:
        """Look at the counters of a VE.

        Raises: VectlError.
        """
        with file_errors("count", uid):
            return await counters.count(self.site, uid, deep=deep, keep=keep)

    async def find_obstacles(self, uid: Uid) -> tuple[Obstacle, ...]:
        """Name what keeps a running VE from being suspended.

        Raises: VectlError.
        """
        with file_errors("look at", uid):
            return await preflight.find_obstacles(self.site, uid)

    def write_down(self) -> None:
        """Write what is remembered of counters to disk."""
        self.site.ledgers.write_down()

    async def observe(self, scope: Scope = EVERYTHING, facets: frozenset[Facet] = ALL_FACETS) -> HostObservation:
        """Read the host's present state."""
        if scope.host and Facet.COMPUTE in facets and any((self.site.learn_disks(), self.site.learn_criu())):
            self._capabilities = compute.capabilities(self.site)
        return await observing.observe(self.site, views.capabilities(self.site, self._capabilities), scope, facets)
