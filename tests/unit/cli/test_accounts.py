"""Claims about the users of a VE, whose files are hostile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import UsageError
from reconciler.host import accounts
from reconciler.host.accounts import Account

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
torn line
www:x:33:33:www:/www:/usr/sbin/nologin
big:x:4294967295:0::/:/bin/sh
bad:x:zero:0::/:/bin/sh
empty:x:7:7:::
"""
GROUP = "root:x:0:\nadm:x:4:www,root\nweb:x:80:www\nhuge:x:99999999:www\n"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "etc").mkdir()
    (tmp_path / "www").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    descriptor = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ("root", (0, 0, (0, 4))),
        ("www", (33, 33, (4, 33, 80))),
        ("33", (33, 33, (4, 33, 80))),
        ("www:adm", (33, 4, ())),
        ("www:7", (33, 7, ())),
        ("1234", (1234, 1234, (1234,))),
        ("1234:5", (1234, 5, ())),
        ("empty", (7, 7, (7,))),
    ],
)
def test_a_user_is_found_by_name_or_number(root: int, wanted: str, ids: tuple[int, int, tuple[int, ...]]) -> None:
    found = accounts.find(root, wanted)
    assert (found.uid, found.gid, found.groups) == ids


@pytest.mark.parametrize("wanted", ["nobody", "big", "bad", "www:none", "70000", "-1", "", "www:"])
def test_an_unknown_user_is_refused(root: int, wanted: str) -> None:
    with pytest.raises(UsageError, match="the VE has none of that name"):
        accounts.find(root, wanted)


def test_root_is_there_even_without_a_file(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        assert accounts.find(descriptor, "root") == Account(name="root", uid=0, gid=0, groups=(0,))
    finally:
        os.close(descriptor)


def test_a_shell_and_a_home_have_defaults(root: int) -> None:
    found = accounts.find(root, "empty")
    assert (found.home, found.shell) == ("/", "/bin/sh")


@pytest.mark.parametrize(
    ("home", "used"), [("/www", "/www"), ("/none", "/"), ("www", "/"), ("/../../../www", "/../../../www")]
)
def test_a_home_that_is_not_there_is_not_used(root: int, home: str, used: str) -> None:
    assert accounts.home_or_root(root, Account(name="a", uid=1, gid=1, home=home)) == used
