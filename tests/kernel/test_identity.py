"""The identity of a machine that is copied: gone from the copy, whatever the original's root has put there."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from reconciler.errors import KernelError
from reconciler.kernel import identity, own_thread

pytestmark = pytest.mark.kernel

OWNER = 700_000


def renew(root: Path) -> None:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        own_thread.call(lambda: identity.renew(descriptor, owner=OWNER, hostname="two"), name="test")
    finally:
        os.close(descriptor)


def make_key(root: Path, kind: str) -> None:
    (root / "etc/ssh").mkdir(parents=True, exist_ok=True)
    path = str(root / f"etc/ssh/ssh_host_{kind}_key")
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "root@one", "-f", path], check=True, timeout=60)


def fingerprint(path: Path) -> str:
    said = subprocess.run(["ssh-keygen", "-l", "-f", str(path)], check=True, capture_output=True, text=True, timeout=20)
    return said.stdout


def test_keys_of_the_same_kinds_are_made_anew_and_no_machine_id_is_left(tmp_path: Path) -> None:
    for kind in ("ed25519", "ecdsa"):
        make_key(tmp_path, kind)
    (tmp_path / "etc/ssh/ssh_host_dsa_key").write_text("old\n")
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "var/lib/dbus").mkdir(parents=True)
    (tmp_path / "var/lib/dbus/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    before = {kind: fingerprint(tmp_path / f"etc/ssh/ssh_host_{kind}_key") for kind in ("ed25519", "ecdsa")}
    renew(tmp_path)
    assert (tmp_path / "etc/machine-id").read_text() == ""
    assert not (tmp_path / "var/lib/dbus/machine-id").exists()
    assert sorted(os.listdir(tmp_path / "etc/ssh")) == sorted(
        f"ssh_host_{kind}_key{end}" for kind in ("ed25519", "ecdsa") for end in ("", ".pub")
    )
    for kind, old in before.items():
        key = tmp_path / f"etc/ssh/ssh_host_{kind}_key"
        assert fingerprint(key) not in ("", old)
        assert fingerprint(key).split()[1] == fingerprint(Path(f"{key}.pub")).split()[1]
        assert "root@two" in fingerprint(key)
        info = key.stat()
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o600, OWNER, OWNER)


def test_a_machine_without_such_things_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").touch()
    before = (tmp_path / "etc/machine-id").stat()
    renew(tmp_path)
    assert (tmp_path / "etc/machine-id").stat() == before
    assert os.listdir(tmp_path) == ["etc"]


def test_no_link_of_the_original_leads_out_of_the_copy(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    make_key(tmp_path, "ed25519")
    key = fingerprint(tmp_path / "etc/ssh/ssh_host_ed25519_key")
    (outside / "id").write_text("the host's\n")
    (root / "etc").mkdir(parents=True)
    os.symlink(f"{tmp_path}/etc/ssh", root / "etc/ssh")
    os.symlink(outside / "id", root / "etc/machine-id")
    renew(root)
    assert (outside / "id").read_text() == "the host's\n"
    assert fingerprint(tmp_path / "etc/ssh/ssh_host_ed25519_key") == key


def test_something_else_in_the_place_of_the_machine_id_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "etc/machine-id").mkdir(parents=True)
    with pytest.raises(KernelError, match="/etc/machine-id: expected a regular file"):
        renew(tmp_path)


def renew_offline(upper: Path, lower: Path) -> bool:
    descriptors = [os.open(layer, os.O_RDONLY | os.O_DIRECTORY) for layer in (upper, lower)]
    try:
        return identity.renew_offline(*descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def layers(place: Path) -> tuple[Path, Path]:
    for name in ("upper", "lower"):
        (place / name / "etc").mkdir(parents=True)
    return place / "upper", place / "lower"


def test_without_an_overlay_an_id_is_emptied_where_nothing_else_is_to_be_done(tmp_path: Path) -> None:
    upper, lower = layers(tmp_path)
    assert renew_offline(upper, lower)
    (lower / "etc/machine-id").touch()
    (upper / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    before = (upper / "etc/machine-id").stat().st_ino
    assert renew_offline(upper, lower)
    assert (upper / "etc/machine-id").read_text() == ""
    assert (upper / "etc/machine-id").stat().st_ino == before


def test_without_an_overlay_nothing_is_done_that_takes_one(tmp_path: Path) -> None:
    def keys(upper: Path, lower: Path) -> None:
        make_key(upper, "ed25519")

    def keys_below(upper: Path, lower: Path) -> None:
        make_key(lower, "ed25519")

    def id_below(upper: Path, lower: Path) -> None:
        (lower / "etc/machine-id").write_text("of the template")

    def a_link(upper: Path, lower: Path) -> None:
        (upper / "etc/machine-id").rename(upper / "id")
        os.symlink("../id", upper / "etc/machine-id")

    def a_linked_directory(upper: Path, lower: Path) -> None:
        (upper / "etc").rename(upper / "elsewhere")
        os.symlink("elsewhere", upper / "etc")

    def another_name(upper: Path, lower: Path) -> None:
        os.link(upper / "etc/machine-id", upper / "precious")

    def of_dbus(upper: Path, lower: Path) -> None:
        (upper / "var/lib/dbus").mkdir(parents=True)
        (upper / "var/lib/dbus/machine-id").write_text("x")

    for change in (keys, keys_below, id_below, a_link, a_linked_directory, another_name, of_dbus):
        upper, lower = layers(tmp_path / change.__name__)
        (upper / "etc/machine-id").write_text("kept\n")
        change(upper, lower)
        assert not renew_offline(upper, lower), change.__name__
        left = [path for path in upper.rglob("*") if path.is_file() and path.read_bytes() == b"kept\n"]
        assert left, change.__name__
