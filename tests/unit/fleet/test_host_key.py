"""Claims about the key of a host: made once, read by nobody else, exchanged without an hour of change."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from pathlib import Path

import pytest

from reconciler.errors import RefusedError, StateError
from reconciler.fleet import host_key
from reconciler.fleet.host_key import HostKey
from reconciler.model.public_key import parse_public_key, public_line, raw_key


def test_a_key_is_made_once_and_read_again(tmp_path: Path) -> None:
    path = str(tmp_path / "state" / "host.key")
    assert not os.path.exists(path)
    made = host_key.make_key(path)
    assert host_key.make_key(path).public == made.public
    assert host_key.read_key(path) == made
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_no_key_is_none(tmp_path: Path) -> None:
    assert host_key.read_key(str(tmp_path / "host.key")) is None


def test_openssh_reads_the_key_as_its_own(tmp_path: Path) -> None:
    path = str(tmp_path / "host.key")
    made = host_key.make_key(path)
    shown = subprocess.run(["ssh-keygen", "-y", "-f", path], check=True, capture_output=True, text=True, timeout=30)
    assert parse_public_key(shown.stdout) == made.public


def test_whoever_makes_it_at_the_same_time_gets_the_same_key(tmp_path: Path) -> None:
    path, made = str(tmp_path / "host.key"), list[HostKey]()
    threads = [threading.Thread(target=lambda: made.append(host_key.make_key(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len({key.public for key in made}) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "host.key"
    host_key.make_key(str(path))
    path.chmod(mode)
    with pytest.raises(RefusedError, match="only root can read"):
        host_key.read_key(str(path))


def test_a_fifo_in_the_place_of_a_key_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "host.key"
    os.mkfifo(path, 0o600)
    with pytest.raises(RefusedError, match="only root can read"):
        host_key.read_key(str(path))


@pytest.mark.parametrize("data", [b"", b"garbage", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
def test_what_is_no_key_is_told_with_the_remedy(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "host.key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(StateError, match="vectl host key"):
        host_key.read_key(str(path))


def test_a_key_with_a_passphrase_is_told_as_such(tmp_path: Path) -> None:
    path = str(tmp_path / "host.key")
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", path], check=True, timeout=30, capture_output=True
    )
    with pytest.raises(StateError, match="without a passphrase"):
        host_key.read_key(path)


def test_a_signature_holds_for_its_key_and_its_data_alone(tmp_path: Path) -> None:
    one, other = host_key.make_key(str(tmp_path / "1")), host_key.make_key(str(tmp_path / "2"))
    signature = one.sign(b"record")
    assert host_key.verify(one.public, b"record", signature)
    assert not host_key.verify(one.public, b"recorD", signature)
    assert not host_key.verify(other.public, b"record", signature)
    assert not host_key.verify(one.public, b"record", b"")
    assert not host_key.verify(one.public, b"record", signature + b"\0")


def test_a_signature_of_a_record_is_none_of_the_bare_data(tmp_path: Path) -> None:
    key = host_key.make_key(str(tmp_path / "1"))
    assert not host_key.verify(key.public, b"certificate", key.private.sign(b"certificate"))


def test_a_key_is_not_shown(tmp_path: Path) -> None:
    assert "Private" not in repr(host_key.make_key(str(tmp_path / "1")))


def test_the_next_key_is_taken_up_once_it_is_pinned(tmp_path: Path) -> None:
    path = str(tmp_path / "host.key")
    first = host_key.take_up(path, None)
    following = host_key.make_key(host_key.next_path(path))
    assert host_key.take_up(path, first.public) == first
    assert host_key.take_up(path, None) == first
    assert host_key.take_up(path, following.public) == following
    assert host_key.read_former(path) == first.public
    assert host_key.take_up(path, following.public) == following
    assert host_key.read_key(host_key.next_path(path)) is None


def test_a_pin_of_neither_key_changes_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "host.key")
    first = host_key.make_key(path)
    following = host_key.make_key(host_key.next_path(path))
    stranger = host_key.make_key(str(tmp_path / "stranger"))
    assert host_key.take_up(path, stranger.public) == first
    assert host_key.read_key(host_key.next_path(path)) == following
    assert host_key.read_former(path) is None


def test_a_public_line_is_the_same_whatever_its_comment(tmp_path: Path) -> None:
    line = host_key.make_key(str(tmp_path / "1")).public
    assert parse_public_key(f" {line}   root@node-a of here\n") == line
    assert public_line(raw_key(line)) == line


_GOOD = public_line(bytes(range(32)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "ssh-ed25519 AAAA"),
        ("ssh-ed25519", "ssh-ed25519 AAAA"),
        ("ssh-rsa AAAAB3NzaC1yc2E=", "got 'ssh-rsa AAAA...'"),
        ("-----BEGIN OPENSSH PRIVATE KEY----- c2VjcmV0", "got '-----BEGIN O...'"),
        (_GOOD[:-2], "cut or changed"),
        (f"{_GOOD[:-1]}=", "cut or changed"),
        (_GOOD.replace("AAAAC3", "AAAAD3"), "cut or changed"),
        (f"{_GOOD}\nssh-ed25519 AAAA", "ssh-ed25519 AAAA"),
        ("ssh-ed25519 AAA*", "cut or changed"),
        (f"ssh-ed25519 {base64.b64encode(b'x' * 51).decode()}", "cut or changed"),
        (public_line(bytes(32)), "everybody could sign"),
        (public_line(b"\x01" + bytes(31)), "everybody could sign"),
        (public_line(b"\xec" + b"\xff" * 30 + b"\x7f"), "everybody could sign"),
        (public_line(b"\xed" + b"\xff" * 31), "everybody could sign"),
        (
            public_line(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")),
            "everybody could sign",
        ),
        (
            public_line(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa")),
            "everybody could sign",
        ),
    ],
)
def test_a_line_that_is_no_public_key_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"^expected") as caught:
        parse_public_key(text)
    assert told in str(caught.value)
