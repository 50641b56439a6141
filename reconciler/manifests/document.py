"""Documents: one valid manifest each, and complaints about it that still have to be placed in its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler.manifests.problem import Mark, Path, Problem
from reconciler.model.facts import Json
from reconciler.model.fleet import Place

if TYPE_CHECKING:
    from reconciler.manifests.kinds.base import Manifest


@dataclass(frozen=True, slots=True)
class Written:
    """What a document holds. ``raw``: its spec as it was written, where it takes part in a merge, else None."""

    model: Manifest
    raw: dict[str, Json] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a file whose content has the SHA-256 ``digest``; ``index`` counts the file's documents.

    ``written`` gives what it holds: of one that was found valid before, only once somebody asks.
    """

    file: str
    digest: bytes = field(repr=False)
    index: int
    mark: Mark
    kind: str
    name: str
    written: Callable[[], Written] = field(repr=False, compare=False)

    @property
    def model(self) -> Manifest:
        """The validated manifest."""
        return self.written().model

    @property
    def raw(self) -> dict[str, Json] | None:
        """Its spec as it was written, where it takes part in a merge with profiles, else None."""
        return self.written().raw

    @property
    def key(self) -> tuple[str, bytes, int]:
        """Names this content at this place; equal keys mean equal documents."""
        return self.file, self.digest, self.index

    @property
    def place(self) -> Place:
        """Where the document begins."""
        return Place(file=self.file, line=self.mark[0], column=self.mark[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """A file. ``broken``: kind and name of the documents that are there but not valid.

    ``lost``: documents may be missing altogether, so nothing can be said about what they hold.
    """

    documents: tuple[Document, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    problems: tuple[Problem, ...] = ()
    lost: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong with it by itself."""
        return not (self.broken or self.problems or self.lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """A problem of a document."""

    document: Document
    problem: Problem


def complain(document: Document, path: Path, message: str, hint: str = "") -> Complaint:
    """Say what is wrong at a path of a document."""
    return Complaint(document=document, problem=Problem(path=path, message=message, hint=hint))
