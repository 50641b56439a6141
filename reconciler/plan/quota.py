"""Quota: limits of users and groups inside a VE, and of all its files, which change while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.model.action import Impact
from reconciler.model.effects import Effect
from reconciler.model.facts import Json
from reconciler.model.identity import Uid
from reconciler.model.observation import Facet
from reconciler.model.quota import LoadQuotas, QuotaKind, QuotaLimit, Quotas, QuotaUse, SetInodes, SetQuota
from reconciler.plan.field import Field, Value

_EFFECT = "quota in the VE's own file system"

FIELDS = (
    Field(path="disk.inodes", facet=Facet.VOLUME, impact=Impact.LIVE, default=None, effect="quota of all files"),
    Field(path="disk.users.*", facet=Facet.VOLUME, impact=Impact.LIVE, default=None, effect=_EFFECT),
    Field(path="disk.groups.*", facet=Facet.VOLUME, impact=Impact.LIVE, default=None, effect=_EFFECT),
)

_INODES = "disk.inodes"


def is_of_quota(path: str) -> bool:
    """Say whether a path is one of this facet."""
    return path == _INODES or path.startswith(("disk.users.", "disk.groups."))


def desired_values(quotas: Quotas) -> dict[str, Value]:
    """Give what the quotas should be, by path."""
    return {_INODES: quotas.inodes, **_entries(quotas)}


def observed_values(quotas: Quotas | None) -> dict[str, Value]:
    """Give what the quotas are, by path; of a VE that is down nobody can tell."""
    return {} if quotas is None else desired_values(quotas)


def _entries(quotas: Quotas) -> dict[str, Value]:
    entries = ((kind, number, limit) for kind in QuotaKind for number, limit in sorted(quotas.of(kind).items()))
    return {f"disk.{kind}.{number}": _shown(limit) for kind, number, limit in entries}


def _shown(limit: QuotaLimit) -> dict[str, Json]:
    return {
        "soft": limit.soft,
        "hard": limit.hard,
        "softFiles": limit.soft_files,
        "hardFiles": limit.hard_files,
        "grace": float(limit.grace_s),
    }


def differences(desired: Quotas, observed: Quotas | None) -> Iterator[tuple[str, Value, Value]]:
    """Yield path, desired and observed value of what differs, limits that nobody asked for included."""
    if observed is None:
        return
    wanted, seen = desired_values(desired), desired_values(observed)
    for path in [*wanted, *(path for path in seen if path not in wanted)]:
        if wanted.get(path) != seen.get(path):
            yield path, wanted.get(path), seen.get(path)


def set_effects(uid: Uid, path: str, desired: Quotas) -> tuple[Effect, ...]:
    """Carry out one difference."""
    if path == _INODES:
        return (SetInodes(uid=uid, inodes=desired.inodes),)
    kind, number = _named(path)
    return (SetQuota(uid=uid, kind=kind, number=number, limit=desired.of(kind).get(number)),)


def boot_effects(uid: Uid, quotas: Quotas) -> tuple[Effect, ...]:
    """Set all quotas of a VE that comes up, which nobody can while it is down."""
    return () if quotas.limits_nothing else (LoadQuotas(uid=uid, quotas=quotas),)


def is_below_use(path: str, desired: Quotas, use: Mapping[QuotaKind, Mapping[int, QuotaUse]]) -> bool:
    """Say whether a limit goes below what is there: nothing more can be written then."""
    if path == _INODES:
        return False
    kind, number = _named(path)
    limit, used = desired.of(kind).get(number), use.get(kind, {}).get(number)
    if limit is None or used is None:
        return False
    pairs = ((limit.hard, used.space), (limit.hard_files, used.files))
    return any(most is not None and most < now for most, now in pairs)


def _named(path: str) -> tuple[QuotaKind, int]:
    _, kind, number = path.split(".")
    return QuotaKind(kind), int(number)
