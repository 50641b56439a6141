"""Parsing: the bytes of one file to validated documents, and whatever is wrong with the file by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from pydantic import ValidationError

from reconciler.manifests import merge, words, yaml_reader
from reconciler.manifests.document import Document, ParsedFile, Written
from reconciler.manifests.kinds import KINDS
from reconciler.manifests.kinds.base import Manifest
from reconciler.manifests.kinds.ve import Profile
from reconciler.manifests.parsers import described
from reconciler.manifests.problem import Path, Problem, did_you_mean, listed
from reconciler.manifests.yaml_builder import RawDocument
from reconciler.manifests.yaml_reader import RawFile
from reconciler.model.facts import Json


def parse(file: str, data: bytes, *, digest: bytes | None = None) -> ParsedFile:
    """Parse a file. Its problems are placed: each has a mark. ``digest``: what names the data, by default SHA-256."""
    digest = hashlib.sha256(data).digest() if digest is None else digest
    return parse_raw(file, yaml_reader.read(data), digest=digest)


def parse_raw(file: str, raw: RawFile, *, digest: bytes) -> ParsedFile:
    """Parse a file that was read."""
    documents: list[Document] = []
    broken: list[tuple[str, str]] = []
    problems, lost = list(raw.problems), bool(raw.problems)
    for index, raw_document in enumerate(raw.documents):
        found = list(_envelope_problems(raw_document))
        model = None
        if not found:
            model, found = _validate(raw_document.value)
        problems.extend(_placed(problem, raw_document) for problem in found)
        if len(problems) >= words.PROBLEMS_MAX:
            return _abandoned(documents, problems)
        if model is not None:
            documents.append(_document(file, digest, index, raw_document, model))
        elif (identity := _identity(raw_document.value)) is not None:
            broken.append(identity)
        else:
            lost = True
    return ParsedFile(documents=tuple(documents), broken=tuple(broken), problems=tuple(problems), lost=lost)


def _abandoned(documents: list[Document], problems: list[Problem]) -> ParsedFile:
    last = problems[words.PROBLEMS_MAX - 1]
    problem = Problem(path=(), message="expected fewer mistakes, the rest is not listed", mark=last.mark)
    return ParsedFile(documents=tuple(documents), problems=(*problems[: words.PROBLEMS_MAX - 1], problem), lost=True)


def _placed(problem: Problem, document: RawDocument) -> Problem:
    if problem.mark is not None:
        return problem
    return replace(problem, mark=document.mark(problem.path, at_key=problem.at_key))


def _document(file: str, digest: bytes, index: int, raw: RawDocument, model: Manifest) -> Document:
    spec = raw.value.get("spec") if isinstance(raw.value, dict) else None
    takes_part = isinstance(spec, dict) and (isinstance(model, Profile) or bool(spec.get("profile")))
    written = Written(model, spec if isinstance(spec, dict) and takes_part else None)
    return Document(
        file=file,
        digest=digest,
        index=index,
        mark=raw.mark(()),
        kind=type(model).__name__,
        name=model.metadata.name,
        written=lambda: written,
    )


def _envelope_problems(document: RawDocument) -> Iterator[Problem]:
    if document.problems:
        yield from document.problems
        return
    value = document.value
    if not isinstance(value, dict):
        yield Problem(path=(), message=f"expected apiVersion, kind, metadata and spec, got {described(value)}")
        return
    kind = value.get("kind")
    if kind is None:
        yield Problem(path=("kind",), message="missing field", hint=f"add 'kind: ...', one of {listed(KINDS)}")
    elif not isinstance(kind, str) or kind not in KINDS:
        hint = did_you_mean(kind, KINDS) if isinstance(kind, str) else ""
        yield Problem(path=("kind",), message=f"expected {listed(KINDS)}, got {described(kind)}", hint=hint)


def _validate(value: Json) -> tuple[Manifest | None, list[Problem]]:
    stripped = merge.without_nulls(value)
    assert isinstance(stripped, dict)  # the envelope was checked
    model = KINDS[str(stripped["kind"])]
    try:
        return model.model_validate(stripped), []
    except ValidationError as err:
        return None, list(words.problems(err, model, value))


def _identity(value: Json) -> tuple[str, str] | None:
    kind, name = _at(value, ("kind",)), _at(value, ("metadata", "name"))
    return (kind, name) if isinstance(kind, str) and kind in KINDS and isinstance(name, str) else None


def _at(value: Json, path: Path) -> Json:
    for part in path:
        value = value.get(str(part)) if isinstance(value, dict) else None
    return value
