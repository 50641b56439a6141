"""The audit log: lines of JSON that are only ever added to, each with the hash of the one before it.

An edit, a removal and a cut at the end show when it is verified. What has root may rewrite all of it, so whoever has
to rely on it sends the lines elsewhere.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from reconciler.errors import StateError
from reconciler.kernel import files
from reconciler.kernel.syscalls import file_errors, translated
from reconciler.model.audit import BEGINNING, TEXT_MAX, AuditEntry, Link, linked
from reconciler.model.facts import Json
from reconciler.state import layout
from reconciler.state.document import Document, Durability

SIZE_MAX = 10 << 20
"""When a file is put aside. Units: bytes."""

FILES_MAX = 10
"""How many files are kept, with the one that is written to."""

_FORMAT = 1
_LOCK_WAIT_S = 10.0
_TAIL = 1 << 20

_REVISIONS_MAX = 8
"""How many revisions are known by those behind them: a turn may end after the next one was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behalf:
    """On whose word a revision is carried out: who committed or applied it, and who vouches for it."""

    who: str = ""
    signer: str = ""


class Behalves:
    """Who is behind the last revisions, kept over restarts: a fetch then shows nothing of how they came."""

    __slots__ = ("_document", "_known")

    def __init__(self, state_dir: str) -> None:
        remedy = "remove it: then nobody is named for what is still to be carried out"
        path = f"{state_dir}/audit-behalf.json"
        self._document = Document(path=path, format=_FORMAT, remedy=remedy, durability=Durability.WHOLE)
        self._known: dict[str, Behalf] | None = None

    def of(self, revision: str) -> Behalf:
        """Give who is behind a revision; nobody, where nobody knows.

        Raises: StateError, KernelError.
        """
        return self._read().get(revision, Behalf())

    def put(self, revision: str, behalf: Behalf) -> None:
        """Remember who is behind a revision; a later look, which shows no signature any more, changes nothing.

        Raises: StateError, KernelError, NoSpaceError.
        """
        known = self._read()
        before = known.pop(revision, None)
        if before is not None and (before == behalf or (before.signer and not behalf.signer)):
            known[revision] = before
            return
        known[revision] = Behalf(who=behalf.who[:TEXT_MAX], signer=behalf.signer[:TEXT_MAX])
        for old in list(known)[:-_REVISIONS_MAX]:
            del known[old]
        items: list[Json] = [{"revision": key, "who": one.who, "signer": one.signer} for key, one in known.items()]
        self._document.write({"revisions": items})

    def _read(self) -> dict[str, Behalf]:
        if self._known is None:
            self._known = {}
            fields = self._document.read()
            for item in fields.objects("revisions") if fields is not None else ():
                self._known[item.text("revision")] = Behalf(who=item.text("who"), signer=item.text("signer"))
                item.end()
        return self._known


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something in the log that is not as it was written. ``harmless``: what a power cut may leave."""

    place: str
    message: str
    harmless: bool = False


class Audit:
    """The log of an instance. Several processes may add to it.

    ``on_write`` may be set to what is to hear of entries that are not yet flushed to disk.
    """

    __slots__ = ("_end", "_head", "_inode", "_last", "_path", "_unsynced", "on_write")

    def __init__(self, state_dir: str) -> None:
        self._path = f"{state_dir}/audit.jsonl"
        remedy = "remove it: only entries cut off at the log's end can then no longer be told"
        self._head = Document(path=f"{state_dir}/audit-head.json", format=_FORMAT, remedy=remedy)
        self._last, self._inode, self._end = BEGINNING, 0, -1
        self._unsynced = False
        self.on_write: Callable[[], None] | None = None

    def append(self, entry: AuditEntry) -> None:
        """Add an entry. It outlives this process at once, and a power cut after `sync`.

        Raises: KernelError, NoSpaceError, BusyError.
        """
        layout.make_directory(os.path.dirname(self._path))
        with files.lock(f"{self._path}.lock", wait_s=_LOCK_WAIT_S):
            self._find_end()
            if self._end >= SIZE_MAX:
                self._put_aside()
            made = linked(self._last, entry)
            self._write(made)
        self._unsynced = True
        if self.on_write is not None:
            self.on_write()

    def sync(self) -> None:
        """Flush to disk what was added, and note where the log ends.

        Raises: KernelError, NoSpaceError, BusyError.
        """
        if not self._unsynced:
            return
        self._unsynced = False
        with files.lock(f"{self._path}.lock", wait_s=_LOCK_WAIT_S):
            self._find_end()
            last = self._last
            with file_errors("flush", self._path):
                fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            self._head.write({"seq": last.seq, "hash": last.hash})

    def read(self) -> Iterator[Link]:
        """Give the entries that are kept, oldest first; lines that are none are left out.

        Raises: KernelError.
        """
        for path in self._files():
            for _, link in _links(path):
                if link is not None:
                    yield link

    def verify(self) -> tuple[int, tuple[Finding, ...]]:
        """Check the chain; give how many entries there are, and what is wrong.

        Raises: StateError, KernelError, BusyError.
        """
        if not os.path.isdir(os.path.dirname(self._path)):
            return 0, ()
        with files.lock(f"{self._path}.lock", wait_s=_LOCK_WAIT_S):
            found: list[Finding] = []
            before, count = BEGINNING, 0
            for path in self._files():
                for number, link in _links(path):
                    found += _judge(f"{path}:{number}", before, link)
                    if link is not None:
                        before, count = link, count + 1
            found += self._judge_end(before)
        return count, tuple(found)

    def _judge_end(self, last: Link) -> Iterator[Finding]:
        fields = self._head.read()
        if fields is None:
            return
        seq = fields.integer("seq")
        if last.seq < seq:
            yield Finding(place=self._path, message=f"{seq - last.seq} entries are missing at the end")
        elif last.seq == seq and last.hash != fields.text("hash"):
            yield Finding(place=self._path, message=f"entry {seq} is not the one that was written")

    def _files(self) -> list[str]:
        """Name the files, the oldest first."""
        old = [f"{self._path}.{number}" for number in range(FILES_MAX - 1, 0, -1)]
        return [path for path in (*old, self._path) if os.path.exists(path)]

    def _find_end(self) -> None:
        """Find the last entry, if somebody else wrote since we did."""
        inode, size = _standing(self._path)
        if (inode, size) == (self._inode, self._end):
            return
        self._inode, self._end = inode, size
        data = _tail(self._path)
        parsed = (_parse(line) for line in reversed(data.splitlines()))
        link = next((link for link in parsed if link is not None), None)
        if link is None and size == 0:  # a crash came between putting aside and the first entry
            old = (_parse(line) for line in reversed(_tail(f"{self._path}.1").splitlines()))
            link = next((link for link in old if link is not None), None)
        self._last = link or BEGINNING

    def _put_aside(self) -> None:
        with translated("rename", self._path):
            for number in range(FILES_MAX - 2, 0, -1):
                if os.path.exists(f"{self._path}.{number}"):
                    os.replace(f"{self._path}.{number}", f"{self._path}.{number + 1}")
            os.replace(self._path, f"{self._path}.1")
        files.sync_directory(os.path.dirname(self._path))
        self._end = 0

    def _write(self, made: Link) -> None:
        line = json.dumps({"format": _FORMAT, **made.to_json()}, sort_keys=True, allow_nan=False).encode() + b"\n"
        with file_errors("write", self._path):
            fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if self._end > 0 and os.pread(fd, 1, self._end - 1) != b"\n":
                    line = b"\n" + line
                if os.write(fd, line) < len(line):  # half a line is no entry
                    os.ftruncate(fd, self._end)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(fd)
        self._last = made
        self._inode, self._end = _standing(self._path)


def _judge(place: str, before: Link, link: Link | None) -> Iterator[Finding]:
    if link is None:
        yield Finding(place=place, message="a line that is no entry; a power cut may leave one", harmless=True)
    elif not link.whole:
        yield Finding(place=place, message=f"entry {link.seq} was changed after it was written")
    elif before is not BEGINNING and link.prev != before.hash:
        yield Finding(place=place, message=f"entry {link.seq} does not follow from the one before it")
    elif before is BEGINNING and link.seq > 1 and not place.rpartition(":")[0].endswith(f".{FILES_MAX - 1}"):
        yield Finding(place=place, message=f"the entries before {link.seq} are missing")


def _standing(path: str) -> tuple[int, int]:
    """Give a file's inode and size; zeros, if there is none."""
    with file_errors("read", path):
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return 0, 0
    return found.st_ino, found.st_size


def _tail(path: str) -> bytes:
    """Give the last lines of a file, at least one whole one."""
    with file_errors("read", path):
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
                return file.read()
        except FileNotFoundError:
            return b""


def _links(path: str) -> Iterator[tuple[int, Link | None]]:
    """Give the lines of a file with their numbers; None for one that is no entry."""
    with file_errors("read", path), open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _parse(line)


def _parse(line: bytes) -> Link | None:
    try:
        value: Json = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.pop("format", None) != _FORMAT:
        return None
    seq, prev, own = value.pop("seq", None), value.pop("prev", None), value.pop("hash", None)
    if not isinstance(seq, int) or not isinstance(prev, str) or not isinstance(own, str):
        return None
    return Link(seq=seq, prev=prev, hash=own, entry=value)


def expect_whole(audit: Audit) -> tuple[int, tuple[Finding, ...]]:
    """Verify a log; give how many entries it has, and what a power cut left in it.

    Raises: StateError, naming what is not as it was written; KernelError, BusyError.
    """
    count, found = audit.verify()
    wrong = [finding for finding in found if not finding.harmless]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise StateError(f"verify {wrong[0].place}: {wrong[0].message}{more}; compare with a copy kept elsewhere")
    return count, found
