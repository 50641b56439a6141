"""`source verify` and `source accept-rewrite`: whom a repository is believed, and the word of this host's root."""

from __future__ import annotations

import os
import re
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode, RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.kernel.git import Repository
    from reconciler.model.commit import Step
    from reconciler.model.facts import Json
    from reconciler.model.trust import Remembered, TrustPolicy
    from reconciler.sources.verify import Verdict
    from reconciler.sources.vouched import Vouched
    from reconciler.state.config import Config
    from reconciler.state.location import GitLocation

_HEAD = "refs/vectl/head"
_NOTES = "refs/vectl/notes"
_PART = re.compile(r"[0-9a-f]{7,64}\Z")
_SHORT = 12
_HEADER = ("COMMIT", "SIGNED BY", "DATE", "SUBJECT")


class Format(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


def verify(
    revision: Annotated[
        str, typer.Argument(metavar="REV", help="The commit, branch or tag; what was fetched, if left out.")
    ] = "",
    base: Annotated[
        str | None, typer.Option("--from", metavar="REV", help="A commit that is trusted; default: what is remembered.")
    ] = None,
    repository: Annotated[
        str | None, typer.Option(metavar="DIR", help="A clone; default: the mirror of the configured source.")
    ] = None,
    trust: Annotated[
        str | None, typer.Option(metavar="FILE", help="The trust file; default: that of the configuration.")
    ] = None,
    form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TEXT,
) -> int:
    """Verify who signed a repository's commits, as the agent does.

    Exits with 4 if a commit would be refused. Changes nothing.
    """
    from reconciler.model.commit import TrustState
    from reconciler.sources.verify import Verification

    found, policy, remembered = _subject(repository, trust)
    head = _resolved(found, revision or (_HEAD if repository is None else "HEAD"))
    known = remembered if base is None else _known(_resolved(found, base))
    notes = _NOTES if repository is None else _own_notes()
    verdict = Verification(repository=found, policy=policy, now=time.time(), notes_ref=notes).verify(head, known)
    if form is Format.JSON:
        output.document(_to_json(head, verdict))
    else:
        _show(head, verdict)
    codes = {TrustState.TRUSTED: ExitCode.OK, TrustState.REFUSED: ExitCode.REFUSED}
    return int(codes.get(verdict.trust.state, ExitCode.ERROR))


def accept_rewrite(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The commit that is trusted now, or its first digits.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The commit that takes its place.")],
) -> int:
    """Trust a commit that was not built on the trusted one, or is not signed.

    It takes the place of OLD: what follows it has to be signed again.
    """
    from reconciler.agent.clock import SystemClock
    from reconciler.agent.recording import recorded
    from reconciler.model.trust import Rewrite
    from reconciler.state.source_state import SourceState

    context.need_root()
    config = context.load_config()
    location = _git(config)
    state = SourceState(config.instance.state_dir)
    trusted = state.read(location.name).trusted
    if trusted is None:
        raise UsageError("accept rewrite: no commit was trusted yet; name NEW as anchor in the trust file")
    if not _PART.match(old) or not trusted.startswith(old):
        raise UsageError(f"accept rewrite of {old}: expected the commit that is trusted now, {trusted}")
    mirror = _mirror(config, location)
    if not _PART.match(new) or (found := mirror.resolve(new)) is None or not found.startswith(new):
        raise UsageError(f"accept rewrite to {new}: expected a commit that was fetched; see `vectl source check`")
    state_dir, who = config.instance.state_dir, context.who()
    with recorded(state_dir, SystemClock(), "accept-rewrite", by=who, detail=f"{trusted} {found}"):
        state.accept(location.name, Rewrite(old=trusted, new=found, by=who, at=time.time()))
    (commit,) = mirror.commits([found])
    subject = output.one_line(commit.subject)
    output.words(f"{found[:_SHORT]} ({subject}) is trusted in the place of {trusted[:_SHORT]}")
    context.run(_wake(config))
    return int(ExitCode.OK)


async def _wake(config: Config) -> None:
    from reconciler.agent.server import ask

    await ask(config.instance, "refresh")


def _subject(directory: str | None, trust: str | None) -> tuple[Repository, TrustPolicy | None, Remembered]:
    """Give what is to be verified, by whose rules, and what is remembered of it."""
    from reconciler.kernel import files
    from reconciler.kernel.git import AS_SIGNED, Repository
    from reconciler.model.trust import Remembered
    from reconciler.state.source_state import SourceState
    from reconciler.state.trust import load_trust

    own = None if trust is None else load_trust(os.path.abspath(trust), read=files.read_bytes_if_exists)
    if directory is not None:
        if own is None:
            raise UsageError(f"verify {directory}: expected --trust FILE with the signers of this repository")
        return Repository(path=os.path.abspath(directory), environment=AS_SIGNED), own, Remembered()
    context.need_root()
    config = context.load_config()
    location = _git(config)
    policy = own or (None if location.trust is None else load_trust(location.trust))
    return _mirror(config, location), policy, SourceState(config.instance.state_dir).read(location.name)


def _git(config: Config) -> GitLocation:
    from reconciler.state.location import GitLocation

    if not isinstance(config.source, GitLocation):
        raise UsageError("verify the source: expected `source: {git: ...}` in the configuration")
    return config.source


def _mirror(config: Config, location: GitLocation) -> Repository:
    from reconciler.kernel.git_fetch import Mirror
    from reconciler.state import layout

    path = layout.mirror_dir(config.instance, location.urls)
    if not os.path.isdir(path):
        raise RefusedError(f"verify {location.name}: nothing was fetched yet; see `vectl source check`")
    return Mirror(path).repository


def _known(base: str) -> Remembered:
    from reconciler.model.trust import Remembered

    return Remembered(trusted=base, signed=True)


def _own_notes() -> str:
    from reconciler.sources import notes

    return notes.REF


def _resolved(repository: Repository, revision: str) -> str:
    found = repository.resolve(revision)
    if found is None:
        raise UsageError(f"verify {revision}: expected a commit of {repository.path}, found none")
    return found


def _show(head: str, verdict: Verdict) -> None:
    if verdict.way:
        output.table(_HEADER, map(_row, verdict.way))
    told = f": {verdict.trust.message}" if verdict.trust.message else ""
    output.words(output.one_line(f"{head[:_SHORT]}: {verdict.trust.reason}{told}"))


def _row(step: Step) -> Sequence[str]:
    commit = step.commit
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(commit.committed_at))
    return commit.id[:_SHORT], output.one_line(step.signer) or "-", when, output.one_line(commit.subject)[:72]


def _to_json(head: str, verdict: Verdict) -> Json:
    return {
        "format": 1,
        "commit": head,
        "state": verdict.trust.state.value,
        "reason": verdict.trust.reason,
        "message": verdict.trust.message,
        "way": [
            {
                "commit": step.commit.id,
                "signer": step.signer or None,
                "at": step.commit.committed_at,
                "subject": step.commit.subject,
                "vouched": [{"kind": one.kind, "hash": one.hash, "by": one.by, "at": one.at} for one in _vouched(step)],
            }
            for step in verdict.way
        ],
    }


def _vouched(step: Step) -> Sequence[Vouched]:
    from reconciler.sources.vouched import vouched

    return vouched((step,))
