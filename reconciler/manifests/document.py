"""Documents: one validated manifest each, and complaints about it that still have to be placed in its file."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.manifests.kinds.base import Manifest
from reconciler.manifests.problem import Mark, Path, Problem
from reconciler.model.facts import Json
from reconciler.model.fleet import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a file whose content has the SHA-256 ``digest``; ``index`` counts the file's documents.

    ``raw``: its spec as it was written, where it takes part in a merge with profiles, else None.
    """

    file: str
    digest: bytes = field(repr=False)
    index: int
    mark: Mark
    model: Manifest = field(repr=False)
    raw: dict[str, Json] | None = field(default=None, repr=False, compare=False)

    @property
    def kind(self) -> str:
        """The kind, as manifests name it."""
        return type(self.model).__name__

    @property
    def name(self) -> str:
        """The object's name."""
        return self.model.metadata.name

    @property
    def key(self) -> tuple[str, bytes, int]:
        """Names this content at this place; equal keys mean equal documents."""
        return self.file, self.digest, self.index

    @property
    def place(self) -> Place:
        """Where the document begins."""
        return Place(file=self.file, line=self.mark[0], column=self.mark[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """A problem of a document."""

    document: Document
    problem: Problem


def complain(document: Document, path: Path, message: str, hint: str = "") -> Complaint:
    """Say what is wrong at a path of a document."""
    return Complaint(document=document, problem=Problem(path=path, message=message, hint=hint))
