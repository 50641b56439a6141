"""A clock that stands still until it is turned."""

from __future__ import annotations


class StoppedClock:
    """Implements `model.seam.Clock`. Units: seconds."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._elapsed = 0.0

    def now(self) -> float:
        """Give the time of day, since the epoch."""
        return self._now + self._elapsed

    def monotonic(self) -> float:
        """Give the time that was added since the clock was made."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Turn the clock on."""
        if seconds < 0:
            raise ValueError(f"advance clock: expected a time of 0 or more, got {seconds}")
        self._elapsed += seconds
