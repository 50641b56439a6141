"""Reach: the host's own addresses and routes, and the ones that are put back where a change cost them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from reconciler.errors import StateError
from reconciler.host.site import Site
from reconciler.kernel import address, route, rtnl
from reconciler.kernel.cgroup_file import read_optional
from reconciler.kernel.sessions import SSH_PORT
from reconciler.model.identity import ROUTE_PROTOCOL, Uid
from reconciler.model.reach import HeldAddress, HostRoute, ReachObservation, RestoreAddress, RestoreRoute

_BY_KERNEL = 2
"""Source: rtnetlink(7), RTPROT_KERNEL."""

_OWN_CGROUP = "/proc/self/cgroup"


def observe(site: Site, links: list[rtnl.Link]) -> ReachObservation:
    """Look at how the host is reached.

    Raises: KernelError.
    """
    mine = f"{site.instance.name}:"
    ours = [entry for entry in links if entry.alias is not None and entry.alias.startswith(mine)]
    of_ves = {entry.index for entry in ours if entry.kind == "veth"}
    names = {entry.index: entry.name for entry in links if entry.index not in of_ves}
    has_networks = len(ours) > len(of_ves)
    return ReachObservation(
        addresses=frozenset(_addresses(site, names)),
        routes=frozenset(_routes(site, names)),
        sessions=site.sessions.local_ends(SSH_PORT) if has_networks else frozenset(),
    )


def _addresses(site: Site, names: Mapping[int, str]) -> Iterator[HeldAddress]:
    for found in site.rtnl.dump_addresses():
        if found.scope == rtnl.RT_SCOPE_UNIVERSE and found.index in names:
            yield HeldAddress(link=names[found.index], address=found.interface)


def _routes(site: Site, names: Mapping[int, str]) -> Iterator[HostRoute]:
    """Give what somebody chose. The kernel's own follow the addresses; those of several next hops are not known."""
    for found in site.rtnl.dump_routes():
        chosen = found.kind == rtnl.RTN_UNICAST and found.protocol not in (_BY_KERNEL, ROUTE_PROTOCOL)
        name = None if found.index is None else names.get(found.index)
        if chosen and name is not None:
            yield HostRoute(
                to=found.destination,
                link=name,
                via=found.gateway,
                source=found.source,
                metric=found.metric,
                protocol=found.protocol,
            )


def find_own_ve(site: Site) -> Uid | None:
    """Give the VE in whose cgroup this process is, if it is in any.

    Raises: KernelError.
    Source: cgroups(7), "/proc/pid/cgroup".
    """
    below = f"{site.instance.cgroup}/"
    for line in (read_optional(_OWN_CGROUP) or "").splitlines():
        path = line.split(":", 2)[-1]
        if path.startswith(below):
            return Uid(path.removeprefix(below).split("/")[0])
    return None


def restore_address(site: Site, effect: RestoreAddress) -> None:
    """Give a link an address; there already is success.

    Raises: StateError, if the link is gone; KernelError.
    """
    address.add_address(site.rtnl, _need(site, effect.held.link).index, effect.held.address)


def restore_route(site: Site, effect: RestoreRoute) -> None:
    """Add a route; there already is success.

    Raises: StateError, if its link is gone; BusyError, if another route leads there; KernelError, if the link is down
    or the gateway is not on it.
    """
    route.add_route(site.rtnl, _kernel_route(_need(site, effect.route.link).index, effect.route))


def _need(site: Site, name: str) -> rtnl.Link:
    found = site.rtnl.link(name)
    if found is None:
        raise StateError(f"restore what {name} had: the host has no such link")
    return found


def _kernel_route(index: int, wanted: HostRoute) -> rtnl.Route:
    if wanted.via is None:
        return route.direct(
            wanted.to, index=index, protocol=wanted.protocol, metric=wanted.metric, source=wanted.source
        )
    made = route.via(wanted.to, wanted.via, index=index, protocol=wanted.protocol, metric=wanted.metric)
    return replace(made, source=wanted.source)
