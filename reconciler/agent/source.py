"""Manifests as the agent's source: hints that they changed, truth from looking, last good from disk."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import structlog

from reconciler.agent.desk import Desk
from reconciler.agent.recording import behalf_of
from reconciler.agent.review import Stride, Word
from reconciler.errors import VectlError
from reconciler.model.condition import Condition, ConditionType, Status
from reconciler.model.fleet import Fleet
from reconciler.model.identity import VeName
from reconciler.model.version import VERSION
from reconciler.sources.directory import DirectorySource
from reconciler.sources.kept import KeptOnDisk
from reconciler.sources.revision import Revisions
from reconciler.sources.snapshot import Snapshot
from reconciler.sources.watch import Watch
from reconciler.state import layout
from reconciler.state.conditions import SOURCE
from reconciler.state.lastgood import Kept

_NO_WORDS: Mapping[str, Sequence[Word]] = {}


class ManifestSource(ABC):
    """Implements the agent's `Source` over anything that can be looked at. Units: seconds."""

    def __init__(self, desk: Desk, *, settle_s: float, prune_delay_s: float) -> None:
        self._desk = desk
        self._wake = asyncio.Event()
        self._stood: dict[ConditionType, Condition] = {}
        self._known: frozenset[VeName] = frozenset()
        parsed = KeptOnDisk(layout.parsed_file(desk.instance), version=VERSION)
        self.revisions = Revisions(settle_s=settle_s, prune_delay_s=prune_delay_s, keep=self._keep, parsed=parsed)
        kept = desk.last_good.read()
        self.had_files = kept is not None and bool(kept.files)
        if kept is not None and kept.source == desk.source:
            self.revisions.restore(kept.revision, kept.files)

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """Look at what is there now."""

    def _keep(self, snapshot: Snapshot) -> None:
        now = self._desk.clock.now()
        kept = Kept(revision=snapshot.revision, source=self._desk.source, files=snapshot.files, at=now)
        self._desk.last_good.keep(kept)

    def know(self, names: frozenset[VeName]) -> None:
        """Tell which VEs are on the host, so that their absence from the manifests is timed."""
        self._known = names

    def hint(self) -> None:
        """Say that something may have changed."""
        self.wake()

    def wake(self) -> None:
        """Have the source looked at."""
        self._wake.set()

    async def changed(self) -> None:
        """Wait until somebody wakes us."""
        await self._wake.wait()
        self._wake.clear()

    async def run(self) -> None:  # noqa: B027  # for most there is nothing
        """Do what the source needs done beside looks, until cancelled."""

    async def refresh(self) -> Snapshot:
        """Find out what is new, and give it."""
        self.wake()
        return self.snapshot()

    def look(self) -> Fleet | None:
        """Look; give the revision in force."""
        snapshot, before = self.snapshot(), self.revisions.findings
        try:
            self.revisions.take(snapshot, known=self._known, now=self._desk.clock.monotonic())
        except VectlError as error:
            structlog.get_logger().warning("revision.not_kept", error=str(error))
        if self.revisions.findings != before:
            self._tell()
        if snapshot.commit is not None and snapshot.complete:
            self._desk.recorder.take(snapshot.revision, behalf_of(snapshot.commit, snapshot.way))
        for condition in self._desk.conditions.put(SOURCE, self.revisions.conditions(), now=self._desk.clock.now()):
            self._tell_of(condition)
        return self.revisions.in_force

    def _tell_of(self, condition: Condition) -> None:
        """Tell when the source is newly out of reach or not to be trusted, and when that is over."""
        before, self._stood[condition.type] = self._stood.get(condition.type), condition
        is_told_otherwise = condition.type is ConditionType.VALID
        if is_told_otherwise or (before is not None and before.reason == condition.reason):
            return
        if condition.status is Status.FALSE:
            self._desk.tell("source", condition.reason, condition.message, kind="Warning")
        elif before is not None and before.status is Status.FALSE:
            self._desk.tell("source", condition.reason, f"no longer {before.reason}")

    def _tell(self) -> None:
        for finding in self.revisions.findings:
            place = finding.place
            where = f"{place.file}:{place.line}:{place.column}"
            self._desk.tell("source", "Invalid", f"{where}: {finding.path}: {finding.message}", kind="Warning")

    def way(self, since: str) -> Sequence[Stride]:
        """Give the steps from a revision to the one in force: a directory has none that are known."""
        del since
        return ()

    def words(self) -> Mapping[str, Sequence[Word]]:
        """Give what people vouched for: whoever may write a directory vouches for nothing by that."""
        return _NO_WORDS

    def removed(self) -> frozenset[VeName]:
        """Name the VEs that have been absent for long enough."""
        return self.revisions.removed()

    def next_look_s(self) -> float | None:
        """Give the time after which looking again will show something else, if any."""
        return self.revisions.look_again_in(self._desk.clock.monotonic())


class WatchedDirectory(ManifestSource):
    """A directory of manifests, with watchdog for hints."""

    def __init__(self, path: str, desk: Desk, *, settle_s: float, prune_delay_s: float) -> None:
        super().__init__(desk, settle_s=settle_s, prune_delay_s=prune_delay_s)
        self._watch = Watch(path, self.hint, loop=asyncio.get_running_loop())
        self._directory = DirectorySource(path, clock=desk.clock, had_files=self.had_files)

    def snapshot(self) -> Snapshot:
        """List the directory; it is watched wherever it is now."""
        snapshot = self._directory.look()
        if self._watch.arm(snapshot.root):
            self.wake()
        return snapshot

    def close(self) -> None:
        """Stop watching."""
        self._watch.stop()
