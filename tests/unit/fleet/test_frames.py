"""Claims about frames: what was written is read, however it is cut on its way; anything else is an error of its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import PeerError
from reconciler.fleet import frames
from reconciler.fleet.channel import Channel
from reconciler.fleet.frames import Frame, Kind, Seal
from reconciler.fleet.pace import Meter, TokenBucket
from tests.support import simloop
from tests.support.peers import QUICK

_PAYLOAD = {Kind.KEEP: st.just(b""), Kind.END: st.binary(min_size=40, max_size=40)}
_FRAMES = st.sampled_from(list(Kind)).flatmap(
    lambda kind: st.builds(Frame, st.just(kind), _PAYLOAD.get(kind, st.binary(max_size=300)))
)


def _bytes(sent: Sequence[Frame]) -> bytes:
    return b"".join(frames.head(frame.kind, len(frame.payload)) + frame.payload for frame in sent)


async def _read(data: bytes, cuts: Sequence[int]) -> tuple[list[Frame], str]:
    """Feed bytes in pieces, and read until they end or are wrong."""
    reader = asyncio.StreamReader()
    channel = Channel(reader, None, peer="node-b", pace=QUICK)  # type: ignore[arg-type]  # nothing is written
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for begin, end in pairwise(places):
        reader.feed_data(data[begin:end])
    reader.feed_eof()
    got = list[Frame]()
    try:
        while (frame := await channel.next()) is not None:
            got.append(frame)
    except PeerError as error:
        return got, str(error)
    return got, ""


@given(sent=st.lists(_FRAMES, max_size=8), cuts=st.lists(st.integers(0, 10_000), max_size=8))
@settings(max_examples=40)
def test_frames_are_read_as_they_were_written_however_they_are_cut(sent: list[Frame], cuts: list[int]) -> None:
    got, problem = asyncio.run(_read(_bytes(sent), cuts))
    assert problem == ""
    assert got == [frame for frame in sent if frame.kind is not Kind.KEEP]


@given(sent=st.lists(_FRAMES, min_size=1, max_size=4), cut=st.integers(1, 10_000))
@settings(max_examples=40)
def test_a_conversation_that_ends_within_a_frame_is_an_error(sent: list[Frame], cut: int) -> None:
    data = _bytes(sent)
    last = len(data) - len(_bytes(sent[-1:]))
    place = last + 1 + cut % max(1, len(data) - last - 1)
    got, problem = asyncio.run(_read(data[:place], ()))
    assert len(got) <= len(sent) - 1
    assert "the connection ended" in problem


@given(data=st.binary(max_size=400))
@settings(max_examples=40)
def test_garbage_is_an_error_of_a_peer_and_nothing_worse(data: bytes) -> None:
    got, _ = asyncio.run(_read(data, ()))
    for frame in got:
        with suppress(PeerError):
            frame.to_json()


@given(chunks=st.lists(st.binary(max_size=50)), other=st.binary(max_size=50))
def test_an_end_fits_its_own_data_alone(chunks: list[bytes], other: bytes) -> None:
    sent, same, differs = Seal(), Seal(), Seal()
    for chunk in chunks:
        sent.add(chunk)
    same.add(b"".join(chunks))
    same.check(sent.payload())
    differs.add(other)
    if other != b"".join(chunks):
        with pytest.raises(PeerError, match="expected"):
            differs.check(sent.payload())


def test_no_frame_is_written_that_nobody_would_read() -> None:
    with pytest.raises(PeerError, match="1048576 bytes at most"):
        frames.to_payload({"text": "x" * (1 << 20)})
    with pytest.raises(ValueError, match="not JSON compliant"):
        frames.to_payload({"number": float("nan")})


def test_all_streams_together_keep_to_the_bandwidth_and_take_turns() -> None:
    rate, piece = 1_000_000, 10_000

    async def work() -> dict[int, int]:
        loop, bucket = asyncio.get_running_loop(), TokenBucket(rate)
        sent = dict.fromkeys(range(4), 0)
        began = loop.time()

        async def stream(number: int) -> None:
            while loop.time() - began < 10:
                await bucket.take(piece)
                sent[number] += piece

        await asyncio.gather(*(stream(number) for number in sent))
        return sent

    sent = simloop.run(7, work())
    assert 10 * rate <= sum(sent.values()) <= 11 * rate
    assert max(sent.values()) - min(sent.values()) <= 2 * piece


def test_without_a_limit_nobody_waits() -> None:
    async def work() -> float:
        bucket = TokenBucket(None)
        await bucket.take(1 << 40)
        return asyncio.get_running_loop().time()

    assert simloop.run(1, work()) == 0.0


@pytest.mark.parametrize(("rate", "portion"), [(None, 262_144), (100 << 20, 262_144), (64 << 10, 16_384)])
def test_what_is_sent_at_once_takes_no_longer_than_a_blink(rate: int | None, portion: int) -> None:
    assert TokenBucket(rate).portion(262_144) == portion


def test_the_rate_that_is_told_follows_what_is_sent() -> None:
    meter, chance = Meter(started_at=0.0), random.Random(1)
    now, told = 0.0, list[float]()
    for step in range(400):
        speed = 1000 if step < 200 else 100
        took = chance.uniform(0.05, 0.15)
        now += took
        if meter.add(int(speed * took), now=now):
            told.append(meter.rate)
    assert 900 <= max(told) <= 1010
    assert 80 <= told[-1] <= 120
    meter.finish(now=now)
    assert meter.rate == pytest.approx(meter.sent / now)
