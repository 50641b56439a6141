"""Pace: how long hosts wait for each other, how fast they send, and how that is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

_BURST_S = 0.05
_TOLD_EVERY_S = 0.5
_RECENT_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Units: seconds. Nothing limits how long a shipment takes as long as it goes on.

    ``handshake_s``: from the first byte to the proof of who it is. ``silence_s``: without a whole frame.
    ``keep_alive_s``: how often something is said where there is nothing to say. ``stall_s``: without a byte being
    taken, of a peer that does say that it is there. ``idle_s``: how long a conversation waits for the next question.
    ``linger_s``: for the last words of a conversation that broke to arrive.
    """

    handshake_s: float = 10.0
    silence_s: float = 30.0
    keep_alive_s: float = 10.0
    stall_s: float = 300.0
    idle_s: float = 20.0
    linger_s: float = 2.0


PACE = Pace()


class TokenBucket:
    """Limits what all streams of a host send together. Units: ``rate`` bytes per second, None for no limit."""

    __slots__ = ("_free_at", "_rate")

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def take(self, amount: int) -> None:
        """Wait until so many bytes may be sent; whoever came before goes first."""
        if self._rate is None:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - _BURST_S) + amount / self._rate
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)

    def portion(self, most: int) -> int:
        """Give how much is best sent at once: at a low rate less, so that streams take turns and nobody seems dead."""
        return most if self._rate is None else max(4096, min(most, self._rate // 4))


@dataclass(slots=True, kw_only=True)
class Meter:
    """Counts what is sent. Units: ``rate`` bytes per second, of the last seconds."""

    started_at: float
    sent: int = 0
    rate: float = 0.0
    _told_at: float = field(init=False)
    _told_sent: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._told_at = self.started_at

    def add(self, amount: int, *, now: float) -> bool:
        """Count; say whether it is time to tell."""
        self.sent += amount
        passed = now - self._told_at
        if passed < _TOLD_EVERY_S:
            return False
        self._look(now, passed)
        return True

    def finish(self, *, now: float) -> None:
        """Take the rate as it was over all."""
        self.rate = self.sent / max(now - self.started_at, 1e-6)

    def _look(self, now: float, passed: float) -> None:
        latest = (self.sent - self._told_sent) / passed
        weight = min(1.0, passed / _RECENT_S) if self.rate else 1.0
        self.rate += (latest - self.rate) * weight
        self._told_at, self._told_sent = now, self.sent
