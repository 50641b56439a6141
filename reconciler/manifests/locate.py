"""Findings: problems and complaints with the file, line and column that people need.

Positions are not kept with the documents, which stay in memory for as long as a revision is in force: a file with
something wrong in it is read again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from reconciler.manifests import merge, yaml_reader
from reconciler.manifests.document import Complaint
from reconciler.manifests.problem import Mark, Path, Problem, format_path
from reconciler.manifests.yaml_builder import RawDocument
from reconciler.model.fleet import Finding, Place

FINDINGS_MAX = 100
"""For each file; beyond it they are counted."""

_LINE_END = re.compile("\r\n|\r|\n")


def findings(
    files: Mapping[str, bytes], problems: Iterable[tuple[str, Problem]], complaints: Iterable[Complaint]
) -> tuple[Finding, ...]:
    """Place what is wrong, in the order of files and lines. ``problems``: placed ones, with their file."""
    by_file: dict[str, list[tuple[Mark, Path, Problem]]] = {}
    for file, problem in problems:
        by_file.setdefault(file, []).append((problem.mark or (1, 1), problem.path, problem))
    complaints_by_file: dict[str, list[Complaint]] = {}
    for complaint in complaints:
        complaints_by_file.setdefault(complaint.document.file, []).append(complaint)
    for file, of_file in complaints_by_file.items():
        by_file.setdefault(file, []).extend(_placed(files[file], of_file))
    return tuple(finding for file in sorted(by_file) for finding in _of_file(file, files[file], by_file[file]))


def _of_file(file: str, data: bytes, placed: list[tuple[Mark, Path, Problem]]) -> Iterator[Finding]:
    lines = _LINE_END.split(data.decode("utf-8", errors="replace").removeprefix("\ufeff"))
    ordered = sorted(placed, key=lambda item: (item[0], format_path(item[1]), item[2].message))
    for mark, path, problem in ordered[:FINDINGS_MAX]:
        line, column = _within(mark, lines)
        yield Finding(
            place=Place(file=file, line=line, column=column),
            path=format_path(path),
            message=problem.message,
            hint=problem.hint,
            source=lines[line - 1],
        )
    if len(ordered) > FINDINGS_MAX:
        line, column = _within(ordered[FINDINGS_MAX][0], lines)
        message = f"{len(ordered) - FINDINGS_MAX} more mistakes from here on are not listed"
        yield Finding(place=Place(file=file, line=line, column=column), path="", message=message)


def _within(mark: Mark, lines: list[str]) -> Mark:
    """Move a mark at the end of the file to the end of its last words: there something is missing."""
    line = mark[0]
    if line < len(lines) or (line == len(lines) and lines[-1].strip()):
        return mark
    last = max((number for number, text in enumerate(lines, start=1) if text.strip()), default=0)
    return (last, len(lines[last - 1].rstrip()) + 1) if last else (1, 1)


def _placed(data: bytes, complaints: list[Complaint]) -> Iterator[tuple[Mark, Path, Problem]]:
    documents = yaml_reader.read(data).documents
    for complaint in complaints:
        document = documents[complaint.document.index]
        path, mark = _position(document, complaint.problem)
        yield mark, path, complaint.problem


def _position(document: RawDocument, problem: Problem) -> tuple[Path, Mark]:
    """Find a path in a document as it was written, or the nearest to it that is there.

    A part of a VE's spec that is not there at all came from a profile.
    """
    path = problem.path
    spec = document.value.get("spec") if isinstance(document.value, dict) else None
    if path[:1] != ("spec",):
        return path, document.mark(path)
    for length in range(len(path), 1, -1):
        written = merge.by_position(spec, path[1:length])
        if written is not None:
            found: Path = ("spec", *written)
            return (*found, *path[length:]), document.mark(found)
    return path, document.mark(("spec", "profile"))
