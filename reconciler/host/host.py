"""The real host: performs each effect by the facet that knows it, and observes all facets in one look."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from reconciler.errors import VectlError
from reconciler.host import compute, filter, host_network, network, power, templates, volume
from reconciler.host.namespaces import Inside, read_hostnames
from reconciler.host.site import Site
from reconciler.kernel import rtnl
from reconciler.kernel.syscalls import file_errors
from reconciler.model import compute as compute_model
from reconciler.model import network as network_model
from reconciler.model import power as power_model
from reconciler.model import volume as volume_model
from reconciler.model.effects import EFFECT_TYPES, Effect, effect_name
from reconciler.model.facts import Unknown
from reconciler.model.identity import NetworkName, Uid
from reconciler.model.network import HostNetworkObservation, VeNetworkObservation
from reconciler.model.observation import (
    ALL_FACETS,
    EVERYTHING,
    Facet,
    HostObservation,
    Scope,
    VeObservation,
)
from reconciler.model.power import EndCause, PowerObservation, PowerState
from reconciler.model.volume import TrashEntry, VolumeObservation

_Fact = TypeVar("_Fact")

_NOT_ASKED = Unknown("not looked at")

# Each handler takes exactly the effect that it stands beside; a mapping from types to functions of those types is
# more than the type system can say.
_Handler = Callable[[Site, Any], "Awaitable[None] | None"]

_HANDLERS: Mapping[type, _Handler] = {
    volume_model.BuildTemplate: templates.build,
    volume_model.RemoveTemplate: templates.remove,
    volume_model.WriteRecord: volume.write_record,
    volume_model.CreateVolume: volume.create_volume,
    volume_model.SetVolumeSize: volume.set_size,
    volume_model.TrashVe: volume.trash,
    volume_model.RestoreVe: volume.restore,
    volume_model.PurgeTrash: volume.purge,
    compute_model.CreateCgroup: compute.create_cgroup,
    compute_model.SetLimit: compute.set_limit,
    compute_model.RemoveCgroup: compute.remove_cgroup,
    power_model.CreateRuntime: power.create_runtime,
    power_model.StartRuntime: power.start,
    power_model.StopRuntime: power.stop,
    power_model.DeleteRuntime: power.delete,
    power_model.ForgetEnd: power.forget_end,
    network_model.CreateNetwork: host_network.create,
    network_model.SetNetworkMtu: host_network.set_mtu,
    network_model.SetNetworkUp: host_network.set_up,
    network_model.AddGateway: host_network.add_gateway,
    network_model.RemoveGateway: host_network.remove_gateway,
    network_model.SetForwarding: host_network.set_forwarding,
    network_model.SetUplink: host_network.set_uplink,
    network_model.RemoveNetwork: host_network.remove,
    network_model.LoadFilter: filter.load,
    network_model.CreateInterface: network.create,
    network_model.RemoveInterface: network.remove,
    network_model.AttachInterface: network.attach,
    network_model.SetInterfaceUp: network.set_up,
    network_model.SetLoopbackUp: network.set_loopback_up,
    network_model.SetInterfaceMtu: network.set_mtu,
    network_model.SetInterfaceMac: network.set_mac,
    network_model.AddAddress: network.add_address,
    network_model.RemoveAddress: network.remove_address,
    network_model.AddRoute: network.add_route,
    network_model.RemoveRoute: network.remove_route,
    network_model.AddHostRoute: network.add_host_route,
    network_model.RemoveHostRoute: network.remove_host_route,
    network_model.AnnounceAddress: network.announce_address,
    network_model.SetHostname: network.set_hostname,
    network_model.SetResolver: network.set_resolver,
}
assert set(_HANDLERS) == set(EFFECT_TYPES), "every effect has a handler"


class RealHost:
    """This machine, as far as one instance may touch it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._capabilities = compute.capabilities(site)

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect.

        Raises: VectlError.
        """
        with file_errors("perform", effect_name(effect)):
            result = _HANDLERS[type(effect)](self.site, effect)
            if inspect.isawaitable(result):
                await result

    async def observe(self, scope: Scope = EVERYTHING, facets: frozenset[Facet] = ALL_FACETS) -> HostObservation:
        """Read the host's present state."""
        site = self.site
        present = _known(site.uids)
        uids = [] if isinstance(present, Unknown) else present
        if scope.uids is not None:
            uids = [uid for uid in uids if uid in scope.uids]
        elif Facet.NETWORK in facets and not isinstance(present, Unknown):
            site.namespaces.keep_only(uids)
        quotas = _known(volume.read_quotas, site) if _needs_quotas(scope, facets, uids) else _NOT_ASKED
        links = _known(site.rtnl.dump_links) if Facet.NETWORK in facets else _NOT_ASKED
        powers = {uid: await self._power(uid) for uid in uids}
        networks = self._networks(powers, links) if Facet.NETWORK in facets else {}
        return HostObservation(
            capabilities=self._capabilities,
            complete=scope.uids is None and not isinstance(present, Unknown),
            ves={
                uid: VeObservation(
                    uid=uid,
                    record=_known(site.need_record, uid),
                    power=powers[uid],
                    compute=self._compute(uid, facets, scope.use),
                    volume=self._volume(uid, quotas),
                    network=networks.get(uid, _NOT_ASKED),
                )
                for uid in uids
            },
            networks=_host_networks(site, links) if scope.host else _NOT_ASKED,
            filter=_known(filter.observe, site) if scope.host else _NOT_ASKED,
            templates=_known(templates.read_index, site) if scope.host else _NOT_ASKED,
            trash=_trash(site, quotas) if scope.host else _NOT_ASKED,
            pool=_known(volume.observe_pool, site) if scope.host else _NOT_ASKED,
        )

    async def _power(self, uid: Uid) -> PowerObservation | Unknown:
        """Look at a VE's power; at the moment of an end, look again once it can be known how that came."""
        seen = _known(power.observe, self.site, uid)
        if isinstance(seen, PowerObservation) and seen.pid is not None and power.is_ending(seen.pid):
            await power.await_end(self.site, uid)
            seen = _known(power.observe, self.site, uid)
        if isinstance(seen, Unknown) or seen.last_end is None or seen.last_end.cause is not EndCause.UNKNOWN:
            return seen
        try:
            await power.await_collected(self.site, uid)
        except VectlError as err:
            return Unknown(str(err))
        return _known(power.observe, self.site, uid)

    def _compute(
        self, uid: Uid, facets: frozenset[Facet], use: bool
    ) -> compute_model.ComputeObservation | Unknown | None:
        return _known(compute.observe, self.site, uid, use) if Facet.COMPUTE in facets else _NOT_ASKED

    def _volume(self, uid: Uid, quotas: volume.Quotas | Unknown) -> VolumeObservation | Unknown:
        return quotas if isinstance(quotas, Unknown) else _known(volume.observe, self.site, uid, quotas)

    def _networks(
        self, powers: Mapping[Uid, PowerObservation | Unknown], links: list[rtnl.Link] | Unknown
    ) -> dict[Uid, VeNetworkObservation | Unknown | None]:
        """Look into the namespaces of all VEs that have some, with one visit for all their hostnames."""
        found: dict[Uid, VeNetworkObservation | Unknown | None] = {}
        insides: dict[Uid, Inside] = {}
        for uid, seen in powers.items():
            if isinstance(seen, Unknown) or isinstance(links, Unknown):
                found[uid] = seen if isinstance(seen, Unknown) else links  # type: ignore[assignment]
            elif seen.state is PowerState.STOPPED:
                self.site.namespaces.forget(uid)
                found[uid] = None
            else:
                inside = _known(network.inside, self.site, uid)
                if isinstance(inside, Unknown):
                    found[uid] = inside
                else:
                    insides[uid] = inside
        if insides and not isinstance(links, Unknown):
            found.update(self._look_inside(insides, links))
        return found

    def _look_inside(
        self, insides: Mapping[Uid, Inside], links: list[rtnl.Link]
    ) -> Iterable[tuple[Uid, VeNetworkObservation | Unknown]]:
        hostnames = _known(read_hostnames, list(insides.values()))
        side = _known(network.read_host_side, self.site, links)
        if isinstance(hostnames, Unknown) or isinstance(side, Unknown):
            reason = hostnames if isinstance(hostnames, Unknown) else side
            assert isinstance(reason, Unknown)
            return [(uid, reason) for uid in insides]
        return [
            (uid, _known(network.observe, self.site, uid, inside, side, hostname))
            for (uid, inside), hostname in zip(insides.items(), hostnames, strict=True)
        ]


def _known(look: Callable[..., _Fact], *arguments: object) -> _Fact | Unknown:
    """Look; what cannot be read is unknown."""
    try:
        return look(*arguments)
    except (VectlError, OSError) as err:
        return Unknown(str(err))


def _needs_quotas(scope: Scope, facets: frozenset[Facet], uids: list[Uid]) -> bool:
    return scope.host or (Facet.VOLUME in facets and bool(uids))


def _host_networks(
    site: Site, links: list[rtnl.Link] | Unknown
) -> Mapping[NetworkName, HostNetworkObservation] | Unknown:
    return links if isinstance(links, Unknown) else _known(host_network.observe, site, links)


def _trash(site: Site, quotas: volume.Quotas | Unknown) -> tuple[TrashEntry, ...] | Unknown:
    if isinstance(quotas, Unknown):
        return quotas
    return _known(volume.observe_trash, site, quotas)
