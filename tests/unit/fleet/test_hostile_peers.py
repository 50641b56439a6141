"""Claims about whoever reaches the port and is no host of ours, or is one and does not keep to what was agreed."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from reconciler.errors import PeerError
from reconciler.fleet import frames, tls
from reconciler.fleet.circle import Circle, Fellow
from reconciler.fleet.frames import Kind, Seal
from reconciler.fleet.host_key import HostKey
from reconciler.model.identity import HostName
from tests.support.peers import LOOPBACK, QUICK, A, B, C, Json_, Node, giving, new_key, node, pair

_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def _frame(kind: int, payload: bytes = b"") -> bytes:
    return bytes([kind]) + len(payload).to_bytes(4, "big") + payload


_SHIPMENT = _frame(Kind.SHIPMENT, b"{}")


def _end(data: bytes) -> bytes:
    seal = Seal()
    seal.add(data)
    return _frame(Kind.END, seal.payload())


@asynccontextmanager
async def _stream(target: Node, context: ssl.SSLContext | None) -> AsyncIterator[_Stream]:
    reader, writer = await asyncio.open_connection(
        LOOPBACK, target.listener.port, ssl=context, server_hostname=None if context is None else ""
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@asynccontextmanager
async def _conversation(one: Node, other: Node) -> AsyncIterator[_Stream]:
    """Begin a conversation as a host that is let in, and speaks by hand."""
    async with _stream(other, tls.client_context(one.circle, other.as_fellow())) as (reader, writer):
        assert await reader.readexactly(5) == _frame(Kind.KEEP)
        yield reader, writer


def _posing(target: Node, *, name: HostName, key: HostKey) -> ssl.SSLContext:
    """Give what a host that says it is ``name`` talks to another with."""
    return tls.client_context(Circle(name=name, key=key, fellows={}), target.as_fellow())


async def _everything(reader: asyncio.StreamReader) -> bytes:
    """Read until the other end closes."""
    async with asyncio.timeout(20):
        with suppress(OSError):
            return await reader.read(-1)
    return b""


async def _is_not_let_in(target: Node, context: ssl.SSLContext) -> None:
    with suppress(OSError):
        async with _stream(target, context) as (reader, writer):
            writer.write(_frame(Kind.QUESTION, b"{}"))
            assert await _everything(reader) == b""
    assert target.service.asked == []


async def _is_well(one: Node, other: Node) -> None:
    """Show that two honest hosts still talk."""
    other.service.answers = other.service.takes = None
    assert await one.peers().ask(B, {"well": 1}) == {"heard": {"well": 1}}


def test_a_key_that_nobody_knows_is_not_let_in() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            await _is_not_let_in(other, _posing(other, name=HostName("stranger"), key=new_key()))
            await _is_well(one, other)

    asyncio.run(talk())


def test_the_name_of_a_host_with_another_key_is_not_let_in() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            await _is_not_let_in(other, _posing(other, name=A, key=new_key()))
            await _is_well(one, other)

    asyncio.run(talk())


def test_a_known_host_does_not_pass_for_another_one() -> None:
    async def talk() -> None:
        async with pair() as (one, other), node(C) as third:
            other.meet(one.as_fellow(), third.as_fellow())
            await _is_not_let_in(other, _posing(other, name=A, key=third.circle.key))

    asyncio.run(talk())


@pytest.mark.parametrize("shown", ["its own key", "the other's key"])
def test_a_certificate_that_a_known_host_signs_for_another_name_is_worth_nothing(shown: str) -> None:
    """A host may sign any leaf: with another name over its own key, or over the key of that host, which it lacks."""

    async def talk() -> None:
        async with pair() as (one, other), node(C) as third:
            other.meet(one.as_fellow(), third.as_fellow())
            context = _posing(other, name=C, key=third.circle.key)
            subject = (third if shown == "its own key" else one).circle.key
            with suppress(ssl.SSLError):  # a leaf over a key that one lacks cannot even be loaded
                _show(context, _leaf(name=A, subject=subject, signer=third), third.circle.key)
                await _is_not_let_in(other, context)
            assert other.service.asked == []

    asyncio.run(talk())


def test_an_impostor_is_not_talked_to() -> None:
    """Whoever answers at a host's address with another key gets no word; nor does another host that is known."""

    async def talk() -> None:
        async with node(A) as one, node(B) as impostor, node(C) as third:
            impostor.meet(one.as_fellow())
            third.meet(one.as_fellow())
            honest = new_key().public
            one.meet(
                replace(impostor.as_fellow(), key=honest),
                replace(third.as_fellow(), name=HostName("node-d")),
            )
            for name in (B, HostName("node-d")):
                with pytest.raises(PeerError, match="its key is not the one that its Host manifest pins"):
                    await one.peers().ask(name, {})
            assert impostor.service.asked == third.service.asked == []

    asyncio.run(talk())


def test_nobody_gets_in_without_a_certificate() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            await _is_not_let_in(other, _bare_context())
            await _is_well(one, other)

    asyncio.run(talk())


def test_a_client_of_tls_1_2_is_not_let_in() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            context = tls.client_context(one.circle, other.as_fellow())
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            await _is_not_let_in(other, context)
            await _is_well(one, other)

    asyncio.run(talk())


def test_a_server_of_tls_1_2_is_not_talked_to() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            context = tls.server_context(other.circle)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            async with _server(lambda reader, writer: reader.read(), context) as fellow:
                one.meet(replace(fellow, key=other.circle.key.public))
                with pytest.raises(PeerError, match=r"talk to node-b at 127"):
                    await one.peers().ask(B, {})

    asyncio.run(talk())


def test_another_protocol_inside_is_told_as_such() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            context = tls.server_context(other.circle)
            context.set_alpn_protocols(["vectl/2"])
            async with _server(lambda reader, writer: reader.read(), context) as fellow:
                one.meet(replace(fellow, key=other.circle.key.public))
                with pytest.raises(PeerError, match="the same version of vectl"):
                    await one.peers().ask(B, {})

    asyncio.run(talk())


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 4096, bytes(range(256)) * 400, b"\x16\x03\x01"])
def test_garbage_before_the_handshake_ends_that_connection_alone(data: bytes) -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            async with _stream(other, None) as (reader, writer):
                writer.write(data)
                await _is_well(one, other)
                await _everything(reader)  # an alert, or nothing; and then the end
            await _is_well(one, other)

    asyncio.run(talk())


@pytest.mark.parametrize(
    "data",
    [
        os.urandom(64),
        _frame(0, b""),
        _frame(99, b"x"),
        bytes([Kind.QUESTION]) + b"\xff\xff\xff\xff",
        bytes([Kind.QUESTION]) + (frames.PAYLOAD_MAX + 1).to_bytes(4, "big"),
        bytes([Kind.KEEP]) + b"\x00\x00\x00\x01x",
        bytes([Kind.END]) + b"\x00\x00\x00\x01x",
        _frame(Kind.QUESTION, b"no json"),
        _frame(Kind.QUESTION, b"[1]"),
        _frame(Kind.QUESTION, b"\xff\xfe"),
        _frame(Kind.QUESTION, b'{"a": NaN}'),
        _frame(Kind.QUESTION, b'{"a":' + b"[" * 500_000),
        _frame(Kind.QUESTION, b'{"a":' + b"9" * 500_000 + b"}"),
        _frame(Kind.DATA, b"x"),
        _frame(Kind.ANSWER, b"{}"),
        _end(b""),
    ],
    ids=range(16),
)
def test_what_is_no_question_is_answered_with_an_error_or_not_at_all(data: bytes) -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            async with _conversation(one, other) as (reader, writer):
                writer.write(data)
                writer.write_eof() if writer.can_write_eof() else None
                reply = await _everything(reader)
                assert reply[:1] in (b"", bytes([Kind.ERROR]))
            assert other.service.asked == []
            await _is_well(one, other)

    asyncio.run(talk())


@pytest.mark.parametrize(
    "data",
    [
        _frame(Kind.DATA, b"abc") + _end(b"abd"),
        _frame(Kind.DATA, b"abc") + _end(b"abcabc"),
        _frame(Kind.DATA, b"abc") + _end(b""),
        _end(b"abc"),
        _frame(Kind.DATA, b"abc") + _frame(Kind.BREAK, b'{"message": "no more"}'),
        _frame(Kind.DATA, b"abc") + _frame(Kind.BREAK, b"no json"),
        _frame(Kind.DATA, b"abc") + _frame(Kind.QUESTION, b"{}"),
        _frame(Kind.DATA, b"abc") + _SHIPMENT,
        _frame(Kind.DATA, b"abc") + _frame(77),
        _frame(Kind.DATA, b"abc") + bytes([Kind.DATA]) + b"\x00\x20\x00\x00",
    ],
    ids=[
        "changed",
        "missing",
        "more",
        "none",
        "given-up",
        "given-up-oddly",
        "question",
        "again",
        "unknown",
        "oversized",
    ],
)
def test_a_shipment_that_is_not_what_its_end_says_is_not_taken(data: bytes) -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            async with _conversation(one, other) as (reader, writer):
                writer.write(_SHIPMENT + data)
                assert (await reader.readexactly(1))[0] == Kind.ERROR
            assert [type(error) for error in other.service.failed] == [PeerError]
            assert other.service.taken == []
            await _is_well(one, other)

    asyncio.run(talk())


@pytest.mark.parametrize("cut", [0, 3, 7, 5 + 3, 2000])
def test_a_shipment_that_is_cut_is_not_taken(cut: int) -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            async with _conversation(one, other) as (_, writer):
                writer.write(_SHIPMENT + (_frame(Kind.DATA, b"x" * 1000) * 3)[:cut])
                await writer.drain()
                await other.service.was_sent.wait()
            await other.service.has_failed.wait()
            assert [type(error) for error in other.service.failed] == [PeerError]
            await _is_well(one, other)

    asyncio.run(talk())


def test_one_byte_at_a_time_is_as_good_as_silence() -> None:
    """Bytes that never make a frame do not hold a place, neither before the handshake nor after it."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while not writer.is_closing():
                writer.write(b"\x05")
                await writer.drain()
                await asyncio.sleep(QUICK.silence_s / 10)

    async def talk() -> None:
        async with pair() as (one, other):
            async with _stream(other, None) as (reader, writer), _conversation(one, other) as (inner, sender):
                sender.write(_SHIPMENT + bytes([Kind.DATA]) + b"\x00\x00\x10\x00")
                dripping = asyncio.gather(drip(writer), drip(sender))
                await _everything(reader)
                await _everything(inner)
                dripping.cancel()
                with suppress(asyncio.CancelledError):
                    await dripping
            assert [type(error) for error in other.service.failed] == [PeerError]
            assert "nothing came" in str(other.service.failed[0])

    asyncio.run(talk())


def test_strangers_in_numbers_do_not_keep_out_a_host() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            other.meet(replace(one.as_fellow(), address="127.0.0.2"))  # from 127.0.0.1 come strangers
            crowd = await asyncio.gather(
                *(asyncio.open_connection(LOOPBACK, other.listener.port) for _ in range(100)), return_exceptions=True
            )
            assert not [one for one in crowd if isinstance(one, BaseException)]
            reader, writer = await _open_from("127.0.0.2", other, tls.client_context(one.circle, other.as_fellow()))
            writer.write(_frame(Kind.QUESTION, b"{}"))
            async with asyncio.timeout(QUICK.handshake_s * 5):
                assert (await reader.readexactly(6))[:6] == _frame(Kind.KEEP) + bytes([Kind.ANSWER])
            writer.transport.abort()
            for entry in crowd:
                if not isinstance(entry, BaseException):
                    entry[1].transport.abort()

    asyncio.run(talk())


def test_a_crowd_at_the_address_of_a_host_does_not_keep_it_out() -> None:
    """What a host's VEs reach by its address they reach as if they were it, but for the key."""

    async def talk() -> None:
        async with pair() as (one, other):
            crowd = [await asyncio.open_connection(LOOPBACK, other.listener.port) for _ in range(60)]
            await _is_well(one, other)
            for _, writer in crowd:
                writer.transport.abort()

    asyncio.run(talk())


def test_a_hundred_questions_at_once_are_all_answered_or_refused_in_words() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            asks = [asyncio.create_task(one.peers(pace=replace(QUICK, handshake_s=30)).ask(B, {})) for _ in range(100)]
            results = await asyncio.gather(*asks, return_exceptions=True)
            assert not [error for error in results if isinstance(error, BaseException) and type(error) is not PeerError]
            assert [error for error in results if not isinstance(error, BaseException)]
            await _is_well(one, other)

    asyncio.run(talk())


def test_a_peer_that_never_reads_is_left() -> None:
    """A listener that takes a connection and nothing of what comes; what it was to get ends as soon as it is silent."""

    async def talk() -> None:
        async with pair() as (one, other):

            async def greet_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                writer.write(_frame(Kind.KEEP))
                await asyncio.Event().wait()

            async with _server(greet_only, tls.server_context(other.circle)) as fellow:
                one.meet(replace(fellow, key=other.circle.key.public))
                with pytest.raises(PeerError, match="nothing came for"):
                    await one.peers().ship(B, {}, giving(*[b"x" * 1_000_000] * 100))

    asyncio.run(talk())


def test_a_peer_that_shows_that_it_is_there_and_never_reads_is_left_too() -> None:
    async def talk() -> None:
        async with pair() as (one, other):

            async def nod(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                while True:
                    writer.write(_frame(Kind.KEEP))
                    await asyncio.sleep(0.1)

            async with _server(nod, tls.server_context(other.circle)) as fellow:
                one.meet(replace(fellow, key=other.circle.key.public))
                with pytest.raises(PeerError, match="no answer in time"):
                    await one.peers().ship(B, {}, giving(*[b"x" * 1_000_000] * 100))

    asyncio.run(talk())


def test_a_question_of_one_who_is_gone_is_answered_to_its_end() -> None:
    async def talk() -> None:
        async with pair() as (one, other):
            begun, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

            async def restore(question: Json_) -> Json_:
                begun.set()
                await go_on.wait()
                ended.set()
                return {}

            other.service.answers = restore
            asking = asyncio.create_task(one.peers().ask(B, {}))
            await begun.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            go_on.set()
            await ended.wait()
            await _is_well(one, other)

    asyncio.run(talk())


def test_what_was_said_once_cannot_be_said_again() -> None:
    """A conversation that somebody recorded on the way, sent again byte by byte, is not let in."""

    async def talk() -> None:
        async with pair() as (one, other):
            recorded = bytearray()

            async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                inward, outward = await asyncio.open_connection(LOOPBACK, other.listener.port)

                async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray) -> None:
                    while data := await source.read(65536):
                        kept += data
                        sink.write(data)

                try:
                    await asyncio.gather(pump(reader, outward, recorded), pump(inward, writer, bytearray()))
                finally:
                    outward.transport.abort()

            async with _server(relay, None) as fellow:
                one.meet(replace(fellow, key=other.circle.key.public))
                peers = one.peers()
                await peers.ask(B, {"once": True})
            async with _stream(other, None) as (reader, writer):
                writer.write(bytes(recorded))
                await _everything(reader)
            assert len(other.service.asked) == 1

    asyncio.run(talk())


def _bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([tls.PROTOCOL])
    return context


@asynccontextmanager
async def _server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]], context: ssl.SSLContext | None
) -> AsyncIterator[Fellow]:
    """Run a server that is no listener of ours; gives it as the host B, without its key."""
    tasks = set[asyncio.Task[object]]()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(OSError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(connected, LOOPBACK, 0, ssl=context)
    try:
        port = server.sockets[0].getsockname()[1]
        yield Fellow(name=B, address=LOOPBACK, port=port, key=new_key().public)
    finally:
        server.close()
        for task in tasks:
            task.cancel()


async def _open_from(source: str, target: Node, context: ssl.SSLContext) -> _Stream:
    return await asyncio.open_connection(
        LOOPBACK, target.listener.port, ssl=context, server_hostname="", local_addr=(source, 0)
    )


def _leaf(*, name: HostName, subject: HostKey, signer: Node) -> bytes:
    key = subject.private.public_key()
    return tls._certificate(
        tls._host(name), tls._key_of(signer.circle.name), key, signer.circle.key.private, signs=False
    )


def _show(context: ssl.SSLContext, leaf: bytes, key: HostKey) -> None:
    from cryptography.hazmat.primitives import serialization

    form = serialization.PrivateFormat.PKCS8
    secret = key.private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    fd = os.memfd_create("leaf")
    try:
        os.write(fd, leaf + secret)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
