"""Quota: limits of users, groups and files in a VE's image, which the kernel keeps as long as it is mounted.

Numbers are shifted by the VE's range of ids, as its owners are on disk: so the kernel shows each user inside its own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.errors import KernelError, ReadBackError, StateError
from reconciler.host import image, power
from reconciler.host.site import Site
from reconciler.kernel import ext4, loop, quota
from reconciler.model.identity import IDS_PER_VE, Uid
from reconciler.model.quota import LoadQuotas, QuotaKind, QuotaLimit, Quotas, QuotaUse, SetInodes, SetQuota
from reconciler.model.volume import Record

_KINDS = {QuotaKind.USERS: quota.Kind.USER, QuotaKind.GROUPS: quota.Kind.GROUP}
_SEEN_MAX = 4096
"""Ids of a VE that are looked at: its root may give files to every id that it has, and so make each look long."""

_UNEVEN = -1
"""Grace, where that of space is not that of files: no manifest asks for it, so it is put right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaState:
    """The quotas of a VE and what is used of them. Units: bytes, files."""

    quotas: Quotas
    use: Mapping[QuotaKind, Mapping[int, QuotaUse]]
    space: int
    files: int


def device_of(site: Site, uid: Uid) -> str | None:
    """Find the device that a VE's image is mounted from; None, if the VE is down or has no image.

    Raises: KernelError.
    """
    path = image.path_in(site.instance.volume(uid))
    if not os.path.exists(path) or power.observe(site, uid).pid is None:
        return None
    known = site.devices.get(uid)
    wanted = os.path.realpath(path)
    if known is not None and loop.backing_file(known) == wanted:
        return known
    found = next(
        (device for device in loop.find_below(os.path.dirname(wanted)) if loop.backing_file(device) == wanted), None
    )
    if found is None:
        site.devices.pop(uid, None)
    else:
        site.devices[uid] = found
    return found


def observe(site: Site, record: Record) -> QuotaState | None:
    """Read the quotas of a VE that is up; None, if it is down or its image has none.

    Raises: KernelError.
    """
    device = device_of(site, record.uid)
    if device is None or not ext4.read_superblock(image.path_in(site.instance.volume(record.uid))).has_quotas:
        return None
    entries = {kind: list(_entries(device, kind, record)) for kind in QuotaKind}
    limits = {kind: _limits(device, kind, record, found) for kind, found in entries.items()}
    whole = quota.read(device, quota.Kind.PROJECT, ext4.PROJECT)
    return QuotaState(
        quotas=Quotas(inodes=whole.limits.hard_files, users=limits[QuotaKind.USERS], groups=limits[QuotaKind.GROUPS]),
        use={kind: {entry.id - record.id_base: _use(entry) for entry in found} for kind, found in entries.items()},
        space=whole.space,
        files=whole.files,
    )


def _entries(device: str, kind: QuotaKind, record: Record) -> Iterator[quota.Entry]:
    """Read the ids that have something, as many as are looked at, and beyond those the ones that were given limits."""
    seen = set()
    for entry in quota.read_all(device, _KINDS[kind], first=record.id_base, most=_SEEN_MAX):
        if entry.id >= record.id_base + IDS_PER_VE:
            return
        seen.add(entry.id)
        yield entry
    if len(seen) == _SEEN_MAX:
        prefix = f"disk.{kind}."
        declared = (int(path.removeprefix(prefix)) for path in record.applied if path.startswith(prefix))
        for number in declared:
            if record.id_base + number not in seen:
                yield quota.read(device, _KINDS[kind], record.id_base + number)


def _limits(device: str, kind: QuotaKind, record: Record, entries: list[quota.Entry]) -> dict[int, QuotaLimit]:
    limited = [entry for entry in entries if entry.limits != quota.Limits()]
    if not limited:
        return {}
    space, files = quota.read_grace(device, _KINDS[kind])
    grace = space if space == files else _UNEVEN
    return {entry.id - record.id_base: _from_kernel(entry.limits, grace) for entry in limited}


def _from_kernel(limits: quota.Limits, grace_s: int) -> QuotaLimit:
    return QuotaLimit(
        soft=limits.soft,
        hard=limits.hard,
        soft_files=limits.soft_files,
        hard_files=limits.hard_files,
        grace_s=grace_s,
    )


def _to_kernel(limit: QuotaLimit | None) -> quota.Limits:
    if limit is None:
        return quota.Limits()
    return quota.Limits(soft=limit.soft, hard=limit.hard, soft_files=limit.soft_files, hard_files=limit.hard_files)


def _use(entry: quota.Entry) -> QuotaUse:
    return QuotaUse(space=entry.space, files=entry.files, space_until=entry.space_until, files_until=entry.files_until)


async def load(site: Site, effect: LoadQuotas) -> None:
    """Make exactly these the quotas of a VE that is up.

    Raises: StateError, if it is not, or has no image; KernelError; ReadBackError.
    """
    await asyncio.to_thread(_load, site, effect)


def _load(site: Site, effect: LoadQuotas) -> None:
    device, record = _need_device(site, effect.uid)
    seen = observe(site, record)
    before = seen.quotas if seen is not None else Quotas()
    for kind in QuotaKind:
        for number in {*before.of(kind), *effect.quotas.of(kind)}:
            _set(device, record, kind, number, effect.quotas.of(kind).get(number))
    _set_inodes(device, effect.quotas.inodes)


def set_quota(site: Site, effect: SetQuota) -> None:
    """Set the limits of one user or group of a VE that is up.

    Raises: StateError, if it is not, or has no image; KernelError; ReadBackError.
    """
    device, record = _need_device(site, effect.uid)
    _set(device, record, effect.kind, effect.number, effect.limit)


def set_inodes(site: Site, effect: SetInodes) -> None:
    """Set how many files there may be in a VE that is up.

    Raises: StateError, if it is not, or has no image; KernelError; ReadBackError.
    """
    device, _ = _need_device(site, effect.uid)
    _set_inodes(device, effect.inodes)


def _need_device(site: Site, uid: Uid) -> tuple[str, Record]:
    device = device_of(site, uid)
    if device is None:
        raise StateError(f"set quota of VE {uid}: it is not up, or its volume has no file system of its own")
    if reason := quota.missing():
        raise KernelError(f"set quota of VE {uid}: {reason}")
    return device, site.need_record(uid)


def _set(device: str, record: Record, kind: QuotaKind, number: int, limit: QuotaLimit | None) -> None:
    host_id, wanted = record.id_base + number, _to_kernel(limit)
    if limit is not None:
        quota.set_grace(device, _KINDS[kind], limit.grace_s)
    quota.set_limits(device, _KINDS[kind], host_id, wanted)
    seen = quota.read(device, _KINDS[kind], host_id).limits
    if seen != wanted:
        raise ReadBackError(f"set disk.{kind}.{number} of {record.name}: wrote {wanted}, read {seen}")


def _set_inodes(device: str, inodes: int | None) -> None:
    wanted = quota.Limits(hard_files=inodes)
    quota.set_limits(device, quota.Kind.PROJECT, ext4.PROJECT, wanted)
    seen = quota.read(device, quota.Kind.PROJECT, ext4.PROJECT).limits
    if seen != wanted:
        raise ReadBackError(f"set disk.inodes: wrote {wanted}, read {seen}")
