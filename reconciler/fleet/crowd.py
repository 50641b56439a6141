"""The crowd at the port: whoever reaches it can begin a handshake, and must not keep the others out by it.

Of each host's address, and of all strangers together, some are at it at once; where more come, the one that takes
longest has to go, so that who is slow on purpose holds nothing. How many begin in a second is bounded as well, as each
costs a signature.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from reconciler.errors import PeerError
from reconciler.fleet.circle import Circle

_STRANGERS = ""
_AT_ONCE_MAX = 32
_PER_SECOND_MAX = 200
_CONVERSATIONS_MAX = 32
"""Of one host, which has proven who it is."""


class Crowd:
    """Counts who is here."""

    __slots__ = ("_begun", "_second", "_shaking", "conversations")

    def __init__(self) -> None:
        self.conversations: Counter[str] = Counter()
        self._shaking: dict[str, list[asyncio.Task[object]]] = {}
        self._begun: Counter[str] = Counter()
        self._second = 0

    @contextmanager
    def handshake(self, address: str, circle: Circle) -> Iterator[None]:
        """Let a task shake hands; where too many are at it, the oldest of them is cancelled.

        Raises: PeerError, if too many began in this second.
        """
        group = _group(address, circle)
        self._count(group)
        task = asyncio.current_task()
        assert task is not None
        others = self._shaking.setdefault(group, [])
        if len(others) >= _AT_ONCE_MAX:
            others.pop(0).cancel()
        others.append(task)
        try:
            yield
        finally:
            if task in others:
                others.remove(task)
            if not others:
                self._shaking.pop(group, None)

    @contextmanager
    def conversation(self, name: str) -> Iterator[None]:
        """Count a conversation.

        Raises: PeerError, if there are too many.
        """
        if self.conversations[name] >= _CONVERSATIONS_MAX:
            raise PeerError(f"talk to {name}: too many conversations at once")
        self.conversations[name] += 1
        try:
            yield
        finally:
            self.conversations[name] -= 1
            if not self.conversations[name]:
                del self.conversations[name]

    def _count(self, group: str) -> None:
        second = int(asyncio.get_running_loop().time())
        if second != self._second:
            self._second = second
            self._begun.clear()
        self._begun[group] += 1
        if self._begun[group] > _PER_SECOND_MAX:
            raise PeerError("shake hands: too many of them in a second")


def _group(address: str, circle: Circle) -> str:
    known = any(_same(fellow.address, address) for fellow in circle.fellows.values())
    return address if known else _STRANGERS


def _same(one: str, other: str) -> bool:
    """Compare addresses as they are written in manifests and as sockets give them."""
    if one == other:
        return True
    with suppress(ValueError):
        seen = ipaddress.ip_address(other.partition("%")[0])
        mapped = seen.ipv4_mapped if isinstance(seen, ipaddress.IPv6Address) else None
        return ipaddress.ip_address(one) == (mapped or seen)
    return False
