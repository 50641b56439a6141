"""What stands is told over real connections: once, in the form of each receiver, again where it did not get there."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.agent.books import Books
from reconciler.agent.notices import Notice
from reconciler.agent.standing import Phase, Problem, Progress, Standing
from reconciler.errors import ConfigError, DeliveryError
from reconciler.state.notify import Forge, SlackTarget, StatusTarget, Target, Topic, WebhookTarget
from reconciler.twin.clock import StoppedClock
from reconciler.web import client, messages
from reconciler.web.client import Message, post
from reconciler.web.notifier import Notifier, Pace, key_of
from tests.support import gitserver
from tests.support.gitserver import certificate
from tests.support.inbox import Inbox, inbox
from tests.support.outputs import misfits
from tests.support.webserver import secret_file

COMMIT = "c" * 40
SECRET = "correct-horse-battery-staple"
FAILED = Standing(
    host="node-a",
    revision=COMMIT,
    problems={"web1": Problem(subject="web1", reason="PlanChanged", message="memory", since=1.0, urgent=True)},
    known=frozenset({"web1"}),
)
WELL = Standing(host="node-a", revision=COMMIT, well={"web1": 0.0}, known=frozenset({"web1"}))


@pytest.fixture
def box() -> Iterator[Inbox]:
    with inbox() as made:
        yield made


@dataclass(kw_only=True)
class Bench:
    """A notifier at work. ``standing`` may be set to what stands now."""

    notifier: Notifier
    clock: StoppedClock
    told: list[str] = field(default_factory=list)
    standing: Standing | None = None

    def stands(self, standing: Standing) -> None:
        self.standing = standing
        self.clock.advance(60.0)
        self.notifier.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110  # what is waited for happens in a thread
                await asyncio.sleep(0.005)


@asynccontextmanager
async def at_work(target: Target, state: Path, pace: Pace | None = None) -> AsyncIterator[Bench]:
    clock = StoppedClock()
    quick = pace or Pace(gather_s=0.0, look_s=0.05, first_s=0.01, longest_s=0.05)
    bench = Bench(notifier=None, clock=clock)  # type: ignore[arg-type]  # the two know each other
    bench.notifier = Notifier(
        target=target,
        look=lambda: bench.standing,
        books=Books(str(state)),
        clock=clock,
        told=bench.told.append,
        pace=quick,
    )
    task = asyncio.create_task(bench.notifier.run())
    try:
        yield bench
        assert not task.done(), task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_a_failure_and_its_end_are_told_once_and_signed(box: Inbox, tmp_path: Path) -> None:
    target = WebhookTarget(url=f"{box.url}/hook?team=a", secret_file=secret_file(tmp_path / "s", SECRET))

    async def work() -> None:
        async with at_work(target, tmp_path) as bench:
            bench.stands(FAILED)
            await bench.until(lambda: len(box.said) == 1)
            bench.stands(FAILED)
            await asyncio.sleep(0.2)
            bench.stands(WELL)
            await bench.until(lambda: len(box.said) == 2)

    run(work())
    failure, end = box.said
    assert failure.path == "/hook?team=a"
    digest = hmac.new(SECRET.encode(), failure.body, hashlib.sha256).hexdigest()
    assert failure.headers["X-Vectl-Signature"] == f"sha256={digest}"
    assert misfits("notification", failure.json) == []
    assert [(one["topic"], one["subject"], one["reason"]) for one in failure.json["notices"]] == [
        ("failure", "web1", "PlanChanged")
    ]
    assert [one["topic"] for one in end.json["notices"]] == ["recovery"]


def test_nothing_is_told_again_after_a_start(box: Inbox, tmp_path: Path) -> None:
    async def once() -> None:
        async with at_work(WebhookTarget(url=box.url), tmp_path) as bench:
            bench.stands(FAILED)
            await asyncio.sleep(0.3)

    run(once())
    run(once())
    assert len(box.said) == 1


def test_nothing_is_told_before_anything_is_known(box: Inbox, tmp_path: Path) -> None:
    async def work() -> None:
        async with at_work(WebhookTarget(url=box.url), tmp_path) as bench:
            bench.notifier.changed.set()
            await asyncio.sleep(0.2)

    run(work())
    assert box.said == []


@pytest.mark.parametrize("status", [429, 500, 503, 401, 404, 302])
def test_what_did_not_get_there_is_told_again_until_it_does(box: Inbox, tmp_path: Path, status: int) -> None:
    box.script = [(status, {"Retry-After": "0", "Location": "http://127.0.0.1:1/"}, "not\x1b[0m now")] * 3

    async def work() -> None:
        async with at_work(WebhookTarget(url=box.url), tmp_path) as bench:
            bench.stands(FAILED)
            await bench.until(lambda: len(box.said) == 4)
            await asyncio.sleep(0.2)
            assert len(bench.told) == 1
            assert f"tell {box.url}: it answers {status}: not\ufffd[0m now" in bench.told[0]

    run(work())
    assert len(box.said) == 4


def test_who_was_away_hears_what_stands_and_not_what_stood(tmp_path: Path) -> None:
    with gitserver.listen() as away:
        port = away.getsockname()[1]

    async def work() -> None:
        async with at_work(WebhookTarget(url=f"http://127.0.0.1:{port}"), tmp_path) as bench:
            bench.stands(FAILED)
            await bench.until(lambda: bench.told != [])
            assert bench.told == [f"tell http://127.0.0.1:{port}: Connect call failed ('127.0.0.1', {port})"]
            bench.stands(WELL)
            await asyncio.sleep(0.2)

    run(work())


def test_a_server_that_asks_for_time_is_given_it(box: Inbox, tmp_path: Path) -> None:
    box.script = [(429, {"Retry-After": "9999"}, "")]

    async def work() -> None:
        pace = Pace(gather_s=0.0, look_s=0.05, first_s=0.01, longest_s=30.0)
        async with at_work(WebhookTarget(url=box.url), tmp_path, pace) as bench:
            bench.stands(FAILED)
            await bench.until(lambda: bench.told != [])
            await asyncio.sleep(0.3)

    run(work())
    assert len(box.said) == 1


def test_slack_gets_a_text_in_which_nothing_is_a_link_or_a_mention(box: Inbox, tmp_path: Path) -> None:
    file = secret_file(tmp_path / "url", f"{box.url}/services/T0/B0/secret")
    evil = Problem(
        subject="web1", reason="X", message="<!channel> <http://evil|*ok*> @here\n\x1b", since=1, urgent=True
    )
    many = {f"ve{n:02}": replace(evil, subject=f"ve{n:02}", message="m") for n in range(40)}

    async def work() -> None:
        async with at_work(SlackTarget(url_file=file), tmp_path) as bench:
            bench.stands(replace(FAILED, problems={"web1": evil}))
            await bench.until(lambda: len(box.said) == 1)
            bench.stands(replace(FAILED, problems={"web1": evil, **many}))
            await bench.until(lambda: len(box.said) == 2)

    run(work())
    one, digest = (said.json["text"] for said in box.said)
    assert box.said[0].path == "/services/T0/B0/secret"
    assert one.startswith(":red_circle: *node-a/web1* X: &lt;!channel&gt; ")
    assert not set(one) & set("<>\n\x1b")
    assert "@here" not in one
    assert len(digest.splitlines()) == 16
    assert digest.splitlines()[-1] == "and 25 more: `vectl get` on node-a"


def test_a_secret_address_stands_in_no_error(tmp_path: Path) -> None:
    file = secret_file(tmp_path / "url", "https://hooks.invalid/services/T0/B0/verysecret")

    async def work() -> None:
        async with at_work(SlackTarget(url_file=file), tmp_path) as bench:
            bench.stands(FAILED)
            await bench.until(lambda: bench.told != [])
            assert bench.told[0].startswith("tell https://hooks.invalid: ")
            assert "verysecret" not in bench.told[0]

    run(work())
    assert "verysecret" not in repr(Message(url="https://a/verysecret", body=b"", headers={"A": "verysecret"}))


def test_a_secret_that_is_not_there_is_told_and_then_found(box: Inbox, tmp_path: Path) -> None:
    async def work() -> None:
        async with at_work(SlackTarget(url_file=str(tmp_path / "url")), tmp_path) as bench:
            bench.stands(FAILED)
            await bench.until(lambda: bench.told != [])
            assert "expected a file with a secret, found none" in bench.told[0]
            secret_file(tmp_path / "url", box.url)
            await bench.until(lambda: len(box.said) == 1)

    run(work())


def going(phase: Phase, summary: str = "2 of 2 VEs", revision: str = COMMIT) -> Standing:
    return replace(WELL, progress=(Progress(revision=revision, phase=phase, summary=summary),))


FORGES = {
    Forge.GITHUB: (
        f"/repos/org/fleet/statuses/{COMMIT}",
        ("Authorization", "Bearer tok"),
        "context",
        ["pending", "failure", "success"],
    ),
    Forge.GITLAB: (
        f"/projects/org%2Ffleet/statuses/{COMMIT}",
        ("PRIVATE-TOKEN", "tok"),
        "name",
        ["pending", "failed", "success"],
    ),
    Forge.GITEA: (
        f"/repos/org/fleet/statuses/{COMMIT}",
        ("Authorization", "token tok"),
        "context",
        ["pending", "failure", "success"],
    ),
}


@pytest.mark.parametrize("forge", Forge)
def test_a_commit_shows_how_far_it_is_on_each_forge(box: Inbox, tmp_path: Path, forge: Forge) -> None:
    token = secret_file(tmp_path / "token", "tok")
    target = StatusTarget(forge=forge, api=f"{box.url}/api", repository="org/fleet", token_file=token)
    path, (header, value), name, states = FORGES[forge]

    async def work() -> None:
        async with at_work(target, tmp_path) as bench:
            for count, phase in enumerate((Phase.PENDING, Phase.FAILURE, Phase.SUCCESS), start=1):
                bench.stands(going(phase, "x" * 500))
                await bench.until(lambda count=count: len(box.said) == count)  # type: ignore[misc]  # bound now

    run(work())
    assert {said.path for said in box.said} == {f"/api{path}"}
    assert {said.headers[header] for said in box.said} == {value}
    assert [said.json["state"] for said in box.said] == states
    assert {said.json[name] for said in box.said} == {"vectl/applied/node-a"}
    assert {len(said.json["description"]) for said in box.said} == {140}


def test_a_commit_that_a_forge_does_not_have_holds_up_no_other(box: Inbox, tmp_path: Path) -> None:
    token = secret_file(tmp_path / "token", "tok")
    target = StatusTarget(forge=Forge.GITHUB, api=box.url, repository="a/b", token_file=token)
    box.script = [(422, {}, '{"message": "No commit found for SHA"}')]

    async def work() -> None:
        async with at_work(target, tmp_path) as bench:
            bench.stands(going(Phase.SUCCESS, revision="d" * 40))
            await bench.until(lambda: len(box.said) == 1)
            bench.stands(going(Phase.SUCCESS))
            await bench.until(lambda: len(box.said) == 2)
            await asyncio.sleep(0.2)
            assert len(bench.told) == 1
            assert "No commit found" in bench.told[0]

    run(work())
    assert [said.path[-40:] for said in box.said] == ["d" * 40, COMMIT]


def test_a_status_that_gitlab_has_already_is_no_problem(box: Inbox, tmp_path: Path) -> None:
    token = secret_file(tmp_path / "token", "tok")
    target = StatusTarget(forge=Forge.GITLAB, api=box.url, repository="a/b", token_file=token)
    box.script = [(400, {}, '{"message": {"state": ["Cannot transition status via :enqueue from :pending"]}}')]

    async def work() -> None:
        async with at_work(target, tmp_path) as bench:
            bench.stands(going(Phase.PENDING))
            await bench.until(lambda: len(box.said) == 1)
            await asyncio.sleep(0.2)
            assert bench.told == []

    run(work())


def test_a_server_is_believed_by_its_certificate_alone(tmp_path: Path) -> None:
    tls = certificate(tmp_path / "tls")
    other = certificate(tmp_path / "other")
    with inbox(tls=tls) as box:
        assert asyncio.run(post(Message(url=box.url, body=b"{}", ca=str(tls.ca)))).status == 200
        for ca in (None, str(other.ca)):
            with pytest.raises(DeliveryError, match="certificate is not to be believed"):
                asyncio.run(post(Message(url=box.url, body=b"{}", ca=ca)))
        with pytest.raises(ConfigError, match="expected certificates in PEM"):
            asyncio.run(post(Message(url=box.url, body=b"{}", ca=str(tmp_path / "absent"))))
    assert len(box.said) == 1


ANSWERS = {
    "nothing": b"",
    "garbage": b"\x16\x03\x01 SSH-2.0\r\n\r\n",
    "a cut head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "a cut body": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000,
    "no address family": b"HTTP/1.1 abc\r\n\r\n",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_server_that_answers_nonsense_was_not_told(answer: bytes) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        with suppress(OSError):
            connection.sendall(answer)

    with gitserver.raw(handle) as server, pytest.raises(DeliveryError, match="tell http://127"):
        asyncio.run(post(Message(url=_url_of(server), body=b"{}")))


def _url_of(server: gitserver.RawServer) -> str:
    return f"http://127.0.0.1:{server.port}/"


def test_a_server_that_hangs_or_trickles_is_left_in_time() -> None:
    def handle(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            connection.settimeout(0.05)
            while True:
                connection.sendall(b"X-A: b\r\n")
                with suppress(TimeoutError):
                    connection.recv(65536)

    with gitserver.raw(handle) as server, pytest.raises(DeliveryError, match="no answer in 1 s"):
        asyncio.run(post(Message(url=_url_of(server), body=b"{}" * 10_000), timeout_s=1.0))


def test_an_answer_without_end_is_not_kept() -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        with suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            for _ in range(1000):
                connection.sendall(b"x" * 65536)

    with gitserver.raw(handle) as server:
        reply = asyncio.run(post(Message(url=_url_of(server), body=b"{}")))
    assert (reply.status, len(reply.text)) == (200, 2000)


def test_the_proxy_of_the_environment_is_gone_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls, asked = certificate(tmp_path / "tls"), list[bytes]()

    with inbox(tls=tls) as box:
        port = int(box.url.rpartition(":")[2])

        def handle(connection: socket.socket) -> None:
            asked.append(connection.recv(4096).splitlines()[0])
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with socket.create_connection(("127.0.0.1", port)) as onward:
                _join(connection, onward)

        with gitserver.raw(handle) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", _url_of(proxy))
            monkeypatch.setenv("NO_PROXY", "")
            url = f"https://localhost:{port}/"
            assert asyncio.run(post(Message(url=url, body=b"{}", ca=str(tls.ca)))).status == 200
            monkeypatch.setenv("NO_PROXY", "localhost")
            assert asyncio.run(post(Message(url=url, body=b"{}", ca=str(tls.ca)))).status == 200
    assert asked == [f"CONNECT localhost:{port} HTTP/1.1".encode()]


def _join(one: socket.socket, other: socket.socket) -> None:
    import threading

    def pass_on(source: socket.socket, to: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=pass_on, args=(other, one))
    back.start()
    pass_on(one, other)
    back.join(30)


def test_each_target_has_a_book_of_its_own() -> None:
    token = "/etc/vectl/token"
    targets: list[Target] = [
        WebhookTarget(url="https://a"),
        WebhookTarget(url="https://a", topics=frozenset(Topic)),
        WebhookTarget(url_file="https://a"),
        SlackTarget(url_file="https://a"),
        StatusTarget(forge=Forge.GITHUB, api="https://a", repository="a/b", token_file=token),
        StatusTarget(forge=Forge.GITHUB, api="https://a", repository="a/c", token_file=token),
    ]
    assert len({key_of(target) for target in targets}) == len(targets)
    assert key_of(targets[0]) == key_of(replace(WebhookTarget(url="https://a"), ca="/etc/ca.pem"))


def test_a_flood_of_failures_is_one_message(box: Inbox) -> None:
    notices = [
        Notice(topic=Topic.FAILURE, subject=f"ve{n}", reason="X", message="m" * 9999, at=1.0) for n in range(3000)
    ]
    made = messages.webhook(WebhookTarget(url=box.url), "node-a", notices)
    assert len(made.body) < 64 << 10
    assert client.server_of("https://ops.example/secret?also=secret") == "https://ops.example"
