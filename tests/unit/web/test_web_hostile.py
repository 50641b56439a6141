"""Clients that hang, trickle or flood have an end, and others are answered meanwhile or soon after."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.web.exchange import Exchange
from reconciler.web.server import Limits, Server, listen_at
from reconciler.web.webhook import Webhook
from tests.support.webserver import HOST, post, raw, rest_of, secret_file, serving

PATH = "/hooks/source"
SECRET = "correct-horse-battery-staple"
TOKEN = {"X-Gitlab-Token": SECRET}
QUICK = Limits(pace_s=0.0, headers_s=0.5, whole_s=1.0)
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: a\r\n".encode()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return secret_file(tmp_path_factory.mktemp("web") / "secret", SECRET)


def hook(file: str) -> dict[str, Webhook]:
    return {PATH: Webhook(secret_file=file, accepted=lambda: None)}


@pytest.mark.parametrize("sent", [b"", b"POST /ho", HEAD, HEAD + b"Content-Length: 9\r\n\r\nabc"])
def test_a_client_that_stops_in_the_middle_is_sent_away(file: str, sent: bytes) -> None:
    with serving(hook(file), QUICK) as port:
        assert raw(port, sent).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_trickles_is_sent_away_though_it_never_stops(file: str) -> None:
    with serving(hook(file), QUICK) as port, socket.create_connection((HOST, port), timeout=30) as slow:
        slow.sendall(HEAD)
        slow.settimeout(0.05)
        answer = b""
        for _ in range(600):
            try:
                slow.sendall(b"X-A: b\r\n")
                answer = slow.recv(4096)
            except TimeoutError:
                continue
            except ConnectionError:
                answer = answer or b"HTTP/1.1 408 "
            break
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_clients_that_hold_all_connections_lose_them_and_others_are_answered(file: str) -> None:
    limits = replace(QUICK, connections=4)
    with serving(hook(file), limits) as port, ExitStack() as held:
        for _ in range(8):
            held.enter_context(socket.create_connection((HOST, port), timeout=30))
        assert post(port, PATH, b"", TOKEN)[0] == 202


def test_a_client_that_does_not_read_its_answer_is_left(file: str) -> None:
    with serving(hook(file), replace(QUICK, connections=1)) as port, ExitStack() as held:
        for _ in range(3):
            deaf = held.enter_context(socket.create_connection((HOST, port), timeout=30))
            deaf.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert post(port, PATH, b"", TOKEN)[0] == 202


def test_a_client_that_resets_does_no_harm(file: str) -> None:
    with serving(hook(file), QUICK) as port:
        for sent in (b"", HEAD, HEAD + b"Content-Length: 100\r\n\r\nabc"):
            with socket.create_connection((HOST, port), timeout=30) as rude:
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                rude.sendall(sent)
        assert post(port, PATH, b"", TOKEN)[0] == 202


def test_a_flood_is_told_to_come_again_later(file: str) -> None:
    with serving(hook(file), replace(QUICK, each=10)) as port:
        statuses = [post(port, PATH, b"", {})[0] for _ in range(15)]
        assert statuses == [401] * 10 + [429] * 5
        answer = raw(port, HEAD + b"Content-Length: 0\r\n\r\n")
        assert b"\r\nRetry-After: 6\r\n" in answer


def test_a_second_request_on_a_connection_is_not_answered(file: str) -> None:
    one = HEAD + b"Content-Length: 0\r\nX-Gitlab-Token: " + SECRET.encode() + b"\r\n\r\n"
    with serving(hook(file), QUICK) as port:
        assert raw(port, one * 3).count(b"HTTP/1.1 ") == 1


def test_it_ends_while_clients_hang(file: str) -> None:
    with ExitStack() as held:
        with serving(hook(file)) as port:
            hanging = held.enter_context(socket.create_connection((HOST, port), timeout=30))
            hanging.sendall(HEAD)
            assert post(port, PATH, b"", TOKEN)[0] == 202
        assert rest_of(hanging) == b""


@pytest.mark.parametrize(("address", "family"), [("127.0.0.1:0", socket.AF_INET), ("[::1]:0", socket.AF_INET6)])
def test_it_listens_where_it_is_told(address: str, family: socket.AddressFamily) -> None:
    with asyncio.run(listen_at(address)) as listener:
        assert listener.family is family
        assert not listener.getblocking()


_PARTS = st.sampled_from(
    [
        b"POST /hooks/source HTTP/1.1\r\n",
        b"GET /\x80 HTTP/1.0\r\n",
        b"Host: a\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: websocket\r\nConnection: upgrade\r\n",
        b"X-Hub-Signature-256: sha256=" + b"0" * 64 + b"\r\n",
        b"webhook-signature: v1,AAAA v1,\xff v1\r\n",
        b"X-Gitlab-Token: \xe9\r\n",
        b" folded\r\n",
        b"\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"FFFFFFFFFFFFFFFFFFFF\r\n",
        b"hello",
        b"\0",
    ]
)


@given(st.lists(st.one_of(_PARTS, st.binary(max_size=40)), max_size=12).map(b"".join))
@settings(deadline=None, max_examples=200)
def test_whatever_comes_is_answered_or_ended_and_nothing_of_ours_fails(file: str, data: bytes) -> None:
    assert asyncio.run(_answer(file, data))[:9] in (b"", b"HTTP/1.1 ")


async def _answer(file: str, data: bytes) -> bytes:
    """Give what the server says to bytes after which no more come; what it raises is the test's failure."""
    server = Server(hook(file), limits=QUICK)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            await Exchange(ours, "192.0.2.1").run(server, headers_s=5.0, whole_s=5.0)
        theirs.setblocking(False)
        with suppress(BlockingIOError, ConnectionError):
            return theirs.recv(1 << 16)
    return b""
