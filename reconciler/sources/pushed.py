"""The manifests of a tree that is in no commit yet, or in one that is about to be taken: what hooks of git look at."""

from __future__ import annotations

from reconciler.errors import CommandError, ManifestError, UsageError
from reconciler.kernel.git import Repository
from reconciler.sources.tree import Refused, admit


def read_tree(repository: Repository, tree: str, *, subdir: str) -> dict[str, bytes]:
    """Read the manifests below a folder of a commit or tree, by path from there on.

    Raises: ManifestError, if it is one that no host would read; UsageError, if there is no such folder; CommandError,
    TimeLimitError, TooLargeError, KernelFormatError.
    """
    try:
        entries = repository.tree(tree, subdir)
    except CommandError as err:
        if not subdir:
            raise
        raise UsageError(f"read {tree[:12]}: expected a folder {subdir!r}; see `git config vectl.subdir`") from err
    admitted = admit(entries)
    if isinstance(admitted, Refused):
        raise ManifestError(f"read {tree[:12]}: {admitted.problem}")
    blobs = repository.objects(sorted({entry.oid for entry in admitted.files}))
    return {entry.path: blobs[entry.oid] for entry in admitted.files}
