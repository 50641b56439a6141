"""The machine's clock."""

from __future__ import annotations

import time


class SystemClock:
    """Implements the seam's `Clock` by clock_gettime(2)."""

    def now(self) -> float:
        """Give the time of day. Units: seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Give a time that never goes back. Units: seconds."""
        return time.monotonic()
