"""The manifests of one commit, by path: listed at once, and read once somebody asks for one of them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping

from reconciler.errors import CommandError, ManifestError, UsageError
from reconciler.kernel.git import Repository
from reconciler.sources.tree import Refused, admit


class Committed(Mapping[str, bytes]):
    """The manifests below a folder of a commit. ``ids``: the name of each file's blob, by path."""

    def __init__(self, repository: Repository, ids: Mapping[str, str]) -> None:
        self._repository = repository
        self._blobs: dict[str, bytes] = {}
        self.ids = ids

    @classmethod
    def of(cls, repository: Repository, commit: str, *, subdir: str = "") -> Committed:
        """List the manifests of a commit; none, where it has no such folder.

        Raises: ManifestError, if its tree is one that no host would read; CommandError, KernelFormatError.
        """
        try:
            entries = repository.tree(commit, subdir)
        except CommandError:
            if subdir and repository.resolve(commit) is not None:
                return cls(repository, {})
            raise
        admitted = admit(entries)
        if isinstance(admitted, Refused):
            raise ManifestError(f"read {commit[:12]}: {admitted.problem}")
        return cls(repository, {entry.path: entry.oid for entry in admitted.files})

    def prefetch(self, paths: Collection[str]) -> None:
        """Read some files with one command.

        Raises: CommandError, KernelFormatError, TooLargeError.
        """
        self._blobs |= self._repository.objects({self.ids[path] for path in paths} - self._blobs.keys())

    def __getitem__(self, path: str) -> bytes:
        oid = self.ids[path]
        if oid not in self._blobs:
            self.prefetch(self.ids)  # more are asked for soon, and each alone would take a process
        return self._blobs[oid]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


def place(repository: Repository) -> tuple[Repository, str]:
    """Give the top of the repository that a directory is in, and the directory's path below it.

    Raises: UsageError, if it is in none.
    """
    try:
        found = repository.run("rev-parse", "--is-bare-repository", "--show-prefix", "--show-cdup").decode().split("\n")
    except CommandError as err:
        raise UsageError(f"read {repository.path}: expected a directory in a git repository") from err
    if found[0] == "true":
        return repository, ""
    top = os.path.normpath(os.path.join(repository.path, found[2]))
    return Repository(path=top, environment=repository.environment), found[1].rstrip("/")
