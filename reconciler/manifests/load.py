"""Loading: the files of a revision to a fleet, or to everything that is wrong with them.

What takes long to import, pydantic before all, is imported where a document is not remembered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Protocol

from reconciler.manifests.checks import capacity as capacity_checks
from reconciler.manifests.checks import fleet as fleet_checks
from reconciler.manifests.checks import spread as spread_checks
from reconciler.manifests.document import Complaint, Document, ParsedFile, Written, complain
from reconciler.manifests.resolved import ResolvedVe, Shared
from reconciler.model.collecting import uncollected
from reconciler.model.fleet import Finding, Fleet, HostSpec
from reconciler.model.identity import NetworkName
from reconciler.model.network import Address, NetworkSpec
from reconciler.model.volume import BuiltinSource

if TYPE_CHECKING:
    from reconciler.manifests.memory import Memory
    from reconciler.manifests.problem import Problem
    from reconciler.manifests.yaml_reader import RawFile

_KINDS = ("VirtualEnvironment", "Profile", "Template", "Network", "Host")
_BUILT_IN = {"Template": frozenset({BuiltinSource().name})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A revision: its fleet, or None where there are findings.

    ``concerns``: what a host cannot give to all that ask for it. It does not make the revision invalid: each host
    admits whom it can. ``warnings``: what is carried out as it is written, and perhaps not as it is meant.
    """

    fleet: Fleet | None
    findings: tuple[Finding, ...] = ()
    concerns: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()


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

    ``kept``: what is remembered of files beyond the process, ``memory``: of what became of them; ``contents``: those
    of the last load.
    """

    kept: KeptFiles | None = None
    memory: Memory | None = None
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
        if self.memory is None:
            return self._read(files, key, ids)
        file, digest = key
        content = _content(digest, ids, file)
        outlines = self.memory.outlines(content)
        if outlines is None:
            found = self._read(files, key, ids)
            if found.is_whole:
                self.memory.keep_outlines(content, found.documents)
            return found
        read = cache(lambda: self._read(files, key, ids).documents)
        return ParsedFile(
            documents=tuple(
                Document(
                    file=file,
                    digest=digest,
                    index=index,
                    mark=(outline.line, outline.column),
                    kind=outline.kind,
                    name=outline.name,
                    written=partial(_written, read, index),
                )
                for index, outline in enumerate(outlines)
            )
        )

    def _read(self, files: Mapping[str, bytes], key: tuple[str, bytes], ids: Mapping[str, str] | None) -> ParsedFile:
        from reconciler.manifests import parse, yaml_reader

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

    def share(
        self,
        documents: Mapping[str, Mapping[str, Document]],
        hosts: Collection[HostSpec],
        *,
        known_profiles: frozenset[str],
        certain: bool,
    ) -> Shared:
        """Gather what VEs share. Of the hosts that is their addresses, for networks that span them."""
        profiles, networks, templates = (documents[kind] for kind in ("Profile", "Network", "Template"))
        keys = sorted(document.key for of_kind in (profiles, networks, templates) for document in of_kind.values())
        where = sorted((host.name, host.address) for host in hosts if host.address is not None)
        digest = hashlib.sha256(repr((keys, where)).encode()).digest()
        complaints: tuple[Complaint, ...] = ()
        commons = None if self.memory is None else self.memory.commons(digest)
        if commons is None:
            from reconciler.manifests import resolve

            commons = resolve.commons(networks.values(), templates.values(), hosts)
            complaints = tuple(resolve.shared_complaints(profiles.values(), networks.values()))
            if self.memory is not None and not complaints:
                self.memory.keep_commons(digest, commons)
        return Shared(
            digest=digest,
            profiles=profiles,
            networks=networks,
            commons=commons,
            complaints=complaints,
            known_profiles=known_profiles,
            certain=certain,
        )

    def resolve(self, documents: Iterable[Document], context: Shared) -> dict[str, ResolvedVe]:
        """Resolve the VEs that are new, or that share something new; forget those that are no more."""
        resolved: dict[str, ResolvedVe] = {}
        kept: dict[tuple[tuple[str, bytes, int], bytes], ResolvedVe] = {}
        for document in documents:
            key = (document.key, context.digest)
            ve = self._ves.get(key) or self._resolve(document, context)
            resolved[document.name] = ve
            if ve.spec is not None:
                kept[key] = ve
        self._ves = kept
        return resolved

    def _resolve(self, document: Document, context: Shared) -> ResolvedVe:
        known = None if self.memory is None else self.memory.ve(document, context)
        if known is not None:
            return known
        from reconciler.manifests import resolve

        made = resolve.resolve(document, context)
        if self.memory is not None:
            self.memory.keep_ve(made, context)
        return made

    def host(self, document: Document) -> HostSpec:
        """Make a host's spec."""
        known = None if self.memory is None else self.memory.host(document)
        if known is not None:
            return known
        from reconciler.manifests import resolve

        made = resolve.host(document)
        if self.memory is not None:
            self.memory.keep_host(document, made)
        return made


def _written(read: Callable[[], tuple[Document, ...]], index: int) -> Written:
    return read()[index].written()


def _content(digest: bytes, ids: Mapping[str, str] | None, file: str) -> str:
    return digest.hex() if ids is None else ids[file]


def load_fleet(
    files: Mapping[str, bytes],
    *,
    revision: str,
    cache: ParseCache | None = None,
    ids: Mapping[str, str] | None = None,
    lacks_hosts: bool = False,
) -> Loaded:
    """Load a revision from its files' names and contents, in whatever order they come.

    Never raises for what a file holds. ``cache``: of the same source's former loads. ``ids``: what names the content of
    each file, such as a blob's name: what is known by it is not asked for its content. ``lacks_hosts``: VEs may be
    without a host although there are several.
    """
    with uncollected():
        return _load(files, revision, ParseCache() if cache is None else cache, ids, lacks_hosts)


def _load(
    files: Mapping[str, bytes],
    revision: str,
    cache: ParseCache,
    ids: Mapping[str, str] | None,
    lacks_hosts: bool,
) -> Loaded:
    parsed = cache.parse(files, ids)
    documents, repeated = _by_kind(parsed.values())
    known = _known_names(documents, parsed.values())
    certain = not any(file.lost for file in parsed.values())
    hosts = {name: (document, cache.host(document)) for name, document in documents["Host"].items()}
    specs = [spec for _, spec in hosts.values()]
    context = cache.share(documents, specs, known_profiles=known["Profile"], certain=certain)
    ves = cache.resolve(documents["VirtualEnvironment"].values(), context)
    every = fleet_checks.Everything(
        ves=ves, networks=_networks(context), hosts=hosts, known=known, certain=certain, lacks_hosts=lacks_hosts
    )
    of_ves = (complaint for ve in ves.values() for complaint in ve.complaints)
    complaints = [*repeated, *context.complaints, *of_ves, *fleet_checks.all_of(every)]
    problems = [(file, problem) for file, found in parsed.items() for problem in found.problems]
    if problems or complaints:
        return Loaded(fleet=None, findings=_placed(files, problems, complaints))
    fleet = _fleet(revision, ves, context, specs)
    short = list(capacity_checks.shortages(fleet, documents["Host"]))
    crowded = list(spread_checks.crowds(fleet, documents["VirtualEnvironment"]))
    return Loaded(
        fleet=fleet,
        concerns=_placed(files, (), short) if short else (),
        warnings=_placed(files, (), crowded) if crowded else (),
    )


def _placed(
    files: Mapping[str, bytes], problems: Iterable[tuple[str, Problem]], complaints: Iterable[Complaint]
) -> tuple[Finding, ...]:
    from reconciler.manifests import locate

    return locate.findings(files, problems, complaints)


def _by_kind(files: Iterable[ParsedFile]) -> tuple[dict[str, dict[str, Document]], list[Complaint]]:
    """Sort documents by kind and name; the first of a name in the order of files counts, others are complained of."""
    found: dict[str, dict[str, Document]] = {kind: {} for kind in _KINDS}
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
        for kind in _KINDS
    }


def _networks(context: Shared) -> dict[str, tuple[Document, NetworkSpec, tuple[Address, ...]]]:
    commons = context.commons
    return {
        name: (document, commons.networks[NetworkName(name)], commons.gateways[NetworkName(name)])
        for name, document in context.networks.items()
    }


def _fleet(revision: str, ves: Mapping[str, ResolvedVe], context: Shared, hosts: Iterable[HostSpec]) -> Fleet:
    specs = [ve.spec for ve in ves.values() if ve.spec is not None]
    return Fleet(
        revision=revision,
        ves={spec.name: spec for spec in specs},
        networks=context.commons.networks,
        templates=context.commons.templates,
        hosts={spec.name: spec for spec in hosts},
    )
