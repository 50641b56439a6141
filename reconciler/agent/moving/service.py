"""What this host's agent answers to the others about moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from reconciler.agent.moving import wire
from reconciler.agent.moving.target import Target
from reconciler.model.facts import Json
from reconciler.model.identity import HostName


class MovingService:
    """Implements `PeerService`."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def answer(self, source: HostName, question: Mapping[str, Json]) -> Mapping[str, Json]:
        """Answer one question of a source."""
        return wire.told(await self._target.answer(source, wire.question_from(question)))

    async def take(
        self, source: HostName, header: Mapping[str, Json], chunks: AsyncIterator[bytes]
    ) -> Mapping[str, Json]:
        """Take in a parcel."""
        move, parcel = wire.header_from(header)
        return wire.told(await self._target.take(source, move, parcel, chunks))
