"""What became of documents that were found valid: to be known again without reading and validating them once more.

What a document becomes follows from its content and from the documents that VEs share, so both are in the name under
which it is remembered. Only what nothing is wrong with is remembered: mistakes need the text, to say where they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from reconciler.manifests.document import Document
from reconciler.manifests.resolved import Commons, ResolvedVe, Shared, Stake
from reconciler.model.compact import form
from reconciler.model.facts import Json
from reconciler.model.fleet import HostSpec, VeSpec


class Store(Protocol):
    """Values by name; a name is one word."""

    def get(self, name: str) -> Json:
        """Give a value; None, if there is none."""
        ...

    def __contains__(self, name: str) -> bool:
        """Say whether there is such a value."""
        ...

    def put(self, name: str, value: Json) -> None:
        """Keep a value."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A document of a file without its content. Units: ``line`` and ``column`` from 1."""

    kind: str
    name: str
    line: int
    column: int


_OUTLINES, _COMMONS, _HOST = form(tuple[Outline, ...]), form(Commons), form(HostSpec)
_STAKE, _SPEC = form(Stake), form(VeSpec)


class Memory:
    """Remembers documents in a store. ``content`` names what is in a file."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def knows(self, content: str) -> bool:
        """Say whether the documents of a file are known."""
        return f"file:{content}" in self._store

    def outlines(self, content: str) -> tuple[Outline, ...] | None:
        """Give the documents of a file; None, if it is not known or something is wrong with it."""
        found = self._store.get(f"file:{content}")
        return None if found is None else _OUTLINES.read(found)

    def keep_outlines(self, content: str, documents: Iterable[Document]) -> None:
        """Remember the documents of a file with which nothing is wrong by itself."""
        made = (Outline(kind=one.kind, name=one.name, line=one.mark[0], column=one.mark[1]) for one in documents)
        self._store.put(f"file:{content}", _OUTLINES.write(tuple(made)))

    def commons(self, digest: bytes) -> Commons | None:
        """Give what was made of the documents that VEs share; None, if it is not known."""
        found = self._store.get(f"commons:{digest.hex()}")
        return None if found is None else _COMMONS.read(found)

    def keep_commons(self, digest: bytes, commons: Commons) -> None:
        """Remember what was made of documents with which nothing is wrong."""
        self._store.put(f"commons:{digest.hex()}", _COMMONS.write(commons))

    def host(self, document: Document) -> HostSpec | None:
        """Give what was made of a host's document; None, if it is not known."""
        found = self._store.get(f"host:{_word(document)}")
        return None if found is None else _HOST.read(found)

    def keep_host(self, document: Document, spec: HostSpec) -> None:
        """Remember what was made of a host's document."""
        self._store.put(f"host:{_word(document)}", _HOST.write(spec))

    def ve(self, document: Document, context: Shared) -> ResolvedVe | None:
        """Give what a VE was resolved to; None, if it is not known."""
        found = self._store.get(f"ve:{_word(document)}:{context.digest.hex()}")
        if not isinstance(found, list):
            return None
        stake, spec = found
        return ResolvedVe(document=document, stake=_STAKE.read(stake), spec=_SPEC.read(spec, place=document.place))

    def keep_ve(self, ve: ResolvedVe, context: Shared) -> None:
        """Remember what a VE was resolved to, if nothing is wrong with it."""
        if ve.spec is not None:
            value = [_STAKE.write(ve.stake), _SPEC.write(replace(ve.spec, place=None))]
            self._store.put(f"ve:{_word(ve.document)}:{context.digest.hex()}", value)


def _word(document: Document) -> str:
    """Name a document's content, wherever it is."""
    return f"{document.digest.hex()}:{document.index}"
