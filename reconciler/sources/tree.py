"""Which entries of a repository's tree are manifests, and whether the tree may be read at all: before any blob is."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.kernel.git_object import TreeEntry
from reconciler.sources.snapshot import DEPTH_MAX, ENTRIES_MAX, FILE_MAX, FILES_MAX, TOTAL_MAX

_SUFFIXES = (".yaml", ".yml")
_FILES = ("100644", "100755")
_FOLDER = "040000"
_LINKS = {"120000": "a symbolic link, which is not followed", "160000": "a submodule, which is not fetched"}
_FORBIDDEN = frozenset(("", ".", "..", ".git"))
"""What no honest tree has as the name of a folder or file. Source: git's fsck-msgids, hasDot, hasDotdot, hasDotgit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A tree that may be read: the blobs of its manifests, and the links in it that are not followed."""

    files: tuple[TreeEntry, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A tree that is not read: ``reason`` for a condition and ``problem`` as its sentence."""

    reason: str
    problem: str


class _TreeError(Exception):
    """What is wrong with a tree; never leaves this module."""

    def __init__(self, problem: str, *, reason: str = "SourceUnreadable") -> None:
        super().__init__(problem)
        self.refused = Refused(reason=reason, problem=problem)


def admit(entries: Sequence[TreeEntry]) -> Admitted | Refused:
    """Judge the whole tree of a commit, folders included, by names, modes and sizes.

    What lies below a name that begins with a dot is no manifest, as in a directory; elsewhere ``*.yaml`` and ``*.yml``
    are. A link in the place of a manifest refuses the tree; other links are skipped.
    """
    try:
        if len(entries) > ENTRIES_MAX:
            raise _TreeError(
                f"expected {ENTRIES_MAX} files and folders of any kind at most, got {len(entries)}",
                reason="SourceTooLarge",
            )
        return _judge(entries)
    except _TreeError as error:
        return error.refused


def _judge(entries: Iterable[TreeEntry]) -> Admitted:
    files: list[TreeEntry] = []
    skipped: list[str] = []
    for entry in entries:
        if _is_hidden(entry.path):
            continue
        if entry.path.endswith(_SUFFIXES) and entry.mode != _FOLDER:
            files.append(_manifest(entry))
        elif entry.mode in _LINKS:
            skipped.append(_printable(entry.path))
    _refuse_size(files)
    _refuse_alike(files)
    return Admitted(files=tuple(files), skipped=tuple(sorted(skipped)))


def _is_hidden(path: str) -> bool:
    """Tell whether a name of the path begins with a dot; refuse what would lead elsewhere, and what is too deep."""
    parts = path.split("/")
    if not _FORBIDDEN.isdisjoint(parts) or any(part.lower() == ".git" for part in parts if part.startswith(".")):
        raise _TreeError(f"{path!r}: expected names of files and folders, found one that leads out of the tree")
    if len(parts) - 1 > DEPTH_MAX:
        raise _TreeError(f"{path[:80]!r}: expected {DEPTH_MAX} folders in each other at most", reason="SourceTooLarge")
    return any(part.startswith(".") for part in parts)


def _manifest(entry: TreeEntry) -> TreeEntry:
    path = _printable(entry.path)
    if entry.mode not in _FILES:
        found = _LINKS.get(entry.mode, f"mode {entry.mode}")
        raise _TreeError(f"{path}: expected a file of mode {' or '.join(_FILES)}, found {found}")
    if entry.kind != "blob" or entry.size is None:
        raise _TreeError(f"{path}: expected a file, found no content of it in the repository")
    if entry.size > FILE_MAX:
        raise _TreeError(f"{path}: expected {FILE_MAX} bytes at most, got {entry.size}", reason="SourceTooLarge")
    return entry


def _printable(path: str) -> str:
    if not path.isprintable():
        raise _TreeError(f"{path!r}: expected a name that can be printed")
    return path


def _refuse_size(files: Sequence[TreeEntry]) -> None:
    if len(files) > FILES_MAX:
        raise _TreeError(f"expected {FILES_MAX} files of manifests at most, got {len(files)}", reason="SourceTooLarge")
    total = sum(entry.size or 0 for entry in files)
    if total > TOTAL_MAX:
        raise _TreeError(f"expected {TOTAL_MAX} bytes of manifests at most, got {total}", reason="SourceTooLarge")


def _refuse_alike(files: Sequence[TreeEntry]) -> None:
    """Refuse two names that are one on a reviewer's machine: there only one of the files would be seen."""
    seen: dict[str, str] = {}
    for entry in files:
        name = _folded(entry.path)
        if name in seen:
            raise _TreeError(f"{entry.path}: expected names that differ in more than case, found {seen[name]} too")
        seen[name] = entry.path


def _folded(path: str) -> str:
    if path.isascii():
        return path.lower()
    # Case folding may leave what is not normal any more. Source: The Unicode Standard, 3.13, D145.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
