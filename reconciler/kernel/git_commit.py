"""A commit of some files in a person's own clone, made as that person would: with its hooks, identity and signature.

Source: git-commit(1), --only; git-switch(1).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from reconciler.errors import CommandError, UsageError
from reconciler.kernel import files
from reconciler.kernel.command import started
from reconciler.kernel.git import Repository


def expect_committed(file: str) -> None:
    """See to it that a file is in a repository and that nothing in it waits to be committed.

    Raises: UsageError.
    """
    directory, name = os.path.split(os.path.abspath(file))
    try:
        listed = Repository(path=directory).run("status", "--porcelain", "--ignored", "-z", "--", name)
    except CommandError as err:
        raise UsageError(f"commit {file}: {str(err).rpartition('fatal: ')[2]}") from err
    if listed:
        raise UsageError(f"commit {file}: it has changes that are not committed; commit or undo them first")


@contextmanager
def committing(paths: Sequence[str], *, message: str, branch: str | None) -> Iterator[None]:
    """Commit what the block makes of files, and of no others, on a new branch or on the one that is checked out.

    What cannot be committed is undone: the files, and the branch. The files are of one repository.

    Raises: CommandError, after git and its hooks have told why on stderr; UsageError, as `expect_committed`.
    """
    for path in paths:
        expect_committed(path)
    directory = os.path.dirname(os.path.abspath(paths[0]))
    before = {path: files.read_bytes_if_exists(path) for path in paths}
    if branch is not None:
        _git(directory, "switch", "--quiet", "--create", branch)
    try:
        yield
        _git(directory, "commit", "--quiet", "--only", "-m", message, "--", *map(os.path.abspath, paths))
    except BaseException:
        for path, data in before.items():
            if data is not None:
                files.rewrite_atomic(path, data)
        if branch is not None:
            _git(directory, "switch", "--quiet", "-")
            _git(directory, "branch", "--quiet", "--delete", branch)
        raise


def _git(directory: str, *arguments: str) -> None:
    """Run git where the person may be asked for a passphrase: on their terminal, for as long as they take."""
    with started("git"):
        status = subprocess.run(["git", "-C", directory, *arguments], stdout=2).returncode
    if status:
        raise CommandError(f"run git {arguments[0]}: exit status {status}", status=status, output="")
