"""Whatever a server does, a fetch ends in its time, costs what it may, and leaves the mirror as it was."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from reconciler.errors import FetchError
from reconciler.kernel import git_fetch
from reconciler.kernel.git_fetch import HEAD, Mirror
from reconciler.kernel.git_remote import Remote
from tests.support import gitserver
from tests.support.gitrepo import Clone, git
from tests.support.gitserver import HttpServer
from tests.support.patience import PATIENCE

MAIN = "refs/heads/main"
PATIENT_S, SHORT_S = 60.0 * PATIENCE, 1.0
LATE_S = 10.0 * PATIENCE
"""What a deadline of `SHORT_S` may take on a busy machine."""

Tamper = Callable[[bytes, int], bytes | None]


@pytest.fixture
def mirror(tmp_path: Path, http: HttpServer, clone: Clone) -> Mirror:
    """A mirror that holds the first commit."""
    made = Mirror(str(tmp_path / "m.git"))
    asyncio.run(made.fetch([Remote(url=http.url("fleet.git"), timeout_s=PATIENT_S)], MAIN))
    clone.commit({f"{number}.yaml": secrets.token_hex(2000) for number in range(20)}, "a lot that is new")
    clone.push(http.url("fleet.git"))
    return made


def refusal(mirror: Mirror, remote: Remote) -> str:
    """Fetch what cannot be had; give the reason. The mirror is as before, and nobody is left at work on it."""
    before = git(Path(mirror.path), "for-each-ref")
    with pytest.raises(FetchError) as caught:
        asyncio.run(mirror.fetch([remote], MAIN))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert git(Path(mirror.path), "for-each-ref") == before
    assert at_work(mirror) == []
    return caught.value.reason


def at_work(mirror: Mirror) -> list[str]:
    """Name the processes that have the mirror among their arguments."""
    found = []
    for pid in (name for name in os.listdir("/proc") if name.isdigit()):
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if mirror.path in argv and int(pid) != os.getpid():
            found.append(argv)
    return found


def through(remote: Remote, port: int, *, timeout_s: float = PATIENT_S) -> Remote:
    """Give a remote as it is reached by another port."""
    parts = urlsplit(remote.url)
    netloc = parts.netloc.replace(f":{parts.port}", f":{port}")
    return replace(remote, url=parts._replace(netloc=netloc).geturl(), timeout_s=timeout_s)


@pytest.fixture(params=["http", "ssh"])
def remote(request: pytest.FixtureRequest, tmp_path: Path, served: Path, http: HttpServer) -> Iterator[Remote]:
    """A good server, to stand before."""
    if request.param == "http":
        yield Remote(url=http.url("fleet.git"), timeout_s=PATIENT_S)
        return
    with gitserver.ssh(tmp_path / "ssh", served) as ssh:
        # The proxy has a port of its own, under which the host key is not known.
        words = ssh.known_hosts.read_text().split(maxsplit=1)
        ssh.known_hosts.write_text(f"* {words[1]}")
        yield Remote(url=ssh.url("fleet.git"), ssh_key=str(ssh.key), known_hosts=str(ssh.known_hosts))


def stages(tmp_path: Path, remote: Remote) -> list[tuple[int, int]]:
    """Give places in what a server sends in a whole fetch: of which connection, after how many bytes."""
    sent: list[int] = []
    with gitserver.tampering(urlsplit(remote.url).port or 0, lambda piece, _: piece, sent=sent) as proxy:
        asyncio.run(Mirror(str(tmp_path / "other.git")).fetch([through(remote, proxy.port)], MAIN))
    return [(number, length * part // 10) for number, length in enumerate(sent) for part in (0, 3, 6, 9)]


def at(connection: int, place: int, then: Tamper) -> Tamper:
    """Let connections be until a place in one of them."""
    begun: list[int] = []

    def tamper(piece: bytes, before: int) -> bytes | None:
        if before == 0:
            begun.append(1)
        if len(begun) - 1 < connection or before + len(piece) <= place:
            return piece
        return then(piece[max(0, place - before) :], before)

    return tamper


def test_a_server_that_cuts_at_any_place_changes_nothing(tmp_path: Path, mirror: Mirror, remote: Remote) -> None:
    port = urlsplit(remote.url).port or 0
    for connection, place in stages(tmp_path, remote):
        with gitserver.tampering(port, at(connection, place, lambda *_: None)) as proxy:
            assert refusal(mirror, through(remote, proxy.port)) in ("FetchFailed", "RemoteUnreachable")
    assert asyncio.run(mirror.fetch([remote], MAIN)).head


def test_a_server_that_sends_garbage_changes_nothing(tmp_path: Path, mirror: Mirror, remote: Remote) -> None:
    port = urlsplit(remote.url).port or 0
    for connection, place in stages(tmp_path, remote):
        with gitserver.tampering(port, at(connection, place, lambda piece, _: bytes(b ^ 0x55 for b in piece))) as proxy:
            assert refusal(mirror, through(remote, proxy.port, timeout_s=5)) in (
                *("FetchFailed", "RemoteUnreachable", "FetchTimedOut", "SourceTooLarge", "HostKeyUnknown"),
            )
    assert asyncio.run(mirror.fetch([remote], MAIN)).head


def test_a_server_that_falls_silent_is_left_at_the_deadline(tmp_path: Path, mirror: Mirror, remote: Remote) -> None:
    port = urlsplit(remote.url).port or 0
    for connection, place in stages(tmp_path, remote)[::2]:
        with gitserver.tampering(port, at(connection, place, lambda *_: b"")) as proxy:
            begun = time.monotonic()
            assert refusal(mirror, through(remote, proxy.port, timeout_s=SHORT_S)) in ("FetchTimedOut", "FetchFailed")
            assert time.monotonic() - begun < LATE_S
    assert asyncio.run(mirror.fetch([remote], MAIN)).head


@pytest.mark.parametrize("url", ["http://{}/fleet.git", "https://{}/fleet.git", "ssh://root@{}/fleet.git"])
def test_a_server_that_never_says_a_word_is_left_at_the_deadline(mirror: Mirror, url: str) -> None:
    def listen(connection: socket.socket) -> None:
        while connection.recv(1 << 16):
            pass

    with gitserver.raw(listen) as silent:
        begun = time.monotonic()
        remote = Remote(url=url.format(f"{gitserver.HOST}:{silent.port}"), timeout_s=SHORT_S)
        assert refusal(mirror, remote) in ("FetchTimedOut", "RemoteUnreachable")
        assert time.monotonic() - begun < LATE_S


def test_a_redirection_to_another_host_is_not_followed(served: Path, mirror: Mirror) -> None:
    with gitserver.http(served) as other:

        def redirect(connection: socket.socket) -> None:
            asked = connection.recv(1 << 16).split(b" ")[1].decode()
            place = f"http://localhost:{other.server_address[1]}{asked}"
            connection.sendall(f"HTTP/1.1 301 Moved\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode())

        with gitserver.raw(redirect) as server:
            url = f"http://{gitserver.HOST}:{server.port}/fleet.git"
            assert refusal(mirror, Remote(url=url, timeout_s=PATIENT_S)) == "FetchFailed"
        assert other.asked == []


def test_what_is_larger_than_the_mirror_may_be_is_left_and_cleared_away(
    mirror: Mirror, clone: Clone, http: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_fetch, "PACK_MAX", 4 << 20)
    (clone.path / "large").write_bytes(os.urandom(8 << 20))
    clone.commit({})
    clone.push(http.root / "fleet.git")
    remote = Remote(url=http.url("fleet.git"), timeout_s=PATIENT_S)
    assert refusal(mirror, remote) == "SourceTooLarge"
    clone.git("reset", "--quiet", "--hard", "HEAD~1")
    clone.push(http.root / "fleet.git", f"HEAD:{MAIN}", "--force")
    assert asyncio.run(mirror.fetch([remote], MAIN)).head == clone.git("rev-parse", "HEAD")
    assert [path.name for path in Path(mirror.path).rglob("tmp_*")] == []


def test_a_file_that_unfolds_to_more_than_there_is_memory_is_only_stored(
    mirror: Mirror, clone: Clone, http: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_fetch, "MEMORY_MAX", 96 << 20)
    with (clone.path / "zeros").open("wb") as file:
        file.truncate(128 << 20)
    clone.git("config", "core.compression", "1")
    head = clone.commit({})
    clone.push(http.root / "fleet.git")
    fetched = asyncio.run(mirror.fetch([Remote(url=http.url("fleet.git"), timeout_s=PATIENT_S)], MAIN))
    assert fetched.head == head
    packs = sum(path.stat().st_size for path in Path(mirror.path).rglob("*.pack"))
    assert packs < 4 << 20


def answering(head: bytes, endless: bytes) -> Callable[[socket.socket], None]:
    """Answer every request with something, and then something else for ever."""

    def handle(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(head)
        while True:
            connection.sendall(endless)

    return handle


_ADVERTISING = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\r\n"


def line(text: bytes) -> bytes:
    """Give a packet of git's protocol."""
    return b"%04x%s" % (len(text) + 4, text)


@pytest.mark.parametrize(
    "endless",
    [
        line(b"0" * 39 + b"1 refs/heads/x\n") * 1000,
        b"\0" * 65536,
        line(b"a" * 60000),
    ],
    ids=["refs", "zeros", "words"],
)
def test_an_answer_without_end_is_bounded(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, endless: bytes) -> None:
    monkeypatch.setattr(git_fetch, "MEMORY_MAX", 256 << 20)
    service = line(b"# service=git-upload-pack\n") + b"0000"
    with gitserver.raw(answering(_ADVERTISING + service, endless)) as server:
        url = f"http://{gitserver.HOST}:{server.port}/fleet.git"
        begun = time.monotonic()
        reason = refusal(mirror, Remote(url=url, timeout_s=8.0))
        assert reason in ("FetchFailed", "FetchTimedOut", "SourceTooLarge", "RepositoryMissing")
        assert time.monotonic() - begun < 8.0 + LATE_S


def test_a_server_that_sends_a_byte_now_and_then_is_left_at_the_deadline(mirror: Mirror) -> None:
    def drip(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        with suppress(OSError):  # once it is left
            connection.sendall(_ADVERTISING)
            while True:
                connection.sendall(b"0")
                time.sleep(0.1)  # it is the server that is slow

    with gitserver.raw(drip) as server:
        remote = Remote(url=f"http://{gitserver.HOST}:{server.port}/x", timeout_s=SHORT_S)
        assert refusal(mirror, remote) == "FetchTimedOut"


def test_what_a_server_says_is_told_as_plain_words_and_not_at_length(mirror: Mirror) -> None:
    words = b"ERR \x1b[2J\x07" + "\u202egit".encode() + b"x" * 2000
    body = line(b"# service=git-upload-pack\n") + b"0000" + line(words)
    answer = _ADVERTISING.replace(b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % len(body)) + body

    def say(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(answer)

    with gitserver.raw(say) as server:
        assert refusal(mirror, Remote(url=f"http://{gitserver.HOST}:{server.port}/x", timeout_s=PATIENT_S))


def test_many_refs_of_notes_are_no_way_to_hold_up_a_fetch(mirror: Mirror, clone: Clone, http: HttpServer) -> None:
    head = clone.git("rev-parse", "HEAD")
    refs = "".join(f"create refs/notes/vectl-{number} {head}\n" for number in range(300))
    git(http.root / "fleet.git", "update-ref", "--stdin", input=refs.encode())
    fetched = asyncio.run(mirror.fetch([Remote(url=http.url("fleet.git"), timeout_s=PATIENT_S)], MAIN))
    assert (fetched.head, fetched.notes) == (head, None)
    assert git(Path(mirror.path), "rev-parse", HEAD) == head
