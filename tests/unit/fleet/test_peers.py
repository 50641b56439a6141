"""Claims about what two hosts that know each other can say and send, over real sockets on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from reconciler.errors import BusyError, PeerError, RefusedError
from reconciler.fleet.peers import Progress
from reconciler.model.facts import Json
from reconciler.model.identity import HostName
from tests.support.peers import QUICK, A, B, Json_, giving, node, pair

MIB = 1 << 20


def test_a_question_is_answered_and_the_asker_is_named() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            assert await one.peers().ask(B, {"ask": "offer"}) == {"heard": {"ask": "offer"}}
            assert other.service.asked == [(A, {"ask": "offer"})]

    asyncio.run(talk())


def test_questions_follow_each_other_in_one_conversation() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            peers = one.peers()
            for number in range(3):
                await peers.ask(B, {"number": number})
            assert len(other.service.asked) == 3
            assert other.listener.conversations(A) == 1
            await peers.close()

    asyncio.run(talk())


def test_a_conversation_that_ended_meanwhile_is_begun_anew() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            peers = one.peers()
            await peers.ask(B, {"number": 1})
            other.meet()  # forgets this host, and with it the conversation
            with pytest.raises(PeerError, match="does not let this host in"):
                await peers.ask(B, {"number": 2})
            other.meet(one.as_fellow())
            await peers.ask(B, {"number": 3})
            assert [question["number"] for _, question in other.service.asked] == [1, 3]

    asyncio.run(talk())


def test_questions_at_once_do_not_wait_for_each_other() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            both = asyncio.Barrier(2)

            async def meet(question: Json_) -> Json_:
                async with both:
                    return question

            other.service.answers = meet
            peers = one.peers()
            async with asyncio.timeout(20):
                answers = await asyncio.gather(peers.ask(B, {"n": 1}), peers.ask(B, {"n": 2}))
            assert [answer["n"] for answer in answers] == [1, 2]

    asyncio.run(talk())


def test_an_answer_may_take_longer_than_silence_is_allowed() -> None:
    async def talk() -> None:
        async with pair() as (one, other):

            async def ponder(question: Json_) -> Json_:
                await asyncio.sleep(QUICK.silence_s * 1.5)
                return {"done": True}

            other.service.answers = ponder
            assert await one.peers().ask(B, {"ask": "restore"}) == {"done": True}

    asyncio.run(talk())


def test_a_question_that_was_heard_is_not_asked_again_unasked() -> None:
    async def talk() -> None:
        async with node(A) as one:
            async with node(B) as other:
                one.meet(other.as_fellow())
                other.meet(one.as_fellow())
                peers, begun = one.peers(), asyncio.Event()
                await peers.ask(B, {})

                async def restore(question: Json_) -> Json_:
                    begun.set()
                    await asyncio.Event().wait()
                    return {}

                other.service.answers = restore
                asking = asyncio.create_task(peers.ask(B, {"ask": "restore"}))
                await begun.wait()
                await asyncio.sleep(QUICK.keep_alive_s * 2)
            with pytest.raises(PeerError, match=r"talk to node-b: the connection ended"):
                await asking

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RefusedError("place web: the policy refuses it"), RefusedError),
        (BusyError("place web: another one is at it"), PeerError),
        (ZeroDivisionError("secret"), PeerError),
    ],
)
def test_what_the_other_host_refuses_comes_with_its_words(error: Exception, expected: type[Exception]) -> None:
    async def talk() -> None:
        async with pair() as (one, other):

            async def refuse(question: Json_) -> Json_:
                raise error

            other.service.answers = refuse
            with pytest.raises(expected) as caught:
                await one.peers().ask(B, {})
            assert str(caught.value).startswith(f"ask {B}: ")
            assert ("secret" in str(caught.value)) is False
            other.service.answers = None
            await one.peers().ask(B, {})

    asyncio.run(talk())


def test_words_of_another_host_are_one_line_of_text() -> None:
    async def talk() -> None:
        async with pair() as (one, other):

            async def refuse(question: Json_) -> Json_:
                raise RefusedError("place web: no\nvectl: \x1b[2J all is well" + "!" * 10_000)

            other.service.answers = refuse
            with pytest.raises(RefusedError) as caught:
                await one.peers().ask(B, {})
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) < 2100

    asyncio.run(talk())


def test_a_host_that_no_manifest_names_is_not_talked_to() -> None:
    async def talk() -> None:
        async with node(A) as one:
            with pytest.raises(PeerError, match="Host manifest with address and publicKey"):
                await one.peers().ask(HostName("stranger"), {})

    asyncio.run(talk())


def test_a_host_that_does_not_listen_is_told_with_its_address() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            nobody = replace(other.as_fellow(), port=1)
            one.meet(nobody)
            with pytest.raises(PeerError, match=r"talk to node-b at 127\.0\.0\.1 port 1"):
                await one.peers().ask(B, {})

    asyncio.run(talk())


@pytest.mark.parametrize("chunks", [(), (b"",), (b"a", b"", b"bc"), (bytes(range(256)) * 5000, b"end")])
def test_a_shipment_arrives_whole(chunks: tuple[bytes, ...]) -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            answer = await one.peers().ship(B, {"parcel": "data:1"}, giving(*chunks))
            whole = b"".join(chunks)
            assert answer == {"bytes": len(whole)}
            assert other.service.taken == [(A, {"parcel": "data:1"}, whole)]

    asyncio.run(talk())


def test_what_cannot_be_read_at_the_source_never_arrives() -> None:
    async def talk() -> None:
        async with pair() as (one, other):

            async def breaking() -> AsyncIterator[bytes]:
                yield b"x" * MIB
                raise OSError("the disk is gone")

            with pytest.raises(OSError, match="the disk is gone"):
                await one.peers().ship(B, {}, breaking())
            await other.service.has_failed.wait()
            assert other.service.taken == []
            assert [type(error) for error in other.service.failed] == [PeerError]
            assert "OSError at the sender" in str(other.service.failed[0])
            assert "disk" not in str(other.service.failed[0])

    asyncio.run(talk())


def test_a_cancelled_shipment_ends_at_once_on_both_sides() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            begun, closed = asyncio.Event(), asyncio.Event()

            async def endless() -> AsyncIterator[bytes]:
                try:
                    while True:
                        yield b"x" * 1000
                        begun.set()
                        await asyncio.sleep(0)
                finally:
                    closed.set()

            shipping = asyncio.create_task(one.peers().ship(B, {}, endless()))
            await begun.wait()
            shipping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await shipping
            assert closed.is_set()
            await other.service.has_failed.wait()
            assert [type(error) for error in other.service.failed] == [PeerError]
            assert other.service.taken == []

    asyncio.run(talk())


def test_a_receiver_that_fails_stops_the_sender_and_tells_it_why() -> None:
    async def talk() -> None:
        async with pair() as (one, other):

            async def fail(chunks: AsyncIterator[bytes]) -> Json_:
                async for _ in chunks:
                    raise RefusedError("receive data:1: the pool is full")
                return {}

            other.service.takes = fail
            source = _Endless()
            with pytest.raises(RefusedError, match="the pool is full"):
                await one.peers().ship(B, {}, source.give())
            assert source.is_closed

    asyncio.run(talk())


def test_a_receiver_that_has_it_already_needs_none_of_it() -> None:
    async def talk() -> None:
        async with pair() as (one, other):

            async def has(chunks: AsyncIterator[bytes]) -> Json_:
                return {"has": True}

            other.service.takes = has
            source = _Endless()
            assert await one.peers().ship(B, {}, source.give()) == {"has": True}
            assert source.is_closed

    asyncio.run(talk())


def test_a_receiver_that_takes_nothing_holds_the_sender_back() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            go_on = asyncio.Event()

            async def wait(chunks: AsyncIterator[bytes]) -> Json_:
                await go_on.wait()
                return {"bytes": sum([len(chunk) async for chunk in chunks])}

            other.service.takes = wait
            source = _Endless(limit=64 * MIB)
            shipping = asyncio.create_task(one.peers().ship(B, {}, source.give()))
            await asyncio.sleep(QUICK.silence_s * 1.3)  # longer than silence, as the receiver shows that it is there
            assert source.given < 32 * MIB
            go_on.set()
            assert await shipping == {"bytes": 64 * MIB}

    asyncio.run(talk())


def test_a_sender_that_has_nothing_for_long_is_waited_for() -> None:
    async def talk() -> None:
        async with pair() as (one, _):

            async def slow() -> AsyncIterator[bytes]:
                yield b"a"
                await asyncio.sleep(QUICK.silence_s * 1.3)
                yield b"b"

            assert await one.peers().ship(B, {}, slow()) == {"bytes": 2}

    asyncio.run(talk())


def test_progress_is_told_with_the_header_and_ends_with_all_of_it() -> None:
    async def talk() -> None:
        async with pair() as (one, _):
            told = list[Progress]()
            peers = one.peers(told=told.append)
            await peers.ship(B, {"parcel": "memory"}, giving(b"x" * MIB, b"y"))
            assert told[-1].sent == MIB + 1
            assert told[-1].rate > 0
            assert (told[-1].host, told[-1].header) == (B, {"parcel": "memory"})

    asyncio.run(talk())


def test_an_answer_that_is_too_large_is_an_error_of_the_answerer() -> None:
    async def talk() -> None:
        async with pair() as (one, other):

            async def swell(question: Json_) -> Json_:
                text: Json = "x" * (2 * MIB)
                return {"text": text}

            other.service.answers = swell
            with pytest.raises(PeerError, match="bytes at most"):
                await one.peers().ask(B, {})

    asyncio.run(talk())


def test_a_new_key_is_believed_once_the_manifests_pin_it() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            peers = one.peers()
            await peers.ask(B, {})
            async with node(A) as renewed:
                renewed.meet(other.as_fellow())
                with pytest.raises(PeerError, match="does not let this host in"):
                    await renewed.peers().ask(B, {})
                other.meet(renewed.as_fellow())
                await renewed.peers().ask(B, {})
                with pytest.raises(PeerError, match="does not let this host in"):
                    await peers.ask(B, {})

    asyncio.run(talk())


class _Endless:
    """Gives bytes as long as it is asked."""

    def __init__(self, *, limit: int = 1 << 60) -> None:
        self.given, self.is_closed, self._limit = 0, False, limit

    async def give(self) -> AsyncIterator[bytes]:
        try:
            while self.given < self._limit:
                self.given += MIB
                yield bytes(MIB)
        finally:
            self.is_closed = True
