"""How long to wait after a failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 300.0
JITTER = 0.1
"""Share by which a delay is lengthened at random, so that many VEs do not come back at once."""

STABLE_S = 60.0
"""A key without a failure for this long starts anew with the first delay."""

_DOUBLINGS_MAX = 9
"""More than it takes to get from the first delay to the longest; beyond that, powers of two only grow."""


@dataclass(frozen=True, slots=True)
class _Failing:
    count: int
    until: float


@dataclass(slots=True)
class Backoff:
    """Delays by key and reason: one second, doubling to five minutes, forgotten after a stable time.

    ``random`` gives a number from 0 to 1. Units: seconds; ``now`` of a clock that never goes back.
    """

    random: Callable[[], float]
    _failures: dict[tuple[str, str], _Failing] = field(default_factory=dict)

    def failed(self, key: str, reason: str, now: float) -> float:
        """Note a failure; give the delay until the next try."""
        count = self._failures[key, reason].count if self.is_failing(key, reason, now) else 0
        delay_s = _delay(count) * (1 + JITTER * self.random())
        self._failures[key, reason] = _Failing(count + 1, now + delay_s)
        return delay_s

    def is_failing(self, key: str, reason: str, now: float) -> bool:
        """Say whether the last failure is so recent that another one would belong to it."""
        failing = self._failures.get((key, reason))
        return failing is not None and now - failing.until <= STABLE_S

    def left(self, key: str, now: float) -> float:
        """Give the time until a key may be tried again; 0.0, if it may be now."""
        ends = [failing.until for (failed, _), failing in self._failures.items() if failed == key]
        return max(0.0, max(ends, default=now) - now)

    def succeeded(self, key: str) -> None:
        """Forget the failures of a key."""
        for entry in [entry for entry in self._failures if entry[0] == key]:
            del self._failures[entry]


def _delay(failures_before: int) -> float:
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures_before, _DOUBLINGS_MAX))
