"""A git repository as the agent's source: pulled by a timer or a hint; what is in force stays while it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from reconciler.agent.desk import Desk
from reconciler.agent.pulling import NOT_JUDGED, Puller
from reconciler.agent.review import Stride, Word
from reconciler.agent.source import ManifestSource
from reconciler.errors import VectlError
from reconciler.kernel.git import Repository
from reconciler.model.fleet import Fleet
from reconciler.sources.revision import NOT_READ
from reconciler.sources.snapshot import Snapshot
from reconciler.state.location import GitLocation

JITTER = 0.1
"""Share by which a wait for the next fetch is lengthened at random, so that many hosts do not come at once."""

REST_S = 1.0
"""The least time between two fetches: whoever hints may do so as often as he likes."""

_IN_FORCE = "in-force"
"""The name under which the mirror keeps the commit in force, which a rewritten history would leave behind."""


class GitSource(ManifestSource):
    """Implements the agent's `Source` over a repository. ``jitter`` gives a number from 0 to 1."""

    def __init__(self, location: GitLocation, desk: Desk, *, jitter: Callable[[], float]) -> None:
        super().__init__(desk, settle_s=0.0, prune_delay_s=0.0)
        self.puller = Puller(location, desk.instance, clock=desk.clock)
        self._jitter = jitter
        self._newest = NOT_READ
        self._asked = asyncio.Event()
        self._moved = asyncio.Condition()
        self._begun = self._done = self._failures = 0

    def snapshot(self) -> Snapshot:
        """Give what the last fetch brought."""
        return self._newest

    def look(self) -> Fleet | None:
        """Look; give the revision in force, up to which the repository is then trusted."""
        found = super().look()
        if found is not None and self._newest.complete and found.revision == self._newest.revision:
            try:
                self.puller.accept(found.revision)
            except VectlError as error:  # then the next look tries again
                structlog.get_logger().warning("source.trust_not_kept", error=str(error))
        return found

    def way(self, since: str) -> Sequence[Stride]:
        """Give the steps from a revision to the newest one; none, if they are too many, or not known."""
        return self.puller.strides(since)

    def words(self) -> Mapping[str, Sequence[Word]]:
        """Give what people vouched for of late, by commit."""
        return self.puller.words

    def hint(self) -> None:
        """Say that something may have changed: look now, not when the time comes."""
        self._asked.set()

    async def refresh(self) -> Snapshot:
        """Fetch now, and give what that brought."""
        wanted = self._begun + 1
        self.hint()
        async with self._moved:
            await self._moved.wait_for(lambda: self._done >= wanted)
        return self._newest

    async def run(self) -> None:
        """Fetch until cancelled."""
        try:
            await asyncio.to_thread(self.puller.sweep)
        except VectlError as error:
            structlog.get_logger().warning("source.old_mirrors_stay", error=str(error))
        while True:
            self._asked.clear()
            self._begun += 1
            in_force = self._in_force()
            await self._pull(in_force)
            async with self._moved:
                self._done = self._begun
                self._moved.notify_all()
            await self._look_after_mirror(in_force)
            await self._rest()

    async def _pull(self, in_force: str) -> None:
        started, before = self._desk.clock.monotonic(), self._newest
        self._newest = await self._newest_now(in_force)
        self._failures = self._failures + 1 if self._newest.reason else 0
        self.wake()
        if self._newest.revision not in ("", before.revision):
            elapsed_s = round(self._desk.clock.monotonic() - started, 3)
            structlog.get_logger().info("source.fetched", commit=self._newest.revision, elapsed_s=elapsed_s)

    async def _newest_now(self, in_force: str) -> Snapshot:
        log, is_asked = structlog.get_logger(), self._desk.policy.known().require_reviewed
        try:
            found = await self.puller.pull(in_force, with_steps=is_asked)
            await asyncio.to_thread(self.revisions.prepare, found)
        except Exception:  # nothing that a stranger puts into a repository may end what holds the host
            log.exception("source.crashed")
            return Snapshot(reason="Crashed", problem="an error of vectl itself; see the log", trust=NOT_JUDGED)
        return found

    async def _look_after_mirror(self, in_force: str) -> None:
        """Keep the commit in force in the mirror, and the mirror small, after a fetch that brought something."""
        if self._newest.reason or self._newest.revision == in_force:
            return
        mirror = self.puller.mirror
        try:
            if await asyncio.to_thread(_has, mirror.repository, in_force):
                await mirror.keep(_IN_FORCE, in_force)
            await mirror.tidy()
        except VectlError as error:
            structlog.get_logger().warning("source.mirror_not_tidied", error=str(error))

    def _in_force(self) -> str:
        return self.revisions.in_force.revision if self.revisions.in_force is not None else ""

    async def _rest(self) -> None:
        """Wait for a hint, or as long as the configuration says; after a failure at first for a shorter time."""
        await asyncio.sleep(REST_S)
        poll_s = self.puller.location.poll_s
        wait_s = min(poll_s, 2.0 ** min(self._failures, 16)) if self._failures else poll_s
        try:
            async with asyncio.timeout(max(0.0, wait_s * (1 + JITTER * self._jitter()) - REST_S)):
                await self._asked.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        """Nothing is held."""


def _has(repository: Repository, commit: str) -> bool:
    return bool(commit) and repository.resolve(commit) is not None
