"""`confirm`: a person's word that the host can still be reached."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode, StateError, UsageError

if TYPE_CHECKING:
    from reconciler.state.config import Config

_LEAST = 6


def confirm(
    hash_: Annotated[
        str, typer.Argument(metavar="HASH", help="Hash of the plan, or of a network's part of it, or its beginning.")
    ],
) -> int:
    """Keep a change that could have cut off this host, and that is taken back otherwise.

    It works while no agent runs, too.
    """
    from reconciler.agent.clock import SystemClock
    from reconciler.agent.recording import recorded
    from reconciler.model.host_risk import Verdict
    from reconciler.state.host_risks import HostRisks

    context.need_root()
    config = context.load_config()
    if len(hash_) < _LEAST:
        raise UsageError(f"confirm {hash_}: expected {_LEAST} digits of the hash at least")
    risks = HostRisks(config.instance.state_dir)
    change = risks.find(hash_).change
    state_dir, who, what = config.instance.state_dir, context.who(), ", ".join(sorted(change.hashes))
    with recorded(state_dir, SystemClock(), "confirm", by=who, ve=what, detail=change.whole):
        ruling = risks.rule(change.id, Verdict.CONFIRMED, by=who, at=time.time())
        if ruling.verdict is not Verdict.CONFIRMED:
            raise StateError(f"confirm {hash_}: it is too late, the change is being taken back: {ruling.by}")
    output.words(f"confirmed: {what} stays as it is")
    context.run(_wake(config))
    return int(ExitCode.OK)


async def _wake(config: Config) -> None:
    from reconciler.agent.server import ask

    await ask(config.instance, "reconcile")
