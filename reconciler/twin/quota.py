"""Quota: limits inside the image volumes of the in-memory host."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias, assert_never

from reconciler.errors import KernelError, StateError
from reconciler.model.identity import Uid
from reconciler.model.quota import LoadQuotas, QuotaKind, QuotaLimit, Quotas, SetInodes, SetQuota
from reconciler.twin.machine import Machine, Volume

QuotaEffect: TypeAlias = LoadQuotas | SetQuota | SetInodes


def perform(machine: Machine, effect: QuotaEffect) -> None:
    """Carry out one effect.

    Raises: StateError, if the VE is not up or its volume has no quotas; KernelError, if the host has none.
    """
    volume = _require_mounted(machine, effect)
    match effect:
        case LoadQuotas():
            quotas = _held(effect.quotas)
        case SetQuota():
            quotas = _with(volume.quotas, effect)
        case SetInodes():
            quotas = replace(volume.quotas, inodes=effect.inodes)
        case _:
            assert_never(effect)
    machine.volumes[effect.uid] = replace(volume, quotas=quotas)


def observe(machine: Machine, uid: Uid, volume: Volume) -> Quotas | None:
    """Look at the quotas of a volume, which only a VE that is up has in force."""
    return volume.quotas if volume.is_image and uid in machine.runtimes and not _missing(machine) else None


def _missing(machine: Machine) -> str | None:
    return machine.capabilities.why_not.get("disk.users")


def _require_mounted(machine: Machine, effect: QuotaEffect) -> Volume:
    doing = f"set quota of VE {effect.uid}"
    volume = machine.volumes.get(effect.uid)
    if volume is None or not volume.is_image or effect.uid not in machine.runtimes:
        raise StateError(f"{doing}: it is not up, or its volume has no file system of its own")
    if reason := _missing(machine):
        raise KernelError(f"{doing}: {reason}")
    return volume


def _held(quotas: Quotas) -> Quotas:
    """Give what the kernel keeps of quotas: an entry without limits is none."""
    users, groups = (
        {n: limit for n, limit in q.items() if not limit.limits_nothing} for q in (quotas.users, quotas.groups)
    )
    return replace(quotas, users=users, groups=groups)


def _with(quotas: Quotas, effect: SetQuota) -> Quotas:
    """Give quotas with one entry changed; its grace is that of all of its kind."""
    entries: dict[int, QuotaLimit] = {n: limit for n, limit in quotas.of(effect.kind).items() if n != effect.number}
    if effect.limit is not None:
        grace_s = effect.limit.grace_s
        entries = {n: replace(limit, grace_s=grace_s) for n, limit in (entries | {effect.number: effect.limit}).items()}
    held = _held(Quotas(users=entries))
    return replace(quotas, users=held.users) if effect.kind is QuotaKind.USERS else replace(quotas, groups=held.users)
