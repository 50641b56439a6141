"""`plan --from A --to B`: what lies between two revisions of a repository, on every host of the fleet."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler.cli import context, output
from reconciler.cli.forms import PlanFormat
from reconciler.errors import ManifestError, UsageError
from reconciler.model.version import VERSION

if TYPE_CHECKING:
    from reconciler.kernel.git import Repository
    from reconciler.manifests.load import Loaded
    from reconciler.model.exchange import Export
    from reconciler.model.fleet import Finding, Fleet
    from reconciler.model.identity import HostName
    from reconciler.plan.comparison import Comparison
    from reconciler.sources.kept import KeptOnDisk
    from reconciler.sources.memo import Memo

LOOK_BACK_MAX = 100
"""How many commits before one that is not valid are tried, for the one that is in force instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to compare. ``path``: a repository or a folder of one. ``start``, ``end``: revisions as git names them.

    ``hosts``: the only ones to plan; ``observed``: files that `vectl observe` printed.
    """

    path: str
    start: str
    end: str
    hosts: Sequence[str] = ()
    observed: Sequence[str] = ()


class NotValidError(ManifestError):
    """The revision that is to be planned is not valid, with all that is wrong with it. ``end``: its commit."""

    kind = ManifestError.__name__

    def __init__(self, end: str, subdir: str, findings: Sequence[Finding]) -> None:
        super().__init__(f"load {end[:12]}: {context.counted(len(findings), 'mistake')} in it")
        self.end, self.subdir, self.findings = end, subdir, findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What came of it. ``subdir``: the folder of the manifests in the repository."""

    comparison: Comparison
    subdir: str


def compare(wanted: Wanted) -> Compared:
    """Plan the way from one revision to another, for every host, with no root and no host.

    Raises: NotValidError; UsageError, StateError, CommandError.
    """
    from reconciler.agent.clock import SystemClock
    from reconciler.agent.comparing import Revisions
    from reconciler.agent.comparing import compare as compare_hosts
    from reconciler.plan.comparison import Comparison

    clone = _Clone.open(wanted.path)
    start, end = clone.commit(wanted.start), clone.commit(wanted.end)
    parted = clone.parting(start, end)
    base, fleet, notes = _last_valid(clone, parted or start)
    head = clone.load(end)
    if head.fleet is None:
        raise NotValidError(end, clone.subdir, clone.placed(head.findings))
    config = context.load_config()
    seen = dict(_exports(wanted.observed))
    revisions = Revisions(
        base=fleet, head=head.fleet, seen=seen, instance=config.instance.name, now=SystemClock().now()
    )
    hosts = _hosts(wanted, fleet, head.fleet, seen, config.instance.host)
    clone.remember()
    comparison = Comparison(
        start=start, end=end, base=base, hosts=compare_hosts(revisions, hosts), notes=(*notes, *_notes(parted, start))
    )
    return Compared(comparison=comparison, subdir=clone.subdir)


class _Clone:
    """A person's clone, with the manifests below the folder that was named."""

    def __init__(self, repository: Repository, subdir: str, kept: KeptOnDisk, memo: Memo) -> None:
        from reconciler.manifests.load import ParseCache
        from reconciler.manifests.memory import Memory

        self._repository, self._kept, self._memo = repository, kept, memo
        self._memory = Memory(memo)
        self._cache = ParseCache(kept=kept, memory=self._memory)
        self._contents: list[str] = []
        self.subdir = subdir

    @classmethod
    def open(cls, path: str) -> _Clone:
        """Find the repository that a directory is in.

        Raises: UsageError.
        """
        from reconciler.kernel.git import AS_SIGNED, Repository
        from reconciler.sources.committed import place
        from reconciler.sources.kept import KeptOnDisk
        from reconciler.sources.memo import Memo, program

        if not os.path.isdir(path):
            raise UsageError(f"read {path}: expected a directory in a git repository")
        repository, subdir = place(Repository(path=os.path.abspath(path), environment=AS_SIGNED))
        kept = KeptOnDisk(_cache_file(repository.path, "manifests"), version=VERSION)
        memo = Memo(_cache_file(repository.path, "documents"), program=program())
        return cls(repository, subdir, kept, memo)

    def commit(self, revision: str) -> str:
        """Name the commit that a revision stands for.

        Raises: UsageError.
        """
        found = self._repository.resolve(revision)
        if found is None:
            raise UsageError(f"find {revision!r}: no such commit in {self._repository.path}; `git fetch` it first")
        return found

    def parting(self, start: str, end: str) -> str | None:
        """Name the commit from which both were built; None, where there is none, as in a clone without history."""
        return self._repository.merge_base(start, end)

    def back_from(self, commit: str) -> Iterator[str]:
        """Name a commit, and those before it along first parents, the newest first."""
        yield commit
        yield from self._repository.before(commit, LOOK_BACK_MAX)

    def load(self, commit: str) -> Loaded:
        """Load the manifests of a commit."""
        from reconciler.manifests.load import load_fleet
        from reconciler.sources.committed import Committed

        files = Committed.of(self._repository, commit, subdir=self.subdir)
        unknown = [oid for oid in files.ids.values() if not self._memory.knows(oid)]
        missing = self._kept.missing(unknown) if unknown else set()
        files.prefetch([path for path, oid in files.ids.items() if oid in missing])
        self._contents.extend(files.ids.values())
        return load_fleet(files, revision=commit, cache=self._cache, ids=files.ids)

    def placed(self, findings: Iterable[Finding]) -> list[Finding]:
        """Name the files of findings as the repository has them, so that a forge finds them."""
        return context.placed_below(self.subdir, findings)

    def remember(self) -> None:
        """Keep what was parsed for the next time."""
        self._kept.save(dict.fromkeys(self._contents))
        self._memo.save()


def _cache_file(repository: str, what: str) -> str:
    """Give the file for what is known of a repository. Source: XDG Base Directory Specification, 0.8."""
    name = hashlib.sha256(os.fsencode(repository)).hexdigest()[:16]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "vectl", f"{what}-{name}")


def _last_valid(clone: _Clone, commit: str) -> tuple[str, Fleet, tuple[str, ...]]:
    """Load a commit, or the last one before it that was valid: that is what hosts hold to."""
    for tried in clone.back_from(commit):
        loaded = clone.load(tried)
        if loaded.fleet is not None:
            note = f"{commit[:12]} is not valid; compared with {tried[:12]}, the last one before it that is"
            return tried, loaded.fleet, (note,) if tried != commit else ()
    raise ManifestError(f"load {commit[:12]}: it is not valid, and nothing before it is; name another one by --from")


def _notes(parted: str | None, start: str) -> Iterator[str]:
    if parted is None:
        remedy = "fetch all of its history"
        yield f"found no commit from which both {start[:12]} and this were built, so both are compared whole; {remedy}"
    elif parted != start:
        yield f"{start[:12]} has moved on since {parted[:12]}, where this begins; what came since is not in it"


def _exports(files: Iterable[str]) -> Iterable[tuple[HostName, Export]]:
    from reconciler.kernel.files import read_bytes_if_exists
    from reconciler.model import exchange
    from reconciler.model.identity import HostName

    known: dict[str, str] = {}
    for file in files:
        data = read_bytes_if_exists(file)
        if data is None:
            raise UsageError(f"read {file}: no such file")
        export = exchange.decode_export(data, where=file)
        if (first := known.setdefault(export.host, file)) != file:
            raise UsageError(f"read {file}: {first} is an observation of host {export.host!r} too; name one")
        yield HostName(export.host), export


def _hosts(
    wanted: Wanted, base: Fleet, head: Fleet, seen: Mapping[HostName, Export], here: HostName
) -> tuple[HostName, ...]:
    """Name the hosts to plan; a fleet of one that has no name is on the host that was seen, or on this one."""
    from reconciler.model.identity import HostName
    from reconciler.plan.restriction import hosts_of

    named = hosts_of(base, head)
    known = named or tuple(map(HostName, wanted.hosts)) or tuple(seen) or (here,)
    for name in (*wanted.hosts, *seen):
        if name not in known:
            raise UsageError(f"find host {name!r}: the manifests name {', '.join(known)}")
    return tuple(host for host in known if not wanted.hosts or host in wanted.hosts)


def show(compared: Compared, form: PlanFormat, *, verbose: bool) -> None:
    """Print what lies between two revisions."""
    from reconciler.plan.comparison import comparison_to_json, render_comparison

    found = compared.comparison
    match form:
        case PlanFormat.JSON:
            output.document(comparison_to_json(found))
        case PlanFormat.MARKDOWN:
            _show_comment(compared)
        case PlanFormat.TEXT:
            output.data(render_comparison(found, paint=output.paint, verbose=verbose))


def _show_comment(compared: Compared) -> None:
    from reconciler.agent.clock import SystemClock
    from reconciler.plan.comment import About, render_comment

    output.data(render_comment(compared.comparison, About(subdir=compared.subdir, now=SystemClock().now())))


def show_mistakes(error: NotValidError) -> None:
    """Print what is wrong with a revision as a comment."""
    from reconciler.agent.clock import SystemClock
    from reconciler.plan.comment import About, render_mistakes

    about = About(subdir=error.subdir, now=SystemClock().now())
    output.data(render_mistakes(error.findings, error.end, about))
