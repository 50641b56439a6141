"""`Peers` in memory: hosts that hear each other badly. What is said may be lost, late, doubled, or cut off within."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from random import Random
from typing import Any

from reconciler.errors import PeerError, RefusedError, VectlError
from reconciler.model.facts import Json
from reconciler.model.fleet_seam import PeerService
from reconciler.model.identity import HostName

_Message = Mapping[str, Json]


class TwinWires:
    """What connects the hosts of a simulation. ``chance``: of each mishap; ``cut``: pairs that do not hear each other.

    Units: ``longest_s`` of each way, ``patience_s`` until an asker gives up; seconds.
    """

    def __init__(
        self, random: Random, *, chance: float = 0.0, longest_s: float = 0.05, patience_s: float = 5.0
    ) -> None:
        self.random, self.chance = random, chance
        self.longest_s, self.patience_s = longest_s, patience_s
        self.services: dict[HostName, PeerService] = {}
        self.cut: set[frozenset[HostName]] = set()
        self._loose: set[asyncio.Task[None]] = set()

    def happens(self) -> bool:
        """Say whether a mishap does."""
        return self.chance > 0 and self.random.random() < self.chance

    def is_cut(self, one: HostName, other: HostName) -> bool:
        """Say whether two hosts do not hear each other."""
        return frozenset({one, other}) in self.cut

    async def wait(self) -> None:
        """Take as long as one way takes."""
        await asyncio.sleep(self.random.uniform(0.0, self.longest_s))

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something happen that nobody waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)


class TwinPeers:
    """Implements `Peers` for one host."""

    def __init__(self, host: HostName, wires: TwinWires) -> None:
        self._host, self._wires = host, wires

    async def ask(self, host: HostName, question: _Message) -> _Message:
        """Ask one question."""
        wires, asked = self._wires, json.dumps(dict(question))
        await self._go(host)
        if wires.happens():
            wires.later(self._heard_late(host, asked))
        answer = await self._answered(host, asked)
        await self._come_back(host)
        return answer

    async def ship(self, host: HostName, header: _Message, chunks: AsyncIterator[bytes]) -> _Message:
        """Send bytes with a header."""
        await self._go(host)
        service = self._service(host)
        try:
            answer = await service.take(
                self._host, json.loads(json.dumps(dict(header))), self._on_the_way(host, chunks)
            )
        except PeerError:
            raise
        except VectlError as err:
            raise RefusedError(f"{host}: {err}") from err
        await self._come_back(host)
        return answer

    async def _on_the_way(self, host: HostName, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            await self._wires.wait()
            if self._wires.is_cut(self._host, host) or self._wires.happens():
                raise PeerError(f"send to {host}: the connection ended")
            yield chunk

    async def _answered(self, host: HostName, asked: str) -> _Message:
        try:
            said = await self._service(host).answer(self._host, json.loads(asked))
        except VectlError as err:
            raise RefusedError(f"{host}: {err}") from err
        answer: dict[str, Json] = json.loads(json.dumps(dict(said)))
        return answer

    async def _heard_late(self, host: HostName, asked: str) -> None:
        await asyncio.sleep(self._wires.random.uniform(0.0, 60.0))
        try:
            await self._answered(host, asked)
        except VectlError:
            return

    async def _go(self, host: HostName) -> None:
        await self._wires.wait()
        if self._wires.is_cut(self._host, host) or self._wires.happens():
            await asyncio.sleep(self._wires.random.uniform(0.0, self._wires.patience_s))
            raise PeerError(f"ask {host}: it does not answer")

    _come_back = _go

    def _service(self, host: HostName) -> PeerService:
        service = self._wires.services.get(host)
        if service is None:
            raise PeerError(f"ask {host}: it does not answer")
        return service
