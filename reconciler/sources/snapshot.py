"""What one look at a source gave."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from reconciler.model.commit import LOCAL_FILES, Commit, Step, Trust, TrustState

FILE_MAX = 1 << 20
"""The largest file of manifests that is read. Units: bytes."""

TOTAL_MAX = 64 << 20
"""The most that a source may hold. Units: bytes."""

FILES_MAX = 20_000

ENTRIES_MAX = 200_000
"""How many files and folders of any kind are listed: a directory of something else must not stop the loop."""

DEPTH_MAX = 32
"""How many folders deep a manifest may lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The files of a source by path, as bytes, and their revision; or, with ``reason`` set, why there is none.

    ``digest`` is the SHA-256 of paths and contents, ``revision`` its short form with the kind of the source.
    ``reason`` is a PascalCase word for a condition and ``problem`` its sentence. ``root``: device and inode of the
    directory. ``skipped``: paths that look like manifests or folders of them but are not followed.
    ``commit``: what was read, if the source is a repository; ``way``: how it came about, from the commit after the one
    in force on. ``trust``: whether it may be acted upon.
    """

    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    revision: str = ""
    digest: str = ""
    reason: str = ""
    problem: str = ""
    root: tuple[int, int] | None = None
    skipped: tuple[str, ...] = ()
    commit: Commit | None = None
    way: tuple[Step, ...] = ()
    trust: Trust = LOCAL_FILES

    @property
    def complete(self) -> bool:
        """Whether everything that is there was read and may be trusted: only then is what is not in it gone."""
        return not self.reason and self.trust.state is TrustState.TRUSTED


def snapshot_of(kind: str, files: Mapping[str, bytes]) -> Snapshot:
    """Build the snapshot of files that were all read; ``kind`` is the first part of the revision's name."""
    digest = digest_of(files)
    return Snapshot(files=MappingProxyType(dict(files)), revision=f"{kind}:{digest[:12]}", digest=digest)


def digest_of(files: Mapping[str, bytes]) -> str:
    """Hash paths and contents, each with its length before it, so that no two sets of files look alike."""
    total = hashlib.sha256()
    for path, content in sorted(files.items()):
        name = path.encode(errors="surrogateescape")
        total.update(b"%d:%d:" % (len(name), len(content)))
        total.update(name)
        total.update(content)
    return total.hexdigest()
