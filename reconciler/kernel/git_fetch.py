"""The mirror: a bare repository of our own into which git fetches one ref, without a hook, a filter or a checkout.

A server is a stranger: what it sends is bounded in time, on disk and in memory, is checked object by object as it
comes, and runs nothing here.

Source: git-fetch(1), git-init(1), gitprotocol-v2(5), prlimit(1).
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from reconciler.errors import BusyError, CommandError, FetchError, NoSpaceError, TimeLimitError
from reconciler.kernel import command, files
from reconciler.kernel.git import ISOLATED, Repository
from reconciler.kernel.git_failure import failure, too_late
from reconciler.kernel.git_remote import Remote, environment, settings
from reconciler.kernel.syscalls import file_errors

HEAD = "refs/vectl/head"
"""Where the ref that is followed lies in the mirror."""

NOTES = "refs/vectl/notes"
"""Where the server's ``refs/notes/vectl`` lies in the mirror, if it has them."""

PACK_MAX = 512 << 20
"""The most that one fetch may bring. Units: bytes."""

MIRROR_MAX = 2 << 30
"""A mirror that has become larger than this is made anew. Units: bytes."""

MEMORY_MAX = 1 << 30
"""Address space of each process of a fetch. Units: bytes."""

_LOCAL_S = 30.0
_REPACK_S = 600.0
_LOCK_POLL_S = 0.1
_OID = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_OTHER_FORMAT = "mismatched algorithms"
_IS_AN_ANSWER = "RefMissing"
"""What a remote says of its own: a copy that has the ref still is out of date."""

_NO_SPACE = "No space left on device"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a mirror holds after a fetch: the commit that the ref stands for, and the newest notes, None for none.

    ``remote``: the address that it came from, without user and query. ``problems``: why the ones before it in the
    order did not give it.
    """

    head: str
    notes: str | None
    remote: str
    problems: tuple[str, ...] = ()


class Mirror:
    """A mirror at ``path``, made by the first fetch. Safe to delete at any time: the next fetch makes it anew."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def repository(self) -> Repository:
        """The mirror, for reading."""
        return Repository(path=self.path, environment=ISOLATED)

    async def fetch(self, remotes: Sequence[Remote], ref: str) -> Fetched:
        """Fetch a ref, or a commit by its name, from the first of several remotes that gives it.

        Only the first may go back, or to another history: the others are copies of it, which may lag.
        Raises: FetchError, of the first remote, with what the others said; BusyError; NoSpaceError; KernelError.
        """
        async with self._locked(max(remote.timeout_s for remote in remotes)):
            failed: list[FetchError] = []
            for remote in remotes:
                try:
                    return await self._fetch_from(remote, ref, failed)
                except FetchError as error:
                    failed.append(error)
                    if error.reason == _IS_AN_ANSWER:
                        break
        others = "".join(f"; {error}" for error in failed[1:])
        raise FetchError(f"{failed[0]}{others}", reason=failed[0].reason)

    async def tidy(self, *, packs: int = 40) -> None:
        """Put packs together, if there are more than a number of them: each fetch that brings something adds one.

        Raises: CommandError, TimeLimitError, BusyError.
        """
        if _count_packs(self.path) > packs:
            async with self._locked(0.0):
                argv = ["git", "--git-dir", self.path, "-c", "pack.threads=1"]
                unreachable = "--unpack-unreachable=2.weeks.ago"  # a way back from a rewritten history
                await self._git([*argv, "repack", "-A", "-d", "-q", unreachable], timeout_s=_REPACK_S)
                await self._git([*argv, "prune", "--expire=2.weeks.ago"], timeout_s=_REPACK_S)

    async def keep(self, name: str, commit: str) -> None:
        """Let a commit, and all that it was built on, stay in the mirror under a name of ours.

        Raises: CommandError, TimeLimitError, BusyError.
        """
        async with self._locked(_LOCAL_S):
            await self._git(["git", "--git-dir", self.path, "update-ref", f"refs/vectl/{name}", commit])

    async def discard(self) -> None:
        """Throw the mirror away; absent is success.

        Raises: BusyError, KernelError.
        """
        async with self._locked(_LOCAL_S):
            await asyncio.to_thread(files.remove_tree, self.path)

    async def _fetch_from(self, remote: Remote, ref: str, failed: Sequence[FetchError]) -> Fetched:
        if not os.path.exists(f"{self.path}/HEAD"):
            await self._make("sha1")
        before = await self._read(HEAD) if failed else None
        try:
            await self._transfer(remote, ref)
        except _OtherFormatError:
            await self._make("sha256")
            await self._transfer(remote, ref)
        head, notes = await self._read(HEAD), await self._read(NOTES, peel="")
        if head is None:
            raise FetchError(f"fetch {remote.shown}: expected {ref} to be a commit", reason="RefMissing")
        if before is not None and head != before:
            head = await self._not_back(remote, before, head)
        if _size(self.path) > MIRROR_MAX:
            await asyncio.to_thread(files.remove_tree, self.path)
            raise FetchError(f"fetch {remote.shown}: the mirror was too large, made anew", reason="SourceTooLarge")
        problems = tuple(str(error) for error in failed)
        return Fetched(head=head, notes=notes, remote=remote.shown, problems=problems)

    async def _not_back(self, remote: Remote, before: str, head: str) -> str:
        """Give the newer of what we had and what a copy of the first remote has."""
        repository = self.repository
        if await asyncio.to_thread(repository.is_ancestor, before, head):
            return head
        await self._git(["git", "--git-dir", self.path, "update-ref", HEAD, before])
        if await asyncio.to_thread(repository.is_ancestor, head, before):
            return before
        problem = f"expected a copy of the first remote, its {head[:12]} was not built on {before[:12]}"
        raise FetchError(f"fetch {remote.shown}: {problem}", reason="FetchFailed")

    async def _transfer(self, remote: Remote, ref: str) -> None:
        """Run git fetch; what it is bounded by counts for each of its processes."""
        variables = environment(remote)
        bounds = ["prlimit", f"--fsize={PACK_MAX}", f"--as={MEMORY_MAX}", "--core=0", "--"]
        argv = [
            *_forgetting(variables),
            *bounds,
            "git",
            "--git-dir",
            self.path,
            *settings(remote),
            "fetch",
            *_QUIETLY,
            "--",
            remote.url,
        ]
        argv += await self._refspecs(ref)
        try:
            await command.run_async(argv, timeout_s=remote.timeout_s, env=variables)
        except TimeLimitError as error:
            raise too_late(remote) from error
        except CommandError as error:
            if _OTHER_FORMAT in error.output and "server sha256" in error.output:
                raise _OtherFormatError from error
            if _NO_SPACE in error.output:
                raise NoSpaceError(f"fetch {remote.shown}: no space left for {self.path}") from error
            raise failure(remote, error.output) from error

    async def _refspecs(self, ref: str) -> list[str]:
        """Name what is asked for. A pattern asks for the notes: to have none is no mistake."""
        notes = "+refs/notes/vectl*:refs/vectl/notes*"
        if _OID.match(ref) is None:
            return [f"+{ref}:{HEAD}", notes]
        if await self._read(ref) is None:
            return [f"+{ref}:{HEAD}", notes]
        await self._git(["git", "--git-dir", self.path, "update-ref", HEAD, ref])
        return [notes]

    async def _read(self, revision: str, *, peel: str = "^{commit}") -> str | None:
        argv = ["git", "--git-dir", self.path, "rev-parse", "--verify", "--quiet", f"{revision}{peel}"]
        try:
            return (await self._git(argv)).strip()
        except CommandError:
            return None

    async def _make(self, object_format: str) -> None:
        """Make an empty mirror in place of what is there."""
        new = f"{self.path}.new"
        for path in (new, self.path):
            await asyncio.to_thread(files.remove_tree, path)
        bare = ["--bare", "--template=", f"--object-format={object_format}", "--initial-branch=main"]
        await self._git(["git", "init", "--quiet", *bare, new])
        with file_errors("make", self.path):
            os.chmod(new, 0o700)
            os.rename(new, self.path)

    async def _git(self, argv: Sequence[str], *, timeout_s: float = _LOCAL_S) -> str:
        return await command.run_async(argv, timeout_s=timeout_s, env=ISOLATED)

    @asynccontextmanager
    async def _locked(self, wait_s: float) -> AsyncIterator[None]:
        """Be the only one that writes the mirror, and clear away what one that was killed left in it."""
        parent = os.path.dirname(self.path)
        with file_errors("make", parent):
            os.makedirs(parent, mode=0o700, exist_ok=True)
        deadline = time.monotonic() + wait_s
        with ExitStack() as stack:
            while not _entered(stack, f"{self.path}.lock", is_last=time.monotonic() >= deadline):  # noqa: ASYNC110
                await asyncio.sleep(_LOCK_POLL_S)
            await asyncio.to_thread(_clear, self.path)
            yield


_QUIETLY = (
    "--quiet",
    "--no-tags",
    "--no-recurse-submodules",
    "--no-write-fetch-head",
    "--no-auto-maintenance",
    "--no-show-forced-updates",
    "--prune",
)


def _forgetting(variables: Mapping[str, str]) -> list[str]:
    """Give the beginning of a command line without git's variables of our own environment: one lets certificates be.

    Who writes too large a file is told so, rather than killed without a word.
    """
    others = [name for name in os.environ if name.startswith("GIT_") and name not in variables]
    return ["env", "--ignore-signal=XFSZ", *(word for name in others for word in ("-u", name))]


class _OtherFormatError(Exception):
    """The server names its objects by another hash; never leaves this module."""


def _entered(stack: ExitStack, lock: str, *, is_last: bool) -> bool:
    """Try to hold a lock until the end of a block."""
    try:
        stack.enter_context(files.lock(lock))
    except BusyError:
        if is_last:
            raise
        return False
    return True


def _count_packs(path: str) -> int:
    try:
        return sum(name.endswith(".pack") for name in os.listdir(f"{path}/objects/pack"))
    except FileNotFoundError:
        return 0


def _size(path: str) -> int:
    """Add up the packs of a mirror. Units: bytes."""
    with suppress(FileNotFoundError), os.scandir(f"{path}/objects/pack") as entries:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    return 0


def _clear(path: str) -> None:
    """Remove locks and halves of packs that nobody holds: we are the only one at work."""
    with file_errors("clear", path):
        for below, _, names in os.walk(path):
            for name in names:
                if name.endswith(".lock") or name.startswith("tmp_"):
                    with suppress(FileNotFoundError):
                        os.unlink(f"{below}/{name}")
