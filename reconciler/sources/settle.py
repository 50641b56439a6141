"""When a change counts: a directory once it has been still for a moment, a removal once it has held for a while.

Both are values of what was seen and when; nobody here looks at a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from reconciler.model.identity import VeName


@dataclass(frozen=True, slots=True, kw_only=True)
class Stillness:
    """What was seen last, and since when it has looked like that. Units: seconds of a clock that never goes back."""

    sign: object = None
    since: float = 0.0

    def seen(self, sign: object, now: float) -> Stillness:
        """Take in a look; ``sign`` is anything that differs if the source does."""
        return self if sign == self.sign else Stillness(sign=sign, since=now)

    def left(self, now: float, settle_s: float) -> float:
        """Give how long it has to stay as it is to count; 0.0, if it counts."""
        return max(0.0, self.since + settle_s - now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Absences:
    """Since when each VE has been in no manifest, as far as every look until ``at`` could tell."""

    first_missing_at: Mapping[VeName, float] = field(default_factory=lambda: MappingProxyType({}))
    at: float = 0.0

    def looked(self, present: Collection[VeName], known: Collection[VeName], now: float) -> Absences:
        """Take in a complete and valid look. ``known``: the VEs that came from this source, and are on this host."""
        before = self.first_missing_at
        return Absences(first_missing_at={name: before.get(name, now) for name in known if name not in present}, at=now)

    def blind(self) -> Absences:
        """Take in a look that could not tell: absence has to be seen to hold, so the time begins anew."""
        return Absences()

    def removed(self, delay_s: float) -> frozenset[VeName]:
        """Give the VEs that were still missing when a look came ``delay_s`` or more after they first were."""
        return frozenset(name for name, since in self.first_missing_at.items() if self.at - since >= delay_s)

    def left(self, now: float, delay_s: float) -> float | None:
        """Give the time until a look may find the next VE removed; None, if none is on its way."""
        waiting = (since for since in self.first_missing_at.values() if self.at - since < delay_s)
        return min((max(0.0, since + delay_s - now) for since in waiting), default=None)
