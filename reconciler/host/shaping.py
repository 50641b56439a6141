"""Shaping: what a VE sends and receives is held to a rate on the host's end of its interface, out of its root's reach.

What it receives waits in a token bucket before the host's end. What it sends comes in by the host's end, and is led
over a link of our own that has the bucket. Both carry our mark, and nothing else of the host's queues is touched.
"""

from __future__ import annotations

import errno
from dataclasses import replace

from reconciler.errors import BusyError, KernelError, ReadBackError
from reconciler.host import attachment, interface_ends
from reconciler.host.attachment import HostSide
from reconciler.host.site import Site
from reconciler.kernel import link, rtnl, sysctl, tc
from reconciler.kernel.tc import Bucket
from reconciler.model.identity import Uid, derived_mac, link_alias, shaper_name
from reconciler.model.network import ALTERED, Direction, Rate, SetInterfaceRate

_DEFAULT_QUEUES = frozenset({"noqueue", "noop"})
"""What a veth has before its way out when nobody gave it anything: up, and never up."""

_LEAST_BURST, _MOST_BURST = 16 << 10, 16 << 20
_LEAST_WAITING, _MOST_WAITING = 32 << 10, 64 << 20


def bucket(rate: int, mtu: int) -> Bucket:
    """Size a bucket: 10 ms of its rate at once, as timers and the scheduler are late, and 50 ms of it may wait.

    A packet that is larger than the burst would never pass. Units: bit/s; bytes.
    """
    speed = rate // 8
    burst = min(max(_LEAST_BURST, 2 * mtu, speed // 100), _MOST_BURST)
    return Bucket(rate=speed, burst=burst, limit=burst + min(max(_LEAST_WAITING, speed // 20), _MOST_WAITING))


def observe(near: rtnl.Link, host: HostSide) -> Rate:
    """Read the rates that an interface is held to.

    Raises: KernelError.
    """
    return Rate(egress=_egress(near, host), ingress=_held(near, near.mtu, host))


def _egress(near: rtnl.Link, host: HostSide) -> int | None:
    shaper = host.link(shaper_name(near.name))
    if shaper is None or shaper.alias != near.alias:
        return None
    if not shaper.up or host.redirected_to(near.index) != shaper.index:
        return ALTERED
    return _held(shaper, near.mtu, host)


def _held(by: rtnl.Link, mtu: int, host: HostSide) -> int | None:
    if by.queue in _DEFAULT_QUEUES:
        return None
    seen = host.bucket_of(by.index)
    if seen is None:
        return ALTERED
    return seen.rate * 8 if seen.resembles(bucket(seen.rate * 8, mtu)) else ALTERED


def set_rate(site: Site, effect: SetInterfaceRate) -> None:
    """Hold one direction to a rate, or let it go; the packets that wait are not lost by a change.

    Raises: StateError, if the VE has no such interface; BusyError; ReadBackError; KernelError.
    """
    interface_ends.far(site, effect.uid, effect.interface)
    near = interface_ends.near(site, effect.uid, effect.interface)
    _set(site, effect.uid, near, effect.direction, effect.rate)
    seen = observe(interface_ends.near(site, effect.uid, effect.interface), attachment.AskedSide(site.rtnl))
    if (held := getattr(seen, effect.direction)) != effect.rate:
        doing = f"set {effect.direction} rate of {effect.interface} of VE {effect.uid}"
        raise ReadBackError(f"{doing}: wrote {effect.rate!r}, read {held!r}")


def set_mtu(site: Site, uid: Uid, near: rtnl.Link, mtu: int) -> None:
    """Set the MTU of the host's end, and fit to it what holds its rates.

    Raises: KernelError, BusyError.
    """
    held = observe(near, attachment.AskedSide(site.rtnl))
    link.set_mtu(site.rtnl, near.index, mtu)
    for direction in Direction:
        if rate := getattr(held, direction):
            _set(site, uid, replace(near, mtu=mtu), direction, rate)


def remove(site: Site, near_name: str, alias: str) -> None:
    """Remove the link over which an interface's traffic is led; absent is success.

    Raises: KernelError.
    """
    shaper = site.rtnl.link(shaper_name(near_name))
    if shaper is not None and (shaper.kind, shaper.alias) == ("ifb", alias):
        link.delete_link(site.rtnl, shaper.index)


def _set(site: Site, uid: Uid, near: rtnl.Link, direction: Direction, rate: int | None) -> None:
    if direction is Direction.EGRESS:
        _set_egress(site, uid, near, rate)
    elif rate is not None:
        tc.set_bucket(site.rtnl, near.index, bucket(rate, near.mtu))
    elif near.queue not in _DEFAULT_QUEUES:
        tc.remove_queue(site.rtnl, near.index)


def _set_egress(site: Site, uid: Uid, near: rtnl.Link, rate: int | None) -> None:
    """Lead over the shaper only once it takes packets, and away from it before it goes."""
    alias = link_alias(site.instance.name, uid)
    if rate is None:
        tc.release_ingress(site.rtnl, near.index)
        remove(site, near.name, alias)
        return
    shaper = _shaper(site, uid, shaper_name(near.name), alias)
    tc.set_bucket(site.rtnl, shaper.index, bucket(rate, near.mtu))
    if not shaper.up:
        sysctl.switch_off_ipv6(shaper.name)
        link.set_up(site.rtnl, shaper.index)
    if tc.redirected_to(site.rtnl, near.index) != shaper.index:
        tc.redirect_ingress(site.rtnl, near.index, shaper.index)


def _shaper(site: Site, uid: Uid, name: str, alias: str) -> rtnl.Link:
    try:
        return link.create_ifb(site.rtnl, name, mac=derived_mac(uid, name), alias=alias)
    except KernelError as err:
        if err.errno != errno.EEXIST:
            raise
        raise BusyError(f"hold VE {uid} to a rate: {err}") from err
