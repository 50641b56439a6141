"""Loading: the files of a revision to a fleet, or to everything that is wrong with them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from reconciler.manifests import canonical, locate, parse, resolve, yaml_reader
from reconciler.manifests.checks import capacity as capacity_checks
from reconciler.manifests.checks import fleet as fleet_checks
from reconciler.manifests.checks import network as network_checks
from reconciler.manifests.checks import ve as ve_checks
from reconciler.manifests.document import Complaint, Document, complain
from reconciler.manifests.kinds import KINDS
from reconciler.manifests.kinds.host import Host
from reconciler.manifests.kinds.network import Network
from reconciler.manifests.kinds.ve import Profile
from reconciler.manifests.parse import ParsedFile
from reconciler.manifests.resolve import ResolvedVe, Shared
from reconciler.manifests.yaml_reader import RawFile
from reconciler.model.collecting import uncollected
from reconciler.model.fleet import Finding, Fleet
from reconciler.model.identity import HostName

_BUILT_IN = {"Template": frozenset({str(canonical.BUSYBOX.name)})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A revision: its fleet, or None where there are findings.

    ``concerns``: what a host cannot give to all that ask for it. It does not make the revision invalid: each host
    admits whom it can.
    """

    fleet: Fleet | None
    findings: tuple[Finding, ...] = ()
    concerns: tuple[Finding, ...] = ()


class KeptFiles(Protocol):
    """What was read of files, by what names their contents; without marks but those of whole documents."""

    def get(self, content: str) -> RawFile | None:
        """Give what was read; None, if nothing was kept of it."""
        ...

    def put(self, content: str, raw: RawFile) -> None:
        """Keep what was read, if nothing is wrong with it."""
        ...


@dataclass(slots=True)
class ParseCache:
    """Remembers what the files of the last load were parsed to, by name and content. For one source of manifests.

    ``kept``: what is remembered of files beyond the process; ``contents``: those of the last load.
    """

    kept: KeptFiles | None = None
    contents: tuple[str, ...] = ()
    _files: dict[tuple[str, bytes], ParsedFile] = field(default_factory=dict)
    _ves: dict[tuple[tuple[str, bytes, int], bytes], ResolvedVe] = field(default_factory=dict)

    def parse(self, files: Mapping[str, bytes], ids: Mapping[str, str] | None = None) -> dict[str, ParsedFile]:
        """Parse the files whose content is new; forget those that are no more. ``ids``: what names their contents."""
        kept: dict[tuple[str, bytes], ParsedFile] = {}
        for file in sorted(files):
            key = (file, hashlib.sha256(files[file]).digest() if ids is None else ids[file].encode())
            kept[key] = self._files.get(key) or self._parse(files, key, ids)
        self._files = kept
        self.contents = tuple(_content(digest, ids, file) for file, digest in kept)
        return {file: parsed for (file, _digest), parsed in kept.items()}

    def _parse(self, files: Mapping[str, bytes], key: tuple[str, bytes], ids: Mapping[str, str] | None) -> ParsedFile:
        file, digest = key
        if self.kept is None:
            return parse.parse(file, files[file], digest=digest)
        content = _content(digest, ids, file)
        raw = self.kept.get(content)
        found = None if raw is None else parse.parse_raw(file, raw, digest=digest)
        if found is None or found.problems or found.lost:  # its text is needed, to say where
            raw = yaml_reader.read(files[file])
            found = parse.parse_raw(file, raw, digest=digest)
            self.kept.put(content, raw)
        return found

    def resolve(self, documents: Iterable[Document], context: Shared) -> dict[str, ResolvedVe]:
        """Resolve the VEs that are new, or that share something new; forget those that are no more."""
        resolved: dict[str, ResolvedVe] = {}
        kept: dict[tuple[tuple[str, bytes, int], bytes], ResolvedVe] = {}
        for document in documents:
            key = (document.key, context.digest)
            ve = self._ves.get(key) or resolve.resolve(document, context)
            resolved[document.name] = ve
            if ve.spec is not None:
                kept[key] = ve
        self._ves = kept
        return resolved


def _content(digest: bytes, ids: Mapping[str, str] | None, file: str) -> str:
    return digest.hex() if ids is None else ids[file]


def load_fleet(
    files: Mapping[str, bytes],
    *,
    revision: str,
    cache: ParseCache | None = None,
    ids: Mapping[str, str] | None = None,
) -> Loaded:
    """Load a revision from its files' names and contents, in whatever order they come.

    Never raises for what a file holds. ``cache``: of the same source's former loads. ``ids``: what names the content of
    each file, such as a blob's name: what is known by it is not asked for its content.
    """
    with uncollected():
        return _load(files, revision, ParseCache() if cache is None else cache, ids)


def _load(files: Mapping[str, bytes], revision: str, cache: ParseCache, ids: Mapping[str, str] | None) -> Loaded:
    parsed = cache.parse(files, ids)
    documents, repeated = _by_kind(parsed.values())
    known = _known_names(documents, parsed.values())
    certain = not any(file.lost for file in parsed.values())
    context = resolve.shared(
        documents["Profile"],
        documents["Network"],
        documents["Template"],
        known_profiles=known["Profile"],
        certain=certain,
    )
    ves = cache.resolve(documents["VirtualEnvironment"].values(), context)
    every = _everything(documents, ves, known, certain=certain)
    complaints = [*repeated, *_single_complaints(documents, ves), *fleet_checks.all_of(every)]
    problems = [(file, problem) for file, found in parsed.items() for problem in found.problems]
    if problems or complaints:
        return Loaded(fleet=None, findings=locate.findings(files, problems, complaints))
    fleet = _fleet(revision, ves, context, documents["Host"])
    short = capacity_checks.shortages(fleet, documents["Host"])
    return Loaded(fleet=fleet, concerns=locate.findings(files, (), short))


def _by_kind(files: Iterable[ParsedFile]) -> tuple[dict[str, dict[str, Document]], list[Complaint]]:
    """Sort documents by kind and name; the first of a name in the order of files counts, others are complained of."""
    found: dict[str, dict[str, Document]] = {kind: {} for kind in KINDS}
    repeated = []
    for file in files:
        for document in file.documents:
            first = found[document.kind].setdefault(document.name, document)
            if first is not document:
                place = f"{first.file}:{first.mark[0]}"
                message = f"expected a name of its own, {document.kind} {document.name!r} is in {place} too"
                repeated.append(complain(document, ("metadata", "name"), message))
    return {kind: dict(sorted(by_name.items())) for kind, by_name in found.items()}, repeated


def _known_names(
    documents: Mapping[str, Mapping[str, Document]], files: Iterable[ParsedFile]
) -> dict[str, frozenset[str]]:
    broken = [identity for file in files for identity in file.broken]
    return {
        kind: frozenset(documents[kind])
        | {name for of, name in broken if of == kind}
        | _BUILT_IN.get(kind, frozenset())
        for kind in KINDS
    }


def _everything(
    documents: Mapping[str, Mapping[str, Document]],
    ves: Mapping[str, ResolvedVe],
    known: Mapping[str, frozenset[str]],
    *,
    certain: bool,
) -> fleet_checks.Everything:
    networks, hosts = documents["Network"], documents["Host"]
    return fleet_checks.Everything(
        ves={name: ve.merged for name, ve in ves.items()},
        networks={name: (doc, doc.model.spec) for name, doc in networks.items() if isinstance(doc.model, Network)},
        hosts={name: (doc, doc.model.spec) for name, doc in hosts.items() if isinstance(doc.model, Host)},
        known=known,
        certain=certain,
    )


def _single_complaints(
    documents: Mapping[str, Mapping[str, Document]], ves: Mapping[str, ResolvedVe]
) -> Iterator[Complaint]:
    for document in documents["Network"].values():
        if isinstance(document.model, Network):
            yield from network_checks.network(document, document.model.spec)
    for document in documents["Profile"].values():
        if isinstance(document.model, Profile):
            yield from ve_checks.written(document, document.model.spec)
    for ve in ves.values():
        yield from ve.complaints


def _fleet(revision: str, ves: Mapping[str, ResolvedVe], context: Shared, hosts: Mapping[str, Document]) -> Fleet:
    specs = [ve.spec for ve in ves.values() if ve.spec is not None]
    models = [document.model for document in hosts.values()]
    return Fleet(
        revision=revision,
        ves={spec.name: spec for spec in specs},
        networks=context.networks,
        templates=context.templates,
        hosts={HostName(model.metadata.name): canonical.host(model) for model in models if isinstance(model, Host)},
    )
