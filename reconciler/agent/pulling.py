"""Taking what a repository says now: fetched, judged and read, away from the loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from reconciler.agent.review import Stride
from reconciler.errors import CommandError, FetchError, KernelFormatError, NoSpaceError, TooLargeError, VectlError
from reconciler.kernel.files import remove_tree
from reconciler.kernel.git import WAY_MAX
from reconciler.kernel.git_fetch import Fetched, Mirror
from reconciler.kernel.git_remote import Remote
from reconciler.manifests.load import ParseCache, load_fleet
from reconciler.model.commit import Commit, Step, Trust, TrustState
from reconciler.model.instance import Instance
from reconciler.model.seam import Clock
from reconciler.model.trust import Signature, TrustPolicy
from reconciler.sources.repository import RepositorySource
from reconciler.sources.revision import NOT_READ
from reconciler.sources.snapshot import Snapshot
from reconciler.sources.verify import Verdict, Verification, unusable
from reconciler.sources.vouched import Vouched, vouched
from reconciler.state import layout
from reconciler.state.location import GitLocation
from reconciler.state.source_state import SourceState
from reconciler.state.trust import TrustFile

NOT_JUDGED = Trust(state=TrustState.UNKNOWN, reason="NotRead", message="no commit was read")

_STRIDES_MAX = 64
"""Steps of a way that are looked at one by one; a longer way is one step."""

_HEARD_MAX = 32
"""Commits whose notes are looked at, the newest ones: a note may come after what it speaks of was taken."""


class Puller:
    """Takes what a repository says now, for an agent again and again, for a command once.

    ``words``: what people vouched for of late, by commit.
    """

    def __init__(self, location: GitLocation, instance: Instance, *, clock: Clock) -> None:
        self.location = location
        self.remotes = tuple(_remote(location, url) for url in location.urls)
        self.mirror = Mirror(layout.mirror_dir(instance, location.urls))
        self.words: Mapping[str, Sequence[Vouched]] = {}
        self._clock = clock
        self._state = SourceState(instance.state_dir)
        self._trust = None if location.trust is None else TrustFile(location.trust)
        self._source = RepositorySource(self.mirror.repository, subdir=location.subdir)
        self._seen: tuple[str, str | None] = "", None
        self._newest = NOT_READ
        self._verdict: Verdict | None = None
        self._checked: tuple[TrustPolicy | None, dict[str, Signature]] = None, {}
        self._strides: tuple[str, tuple[Stride, ...]] = "", ()
        self._parsed = ParseCache()
        self._doubted = False

    async def pull(self, in_force: str, *, with_steps: bool = False) -> Snapshot:
        """Fetch, judge and read; nothing new gives the same files again.

        ``in_force``: the revision, "" for none. ``with_steps``: read each commit on the way, too, see `strides`.
        What is wrong is in the snapshot: nothing of ours is raised.
        """
        try:
            fetched = await self._fetch()
            await self._take(fetched, in_force, with_steps=with_steps)
        except VectlError as error:
            return Snapshot(reason=_reason(error), problem=str(error), trust=NOT_JUDGED)
        return replace(self._newest, problem=self._newest.problem or "; ".join(fetched.problems))

    def sweep(self) -> None:
        """Remove the mirrors of other addresses, which were followed before.

        Raises: KernelError; BusyError, if something is mounted there.
        """
        directory, ours = os.path.split(self.mirror.path)
        for name in layout.names_in(directory):
            if ".git" in name and not name.startswith(ours):
                remove_tree(f"{directory}/{name}")

    def accept(self, commit: str) -> None:
        """Remember durably that the newest commit was verified and accepted: what comes next must be built on it.

        Raises: StateError, KernelError, NoSpaceError, BusyError.
        """
        verdict = self._verdict
        if verdict is not None and self._newest.commit is not None and self._newest.commit.id == commit:
            self._state.trust(self.location.name, commit, signed=verdict.signed, latest=verdict.latest)
            self._verdict = None

    def strides(self, since: str) -> Sequence[Stride]:
        """Give the steps from a revision to the newest commit; none, if they are too many, or were not read."""
        return self._strides[1] if self._strides[0] == since else ()

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

    async def _take(self, fetched: Fetched, in_force: str, *, with_steps: bool) -> None:
        seen = fetched.head, fetched.notes
        if seen == self._seen and self._newest.trust.state is TrustState.TRUSTED:  # else trust may have been given anew
            return
        try:
            self._newest = await asyncio.to_thread(self._look, fetched, in_force, with_steps)
        except (CommandError, KernelFormatError) as error:
            structlog.get_logger().warning("source.mirror_damaged", path=self.mirror.path, error=str(error))
            await self.mirror.discard()
            fetched = await self.mirror.fetch(self.remotes, self.location.ref)
            self._newest = await asyncio.to_thread(self._look, fetched, in_force, with_steps)
        self._seen = seen

    def _look(self, fetched: Fetched, in_force: str, with_steps: bool) -> Snapshot:  # for a thread
        (head,) = self.mirror.repository.commits([fetched.head])
        self._verdict = verdict = self._verify(head, in_force)
        if verdict.trust.state is not TrustState.TRUSTED:
            return Snapshot(revision=head.id, commit=head, way=verdict.way, trust=verdict.trust)
        if with_steps:
            self._strides = in_force, self._read_steps(verdict.way)
        return replace(self._source.look(head), revision=head.id, way=verdict.way, trust=verdict.trust)

    def _verify(self, head: Commit, in_force: str) -> Verdict:
        try:
            policy = None if self._trust is None else self._trust.look()
            remembered = self._state.read(self.location.name)
        except VectlError as error:
            return unusable(error)
        if policy is not self._checked[0] or len(self._checked[1]) > WAY_MAX:
            self._checked = policy, {}
        repository, checked = self.mirror.repository, self._checked[1]
        verification = Verification(repository=repository, policy=policy, now=self._clock.now(), checked=checked)
        verdict = verification.verify(head.id, remembered, since=in_force or None)
        if policy is not None and verdict.trust.state is TrustState.TRUSTED:
            self.words = _by_commit(vouched(verification.steps(self._latest(head))))
        return verdict

    def _latest(self, head: Commit) -> tuple[str, ...]:
        most = f"--max-count={_HEARD_MAX}"
        listed = self.mirror.repository.run("rev-list", "--first-parent", "--reverse", most, head.id)
        return tuple(listed.decode("ascii").split())

    def _read_steps(self, way: Sequence[Step]) -> tuple[Stride, ...]:
        """Read the manifests of each commit of a way but the last one, which is read anyway."""
        return tuple(self._stride(step.commit) for step in way[:-1]) if len(way) <= _STRIDES_MAX else ()

    def _stride(self, commit: Commit) -> Stride:
        found = self._source.look(commit)
        if found.reason:
            return Stride(revision=commit.id, fleet=None)
        return Stride(revision=commit.id, fleet=load_fleet(found.files, revision=commit.id, cache=self._parsed).fleet)


def _by_commit(words: Sequence[Vouched]) -> Mapping[str, Sequence[Vouched]]:
    found: dict[str, list[Vouched]] = {}
    for word in words:
        found.setdefault(word.revision, []).append(word)
    return found


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
        case TooLargeError():
            return "SourceTooLarge"
        case _:
            return "FetchFailed"
