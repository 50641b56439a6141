"""How often somebody may ask: a bucket of requests that fills again with time, for each address and for all."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

_ADDRESSES_MAX = 1024
_IPV6_PREFIX = 64
"""What one customer of a provider has at the least."""


@dataclass(slots=True)
class Bucket:
    """``size`` requests at once, ``per_s`` more each second. Units: ``at`` seconds of a clock that never goes back."""

    size: float
    per_s: float
    at: float
    left: float = -1.0

    def __post_init__(self) -> None:
        self.left = self.size

    def take(self, now: float) -> float:
        """Take a request; give 0.0, or the time after which there is one. Units: seconds."""
        self.left = min(self.size, self.left + (now - self.at) * self.per_s)
        self.at = now
        if self.left < 1:
            return (1 - self.left) / self.per_s
        self.left -= 1
        return 0.0


class Rates:
    """Bounds what each address, and all together, may ask for. Units: requests a minute."""

    def __init__(self, *, each: int, total: int, now: float) -> None:
        self._each = each
        self._all = Bucket(total, total / 60, now)
        self._known: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, address: str, now: float) -> int:
        """Take a request of an address; give 0, or after how many seconds to come again."""
        key = _key(address)
        bucket = self._known.pop(key, None) or Bucket(self._each, self._each / 60, now)
        self._known[key] = bucket
        if len(self._known) > _ADDRESSES_MAX:
            self._known.popitem(last=False)
        return math.ceil(bucket.take(now) or self._all.take(now))


def _key(address: str) -> str:
    """Give what addresses of one customer have in common."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(ip_network((found, _IPV6_PREFIX), strict=False))
    return str(found)
