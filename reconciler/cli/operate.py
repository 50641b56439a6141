"""One-off requests about a VE: power, pauses, protection; each is audited, and none changes a manifest."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from reconciler.cli import context, output, requests
from reconciler.errors import ExitCode, UsageError
from reconciler.model.identity import VeName

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The VE.")]
_Cold = Annotated[bool, typer.Option("--cold", help="Give up the memory of a suspended VE, for good.")]
_All = Annotated[bool, typer.Option("--all", help="All VEs of this host.")]
_MaybeName = Annotated[str | None, typer.Argument(metavar="NAME", help="The VE.")]


def start(name: _Name, cold: _Cold = False) -> int:
    """Start a VE that was stopped by hand or halted itself, or resume one at once that could not be resumed."""
    by = context.who()
    requests.carry_out("start", lambda operations: operations.start(VeName(name), by=by, cold=cold), ve=name, cold=cold)
    output.words(f"{name} is started")
    return int(ExitCode.OK)


def stop(
    name: _Name,
    reason: Annotated[str, typer.Option(help="Why; shown to whoever wonders.", metavar="TEXT")] = "",
    cold: _Cold = False,
) -> int:
    """Stop a VE and pause it, so that it stays down."""
    by = context.who()
    requests.carry_out(
        "stop",
        lambda operations: operations.stop(VeName(name), by=by, reason=reason, cold=cold),
        ve=name,
        reason=reason,
        cold=cold,
    )
    output.words(f"{name} is stopped and paused; `vectl start {name}` ends both")
    return int(ExitCode.OK)


def restart(name: _Name) -> int:
    """Stop a VE and start it again."""
    by = context.who()
    requests.carry_out("restart", lambda operations: operations.restart(VeName(name), by=by), ve=name)
    output.words(f"{name} is restarted")
    return int(ExitCode.OK)


def pause(
    name: _MaybeName = None,
    everything: _All = False,
    reason: Annotated[str, typer.Option(help="Why; shown to whoever wonders.", metavar="TEXT")] = "",
    until: Annotated[
        str | None, typer.Option(help="For how long (30m, 2d) or until when (ISO 8601).", metavar="TIME")
    ] = None,
) -> int:
    """Leave a VE, or all, as they are until `unpause`."""
    ve, by = _one_or_all("pause", name, everything), context.who()
    why, end = reason or "paused by hand", None if until is None else parse_until(until, now=time.time())
    requests.carry_out(
        "pause",
        lambda operations: operations.pause(ve, by=by, reason=why, until=end),
        ve=ve,
        reason=why,
        until=end,
    )
    limit = "" if end is None else f" until {output.moment(end)}"
    output.words(f"{ve or 'everything'} is paused{limit}")
    return int(ExitCode.OK)


def unpause(name: _MaybeName = None, everything: _All = False) -> int:
    """Reconcile a VE, or all, again."""
    ve, by = _one_or_all("unpause", name, everything), context.who()
    requests.carry_out("unpause", lambda operations: operations.unpause(ve, by=by), ve=ve)
    output.words(f"{ve or 'everything'} is reconciled again")
    return int(ExitCode.OK)


def protect(name: _Name) -> int:
    """Refuse the deletion of a VE, also after its manifest is gone."""
    return _set_protection(name, protect=True)


def unprotect(name: _Name) -> int:
    """Allow the deletion of a VE again."""
    return _set_protection(name, protect=False)


def _set_protection(name: str, *, protect: bool) -> int:
    by = context.who()
    requests.carry_out(
        "protect",
        lambda operations: operations.set_protection(VeName(name), protect=protect, by=by),
        ve=name,
        protect=protect,
    )
    output.words(f"{name} is {'protected' if protect else 'no longer protected'}")
    return int(ExitCode.OK)


def forget(name: _Name) -> int:
    """Let go of a VE that no manifest names; it stays as it is."""
    by = context.who()
    requests.carry_out("forget", lambda operations: operations.forget(VeName(name), by=by), ve=name)
    output.words(f"{name} belongs to no source any more")
    return int(ExitCode.OK)


def _one_or_all(verb: str, name: str | None, everything: bool) -> VeName | None:
    if (name is None) != everything:
        raise UsageError(f"{verb}: expected either the name of a VE or --all")
    return None if name is None else VeName(name)


def parse_until(text: str, *, now: float) -> float:
    """Parse a duration from now, or a moment in ISO 8601, in local time unless it says otherwise.

    Units: seconds since the epoch.
    Raises: UsageError, for anything else, and for what is over already.
    """
    from datetime import datetime

    from reconciler.model.units import parse_duration

    try:
        end = now + parse_duration(text)
    except ValueError:
        try:
            end = datetime.fromisoformat(text).timestamp()
        except ValueError as err:
            expected = "a duration such as 30m or 2d, or a time such as 2026-11-24T06:00"
            raise UsageError(f"read --until: expected {expected}, got {text!r}") from err
    if end <= now:
        raise UsageError(f"read --until: {text} is over already")
    return end
