"""`approve`: a person's consent to exactly one plan."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output, plans
from reconciler.errors import ExitCode, StateError, UsageError

if TYPE_CHECKING:
    from reconciler.model.action import Plan
    from reconciler.state.config import Config

_WHOLE = 64
_LEAST = 6


def approve(
    hash_: Annotated[str, typer.Argument(metavar="HASH", help="Hash of a plan or of a VE's part, or its beginning.")],
    path: Annotated[
        str | None, typer.Argument(metavar="PATH", help="The manifests; those in force, if left out.")
    ] = None,
    prune: plans.PruneOption = False,
    note: Annotated[
        str | None,
        typer.Option(
            "--note", metavar="COMMIT", help="Say so in a signed note on a commit of PATH, or of this folder."
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="FILE", help="The private ssh key that the note is signed with.")
    ] = None,
    reviewed: Annotated[
        bool, typer.Option("--reviewed", help="With --note: it was reviewed, but consent to dangers is not given.")
    ] = False,
) -> int:
    """Consent for 24 hours to exactly one dangerous plan.

    Recreation, loss of data, risk to the host and removal of many VEs wait for it; everything does that was not
    reviewed, where the host's policy says so. A note needs neither root nor a host.
    """
    if note is not None:
        return _note(hash_, note, path or ".", key=key, reviewed=reviewed)
    if key is not None or reviewed:
        raise UsageError("approve: --key and --reviewed go with --note COMMIT")
    from reconciler.agent.clock import SystemClock
    from reconciler.agent.recording import recorded
    from reconciler.state.approvals import Approvals

    context.need_root()
    config = context.load_config()
    whole, what = _whole(config, hash_, path, prune=prune)
    state_dir, who = config.instance.state_dir, context.who()
    with recorded(state_dir, SystemClock(), "approve", by=who, detail=f"{what}: {whole}"):
        given = Approvals(state_dir).approve(whole, by=who, now=time.time())
    output.words(f"approved until {output.moment(given.expires)}: {what}")
    context.run(_wake(config))
    return int(ExitCode.OK)


def _note(hash_: str, commit: str, path: str, *, key: str | None, reviewed: bool) -> int:
    """Write a signed note; hosts that trust who signed it take it in."""
    from reconciler.kernel.git import Repository
    from reconciler.sources.noting import note
    from reconciler.state.approvals import is_hash

    if key is None:
        raise UsageError("approve: --note needs --key FILE, the private ssh key of somebody whom the hosts trust")
    if not is_hash(hash_):
        raise UsageError(f"approve {hash_!r}: expected the 64 hex digits that `vectl plan -o json` prints")
    said = "Vectl-Reviewed" if reviewed else "Vectl-Approved"
    found = note(Repository(path=path), commit, [(said, hash_)], key=key, now=time.time())
    output.words(f"noted on {found[:12]}; hosts see it after `git push origin refs/notes/vectl`")
    return int(ExitCode.OK)


def _whole(config: Config, hash_: str, path: str | None, *, prune: bool) -> tuple[str, str]:
    """Give the whole hash, and in words what it stands for; one that is whole already needs no plan."""
    if len(hash_) == _WHOLE:
        return hash_, f"the plan {hash_[:16]}"
    if len(hash_) < _LEAST:
        raise UsageError(f"approve {hash_}: expected {_LEAST} digits of the hash at least")
    return find_hash(hash_, context.run(_plan(config, path, prune=prune)))


def find_hash(beginning: str, made: Plan) -> tuple[str, str]:
    """Find the one hash of a plan that begins so, and say in words what it stands for.

    Raises: StateError, if there is none; UsageError, if there are several.
    """
    known: Mapping[str, str] = {made.action_hash: "the whole plan"} | {
        hash_: f"the changes of {ve}" for ve, hash_ in made.ve_hashes.items()
    }
    found = [hash_ for hash_ in known if hash_.startswith(beginning)]
    if not found:
        raise StateError(f"approve {beginning}: the present plan has no such hash; see `vectl plan -o json`")
    if len(found) > 1:
        raise UsageError(f"approve {beginning}: {len(found)} hashes of the present plan begin so; give more digits")
    return found[0], known[found[0]]


async def _plan(config: Config, path: str | None, *, prune: bool) -> Plan:
    if path is not None:
        fleet, _ = context.load_fleet(path)
        return await plans.plan_here(context.source_of(path), fleet, config, prune=prune)
    source, in_force = context.last_good(config)
    if in_force is None:
        raise UsageError("approve: expected a path of manifests, as none are in force here")
    return await plans.plan_here(source, in_force, config, prune=True)


async def _wake(config: Config) -> None:
    from reconciler.agent.server import ask

    await ask(config.instance, "reconcile")
