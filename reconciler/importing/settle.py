"""Settling: drafts become valid manifests, and what cannot stay is taken out and told, never silently."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from reconciler.errors import ManifestError
from reconciler.importing.draft import Draft, parse_path
from reconciler.importing.report import Ledger, Outcome, Setting
from reconciler.importing.text import render
from reconciler.manifests import yaml_reader
from reconciler.manifests.load import ParseCache, load_fleet
from reconciler.manifests.problem import Path
from reconciler.model.fleet import Finding

_ROUNDS_MAX = 60
"""Each takes out something of every draft that is not valid; a draft that is never valid is left out whole before."""

_SURE_ROUNDS = 40


def settle(drafts: Sequence[Draft], ledger: Ledger, *, beside: Mapping[str, bytes]) -> dict[str, bytes]:
    """Give the files of drafts, valid together with the manifests that are there already.

    ``beside``: those, by file. Drafts of what they declare already are left out.

    Raises: ManifestError, if what is there is not valid, or cannot go together with what is new.
    """
    known = load_fleet(beside, revision="")
    if known.fleet is None:
        first = known.findings[0]
        raise ManifestError(f"import beside {first.place.file}:{first.place.line}: it is not valid: {first.message}")
    placed = all("host" in draft.spec for draft in drafts if draft.kind == "VirtualEnvironment")
    if len(known.fleet.hosts) > 1 and not placed:
        raise ManifestError(f"import: expected --host, one of {', '.join(sorted(known.fleet.hosts))}")
    left = {draft.file: draft for draft in _undeclared(drafts, ledger, beside)}
    cache = ParseCache()
    files = {file: render(draft) for file, draft in left.items()}
    for number in range(_ROUNDS_MAX):
        findings = load_fleet({**beside, **files}, revision="", cache=cache).findings
        if not findings:
            return files
        for file in _mended(findings, left, ledger, whole=number >= _SURE_ROUNDS):
            files.pop(file)
            if file in left:
                files[file] = render(left[file])
    raise ManifestError("import: expected manifests that can be made valid, and this could not be done; import fewer")


def _undeclared(drafts: Iterable[Draft], ledger: Ledger, beside: Mapping[str, bytes]) -> Iterator[Draft]:
    declared = dict(_declared(beside))
    for draft in drafts:
        place = declared.get((draft.kind, draft.name))
        if place is None:
            yield draft
            continue
        here = Setting(file=draft.file, line=0, key=draft.name)
        if draft.kind == "VirtualEnvironment":
            ledger.fail(here, f"left out whole: {place} declares a VE of this name already", of=draft.title)
        else:
            ledger.note(here, Outcome.IGNORED, f"{place} declares it already", of=draft.title)


def _declared(beside: Mapping[str, bytes]) -> Iterator[tuple[tuple[str, str], str]]:
    for file, data in beside.items():
        for document in yaml_reader.read(data).documents:
            match document.value:
                case {"kind": str(kind), "metadata": {"name": str(name)}}:
                    yield (kind, name), file


def _mended(findings: Iterable[Finding], left: dict[str, Draft], ledger: Ledger, *, whole: bool) -> set[str]:
    """Take out of each draft what findings are about; give the files that changed."""
    by_file: dict[str, list[Finding]] = {}
    for finding in findings:
        by_file.setdefault(finding.place.file, []).append(finding)
    for file, found in by_file.items():
        if file not in left:
            place = f"{file}:{found[0].place.line}"
            raise ManifestError(f"import: what is new does not go together with {place}: {found[0].message}")
        if whole or not _take_out(left[file], found, ledger):
            draft = left.pop(file)
            here = Setting(file=draft.file, line=0, key=draft.name)
            ledger.fail(here, f"left out whole: {found[0].message}", of=draft.title)
    return set(by_file)


def _take_out(draft: Draft, findings: Sequence[Finding], ledger: Ledger) -> bool:
    """Take out what findings are about, the last of a list first, so that the others keep their numbers."""
    wanted: dict[Path, Finding] = {}
    for finding in findings:
        path = parse_path(finding.path)
        if path[:1] != ("spec",) or len(path) < 2:
            return False
        wanted.setdefault(path[1:], finding)
    gone: list[Path] = []
    for path in sorted(wanted, key=_backwards, reverse=True):
        if any(path[: len(one)] == one for one in gone):
            continue
        origin = draft.origin(path)
        taken = draft.remove(path)
        if taken is None:
            return False
        gone.append(taken)
        here = origin or Setting(file=draft.file, line=0, key=".".join(map(str, path)))
        ledger.note(here, Outcome.DROPPED, f"not valid: {wanted[path].message}", of=draft.title)
    return True


def _backwards(path: Path) -> tuple[tuple[int, str], ...]:
    return tuple((part, "") if isinstance(part, int) else (-1, part) for part in path)
