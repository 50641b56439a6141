"""The mover: works on all moves that this host takes part in, each by itself, and takes them up after a crash."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from reconciler.agent.moving.source import Source
from reconciler.agent.moving.target import Target
from reconciler.errors import VectlError
from reconciler.model.identity import HostName, Uid
from reconciler.model.moving import SourcePhase
from reconciler.model.ownership import Strategy
from reconciler.state.moves import Moves

POLL_S = 1.0
"""How long a move rests that waits for its other host or the coordinator. Units: seconds."""

ADOPT_S = 60.0
"""How often it is looked for moves that were begun and never written down. Units: seconds."""


class Mover:
    """Works on moves. ``troubles``: what keeps a move from going on, in words."""

    def __init__(self, journal: Moves, source: Source, target: Target) -> None:
        self._journal, self._source, self._target = journal, source, target
        self._at_work: dict[Uid, asyncio.Task[None]] = {}
        self._woken: dict[Uid, asyncio.Event] = {}
        self._some = asyncio.Event()
        self._beginning = asyncio.Lock()
        self.troubles: dict[Uid, str] = {}

    def wake(self, uid: Uid) -> None:
        """Look at once whether a move can go on."""
        self._woken.setdefault(uid, asyncio.Event()).set()
        self._some.set()

    async def begin(self, uid: Uid, *, target: HostName, strategy: Strategy) -> None:
        """Begin to move a VE to another host; on its way already is success.

        Raises: as `Source.begin`.
        """
        async with self._beginning:
            await self._source.begin(uid, target=target, strategy=strategy)
        self.wake(uid)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._adopt())
            while True:
                self._some.clear()
                for uid in self._journal.uids():
                    if uid not in self._at_work:
                        self._at_work[uid] = tasks.create_task(self._work(uid))
                await self._some.wait()

    async def _adopt(self) -> None:
        while True:
            async with self._beginning:
                with suppress(VectlError):  # it is tried again
                    await self._source.adopt()
            self._some.set()
            await asyncio.sleep(ADOPT_S)

    async def _work(self, uid: Uid) -> None:
        """Work on a move to its end."""
        woken = self._woken.setdefault(uid, asyncio.Event())
        try:
            while uid in self._journal.uids():
                woken.clear()
                if not await self._step(uid):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(POLL_S):
                            await woken.wait()
        finally:
            del self._at_work[uid]
            self._some.set()
        self._woken.pop(uid, None)
        self.troubles.pop(uid, None)

    async def _step(self, uid: Uid) -> bool:
        """Do the next step; give whether there is one after it at once."""
        try:
            passage = self._journal.read(uid)
            if passage is None:
                return True
            side = self._source if isinstance(passage.phase, SourcePhase) else self._target
            goes_on = await side.step(uid)
        except VectlError as err:
            self.troubles[uid] = str(err)
            return False
        self.troubles.pop(uid, None)
        return goes_on
