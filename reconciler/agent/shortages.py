"""Shortages: looks at what VEs use, remembers peaks, and tells of limits that were met.

A VE that hammers at its limit costs no more than one that does not: hints are gathered, and at most one look a second
is made at each VE.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from reconciler.agent.desk import Desk
from reconciler.errors import VectlError
from reconciler.model.condition import Condition, ConditionType, Status
from reconciler.model.counters import Counted, Resource, Row
from reconciler.model.identity import Uid, VeName
from reconciler.model.seam import Counting
from reconciler.model.units import format_size

LOOK_S = 15.0
"""Time between two looks at all VEs: a peak that the kernel keeps no track of may be missed between them."""

DEEP_EVERY = 20
"""Every so many looks go through processes and sockets too, also of VEs that declare no bound for those."""

REST_S = 1.0
"""Least time between two looks that events ask for."""

QUIET_S = 60.0
"""How long no limit may have been met until the condition goes."""

TELL_S = 30.0
"""Least time between two events about one resource of one VE."""

HIT = "BeancounterHit"
OUT_OF_MEMORY = "OutOfMemory"
"""Reasons of events and of the condition."""

_CHUNK = 8


@dataclass(slots=True)
class _Shortage:
    """What was met lately, by resource: how often since the condition came, and when last."""

    met: dict[Resource, int] = field(default_factory=dict)
    last: dict[Resource, float] = field(default_factory=dict)
    told: dict[Resource, float] = field(default_factory=dict)
    untold: dict[Resource, int] = field(default_factory=dict)


@dataclass(slots=True)
class Shortages:
    """Watches the counters of one host's VEs. ``names``: the VEs that are here, kept up to date by the passes."""

    desk: Desk
    counting: Counting
    names: Mapping[Uid, VeName]
    _hints: set[Uid] = field(default_factory=set)
    _hinted: asyncio.Event = field(default_factory=asyncio.Event)
    _found: dict[Uid, _Shortage] = field(default_factory=dict)
    _looks: int = 0

    def hint(self, uid: Uid) -> None:
        """Say that something was counted for a VE just now."""
        self._hints.add(uid)
        self._hinted.set()

    async def run(self) -> None:
        """Look, every now and then and when it is hinted at, until cancelled."""
        due = 0.0
        while True:
            now = self.desk.clock.monotonic()
            if now >= due:
                await self._look_at_all()
                due = now + LOOK_S
            else:
                hinted, self._hints = self._hints, set()
                await self.look(hinted)
            self._hinted.clear()
            await asyncio.sleep(REST_S)
            await self._hinted_or(due - self.desk.clock.monotonic())

    async def _hinted_or(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, wait_s)):
                await self._hinted.wait()
        except TimeoutError:
            return

    async def _look_at_all(self) -> None:
        self._hints.clear()
        self._looks += 1
        for uid in self._found.keys() - self.names.keys():
            del self._found[uid]
        await self.look(sorted(self.names), deep=self._looks % DEEP_EVERY == 0)

    async def look(self, uids: Iterable[Uid], *, deep: bool = False) -> None:
        """Look at some VEs: remember what they used, and tell of the limits that they met since the last look."""
        for number, uid in enumerate(uids):
            try:
                counted = await self.counting.count(uid, deep=deep)
                if not deep and any(_is_watched(row) for row in counted.rows):
                    counted = _both(counted, await self.counting.count(uid, deep=True))
                self._take(counted)
            except (VectlError, OSError) as error:
                structlog.get_logger().info("counters.not_read", uid=uid, error=str(error))
            if number % _CHUNK == _CHUNK - 1:
                await asyncio.sleep(0)

    def write_down(self) -> None:
        """Write what is remembered where another process reads it."""
        self.counting.write_down()

    def _take(self, counted: Counted) -> None:
        name, now = self.names.get(counted.uid), self.desk.clock.monotonic()
        if name is None or (not counted.grown and counted.uid not in self._found):
            return
        shortage = self._found.setdefault(counted.uid, _Shortage())
        for resource, number in counted.grown.items():
            shortage.met[resource] = shortage.met.get(resource, 0) + number
            shortage.untold[resource] = shortage.untold.get(resource, 0) + number
            shortage.last[resource] = now
        self._tell(name, shortage, counted)
        for resource in [resource for resource, at in shortage.last.items() if now - at >= QUIET_S]:
            del shortage.last[resource], shortage.met[resource]
        self._put(counted.uid, name, shortage)

    def _tell(self, name: VeName, shortage: _Shortage, counted: Counted) -> None:
        """Write an event of each resource that was met, but not of each time."""
        rows, now = {row.resource: row for row in counted.rows}, self.desk.clock.monotonic()
        for resource, number in list(shortage.untold.items()):
            if now - shortage.told.get(resource, float("-inf")) < TELL_S:
                continue
            del shortage.untold[resource]
            shortage.told[resource] = now
            reason, sentence = HIT, _sentence(rows[resource], number)
            if resource is Resource.OOMGUARPAGES:
                reason, sentence = OUT_OF_MEMORY, _killed(number, rows[Resource.PHYSPAGES])
            self.desk.tell(name, reason, sentence, kind="Warning")

    def _put(self, uid: Uid, name: VeName, shortage: _Shortage) -> None:
        conditions, now = self.desk.conditions, self.desk.clock.now()
        if shortage.last:
            met = ", ".join(resource.value for resource in Resource if resource in shortage.last)
            message = f"limits met lately: {met}; see `vectl beancounters {name}`"
            killed = shortage.met.get(Resource.OOMGUARPAGES, 0)
            reason, message = (OUT_OF_MEMORY, f"{_killed(killed)}; {message}") if killed else (HIT, message)
            limited = Condition(type=ConditionType.LIMITED, status=Status.TRUE, reason=reason, message=message)
            conditions.stand(name, limited, now=now)
            return
        conditions.lift(name, ConditionType.LIMITED, now=now)
        if not shortage.untold:
            del self._found[uid]


def _is_watched(row: Row) -> bool:
    """Say whether somebody wants to be told of a resource that only a deep look sees."""
    return row.held is None and (row.barrier is not None or row.limit is not None)


def _both(shallow: Counted, deep: Counted) -> Counted:
    """Put two looks together: what grew in either grew."""
    grown = dict(shallow.grown)
    for resource, number in deep.grown.items():
        grown[resource] = grown.get(resource, 0) + number
    return Counted(uid=deep.uid, rows=deep.rows, grown=grown)


def _sentence(row: Row, times: int) -> str:
    number = "once" if times == 1 else f"{times} times"
    bounds = {"barrier": row.barrier, "limit": row.limit}
    told = "".join(f"{name} {value}, " for name, value in bounds.items() if value is not None)
    return f"{row.resource} met its bound {number}; held {row.held}, {told}failcnt {row.failcnt}"


def _killed(number: int, memory: Row | None = None) -> str:
    processes = "a process was" if number == 1 else f"{number} processes were"
    told = f"{processes} killed as the VE had no memory left"
    return told if memory is None else f"{told}; limit {format_size(memory.limit)}"
