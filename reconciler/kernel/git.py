"""A git repository, read by the git command line: commits, trees and blobs from the object store, without a checkout.

Source: git(1), git-cat-file(1), git-ls-tree(1), git-rev-list(1).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.errors import CommandError, KernelFormatError, TooLargeError
from reconciler.kernel import command
from reconciler.kernel.git_object import TreeEntry, parse_changes, parse_commit, parse_tree
from reconciler.model.commit import Commit

_NO_FILE = f"{os.devnull}/none"
"""Of an empty file of grafts git would say that they are out of date."""

ISOLATED: Mapping[str, str] = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": _NO_FILE,
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "HOME": os.devnull,
}
"""What keeps the machine's and a user's settings, and questions to a terminal, out of what an agent does."""

AS_SIGNED: Mapping[str, str] = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": _NO_FILE}
"""What lets git see commits as they were signed, whatever a person's clone puts in their places."""

OUTPUT_MAX = 128 << 20
"""The most that is read at once. Units: bytes."""

WAY_MAX = 10_000
"""How many commits are looked at, from one that is known to the newest."""

_COMMITS_MAX = 16 << 20
_READ_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository by its git directory, or by a directory that git finds it from.

    ``environment``: `ISOLATED` for an agent's mirror; nothing for a person's own clone, whose settings say whom git
    trusts. Every command ends by a deadline.
    """

    path: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(
        self, *arguments: str, timeout_s: float = _READ_S, input: bytes | None = None, output_max: int = OUTPUT_MAX
    ) -> bytes:
        """Run a git command in the repository; give what it printed.

        A few objects can stand for a tree without end: only so much of what git prints is ever taken. Files that it
        writes are bounded likewise.

        Raises: CommandError, TimeLimitError, TooLargeError, MissingToolError.
        """
        argv = ["git", "-C", self.path, *_NOTHING_RUNS, *arguments]
        return command.run_bounded(argv, timeout_s=timeout_s, output_max=output_max, input=input, env=self.environment)

    def resolve(self, revision: str) -> str | None:
        """Name the commit that a branch, tag or beginning of a commit's name stands for; None, if there is none.

        Raises: TimeLimitError, MissingToolError.
        """
        try:
            found = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        except CommandError:
            return None
        return found.decode("ascii").strip()

    def commits(self, oids: Sequence[str]) -> tuple[Commit, ...]:
        """Read commits, in the order asked for.

        Raises: CommandError, KernelFormatError, TooLargeError.
        """
        found = self.objects(oids, output_max=_COMMITS_MAX)
        return tuple(parse_commit(oid, found[oid]) for oid in oids)

    def tree(self, commit: str, subdir: str = "") -> tuple[TreeEntry, ...]:
        """List all entries of a commit's tree below ``subdir``, folders too; paths are relative to it.

        Raises: CommandError, if there is no such commit or folder; TooLargeError.
        """
        return parse_tree(self.run("ls-tree", "-r", "-t", "-z", "--long", f"{commit}:{subdir}"))

    def objects(self, oids: Iterable[str], *, output_max: int = OUTPUT_MAX) -> dict[str, bytes]:
        """Read objects by name.

        Units: bytes.
        Raises: CommandError; KernelFormatError, if one is not there; TooLargeError.
        """
        wanted = list(dict.fromkeys(oids))
        if not wanted:
            return {}
        names = "".join(f"{oid}\n" for oid in wanted).encode("ascii")
        batch = self.run("cat-file", "--batch", input=names, timeout_s=4 * _READ_S, output_max=output_max)
        return _parse_batch(batch, wanted)

    def first_parents(self, old: str | None, new: str) -> tuple[str, ...]:
        """Name the commits from the one after ``old`` to ``new`` along first parents, oldest first.

        With ``old`` None, or no ancestor of ``new``, down to the root.
        Raises: CommandError; TooLargeError, if they are more than `WAY_MAX`.
        """
        beyond = () if old is None else (f"^{old}",)
        most = f"--max-count={WAY_MAX + 1}"
        listed = self.run("rev-list", "--first-parent", "--reverse", most, "--end-of-options", new, *beyond)
        found = tuple(listed.decode("ascii").split())
        if len(found) > WAY_MAX:
            raise TooLargeError(f"list commits up to {new[:12]}: expected {WAY_MAX} at most")
        return found

    def before(self, commit: str, most: int) -> tuple[str, ...]:
        """Name commits before one along first parents, the newest first.

        Raises: CommandError.
        """
        listed = self.run("rev-list", "--first-parent", f"--max-count={most + 1}", "--end-of-options", commit)
        return tuple(listed.decode("ascii").split()[1:])

    def is_ancestor(self, old: str, new: str) -> bool:
        """Say whether ``new`` was built on ``old``, or is the same.

        Raises: CommandError, if one of them is not there.
        """
        try:
            self.run("merge-base", "--is-ancestor", old, new)
        except CommandError as error:
            if error.status == 1:
                return False
            raise
        return True

    def merge_base(self, one: str, other: str) -> str | None:
        """Name the commit from which two were built; None, if there is none.

        Raises: CommandError, if one of them is not there.
        """
        try:
            return self.run("merge-base", one, other).decode("ascii").split()[0]
        except CommandError as error:
            if error.status == 1:
                return None
            raise

    def changed_paths(self, commit: str) -> tuple[str, ...]:
        """Name the files that differ from the first parent, or all of a first commit.

        Raises: CommandError, TooLargeError.
        """
        return self.changes((commit,))[commit]

    def changes(self, commits: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Name for each commit the files that differ from its first parent, or all of a first commit.

        Raises: CommandError, TooLargeError.
        """
        if not commits:
            return {}
        # The plumbing, and every choice spelt out: a person's settings must not hide a path.
        listed = self.run(
            *("diff-tree", "--stdin", "--root", "-r", "-z", "--raw", "--no-abbrev", "--no-renames"),
            *("--diff-merges=first-parent", "--ignore-submodules=none", "--no-relative"),
            input="".join(f"{oid}\n" for oid in commits).encode("ascii"),
            timeout_s=4 * _READ_S,
        )
        return dict.fromkeys(commits, ()) | parse_changes(listed)


_NOTHING_RUNS = ("-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false", "-c", "gc.auto=0")
"""No hook, no helper and no housekeeping of the repository's own runs because we read it."""


def _parse_batch(data: bytes, wanted: Sequence[str]) -> dict[str, bytes]:
    """Parse what ``git cat-file --batch`` prints: a line of name, type and size, the content, and a line feed."""
    found: dict[str, bytes] = {}
    at = 0
    for oid in wanted:
        end = data.index(b"\n", at) if b"\n" in data[at : at + 200] else len(data)
        words = data[at:end].split()
        if len(words) != 3 or not words[2].isdigit():
            raise KernelFormatError(f"read git object {oid}: expected its name, type and size, got {data[at:end]!r}")
        size = int(words[2])
        found[oid] = data[end + 1 : end + 1 + size]
        at = end + 1 + size + 1
    return found
