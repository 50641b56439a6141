"""The users of a VE, as its own files tell them: hostile text, and good for nothing but the VE's own ids."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from reconciler.errors import KernelError, UsageError
from reconciler.kernel import rootfs
from reconciler.model.identity import IDS_PER_VE

_SHELL = "/bin/sh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user of a VE. Ids are the VE's."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"
    shell: str = _SHELL


def find(root: int, wanted: str) -> Account:
    """Find a user in a VE's root directory. ``wanted``: ``USER`` or ``USER:GROUP``, each a name or a number.

    Raises: UsageError, if there is none of that name; KernelError.
    """
    user, colon, group = wanted.partition(":")
    account = _find_user(_lines(root, "etc/passwd", 7), user)
    groups = list(_lines(root, "etc/group", 4))
    if colon:
        return replace(account, gid=_find_group(groups, group))
    return replace(account, groups=_groups_of(groups, account))


def home_or_root(root: int, account: Account) -> str:
    """Give a user's home directory, or ``/`` where there is none of that name in the VE."""
    if account.home.startswith("/"):
        with suppress(KernelError):
            os.close(rootfs.open_in_root(root, account.home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            return account.home
    return "/"


def _lines(root: int, path: str, count: int) -> Iterator[list[str]]:
    """Give the lines of a file such as passwd(5) that have at least so many fields."""
    data = rootfs.read_in_root(root, path) or b""
    for line in data.decode(errors="replace").splitlines():
        fields = line.split(":")
        if len(fields) >= count:
            yield fields


def _find_user(lines: Iterator[list[str]], wanted: str) -> Account:
    number = _number(wanted)
    for name, _, uid, gid, _, home, shell, *_ in lines:
        known, group = _number(uid), _number(gid)
        if known is not None and group is not None and (name == wanted or known == number):
            return Account(name=name, uid=known, gid=group, home=home or "/", shell=shell or _SHELL)
    if wanted == "root" or number is not None:
        return Account(name=wanted, uid=number or 0, gid=number or 0)
    raise UsageError(f"find user {wanted!r}: the VE has none of that name")


def _find_group(lines: list[list[str]], wanted: str) -> int:
    number = _number(wanted)
    if number is not None:
        return number
    for name, _, gid, *_ in lines:
        known = _number(gid)
        if name == wanted and known is not None:
            return known
    raise UsageError(f"find group {wanted!r}: the VE has none of that name")


def _groups_of(lines: list[list[str]], account: Account) -> tuple[int, ...]:
    ids = {_number(gid) for _, _, gid, members, *_ in lines if account.name in members.split(",")}
    return tuple(sorted({account.gid, *(number for number in ids if number is not None)}))


def _number(text: str) -> int | None:
    """Parse an id that exists in a VE."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 and int(text) < IDS_PER_VE else None
