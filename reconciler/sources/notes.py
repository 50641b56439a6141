"""Signed notes: what people say of a commit after it was made, kept in the repository beside it.

A note is lines ``Key: value`` and an armoured ssh signature over the commit's name and these lines; several people's
follow each other. In shell::

    { git rev-parse HEAD; echo "Vectl-Approved: $hash"; } | ssh-keygen -Y sign -n vectl -f ~/.ssh/id_ed25519

Source: git-notes(1); PROTOCOL.sshsig of OpenSSH.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from reconciler.errors import CommandError, TooLargeError
from reconciler.kernel.git import Repository
from reconciler.model.commit import trailers

REF = "refs/notes/vectl"
"""Where notes are pushed to; a mirror has them elsewhere."""

NOTES_MAX = 16
"""How many people's notes on one commit are looked at."""

_NOTE_MAX = 256 << 10
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedNote:
    """A note as it was found: whose it is only its signature tells. ``payload``: what was signed."""

    lines: tuple[tuple[str, str], ...]
    signature: str
    payload: bytes


def payload(commit: str, lines: Collection[tuple[str, str]]) -> bytes:
    """Give what is signed to note something on a commit."""
    return "".join(f"{line}\n" for line in (commit, *(f"{key}: {value}" for key, value in lines))).encode()


def render(lines: Collection[tuple[str, str]], signature: str) -> str:
    """Give the text of a note, to be appended to those that are there."""
    return "".join(f"{key}: {value}\n" for key, value in lines) + f"{signature.strip()}\n"


def parse(commit: str, text: str) -> tuple[SignedNote, ...]:
    """Take apart what is noted on a commit; what is no signed note is left out."""
    found = []
    for said, signature in islice(_blocks(text), NOTES_MAX):
        lines = trailers(f"\n\n{said.strip()}")
        if lines:
            found.append(SignedNote(lines=lines, signature=signature, payload=payload(commit, lines)))
    return tuple(found)


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Cut a text into what is said and the signature after it, in one go: anybody may have written it."""
    at = 0
    while (begin := text.find(_BEGIN, at)) >= 0 and (end := text.find(_END, begin)) >= 0:
        end += len(_END)
        yield text[at:begin], text[begin:end]
        at = end


def read(repository: Repository, ref: str, commits: Collection[str]) -> Mapping[str, tuple[SignedNote, ...]]:
    """Read what is noted on commits.

    Raises: CommandError, KernelFormatError, TimeLimitError, MissingToolError.
    """
    tip = repository.resolve(ref)
    if tip is None or not commits:
        return {}
    blobs = _blobs(repository, tip, frozenset(commits))
    texts = repository.objects(blobs.values())
    return {commit: parse(commit, texts[oid].decode(errors="replace")) for commit, oid in blobs.items()}


def _blobs(repository: Repository, tip: str, commits: Collection[str]) -> dict[str, str]:
    """Find the notes in the tree of a ref, in which the names of commits are cut into folders to a depth that varies.

    Notes that cannot be listed are none: they only ever allow.
    """
    try:
        entries = repository.tree(tip)
    except (CommandError, TooLargeError):
        return {}
    found = ((entry.path.replace("/", ""), entry) for entry in entries if entry.kind == "blob")
    return {name: entry.oid for name, entry in found if name in commits and (entry.size or 0) <= _NOTE_MAX}
