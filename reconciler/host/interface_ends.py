"""Both ends of a VE's interfaces, found by our mark: the far one inside the VE, the near one on the host."""

from __future__ import annotations

import asyncio

from reconciler.errors import BusyError, StateError
from reconciler.host import runtime
from reconciler.host.namespaces import Inside
from reconciler.host.site import Site
from reconciler.kernel import link, rtnl
from reconciler.model.identity import Uid, host_link_name, link_alias

_DYING_S = 0.5
"""How long the kernel may take to tear down a network namespace that nobody is in. Units: seconds."""


def inside(site: Site, uid: Uid) -> Inside:
    """Give the namespaces of a VE that has some.

    Raises: StateError, if nothing of it runs; KernelError.
    """
    init = runtime.need_init(site, uid)
    return site.namespaces.of(uid, init, site.rtnl)


def far(site: Site, uid: Uid, name: str) -> tuple[Inside, rtnl.Link]:
    """Find the VE's end of an interface.

    Raises: StateError, if the VE does not run or has no such interface from us; KernelError.
    """
    into = inside(site, uid)
    found = into.rtnl.link(name)
    if found is None or found.alias != link_alias(site.instance.name, uid):
        raise StateError(f"change interface {name} of VE {uid}: it has none of that name from us")
    return into, found


def near(site: Site, uid: Uid, name: str) -> rtnl.Link:
    """Find the host's end of an interface.

    Raises: StateError, if there is none; BusyError, if a link without our mark has its name; KernelError.
    """
    found = site.rtnl.link(host_link_name(site.instance.name, uid, name))
    if found is None:
        raise StateError(f"change interface {name} of VE {uid}: the host has no end of it")
    if found.alias != link_alias(site.instance.name, uid):
        raise BusyError(f"change interface {name} of VE {uid}: {found.name} does not carry our mark; rename it")
    return found


def remove_former(site: Site, pair: link.VethPair) -> bool:
    """Free the name of a host's end, if it is taken by a former one of ours, marked or not yet; say whether it is free.

    Raises: KernelError.
    """
    found = site.rtnl.link(pair.host_name)
    if found is None:
        return True
    is_ours = found.alias == pair.alias or (found.alias is None and found.mac == pair.host_mac)
    if found.kind != "veth" or not is_ours:
        return False
    link.delete_link(site.rtnl, found.index)
    return True


async def await_released(site: Site, uid: Uid) -> None:
    """Wait until a VE that has ended has no end of an interface on the host any more.

    The kernel takes them away with the VE's network namespace. Where somebody keeps that alive, they are deleted: they
    would go on answering for the VE.
    Raises: KernelError.
    """
    alias = link_alias(site.instance.name, uid)
    left = [found for found in site.rtnl.dump_links() if found.alias == alias]
    for found in left:
        if found.kind != "veth":  # held its traffic to a rate, and goes with nothing
            link.delete_link(site.rtnl, found.index)
    for _ in range(int(_DYING_S / 0.005)):
        left = [found for found in left if _is_there(site, found)]
        if not left:
            return
        await asyncio.sleep(0.005)
    for found in left:
        link.delete_link(site.rtnl, found.index)


def _is_there(site: Site, known: rtnl.Link) -> bool:
    now = site.rtnl.link(known.name)
    return now is not None and now.index == known.index
