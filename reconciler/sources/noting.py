"""Writing signed notes, in a person's own clone."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.errors import UsageError
from reconciler.kernel.git import Repository
from reconciler.kernel.git_signature import sign_ssh
from reconciler.sources import notes

_AT = "Vectl-At"


def note(repository: Repository, commit: str, lines: Sequence[tuple[str, str]], *, key: str, now: float) -> str:
    """Sign something about a commit with a private key of ssh and add it to what is noted there; give the commit.

    Units: ``now``, which is signed too, seconds since the epoch.
    Raises: UsageError, if there is no such commit; CommandError, MissingToolError, TimeLimitError.
    """
    found = repository.resolve(commit)
    if found is None:
        raise UsageError(f"note on {commit}: expected a commit of {repository.path}, found none")
    said = (*lines, (_AT, str(int(now))))
    text = notes.render(said, sign_ssh(notes.payload(found, said), key))
    repository.run("notes", f"--ref={notes.REF}", "append", "-F", "-", found, input=text.encode())
    return found
