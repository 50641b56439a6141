"""Counters: the beancounters of a VE, read from the kernel and entered into the ledger that outlives it.

A shallow look reads what the kernel counts in the VE's cgroup. A deep one also goes through its processes, sockets and
packet filter, which takes a thousand times as long.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from reconciler.errors import KernelError, VectlError
from reconciler.host import compute, power
from reconciler.host.site import Site
from reconciler.kernel import cgroup_counters, devpts, process_counters, socket_counter
from reconciler.kernel.cgroup_counters import Counter
from reconciler.kernel.nftread import NftSocket
from reconciler.kernel.pidfd import ProcessId
from reconciler.model.compute import RemoveCgroup
from reconciler.model.counters import NOTHING_READ, Counted, Look, Reading, Resource, growth, rows, settled
from reconciler.model.identity import Uid
from reconciler.plan import counters as plan

_SOCKETS = {socket_counter.TCP: Resource.NUMTCPSOCK, socket_counter.OTHER: Resource.NUMOTHERSOCK}


async def count(site: Site, uid: Uid, *, deep: bool, keep: bool) -> Counted:
    """Look at the counters of a VE. ``keep``: remember what was seen, for peaks and failures.

    Raises: StateError, if there is no such VE; KernelError.
    """
    look = _of_cgroup(site, uid)
    if look is not None and deep:
        more = await asyncio.to_thread(_of_processes, _inside(site, uid))
        look = replace(look, readings={**more, **look.readings})
    return _entered(site, uid, look, keep=keep)


async def remove_cgroup(site: Site, effect: RemoveCgroup) -> None:
    """Remove the cgroup as `compute.remove_cgroup` does, after writing down what it has counted."""
    with suppress(VectlError):  # a peak less is no reason to keep a VE from ending
        if site.read_record(effect.uid) is not None:
            _entered(site, effect.uid, _of_cgroup(site, effect.uid), keep=True)
            site.ledgers.flush(effect.uid)
    await compute.remove_cgroup(site, effect)
    site.sockets.forget(effect.uid)


def _entered(site: Site, uid: Uid, look: Look | None, *, keep: bool) -> Counted:
    record, before = site.need_record(uid), site.ledgers.read(uid)
    observed = compute.observe(site, uid, with_use=False)
    limits = observed.limits if observed is not None else {}
    bounds = plan.bounds(record.applied, limits, site.why_not)
    if look is None:
        return Counted(uid=uid, rows=rows(before, NOTHING_READ, bounds))
    after = settled(before, look, bounds)
    if keep:
        site.ledgers.keep(uid, after)
    return Counted(uid=uid, rows=rows(after, look, bounds), grown=growth(before, after))


def _of_cgroup(site: Site, uid: Uid) -> Look | None:
    """Read what the VE's cgroup has counted; None, if it has none."""
    counted = cgroup_counters.read_counters(site.layout, site.instance.ve_cgroup(uid))
    if counted is None:
        return None
    used = (counted.memory.held or 0) + (counted.swap.held or 0)
    readings = {
        Resource.PHYSPAGES: _reading(counted.memory),
        Resource.SWAPPAGES: _reading(counted.swap),
        Resource.NUMPROC: _reading(counted.tasks),
        Resource.KMEMSIZE: _reading(counted.kernel),
        Resource.SHMPAGES: Reading(held=counted.shared),
        Resource.DCACHESIZE: Reading(held=counted.reclaimable),
        Resource.VMGUARPAGES: Reading(held=0, failures=counted.below_guarantee or 0),
        Resource.OOMGUARPAGES: Reading(held=used, failures=counted.oom_kills or 0),
        Resource.NUMMEMORYSUBGROUPS: Reading(held=counted.descendants),
        **_of_sockets(site, uid),
    }
    return Look(epoch=counted.identity, readings=readings)


def _of_sockets(site: Site, uid: Uid) -> dict[Resource, Reading]:
    """Give what is counted where a limit was declared; elsewhere a deep look counts sockets."""
    found = site.sockets.read(uid)
    return {
        resource: Reading(held=found[name].held, peak=found[name].peak, failures=found[name].failures)
        for name, resource in _SOCKETS.items()
        if name in found
    }


def _reading(counter: Counter) -> Reading:
    return Reading(held=counter.held, peak=counter.peak, failures=counter.failures)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inside:
    """What a deep look goes through. ``net``: a descriptor of its own of the network namespace, None if nothing runs.

    It is put together on the event loop and used in a thread: what the site keeps open may be closed meanwhile.
    """

    pids: frozenset[int]
    init: int | None = None
    net: int | None = None
    root: int | None = None


def _inside(site: Site, uid: Uid) -> _Inside:
    pids, seen = compute.tree(site, uid).processes(), power.observe(site, uid)
    if seen.pid is None or seen.start_time is None:
        return _Inside(pids=pids)
    init = ProcessId(pid=seen.pid, start_time=seen.start_time)
    kept = site.namespaces.of(uid, init, site.rtnl)
    with kept.root() as root:
        return _Inside(pids=pids, init=seen.pid, net=os.dup(kept.net), root=os.dup(root))


def _of_processes(inside: _Inside) -> Mapping[Resource, Reading]:
    held = process_counters.count_processes(inside.pids, process_counters.read_locks())
    found: dict[Resource, int | None] = {
        Resource.NUMFILE: held.files,
        Resource.NUMFLOCK: held.locks,
        Resource.PRIVVMPAGES: held.private,
        Resource.LOCKEDPAGES: held.locked,
        Resource.NUMSIGINFO: held.signals,
    }
    if inside.init is not None and inside.net is not None:
        found |= _of_network(inside.init, inside.net)
    if inside.root is not None:
        found[Resource.NUMPTY] = _terminals(inside.root)
    return {resource: Reading(held=number) for resource, number in found.items()}


def _of_network(init: int, net: int) -> dict[Resource, int | None]:
    sockets = process_counters.count_sockets(init)
    return {
        Resource.NUMTCPSOCK: sockets.tcp,
        Resource.NUMOTHERSOCK: sockets.other,
        Resource.TCPSNDBUF: sockets.tcp_send,
        Resource.TCPRCVBUF: sockets.tcp_receive,
        Resource.OTHERSOCKBUF: sockets.other_send,
        Resource.DGRAMRCVBUF: sockets.datagram_receive,
        Resource.NUMNETIF: process_counters.count_links(init),
        Resource.NUMIPTENT: _filter_rules(net),
    }


def _terminals(root: int) -> int | None:
    """Count the pseudo terminals on ``/dev/pts``; None, if the VE's root has put something else there."""
    try:
        return devpts.count(root)
    except KernelError:
        return None
    finally:
        os.close(root)


def _filter_rules(net: int) -> int | None:
    """Count the rules of nftables in a network namespace; None, if its root keeps changing them."""
    try:
        with NftSocket.open_in(net) as nft:
            return nft.count_rules()
    except KernelError:
        return None
    finally:
        os.close(net)
