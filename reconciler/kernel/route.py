"""Changes to the routes of a namespace. Each may be sent twice, and answers "already so" with success.

Ours carry a protocol number of ours: that is how they are told from the tenant's.
"""

from __future__ import annotations

import errno
import socket

from reconciler.errors import BusyError, KernelError
from reconciler.kernel import netlink, rtnl, rtnlencode
from reconciler.kernel.rtnl import IpAddress, IpNetwork, Route
from reconciler.kernel.rtnlsocket import RtnlSocket

_RTM_NEWROUTE, _RTM_DELROUTE = 24, 25
_IPV6_DEFAULT_METRIC = 1024


def via(
    destination: IpNetwork, gateway: IpAddress, *, index: int, protocol: int, metric: int = 0, on_link: bool = False
) -> Route:
    """Build a route by a gateway as the kernel will show it; ``on_link``: the gateway is in no subnet of the link."""
    return Route(
        destination=destination,
        gateway=gateway,
        index=index,
        protocol=protocol,
        metric=_metric(destination, metric),
        on_link=on_link,
    )


def direct(
    destination: IpNetwork, *, index: int, protocol: int, metric: int = 0, source: IpAddress | None = None
) -> Route:
    """Build a route without a gateway, to what is reached on the link itself, as the kernel will show it."""
    return Route(
        destination=destination,
        gateway=None,
        index=index,
        protocol=protocol,
        metric=_metric(destination, metric),
        scope=rtnl.RT_SCOPE_LINK if destination.version == 4 else rtnl.RT_SCOPE_UNIVERSE,
        source=source,
    )


def replace_route(sock: RtnlSocket, route: Route) -> None:
    """Add a route, in place of one with the same destination and metric.

    Raises: KernelError.
    """
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    payload = _encode(route)
    sock.request(_RTM_NEWROUTE, payload, doing=f"replace route to {route.destination}", flags=flags)


def add_route(sock: RtnlSocket, route: Route) -> None:
    """Add a route, in place of one of the same protocol number with its destination and metric.

    Raises: BusyError, if one of another protocol number stands there; KernelError.
    """
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    doing = f"add route to {route.destination}"
    try:
        sock.request(_RTM_NEWROUTE, _encode(route), doing=doing, flags=flags)
    except KernelError as err:
        if err.errno != errno.EEXIST:
            raise
        if any(_stands_in_the_way(found, route) for found in sock.dump_routes()):
            raise BusyError(f"{doing}: another route leads there, which is not ours; remove that first") from err
        replace_route(sock, route)


def _stands_in_the_way(found: Route, route: Route) -> bool:
    same = (found.destination, found.metric) == (route.destination, route.metric)
    return same and found.protocol != route.protocol


def delete_route(sock: RtnlSocket, route: Route) -> None:
    """Delete the route that has the same destination, metric, protocol, gateway and link.

    Raises: KernelError.
    """
    payload = _encode(route)
    try:
        sock.request(_RTM_DELROUTE, payload, doing=f"delete route to {route.destination}")
    except KernelError as err:
        if err.errno not in (errno.ESRCH, errno.ENODEV):
            raise


def _metric(destination: IpNetwork, metric: int) -> int:
    return metric or (_IPV6_DEFAULT_METRIC if destination.version == 6 else 0)


def _encode(route: Route) -> bytes:
    fields = {
        "family": socket.AF_INET if route.destination.version == 4 else socket.AF_INET6,
        "dst_len": route.destination.prefixlen,
        "table": min(route.table, 255),
        "proto": route.protocol,
        "scope": route.scope,
        "type": route.kind,
        "flags": rtnl.RTNH_F_ONLINK if route.on_link else 0,
    }
    return rtnlencode.route(_attributes(route), fields)


def _attributes(route: Route) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = [("RTA_TABLE", route.table)]
    if route.destination.prefixlen:
        found.append(("RTA_DST", str(route.destination.network_address)))
    if route.gateway is not None:
        found.append(_gateway(route.destination, route.gateway))
    if route.index is not None:
        found.append(("RTA_OIF", route.index))
    if route.metric:
        found.append(("RTA_PRIORITY", route.metric))
    if route.source is not None:
        found.append(("RTA_PREFSRC", str(route.source)))
    return found


def _gateway(destination: IpNetwork, gateway: IpAddress) -> tuple[str, object]:
    if destination.version == gateway.version:
        return "RTA_GATEWAY", str(gateway)
    return "RTA_VIA", {"family": socket.AF_INET6, "addr": str(gateway)}
