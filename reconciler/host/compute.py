"""Compute: the cgroup of a VE, its limits and what it uses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from reconciler.errors import BusyError, ReadBackError, StateError
from reconciler.host.site import Site
from reconciler.kernel import cgroup_io, cgroup_limits, cgroup_use, qgroup, quota
from reconciler.kernel.cgroup import CgroupTree
from reconciler.model.compute import (
    ComputeObservation,
    ComputeUse,
    CreateCgroup,
    Limit,
    LimitValue,
    RemoveCgroup,
    SetLimit,
)
from reconciler.model.identity import Uid
from reconciler.model.observation import Capabilities
from reconciler.model.power import SUSPENSION

_V1_HAS_NO_SUCH = "cgroup v1 has no such limit; it takes part in admission only"
_NOT_COUNTED = "this kernel does not account for it"
_IO_LIMITS = frozenset(Limit(name) for name in cgroup_io.LIMITS)


def tree(site: Site, uid: Uid) -> CgroupTree:
    """Give a VE's cgroup."""
    return CgroupTree(site.layout, site.instance.ve_cgroup(uid))


def capabilities(site: Site) -> Capabilities:
    """Find out which limits this host can hold, and what there is to share out."""
    enforceable = frozenset(Limit(name) for name in cgroup_limits.enforceable(site.layout))
    on_v1 = {Limit.MEMORY_BARRIER, Limit.MEMORY_GUARANTEE} if not site.layout.is_pure_v2 else set()
    why_not: dict[str, str] = {
        limit: _V1_HAS_NO_SUCH if limit in on_v1 else _why_not(site, limit)
        for limit in Limit
        if limit not in enforceable
    }
    why_not |= site.why_not
    if site.cannot_suspend:
        why_not[SUSPENSION] = site.cannot_suspend
    if not qgroup.keeps_count_of_snapshots():
        why_not["disk.snapshots"] = "before Linux 6.9 no limit of any VE would hold for a while after each snapshot"
    no_quotas = quota.missing()
    if no_quotas is not None:
        why_not |= dict.fromkeys(("disk.inodes", "disk.users", "disk.groups"), no_quotas)
    return Capabilities(
        cgroup="v2" if site.layout.is_pure_v2 else "v1",
        enforceable=enforceable,
        why_not=why_not,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cpus=_all(site, Limit.CPUS, enforceable) or frozenset(range(os.cpu_count() or 1)),
        nodes=_all(site, Limit.NODES, enforceable) or frozenset({0}),
    )


def _why_not(site: Site, limit: Limit) -> str:
    return site.layout.disks.why_not if limit in _IO_LIMITS and site.layout.disks.why_not else _NOT_COUNTED


def _all(site: Site, limit: Limit, enforceable: frozenset[Limit]) -> frozenset[int] | None:
    return cgroup_limits.all_members(site.layout, limit.value) if limit in enforceable else None


def observe(site: Site, uid: Uid, with_use: bool) -> ComputeObservation | None:
    """Read a VE's limits, and if asked what it uses; None if it has no cgroup.

    Raises: KernelError.
    """
    cgroup = site.instance.ve_cgroup(uid)
    limits = site.limit_reader.read(cgroup)
    if limits is None:
        return None
    used = _use(site, cgroup) if with_use else ComputeUse()
    return ComputeObservation(limits=limits, use=used)


def _use(site: Site, cgroup: str) -> ComputeUse:
    use = cgroup_use.read_use(site.layout, cgroup)
    return ComputeUse(memory=use.memory, cpu_us=use.cpu_us, processes=use.processes)


async def create_cgroup(site: Site, effect: CreateCgroup) -> None:
    """Make the cgroup with its limits, before anything runs in it.

    Raises: StateError, if there is no such VE; KernelError.
    """
    record = site.need_record(effect.uid)
    cgroup, enforceable = tree(site, effect.uid), cgroup_limits.enforceable(site.layout)
    limits = {limit: value for limit, value in effect.limits.items() if limit in enforceable}
    await asyncio.to_thread(_create, cgroup, limits, record.id_base)
    _read_back(site, effect.uid, limits)


def _create(cgroup: CgroupTree, limits: Mapping[Limit, LimitValue], owner: int) -> None:
    cgroup.create()
    cgroup.write_limits({limit.value: value for limit, value in limits.items()})
    cgroup.delegate(uid=owner, gid=owner)


async def set_limit(site: Site, effect: SetLimit) -> None:
    """Write one limit and read it back; a lower limit of memory may take seconds of reclaiming.

    Raises: InUseError, if memory cannot be reclaimed down to it; KernelError; ReadBackError; TerminalError, if this
    host cannot enforce it.
    """
    cgroup = tree(site, effect.uid)
    if not cgroup.exists():
        raise StateError(f"set {effect.limit} of {effect.uid}: it has no cgroup")
    await asyncio.to_thread(cgroup.write_limit, effect.limit.value, effect.value)
    _read_back(site, effect.uid, {effect.limit: effect.value})


def _read_back(site: Site, uid: Uid, written: Mapping[Limit, LimitValue]) -> None:
    seen = site.limit_reader.read(site.instance.ve_cgroup(uid)) or {}
    for limit, value in written.items():
        expected = cgroup_limits.stored_value(site.layout, limit.value, value)
        if seen.get(limit) != expected:
            raise ReadBackError(f"set {limit} of {uid}: wrote {expected!r}, read {seen.get(limit)!r}")


async def remove_cgroup(site: Site, effect: RemoveCgroup) -> None:
    """Remove the cgroup, which the kernel may keep for a moment; absent is success.

    Raises: BusyError, if processes are in it.
    """
    cgroup = tree(site, effect.uid)
    if members := cgroup.processes():
        raise BusyError(f"remove cgroup of {effect.uid}: {len(members)} processes are in it")
    await asyncio.to_thread(cgroup.remove)
    site.limit_reader.forget(cgroup.cgroup)
