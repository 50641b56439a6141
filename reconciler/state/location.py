"""Where manifests come from, as the configuration says it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeAlias

from reconciler.kernel.git_remote import shown
from reconciler.state import scalars
from reconciler.state.settings import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryLocation:
    """A directory of manifests."""

    path: str

    @property
    def name(self) -> str:
        """The name under which its VEs are recorded: it is the same whatever path leads there."""
        return f"dir:{os.path.realpath(self.path)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GitLocation:
    """A git repository of manifests.

    ``urls``: its remotes, tried in order. ``ref``: a full ref or a commit, of ``branch``, ``tag`` or ``commit``.
    ``subdir``: where in it, "" for all. ``trust``: the file of allowed signers; None: whoever can write to the branch
    is trusted. ``ssh_key``, ``known_hosts``, ``ca``, ``credentials``: paths; the last has ``user:password`` for https.
    ``webhook_secret``: the path of the secret that a forge signs its calls with.

    Units: ``poll_s``, ``timeout_s`` seconds.
    """

    urls: tuple[str, ...]
    ref: str = "refs/heads/main"
    subdir: str = ""
    trust: str | None = None
    poll_s: float = 60.0
    timeout_s: float = 60.0
    ssh_key: str | None = None
    known_hosts: str | None = None
    ca: str | None = None
    credentials: str | None = None
    webhook_secret: str | None = None

    @property
    def name(self) -> str:
        """The name under which its VEs are recorded: no secret, and the same whoever reads it."""
        return f"git:{shown(self.urls[0])}#{self.ref}{self.subdir and f':{self.subdir}'}"


Location: TypeAlias = DirectoryLocation | GitLocation


def parse_location(top: Section) -> Location | None:
    """Take ``source`` from the configuration; None, if it is not set."""
    if top.setting("source") is None:
        return None
    section = top.section("source")
    path = section.value("path", scalars.absolute_path)
    if section.setting("git") is None:
        section.require("path")
    elif section.setting("path") is not None:
        section.refuse("path", "expected either 'path' or 'git', got both")
    location = _git(section.section("git")) if section.setting("git") else None
    section.end()
    return DirectoryLocation(path=path) if path else location


def _git(git: Section) -> GitLocation:
    git.require("url")
    url, default = git.value("url", scalars.git_url), GitLocation(urls=())
    location = GitLocation(
        urls=(url or "", *(git.values("mirrors", scalars.git_url) or ())),
        ref=_ref(git),
        subdir=git.value("subdir", scalars.subdir) or "",
        trust=git.value("trust", scalars.absolute_path),
        poll_s=git.value("poll", scalars.interval) or default.poll_s,
        timeout_s=git.value("timeout", scalars.interval) or default.timeout_s,
        ssh_key=git.value("sshKey", scalars.absolute_path),
        known_hosts=git.value("knownHosts", scalars.absolute_path),
        ca=git.value("ca", scalars.absolute_path),
        credentials=git.value("credentials", scalars.absolute_path),
        webhook_secret=git.value("webhookSecret", scalars.absolute_path),
    )
    git.end()
    return location


def _ref(git: Section) -> str:
    """Give what to follow: a branch, a tag, or one commit for good."""
    named = {
        "branch": ("refs/heads/", git.value("branch", scalars.ref_name)),
        "tag": ("refs/tags/", git.value("tag", scalars.ref_name)),
        "commit": ("", git.value("commit", scalars.commit_id)),
    }
    given = [key for key, (_, value) in named.items() if value is not None]
    for key in given[1:]:
        git.refuse(key, f"expected one of branch, tag and commit, got {given[0]!r} too")
    return "".join(part or "" for part in named[given[0]]) if given else "refs/heads/main"
