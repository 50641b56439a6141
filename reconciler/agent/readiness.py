"""Readiness: looks, a few VEs at a time and rarely, whether they could be suspended, so that nobody has to try."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from reconciler.agent.desk import Desk
from reconciler.errors import BusyError, StateError, VectlError
from reconciler.model.condition import ConditionType
from reconciler.model.identity import Uid, VeName
from reconciler.model.seam import Preflight
from reconciler.plan.migration import ready_condition, unknown_condition

TICK_S = 1.0
"""Time between two slices."""

SLICE = 8
"""How many VEs are looked at in one slice: a look at a VE of a hundred processes takes some 10 ms of a thread."""

FIRST_S = 3.0
"""How long a VE has been seen running before the first look: one that boots does not tell what it will hold."""

EVERY_S = 300.0
"""Time between two looks at one VE."""


@dataclass(slots=True)
class Readiness:
    """Keeps the condition `MigrationReady` of the VEs that run. ``names``: the VEs that are here, and ``running`` those
    of them that run, both kept up to date by the passes."""

    desk: Desk
    preflight: Preflight
    names: Mapping[Uid, VeName]
    running: Set[VeName]
    _due: dict[Uid, float] = field(default_factory=dict)
    _told: dict[Uid, VeName] = field(default_factory=dict)

    async def run(self) -> None:
        """Look, slice by slice, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(TICK_S)

    async def look(self) -> None:
        """Look at the VEs whose turn it is."""
        now = self.desk.clock.monotonic()
        runs = {uid for uid, name in self.names.items() if name in self.running}
        for uid in self._due.keys() - runs:
            del self._due[uid]
            self._lift(uid)
        for uid in runs - self._due.keys():
            self._due[uid] = now + FIRST_S
        for _, uid in sorted((at, uid) for uid, at in self._due.items() if at <= now)[:SLICE]:
            self._due[uid] = now + EVERY_S
            await self._look_at(uid)

    async def _look_at(self, uid: Uid) -> None:
        try:
            condition = ready_condition(await self.preflight.find_obstacles(uid))
        except BusyError:  # it is being written to disk: what was said of it stays until then
            self._due[uid] = self.desk.clock.monotonic() + FIRST_S
            return
        except StateError:  # it has ended since
            self._lift(uid)
            return
        except (VectlError, OSError) as error:
            condition = unknown_condition(str(error))
        name = self.names.get(uid)
        if name is not None:
            self._told[uid] = name
            self.desk.conditions.stand(name, condition, now=self.desk.clock.now())

    def _lift(self, uid: Uid) -> None:
        name = self._told.pop(uid, None)
        if name is not None and name in self.names.values():
            self.desk.conditions.lift(name, ConditionType.MIGRATION_READY, now=self.desk.clock.now())
