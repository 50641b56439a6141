"""`hook`: what git's hooks call, to keep out of a repository what no host would take, and to wake the hosts."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from reconciler.cli import comment, context, output
from reconciler.errors import CommandError, ExitCode, RefusedError, UsageError, VectlError

if TYPE_CHECKING:
    from reconciler.kernel.git import Repository

NOTES = "refs/notes/vectl"
_INPUT_MAX = 1 << 20
_ZERO = frozenset("0")
_TOLD_MAX = 200
"""Lines about one push; a terminal holds no more that anybody reads."""
_POST_S = 5.0

app = typer.Typer(
    help="What git's hooks and CI jobs call: see `hooks/` and, for settings, `git config vectl.*`.",
    no_args_is_help=True,
)
app.command("comment")(comment.comment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What ``git config vectl.*`` says. ``ref``: what hosts follow; ``trust``: the file of allowed signers."""

    ref: str
    subdir: str
    trust: str | None
    webhooks: tuple[str, ...]
    secret: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A ref that is pushed, from one commit to another; None for none."""

    old: str | None
    new: str | None
    ref: str


@app.command("pre-commit")
def pre_commit() -> int:
    """Refuse a commit whose manifests are not valid, as they are staged."""
    repository = _here()
    tree = repository.run("write-tree").decode("ascii").strip()
    _expect_valid(repository, tree, _settings(repository).subdir, name="what is staged")
    return int(ExitCode.OK)


@app.command("pre-receive")
def pre_receive() -> int:
    """Refuse a push to the branch that hosts follow, if they would not take it: it is read on standard input."""
    repository = _here()
    settings = _settings(repository)
    for update in _updates():
        if update.ref == settings.ref:
            _judge(repository, settings, update)
    return int(ExitCode.OK)


@app.command("post-receive")
def post_receive() -> int:
    """Wake the hosts after a push to what they follow; one that does not answer looks by itself before long."""
    settings = _settings(_here())
    updates = [update for update in _updates() if update.ref in (settings.ref, NOTES)]
    for url in settings.webhooks if updates else ():
        try:
            _wake(url, updates[-1], settings)
        except VectlError as error:
            output.words(f"not woken: {error}; the host looks by itself at the next poll")
    return int(ExitCode.OK)


def _here() -> Repository:
    from reconciler.kernel.git import AS_SIGNED, Repository

    return Repository(path=os.getcwd(), environment=AS_SIGNED)


def _settings(repository: Repository) -> Settings:
    try:
        listed = repository.run("config", "--null", "--get-regexp", r"^vectl\.").decode(errors="replace")
    except CommandError as error:
        if error.status != 1:  # there are none
            raise
        listed = ""
    pairs = [line.partition("\n") for line in listed.split("\0") if line]
    given = {key: value for key, _, value in pairs}
    return Settings(
        ref=given.get("vectl.ref") or _head(repository),
        subdir=given.get("vectl.subdir", "").strip("/"),
        trust=given.get("vectl.trust"),
        webhooks=tuple(value for key, _, value in pairs if key == "vectl.webhook"),
        secret=given.get("vectl.webhooksecret"),
    )


def _head(repository: Repository) -> str:
    """Name the branch that a clone would check out; none, where a commit is checked out by itself."""
    try:
        return repository.run("symbolic-ref", "--quiet", "HEAD").decode(errors="replace").strip()
    except CommandError:
        return ""


def _updates() -> Iterator[Update]:
    """Take what is pushed. Source: githooks(5), pre-receive."""
    data = sys.stdin.buffer.read(_INPUT_MAX + 1)
    if len(data) > _INPUT_MAX:
        raise RefusedError("push: expected fewer refs at once")
    for line in data.decode(errors="replace").splitlines():
        words = line.split(" ", 2)
        if len(words) != 3:
            raise UsageError("hook: expected lines `OLD NEW REF` on standard input, as git gives them")
        old, new = (None if set(word) == _ZERO else word for word in words[:2])
        yield Update(old=old, new=new, ref=words[2])


def _judge(repository: Repository, settings: Settings, update: Update) -> None:
    """See to it that hosts would take a push.

    Raises: RefusedError; MistakesError, ManifestError.
    """
    if update.new is None:
        raise RefusedError(f"push {update.ref}: hosts follow it, so it is not deleted")
    if update.old is not None and not repository.is_ancestor(update.old, update.new):
        old = update.old[:12]
        raise RefusedError(
            f"push {update.ref}: expected commits on top of {old}, which hosts have; `git pull --rebase`"
        )
    if repository.resolve(update.new) != update.new:
        raise RefusedError(f"push {update.ref}: expected a commit")
    if settings.trust is not None:
        _expect_trusted(repository, settings.trust, update.old, update.new)
    _expect_valid(repository, update.new, settings.subdir, name=f"commit {update.new[:12]}")


def _expect_trusted(repository: Repository, file: str, old: str | None, new: str) -> None:
    """See to it that allowed signers vouch for what is new; what is there was looked at when it came."""
    from reconciler.model.commit import TrustState
    from reconciler.model.trust import Remembered
    from reconciler.sources.verify import REMEDY, Verification
    from reconciler.state.trust import load_trust

    verification = Verification(repository=repository, policy=load_trust(file), now=time.time())
    latest = repository.commits((old,))[0].committed_at if old else 0.0
    found = verification.verify(new, Remembered(trusted=old, signed=old is not None, latest=latest)).trust
    if found.state is not TrustState.TRUSTED:
        raise RefusedError(f"push: {found.reason}: {found.message.partition(REMEDY)[0]}")


def _expect_valid(repository: Repository, tree: str, subdir: str, *, name: str) -> None:
    from reconciler.manifests.load import load_fleet
    from reconciler.sources.committed import Committed

    if subdir:
        _expect_folder(repository, tree, subdir)
    files = Committed.of(repository, tree, subdir=subdir)
    files.prefetch(files.ids)
    loaded = load_fleet(files, revision=tree)
    if loaded.fleet is None:
        raise context.MistakesError(name, context.placed_below(subdir, loaded.findings[:_TOLD_MAX]))


def _expect_folder(repository: Repository, tree: str, subdir: str) -> None:
    try:
        repository.run("cat-file", "-e", f"{tree}:{subdir}")
    except CommandError as err:
        raise UsageError(f"read {tree[:12]}: expected a folder {subdir!r}; see `git config vectl.subdir`") from err


def _wake(url: str, update: Update, settings: Settings) -> None:
    """Say that there is something new, with proof of the secret. What it is, hosts ask git."""
    from reconciler.kernel.secret import read_secrets
    from reconciler.kernel.web_request import request

    body = json.dumps({"ref": update.ref, "after": update.new}).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "vectl"}
    if settings.secret is not None:
        digest = hmac.new(read_secrets(settings.secret)[0], body, hashlib.sha256).hexdigest()
        headers["X-Vectl-Signature"] = f"sha256={digest}"
    request("POST", url, headers=headers, body=body, timeout_s=_POST_S)
