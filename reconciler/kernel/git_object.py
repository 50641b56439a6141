"""The text of git's objects and of what it lists, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile

from reconciler.errors import KernelFormatError
from reconciler.model.commit import Commit

_PERSON = re.compile(r"(?P<who>.*?) (?P<at>\d+) [+-]\d{4}\Z")
_OID = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")
_SIGNATURES = ("gpgsig", "gpgsig-sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEntry:
    """An entry of a tree. ``mode`` as git writes it, e.g. ``100644``; ``size`` None for what is no blob.

    Units: bytes.
    """

    mode: str
    kind: str
    oid: str
    size: int | None
    path: str


def parse_tree(data: bytes) -> tuple[TreeEntry, ...]:
    """Parse what ``git ls-tree -r -t -z --long`` prints.

    Raises: KernelFormatError.
    """
    return tuple(_entry(line) for line in data.split(b"\0") if line)


def _entry(line: bytes) -> TreeEntry:
    head, tab, path = line.partition(b"\t")
    words = head.decode("ascii", errors="replace").split()
    if not tab or len(words) != 4:
        raise KernelFormatError(f"read git ls-tree: expected mode, kind, object, size and path, got {line[:80]!r}")
    mode, kind, oid, size = words
    return TreeEntry(
        mode=mode,
        kind=kind,
        oid=oid,
        # "-" of what has none, "BAD" of what is not there.
        size=int(size) if size.isdecimal() else None,
        path=path.decode(errors="surrogateescape"),
    )


def parse_changes(data: bytes) -> dict[str, tuple[str, ...]]:
    """Parse what ``git diff-tree --stdin -r -z --raw`` prints: a commit, then a line and a path for each change.

    Raises: KernelFormatError.
    """
    found: dict[str, list[str]] = {}
    words = iter(data.split(b"\0"))
    paths: list[str] = []
    for word in words:
        if word.startswith(b":"):
            paths.append(next(words, b"").decode(errors="surrogateescape"))
        elif _OID.fullmatch(word):
            paths = found[word.decode("ascii")] = []
        elif word:
            raise KernelFormatError(f"read git diff-tree: expected a commit or a change, got {word[:80]!r}")
    return {oid: tuple(names) for oid, names in found.items()}


def parse_commit(oid: str, data: bytes) -> Commit:
    """Parse a commit object.

    Raises: KernelFormatError.
    Source: gitformat-signature(5); git-commit-tree(1) for the headers.
    """
    head, _, message = data.partition(b"\n\n")
    headers = _headers(head)
    first = dict(reversed(headers))
    author, committer = (_person(first.get(name, ""), oid) for name in ("author", "committer"))
    return Commit(
        id=oid,
        tree=first.get("tree", ""),
        parents=tuple(value for _, value in takewhile(lambda header: header[0] == "parent", headers[1:])),
        author=author[0],
        committer=committer[0],
        committed_at=committer[1],
        message=message.decode(errors="replace"),
        signature="\n".join(value for name, value in headers if name in _SIGNATURES),
        payload=_without_signatures(head) + b"\n\n" + message,
    )


def _headers(head: bytes) -> list[tuple[str, str]]:
    found: list[tuple[str, list[str]]] = []
    for line in head.decode(errors="replace").split("\n"):
        if line.startswith(" ") and found:
            found[-1][1].append(line[1:])
        else:
            name, _, value = line.partition(" ")
            found.append((name, [value]))
    return [(name, "\n".join(lines)) for name, lines in found]


def _without_signatures(head: bytes) -> bytes:
    kept: list[bytes] = []
    signing = False
    for line in head.split(b"\n"):
        signing = (signing and line.startswith(b" ")) or line.partition(b" ")[0].decode(errors="replace") in _SIGNATURES
        if not signing:
            kept.append(line)
    return b"\n".join(kept)


def _person(text: str, oid: str) -> tuple[str, float]:
    match = _PERSON.match(text)
    if match is None:
        raise KernelFormatError(f"read commit {oid[:12]}: expected a name with a time, got {text[:80]!r}")
    return match["who"], float(match["at"])
