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


@dataclass(slots=True)
class Backoff:
    """Delays by key and reason: one second, doubling to five minutes, forgotten after a stable time.

    ``random`` gives a number from 0 to 1.
    """

    random: Callable[[], float]
    _failures: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)

    def failed(self, key: str, reason: str, now: float) -> float:
        """Note a failure; give the delay until the next try. Units: seconds."""
        count, last = self._failures.get((key, reason), (0, now))
        if now - last > STABLE_S + _delay(count):
            count = 0
        self._failures[key, reason] = (count + 1, now)
        return _delay(count + 1) * (1 + JITTER * self.random())

    def succeeded(self, key: str) -> None:
        """Forget the failures of a key."""
        for entry in [entry for entry in self._failures if entry[0] == key]:
            del self._failures[entry]


def _delay(count: int) -> float:
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (count - 1)) if count else 0.0
