"""A git repository as a source: fetched by a timer or a hint, judged, read; what is in force stays while it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from reconciler.agent.desk import Desk
from reconciler.agent.source import ManifestSource
from reconciler.errors import CommandError, FetchError, KernelFormatError, NoSpaceError, VectlError
from reconciler.kernel.git import Repository
from reconciler.kernel.git_fetch import Fetched, Mirror
from reconciler.kernel.git_remote import Remote
from reconciler.model.commit import Commit, Step, Trust, TrustState
from reconciler.model.instance import Instance
from reconciler.sources.repository import RepositorySource
from reconciler.sources.revision import NOT_READ
from reconciler.sources.snapshot import Snapshot
from reconciler.state import layout
from reconciler.state.location import GitLocation

NOT_REQUIRED = Trust(
    state=TrustState.TRUSTED, reason="NotRequired", message="whoever may write to the repository is trusted"
)
NOT_JUDGED = Trust(state=TrustState.UNKNOWN, reason="NotRead", message="no commit was read")

JITTER = 0.1
"""Share by which a wait for the next fetch is lengthened at random, so that many hosts do not come at once."""

REST_S = 1.0
"""The least time between two fetches: whoever hints may do so as often as he likes."""

_IN_FORCE = "in-force"
"""The name under which the mirror keeps the commit in force, which a rewritten history would leave behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Whether a commit may be acted upon, and the way to it from the one in force."""

    trust: Trust
    way: tuple[Step, ...] = ()


class Puller:
    """Takes what a repository says now, for an agent again and again, for a command once."""

    def __init__(self, location: GitLocation, instance: Instance) -> None:
        self.location = location
        self.remotes = tuple(_remote(location, url) for url in location.urls)
        self.mirror = Mirror(layout.mirror_dir(instance, location.urls))
        self._source = RepositorySource(self.mirror.repository, subdir=location.subdir)
        self._seen: tuple[str, str | None] = "", None
        self._newest = NOT_READ
        self._doubted = False

    async def pull(self, in_force: str) -> Snapshot:
        """Fetch, judge and read; nothing new gives the same files again. ``in_force``: the revision, "" for none.

        What is wrong is in the snapshot: nothing of ours is raised.
        """
        try:
            fetched = await self._fetch()
            return await self._take(fetched, in_force)
        except VectlError as error:
            return Snapshot(reason=_reason(error), problem=str(error), trust=NOT_JUDGED)

    async def _fetch(self) -> Fetched:
        """Fetch; what neither is away nor says no may be a mirror that is damaged, so one try begins from nothing."""
        try:
            fetched = await self.mirror.fetch(self.remotes, self.location.ref)
        except FetchError as error:
            if error.reason != "FetchFailed" or self._doubted:
                raise
            self._doubted = True
            fetched = await self._fetch_anew()
        self._doubted = False
        return fetched

    async def _fetch_anew(self) -> Fetched:
        other = Mirror(f"{self.mirror.path}.anew")
        try:
            await other.fetch(self.remotes, self.location.ref)
        finally:
            await other.discard()
        await self.mirror.discard()
        return await self.mirror.fetch(self.remotes, self.location.ref)

    async def _take(self, fetched: Fetched, in_force: str) -> Snapshot:
        seen = fetched.head, fetched.notes
        if seen != self._seen or self._newest.trust.state is not TrustState.TRUSTED:  # whom to trust may be said anew
            self._newest, self._seen = await self._read(fetched, in_force), seen
        return replace(self._newest, problem=self._newest.problem or "; ".join(fetched.problems))

    async def _read(self, fetched: Fetched, in_force: str) -> Snapshot:
        """Read a commit; if the mirror is damaged, once more from a new one."""
        try:
            return await asyncio.to_thread(self._look, fetched, in_force)
        except (CommandError, KernelFormatError) as error:
            structlog.get_logger().warning("source.mirror_damaged", path=self.mirror.path, error=str(error))
        await self.mirror.discard()
        fetched = await self.mirror.fetch(self.remotes, self.location.ref)
        return await asyncio.to_thread(self._look, fetched, in_force)

    def _look(self, fetched: Fetched, in_force: str) -> Snapshot:
        (head,) = self.mirror.repository.commits([fetched.head])
        judged = self._judge(head, in_force)
        if judged.trust.state is not TrustState.TRUSTED:
            return Snapshot(revision=head.id, commit=head, way=judged.way, trust=judged.trust)
        return replace(self._source.look(head), revision=head.id, way=judged.way, trust=judged.trust)

    def _judge(self, head: Commit, in_force: str) -> Judged:
        way = way_from(self.mirror.repository, head, in_force)
        if self.location.trust is None:
            return Judged(trust=NOT_REQUIRED, way=way)
        refused = Trust(state=TrustState.UNKNOWN, reason="TrustUnusable", message="signatures are not looked at yet")
        return Judged(trust=refused, way=way)


def way_from(repository: Repository, head: Commit, in_force: str) -> tuple[Step, ...]:
    """Give the way from the commit after the one in force; the head alone, where that was not built on it.

    Raises: CommandError, KernelFormatError, TooLargeError.
    """
    if in_force == head.id:
        return ()
    before = repository.resolve(in_force) if in_force else None
    if before is None or not repository.is_ancestor(before, head.id):
        return (Step(commit=head),)
    return tuple(Step(commit=commit) for commit in repository.commits(repository.first_parents(before, head.id)))


class GitSource(ManifestSource):
    """Implements the agent's `Source` over a repository. ``jitter`` gives a number from 0 to 1."""

    def __init__(self, location: GitLocation, desk: Desk, *, jitter: Callable[[], float]) -> None:
        super().__init__(desk, settle_s=0.0, prune_delay_s=0.0)
        self.puller = Puller(location, desk.instance)
        self._jitter = jitter
        self._newest = NOT_READ
        self._asked = asyncio.Event()
        self._moved = asyncio.Condition()
        self._begun = self._done = self._failures = 0

    def snapshot(self) -> Snapshot:
        """Give what the last fetch brought."""
        return self._newest

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
        while True:
            self._asked.clear()
            self._begun += 1
            await self._pull()
            async with self._moved:
                self._done = self._begun
                self._moved.notify_all()
            await self._rest()

    async def _pull(self) -> None:
        started, in_force = self._desk.clock.monotonic(), self._in_force()
        before, self._newest = self._newest, await self.puller.pull(in_force)
        self._failures = self._failures + 1 if self._newest.reason else 0
        self.wake()
        if self._newest.revision not in ("", before.revision):
            elapsed_s = round(self._desk.clock.monotonic() - started, 3)
            structlog.get_logger().info("source.fetched", commit=self._newest.revision, elapsed_s=elapsed_s)
        try:
            await self._look_after_mirror(in_force)
        except VectlError as error:
            structlog.get_logger().warning("source.mirror_not_tidied", error=str(error))

    async def _look_after_mirror(self, in_force: str) -> None:
        if self._newest.reason or self._newest.revision == in_force:
            return
        is_there = await asyncio.to_thread(_has, self.puller.mirror.repository, in_force)
        if is_there:
            await self.puller.mirror.keep(_IN_FORCE, in_force)
        await self.puller.mirror.tidy()

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


def _remote(location: GitLocation, url: str) -> Remote:
    return Remote(
        url=url,
        ssh_key=location.ssh_key,
        known_hosts=location.known_hosts,
        ca=location.ca,
        credentials=location.credentials,
        timeout_s=location.timeout_s,
    )


def _reason(error: VectlError) -> str:
    match error:
        case FetchError():
            return error.reason
        case NoSpaceError():
            return "NoSpace"
        case CommandError() | KernelFormatError():
            return "SourceUnreadable"
        case _:
            return "FetchFailed"
