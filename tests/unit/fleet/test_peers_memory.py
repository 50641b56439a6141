"""Claims about large shipments: their size is nowhere held in memory, at the sender nor at the receiver."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconciler.fleet.pace import PACE
from tests.support.peers import B, Json_, pair

MIB = 1 << 20


def _resident() -> int:
    """Units: bytes. Source: proc(5), /proc/pid/statm."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def _ship(mebibytes: int) -> int:
    """Ship that much between two hosts of this process; give by how much it grew at most."""
    block = hashlib.sha256(b"block").digest() * (MIB // 32)
    before, most = _resident(), 0

    async def give() -> AsyncIterator[bytes]:
        for _ in range(mebibytes):
            yield block

    async def take(chunks: AsyncIterator[bytes]) -> Json_:
        nonlocal most
        length = 0
        async for chunk in chunks:
            length += len(chunk)
            most = max(most, _resident()) if length % (8 * MIB) < len(chunk) else most
        return {"bytes": length}

    async with pair() as (one, other):
        other.service.takes = take
        peers = one.peers(pace=PACE)
        assert await peers.ship(B, {}, give()) == {"bytes": mebibytes * MIB}
    return most - before


def test_a_shipment_of_96_mebibytes_takes_a_few_of_memory() -> None:
    assert asyncio.run(_ship(96)) < 32 * MIB


@pytest.mark.long
def test_a_shipment_of_a_gibibyte_takes_a_few_mebibytes_of_memory() -> None:
    assert asyncio.run(_ship(1024)) < 32 * MIB
