"""A forge is believed if it knows the secret, whatever it sends; nobody else is."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import ConfigError, RefusedError
from reconciler.web.exchange import BODY_MAX, HEADERS_MAX
from reconciler.web.rates import Rates
from reconciler.web.server import Limits
from reconciler.web.webhook import Webhook, secrets_of
from tests.support.webserver import post, raw, secret_file, serving

SECRET = "correct-horse-battery-staple"
OLD = "the-one-before-it-was-changed"
BODY = b'{"ref": "refs/heads/main"}'
PATH = "/hooks/source"


class Hook:
    def __init__(self, file: str, port: int = 0) -> None:
        self.file, self.woken, self.port = file, 0, port

    def wake(self) -> None:
        self.woken += 1

    def post(self, headers: dict[str, str], body: bytes = BODY, path: str = PATH, method: str = "POST") -> int:
        return post(self.port, path, body, headers, method)[0]


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Hook]:
    made = Hook(secret_file(tmp_path / "secret", SECRET))
    with serving({PATH: Webhook(secret_file=made.file, accepted=made.wake)}, Limits(pace_s=0.0)) as port:
        made.port = port
        yield made


def digest(body: bytes = BODY, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def standard(key: bytes, body: bytes = BODY) -> dict[str, str]:
    signature = hmac.new(key, b"msg_1.1790000000." + body, hashlib.sha256).digest()
    signed = f"v1,{base64.b64encode(b'x' * 32).decode()} v1,{base64.b64encode(signature).decode()}"
    return {"webhook-id": "msg_1", "webhook-timestamp": "1790000000", "webhook-signature": signed}


GOOD = {
    "github": {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={digest()}"},
    "gitea": {"X-Gitea-Event": "push", "X-Gitea-Signature": digest()},
    "forgejo": {"X-Forgejo-Signature": digest()},
    "gitlab token": {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": SECRET},
    "gitlab signing token": standard(SECRET.encode()),
    "generic": {"X-Vectl-Signature": f"sha256={digest()}"},
}


@pytest.mark.parametrize("headers", GOOD.values(), ids=GOOD)
def test_each_forge_wakes_the_agent(hook: Hook, headers: dict[str, str]) -> None:
    assert hook.post(headers) == 202
    assert hook.woken == 1


BAD = {
    "nothing": {},
    "of another body": {"X-Hub-Signature-256": f"sha256={digest(b'another')}"},
    "with another secret": {"X-Hub-Signature-256": f"sha256={digest(secret='guess')}"},
    "sha1 alone": {"X-Hub-Signature": "sha1=" + hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest()},
    "cut": {"X-Hub-Signature-256": f"sha256={digest()[:-2]}"},
    "empty": {"X-Hub-Signature-256": "sha256="},
    "no hex": {"X-Gitea-Signature": "z" * 64},
    "no ascii": {"X-Gitea-Signature": "\xe9" * 64},
    "a token that begins right": {"X-Gitlab-Token": SECRET[:-1]},
    "an empty token": {"X-Gitlab-Token": ""},
    "a signing token's other key": standard(b"guess"),
    "of an unknown version": {**standard(SECRET.encode()), "webhook-signature": "v9,AAAA"},
    "no base64": {**standard(SECRET.encode()), "webhook-signature": "v1,%%%"},
}


@pytest.mark.parametrize("headers", BAD.values(), ids=BAD)
def test_nobody_without_the_secret_wakes_the_agent(hook: Hook, headers: dict[str, str]) -> None:
    assert hook.post(headers) == 401
    assert hook.woken == 0


def test_a_signing_token_is_the_key_that_it_encodes(tmp_path: Path) -> None:
    key = b"0123456789abcdef0123456789abcdef"
    made = Hook(secret_file(tmp_path / "secret", f"whsec_{base64.b64encode(key).decode()}"))
    with serving({PATH: Webhook(secret_file=made.file, accepted=made.wake)}) as port:
        assert post(port, PATH, BODY, standard(key))[0] == 202


def test_a_new_secret_counts_at_once_and_the_old_one_while_it_is_there(hook: Hook) -> None:
    Path(hook.file).write_text(f"{SECRET}-new\n{OLD}\n")
    assert hook.post({"X-Gitea-Signature": digest(secret=OLD)}) == 202
    assert hook.post({"X-Gitea-Signature": digest(secret=f"{SECRET}-new")}) == 202
    assert hook.post({"X-Gitea-Signature": digest()}) == 401


def test_a_delivery_that_is_sent_again_only_wakes_again(hook: Hook) -> None:
    assert [hook.post(GOOD["github"]), hook.post(GOOD["github"])] == [202, 202]
    assert hook.woken == 2


@pytest.mark.parametrize("body", [b"", b"not json {{{", b"\0" * 1000, b"x" * BODY_MAX], ids=len)
def test_what_is_sent_is_not_read(hook: Hook, body: bytes) -> None:
    assert hook.post({"X-Vectl-Signature": f"sha256={digest(body)}"}, body) == 202


def test_other_paths_and_methods_are_nothing(hook: Hook) -> None:
    assert hook.post(GOOD["github"], path="/") == 404
    assert hook.post(GOOD["github"], path="/hooks/source/..") == 404
    assert hook.post(GOOD["github"], method="GET") == 405
    assert hook.woken == 0


def test_a_secret_that_others_may_read_is_none(hook: Hook) -> None:
    Path(hook.file).chmod(0o644)
    assert hook.post(GOOD["github"]) == 503
    assert hook.woken == 0
    with pytest.raises(RefusedError, match=r"only root may read.*chmod 600"):
        secrets_of(hook.file)


@pytest.mark.parametrize("text", ["", "\n\n", "short\n", f"{SECRET}\nshort\n", f"{SECRET}\n" * 5, "x" * 5000], ids=len)
def test_an_unfit_secret_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=str(path)):
        secrets_of(str(path))
    with pytest.raises(ConfigError, match="found none"):
        secrets_of(str(tmp_path / "absent"))


def test_a_body_that_is_announced_as_too_large_is_not_waited_for(hook: Hook) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY_MAX + 1}\r\n\r\n"
    assert raw(hook.port, head.encode()).startswith(b"HTTP/1.1 413 ")
    for digits, status in ((19, b"413"), (30, b"400")):
        huge = head.replace(str(BODY_MAX + 1), "9" * digits)
        assert raw(hook.port, huge.encode()).startswith(b"HTTP/1.1 " + status)


def test_a_body_that_grows_too_large_is_cut(hook: Hook) -> None:
    part = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert raw(hook.port, head + part * 17).startswith(b"HTTP/1.1 413 ")
    assert hook.woken == 0


def test_headers_without_end_are_cut(hook: Hook) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\n".encode()
    assert raw(hook.port, head + b"X-More: " + b"y" * HEADERS_MAX).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00", b"hello\r\n\r\n", b"GET / HTTP/1.1\r\n", b""])
def test_what_is_no_http_is_answered_and_ended(hook: Hook, data: bytes) -> None:
    assert raw(hook.port, data + b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert hook.post(GOOD["github"]) == 202


def test_two_lengths_are_no_request(hook: Hook) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
    assert raw(hook.port, head.encode()).startswith(b"HTTP/1.1 400 ")


def test_a_client_that_asks_first_is_told_to_go_on(hook: Hook) -> None:
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {len(BODY)}\r\n"
        f"X-Gitea-Signature: {digest()}\r\n\r\n"
    )
    answer = raw(hook.port, head.encode() + BODY)
    assert answer.startswith(b"HTTP/1.1 100 ")
    assert b"HTTP/1.1 202 " in answer


def test_each_address_may_ask_so_often_and_then_comes_again() -> None:
    rates = Rates(each=2, total=5, now=0.0)
    assert [rates.take("192.0.2.1", 0.0) for _ in range(3)] == [0, 0, 30]
    assert rates.take("192.0.2.1", 30.0) == 0
    assert rates.take("2001:db8::1", 30.0) == 0
    assert rates.take("2001:db8::ffff:2", 30.0) == 0
    assert rates.take("2001:db8::3", 30.0) == 30
    assert rates.take("fe80::1%eth0", 30.0) == 0


def test_all_together_may_ask_so_often() -> None:
    rates = Rates(each=2, total=3, now=0.0)
    assert [rates.take(f"192.0.2.{number}", 0.0) for number in range(4)] == [0, 0, 0, 20]


def test_strangers_do_not_fill_the_memory() -> None:
    rates = Rates(each=1, total=10**9, now=0.0)
    for number in range(5000):
        rates.take(f"10.0.{number >> 8}.{number & 255}", 0.0)
    assert len(rates._known) == 1024
