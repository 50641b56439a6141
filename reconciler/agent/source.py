"""A directory of manifests as the agent's source: hints from watchdog, truth from looking, last good from disk."""

from __future__ import annotations

import asyncio

import structlog

from reconciler.agent.desk import Desk
from reconciler.errors import VectlError
from reconciler.model.fleet import Fleet
from reconciler.model.identity import VeName
from reconciler.sources.directory import DirectorySource
from reconciler.sources.revision import Revisions
from reconciler.sources.snapshot import Snapshot
from reconciler.sources.watch import Watch
from reconciler.state.conditions import SOURCE
from reconciler.state.lastgood import Kept


class WatchedDirectory:
    """Implements the agent's `Source` over a directory."""

    def __init__(self, path: str, desk: Desk, *, settle_s: float, prune_delay_s: float) -> None:
        self._desk = desk
        self._hint = asyncio.Event()
        self._watch = Watch(path, self._hint.set, loop=asyncio.get_running_loop())
        self.revisions = Revisions(settle_s=settle_s, prune_delay_s=prune_delay_s, keep=self._keep)
        kept = desk.last_good.read()
        if kept is not None and kept.source == desk.source:
            self.revisions.restore(kept.revision, kept.files)
        self._directory = DirectorySource(path, clock=desk.clock, had_files=kept is not None and bool(kept.files))
        self._known: frozenset[VeName] = frozenset()

    def _keep(self, snapshot: Snapshot) -> None:
        now = self._desk.clock.now()
        kept = Kept(revision=snapshot.revision, source=self._desk.source, files=snapshot.files, at=now)
        self._desk.last_good.keep(kept)

    def know(self, names: frozenset[VeName]) -> None:
        """Tell which VEs are on the host, so that their absence from the manifests is timed."""
        self._known = names

    async def changed(self) -> None:
        """Wait for a hint that the directory changed."""
        await self._hint.wait()
        self._hint.clear()

    def look(self) -> Fleet | None:
        """Look at the directory; give the revision in force."""
        snapshot = self._directory.look()
        self._watch.arm(snapshot.root)
        before = self.revisions.findings
        try:
            self.revisions.take(snapshot, known=self._known, now=self._desk.clock.monotonic())
        except VectlError as error:
            structlog.get_logger().warning("revision.not_kept", error=str(error))
        if self.revisions.findings != before:
            self._tell()
        self._desk.conditions.put(SOURCE, self.revisions.conditions(), now=self._desk.clock.now())
        return self.revisions.in_force

    def _tell(self) -> None:
        for finding in self.revisions.findings:
            place = finding.place
            where = f"{place.file}:{place.line}:{place.column}"
            self._desk.tell("source", "Invalid", f"{where}: {finding.path}: {finding.message}", kind="Warning")

    def removed(self) -> frozenset[VeName]:
        """Name the VEs that have been absent for long enough."""
        return self.revisions.removed()

    def next_look_s(self) -> float | None:
        """Give the time after which looking again will show something else, if any. Units: seconds."""
        return self.revisions.look_again_in(self._desk.clock.monotonic())

    def close(self) -> None:
        """Stop watching."""
        self._watch.stop()
