"""Quota: what the users and groups inside a VE may use, and how many files there may be in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.model.identity import Uid

QUOTA_UNIT = 1024
"""In which the kernel keeps limits of space. Units: bytes."""

WEEK_S = 7 * 86_400
"""For how long a soft limit may be exceeded, unless something else is said. Units: seconds."""


class QuotaKind(StrEnum):
    """Whose quota, by the name that the list of them has in a manifest."""

    USERS = "users"
    GROUPS = "groups"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaLimit:
    """The limits of one user or group; None where there is none.

    ``grace_s``: for how long the soft ones may be exceeded, which the kernel keeps once for all users of a VE, and
    once for all groups. Units: bytes, in whole kibibytes; files; seconds.
    """

    soft: int | None = None
    hard: int | None = None
    soft_files: int | None = None
    hard_files: int | None = None
    grace_s: int = WEEK_S

    @property
    def limits_nothing(self) -> bool:
        """Whether there is no limit in it."""
        return not (self.soft or self.hard or self.soft_files or self.hard_files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """The quotas of a VE: by number inside the VE, and of all files together."""

    inodes: int | None = None
    users: Mapping[int, QuotaLimit] = field(default_factory=dict)
    groups: Mapping[int, QuotaLimit] = field(default_factory=dict)

    def of(self, kind: QuotaKind) -> Mapping[int, QuotaLimit]:
        """Give those of users or those of groups."""
        return self.users if kind is QuotaKind.USERS else self.groups

    @property
    def limits_nothing(self) -> bool:
        """Whether there is no quota in it."""
        return self.inodes is None and not self.users and not self.groups


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaUse:
    """What one user or group has. ``space_until`` and ``files_until``: when the grace of a soft limit that is exceeded
    ends.

    Units: bytes; files; seconds since the epoch.
    """

    space: int = 0
    files: int = 0
    space_until: int | None = None
    files_until: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadQuotas:
    """Make exactly these the quotas of a VE whose volume is an image, before its init is let go."""

    uid: Uid
    quotas: Quotas
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetQuota:
    """Set the limits of one user or group of a VE that is up; None lifts them. The grace is that of its kind."""

    uid: Uid
    kind: QuotaKind
    number: int
    limit: QuotaLimit | None
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetInodes:
    """Set how many files there may be in a VE that is up; None lifts the limit."""

    uid: Uid
    inodes: int | None
    serves: str = field(default="", compare=False)
