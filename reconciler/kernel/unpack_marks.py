"""What an entry of an archive is marked with: owner, mode, attributes and time, as far as a VE may have them."""

from __future__ import annotations

import os
import stat
import tarfile as tar_format
from dataclasses import dataclass
from enum import StrEnum

from reconciler.errors import TemplateError

_TIME_MOST = 1 << 33
_SET_IDS = stat.S_ISUID | stat.S_ISGID
_CAPABILITY = "security.capability"
_XATTR_MOST = 1 << 16


class Setuid(StrEnum):
    """What becomes of programs that run with other rights than their caller's: kept, without those, or refused."""

    KEEP = "keep"
    DROP = "drop"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """``prefix``: only what is below it is unpacked, without it. ``whiteouts``: names that remove what is below.

    Units: ``size`` bytes of all files together, holes counted; ``entries`` a number.
    """

    setuid: Setuid = Setuid.KEEP
    prefix: str = ""
    whiteouts: bool = False
    size: int = 32 << 30
    entries: int = 1_000_000


@dataclass(slots=True, kw_only=True)
class Totals:
    """What was unpacked so far, over all layers. Units: ``newest`` seconds since 1970, of the newest file."""

    entries: int = 0
    size: int = 0
    newest: int = 0


def refusal(what: str, member: tar_format.TarInfo, why: str) -> TemplateError:
    """Make the error of an entry that is not unpacked."""
    return TemplateError(f"unpack {what}: {member.name!r} is refused: {why}")


def time_of(member: tar_format.TarInfo) -> int:
    """Give an entry's time. Units: seconds since 1970."""
    return min(max(0, int(member.mtime)), _TIME_MOST)


class Marks:
    """Marks the entries of an archive by the rules of a template."""

    def __init__(self, rules: Rules, what: str) -> None:
        self._rules, self._what = rules, what

    def set_named(self, member: tar_format.TarInfo, parent: int, name: str) -> None:
        """Set all of them of an entry that cannot be opened without an effect."""
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        os.chmod(name, self._mode(member), dir_fd=parent)
        os.utime(name, (time_of(member), time_of(member)), dir_fd=parent, follow_symlinks=False)

    def set(self, fd: int, member: tar_format.TarInfo) -> None:
        """Set owner, attributes, mode and time, in the order in which none undoes another."""
        os.fchown(fd, member.uid, member.gid)
        for key, value in member.pax_headers.items():
            if key.startswith("SCHILY.xattr."):
                self._set_attribute(fd, member, key.removeprefix("SCHILY.xattr."), value)
        os.fchmod(fd, self._mode(member))
        os.utime(fd, (time_of(member), time_of(member)))

    def _mode(self, member: tar_format.TarInfo) -> int:
        mode = member.mode & 0o7777
        if member.isdir() or not mode & _SET_IDS:
            return mode
        match self._rules.setuid:
            case Setuid.KEEP:
                return mode
            case Setuid.DROP:
                return mode & ~_SET_IDS
            case Setuid.REFUSE:
                raise refusal(
                    self._what, member, "it has the set-user-id or set-group-id bit, which its template forbids"
                )

    def _set_attribute(self, fd: int, member: tar_format.TarInfo, name: str, value: str) -> None:
        """Set what a VE may have; those of overlayfs would be taken for its own, and others are the host's affair."""
        if name == _CAPABILITY:
            if self._rules.setuid is Setuid.DROP:
                return
            if self._rules.setuid is Setuid.REFUSE:
                raise refusal(self._what, member, "it has capabilities of its own, which its template forbids")
        elif not name.startswith("user.") or name.startswith("user.overlay."):
            return
        data = value.encode("utf-8", "surrogateescape")
        if len(data) > _XATTR_MOST or "\0" in name:
            raise refusal(self._what, member, f"its attribute {name!r} is too large")
        try:
            os.setxattr(fd, name, data)
        except OSError as err:
            raise refusal(self._what, member, f"its attribute {name!r} cannot be set: {err.strerror}") from err
