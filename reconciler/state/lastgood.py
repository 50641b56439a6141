"""The last good revision, content and all: what stays in force when the source is broken, away or empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.state.document import Document

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A revision with the content of its files by path. ``source`` names where it came from.

    Units: ``at`` seconds since the epoch.
    """

    revision: str
    source: str
    files: Mapping[str, bytes]
    at: float


class LastGood:
    """The newest revision that was valid, or that was found good in another sense, in one file ``name``."""

    __slots__ = ("_document",)

    def __init__(self, state_dir: str, *, name: str = "last-good") -> None:
        remedy = "remove it: then the next valid state of the source is kept, and until then nothing is changed"
        self._document = Document(path=f"{state_dir}/{name}.json", format=_FORMAT, remedy=remedy)

    def keep(self, kept: Kept) -> None:
        """Keep a revision, durably, in place of the one before.

        Raises: KernelError, NoSpaceError.
        """
        # Escaped bytes of any encoding come back as they were, and in a text editor the usual ones are readable.
        texts = {path: data.decode(errors="surrogateescape") for path, data in sorted(kept.files.items())}
        self._document.write({"revision": kept.revision, "source": kept.source, "at": kept.at, "files": {**texts}})

    def read(self) -> Kept | None:
        """Read what was kept; None, if no revision was ever valid.

        Raises: StateError, KernelError.
        """
        fields = self._document.read()
        if fields is None:
            return None
        texts = fields.strings("files")
        kept = Kept(
            revision=fields.text("revision"),
            source=fields.text("source"),
            at=fields.number("at"),
            files={path: text.encode(errors="surrogateescape") for path, text in texts.items()},
        )
        fields.end()
        return kept
