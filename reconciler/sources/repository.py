"""Manifests in a repository: those of one commit, read from the object store; a blob is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reconciler.errors import CommandError, TimeLimitError, TooLargeError
from reconciler.kernel.git import Repository
from reconciler.kernel.git_object import TreeEntry
from reconciler.model.commit import Commit
from reconciler.sources.snapshot import Snapshot, snapshot_of
from reconciler.sources.tree import Refused, admit


class RepositorySource:
    """The manifests below ``subdir`` of a repository's commits; "" is all of it."""

    __slots__ = ("_blobs", "_repository", "_subdir")

    def __init__(self, repository: Repository, *, subdir: str = "") -> None:
        self._repository = repository
        self._subdir = subdir
        self._blobs: dict[str, bytes] = {}

    def look(self, commit: Commit) -> Snapshot:
        """Read the manifests of a commit; what is wrong with its tree is in the snapshot.

        Paths are relative to ``subdir``. ``way`` and ``trust`` are left to whoever knows them.
        Raises: CommandError, KernelFormatError, if an object is damaged or not there; MissingToolError.
        """
        try:
            return self._look(commit)
        except TooLargeError as error:
            return self._refused(commit, "SourceTooLarge", str(error))
        except TimeLimitError:  # few objects can stand for more paths than can be listed
            return self._refused(commit, "SourceTooLarge", "its tree takes too long to list")

    def _look(self, commit: Commit) -> Snapshot:
        if self._subdir and not self._has_folder(commit):
            return self._refused(commit, "SubdirMissing", f"expected a folder {self._subdir!r}, see `subdir`")
        admitted = admit(self._repository.tree(commit.id, self._subdir))
        if isinstance(admitted, Refused):
            return self._refused(commit, admitted.reason, admitted.problem)
        blobs = self._read(admitted.files)
        found = snapshot_of("git", {entry.path: blobs[entry.oid] for entry in admitted.files})
        return replace(found, revision=commit.id, commit=commit, skipped=admitted.skipped)

    def _has_folder(self, commit: Commit) -> bool:
        """Say whether the folder is there, where the commit can be read at all."""
        self._repository.run("cat-file", "-e", f"{commit.id}^{{tree}}")
        try:
            kind = self._repository.run("cat-file", "-t", f"{commit.id}:{self._subdir}")
        except CommandError:
            return False
        return kind == b"tree\n"

    def _read(self, files: Sequence[TreeEntry]) -> dict[str, bytes]:
        """Give the content of files by name of blob; of the last commit's what is in this one, too."""
        wanted = {entry.oid for entry in files}
        known = {oid: self._blobs[oid] for oid in wanted & self._blobs.keys()}
        self._blobs = known | self._repository.objects(sorted(wanted - known.keys()))
        return self._blobs

    def _refused(self, commit: Commit, reason: str, problem: str) -> Snapshot:
        return Snapshot(reason=reason, problem=f"commit {commit.id[:12]}: {problem}", commit=commit)
