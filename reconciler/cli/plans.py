"""`validate`, `plan`, `diff` and `apply`."""

from __future__ import annotations

import asyncio
import sys
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import BusyError, ExitCode, NotConvergedError, RefusedError, UsageError

if TYPE_CHECKING:
    from reconciler.agent.reconciler import Result
    from reconciler.agent.session import Session
    from reconciler.model.action import Action, Plan
    from reconciler.model.facts import Json
    from reconciler.model.fleet import Fleet
    from reconciler.state.config import Config

_Path = Annotated[str, typer.Argument(help="A directory or file of manifests, or - for standard input.")]
_Prune = Annotated[bool, typer.Option("--prune", help="Move VEs that no manifest names any more to the trash.")]
_Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show bookkeeping too.")]
_Detailed = Annotated[bool, typer.Option("--detailed-exitcode", help="2: there are changes, 3: they need consent.")]


class Format(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


_Output = Annotated[Format, typer.Option("--output", "-o", help="The format.")]


def validate(path: _Path, form: _Output = Format.TEXT) -> int:
    """Check manifests, all errors of all files at once; needs neither root nor a host."""
    from reconciler.manifests.load import load_fleet
    from reconciler.manifests.report import render_findings

    snapshot = context.read_path(path)
    loaded = load_fleet(snapshot.files, revision=snapshot.revision)
    findings = loaded.findings
    if form is Format.JSON:
        errors = [finding.to_json() for finding in findings]
        output.document({"format": 1, "valid": not findings, "errors": [*errors]})
    elif form is Format.GITHUB:
        for finding in findings:
            place = f"file={finding.place.file},line={finding.place.line},col={finding.place.column}"
            output.data(f"::error {place}::{finding.path}: {finding.message} {finding.hint}".rstrip())
    elif findings:
        sys.stderr.write(render_findings(findings, color=output.has_color(sys.stderr)))
    if loaded.fleet is not None and form is Format.TEXT:
        output.words(f"valid: {len(loaded.fleet.ves)} VEs, {len(loaded.fleet.networks)} networks")
    return int(ExitCode.ERROR if findings else ExitCode.OK)


def plan(
    path: _Path,
    form: _Output = Format.TEXT,
    prune: _Prune = False,
    detailed: _Detailed = False,
    verbose: _Verbose = False,
) -> int:
    """Show what `apply` would do, to whom, for how long; change nothing."""
    made = asyncio.run(_plan_only(path, prune=prune))
    _print_plan(made, form, verbose=verbose)
    return _plan_exit(made, detailed=detailed)


def _print_plan(made: Plan, form: Format, *, verbose: bool) -> None:
    from reconciler.plan.render import plan_to_json, render_text

    if form is Format.JSON:
        output.document(plan_to_json(made))
    else:
        output.data(render_text(made, paint=output.paint, verbose=verbose))


def _plan_exit(made: Plan, *, detailed: bool) -> int:
    """Source: design, section 5; precedence 1 > 4 > 3 > 2 > 0."""
    from reconciler.plan.render import exit_detail

    changes, consent = exit_detail(made)
    if made.unknown:
        return int(ExitCode.ERROR)
    if any(refusal.rule not in ("NeedsConsent", "MassRemoval") for refusal in made.refused):
        return int(ExitCode.REFUSED)
    if detailed and consent:
        return int(ExitCode.CONSENT)
    return int(ExitCode.CHANGES if detailed and changes else ExitCode.OK)


async def _plan_only(path: str, *, prune: bool) -> Plan:
    from reconciler.agent.session import look_session
    from reconciler.agent.unbuilt import plan_unbuilt
    from reconciler.host import ground
    from reconciler.state.coordinator import DryCoordinator

    fleet, config = context.load_fleet(path), context.load_config()
    context.need_root()
    if not ground.has_pool(config.instance):
        return await plan_unbuilt(config.instance, fleet)
    async with look_session(config, source=context.source_of(path), fleet=fleet) as session:
        session.reconciler.prune = prune
        observed = await session.reconciler.observe()
        _, made = await session.reconciler.plan(observed, coordinator=DryCoordinator())
        return made


def apply(
    path: _Path,
    form: _Output = Format.TEXT,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. It is no consent to dangers.")] = False,
    prune: _Prune = False,
    timeout: Annotated[float, typer.Option(help="Seconds until observed must equal desired.")] = 600.0,
    max_restarts: Annotated[int | None, typer.Option(help="VEs that may be down for a restart at once.")] = None,
    verbose: _Verbose = False,
) -> int:
    """Make the host what the manifests say: plan, ask, apply, look again."""
    fleet, config = context.load_fleet(path), context.load_config()
    context.need_root()
    return asyncio.run(_apply(path, fleet, config, _Wishes(form, yes, prune, timeout, max_restarts, verbose)))


class _Wishes:
    def __init__(  # one for each option of the command
        self, form: Format, yes: bool, prune: bool, timeout_s: float, max_restarts: int | None, verbose: bool
    ) -> None:
        self.form, self.yes, self.prune, self.timeout_s = form, yes, prune, timeout_s
        self.max_restarts, self.verbose = max_restarts, verbose


async def _apply(path: str, fleet: Fleet, config: Config, wishes: _Wishes) -> int:
    from reconciler.agent.server import ask
    from reconciler.agent.session import open_session
    from reconciler.state.lock import instance_lock

    answer = await ask(config.instance, "ping")
    if answer is not None:
        return await _hand_over(path, config, answer, wishes)
    try:
        lock = instance_lock(config.instance)
        with lock:
            async with open_session(config, source=context.source_of(path), fleet=fleet, told=output.words) as session:
                session.reconciler.prune = wishes.prune
                if wishes.max_restarts is not None:
                    session.reconciler.max_restarts = wishes.max_restarts
                return await _apply_here(path, session, wishes)
    except BusyError as error:
        raise RefusedError(str(error)) from error


async def _apply_here(path: str, session: Session, wishes: _Wishes) -> int:
    reconciler = session.reconciler
    inputs, made = await reconciler.plan(await reconciler.observe())
    if wishes.form is Format.TEXT:
        _print_plan(made, wishes.form, verbose=wishes.verbose)
    if made.actions and not wishes.yes and not _asked():
        return int(ExitCode.REFUSED)
    _remember(path, session)
    progress = _Progress(wishes.form)
    reconciler.on_step = progress.step
    deadline = time.monotonic() + wishes.timeout_s
    results = [await reconciler.carry_out(inputs, made)]
    while not results[-1].converged and time.monotonic() < deadline and _moved(results):
        results.append(await reconciler.pass_all())
    return _conclude(results, session, wishes)


def _asked() -> bool:
    if not output.is_interactive():
        raise UsageError("apply: expected --yes, as there is no terminal to ask on")
    return output.confirm("Carry this out?")


def _remember(path: str, session: Session) -> None:
    """Keep the manifests as the last good revision, so that `get` knows what is desired."""
    from reconciler.state.lastgood import Kept

    desk = session.desk
    if path != "-":
        files = context.read_path(path).files
        revision = session.reconciler.fleet.revision
        desk.last_good.keep(Kept(revision=revision, source=desk.source, files=files, at=desk.clock.now()))


def _moved(results: list[Result]) -> bool:
    """Say whether another pass may bring something: something was done, or somebody waits for what was done."""
    last = results[-1]
    return any(outcome.ok and outcome.action.effects for outcome in last.outcomes)


class _Progress:
    """Tells each step with the time since the beginning: on one line of a terminal, else line by line."""

    def __init__(self, form: Format) -> None:
        self._started = time.monotonic()
        self._quiet = form is not Format.TEXT

    def step(self, action: Action, step: str) -> None:
        """Tell that a step of an action begins or ended."""
        if self._quiet or action.path == "record":
            return
        elapsed = time.monotonic() - self._started
        if sys.stderr.isatty():
            end = "\n" if step in ("done", "failed") else ""
            sys.stderr.write(f"\r\x1b[K{elapsed:7.2f} s  {output.safe(action.id)}: {step}{end}")
            sys.stderr.flush()
        elif step in ("done", "failed"):
            output.words(f"{elapsed:7.2f} s  {action.id}: {step}")


def _conclude(results: list[Result], session: Session, wishes: _Wishes) -> int:
    from reconciler.plan.render import is_bookkeeping, summary

    outcomes = [outcome for result in results for outcome in result.outcomes]
    last = results[-1]
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    converged = last.converged or not (last.plan.refused or last.plan.unknown or last.plan.waiting or failed)
    if wishes.form is Format.JSON:
        for outcome in outcomes:
            if not is_bookkeeping(outcome.action):
                output.line(outcome.to_json())
        counts = summary(outcome.action for outcome in outcomes if outcome.ok)
        output.line({"summary": {**counts}, "converged": converged, "effects": session.counter.total})
    for outcome in failed:
        output.words(f"vectl: {outcome.action.id}: {outcome.error}")
    if failed or last.plan.unknown:
        return int(ExitCode.ERROR)
    if last.plan.refused:
        return int(ExitCode.REFUSED)
    return int(ExitCode.OK if converged else ExitCode.NOT_CONVERGED)


async def _hand_over(path: str, config: Config, answer: dict[str, Json], wishes: _Wishes) -> int:
    """Let the running agent do it, if it is its own source that is to be applied."""
    from reconciler.agent.server import ask

    result = answer.get("result")
    assert isinstance(result, dict)
    if context.source_of(path) != result.get("source"):
        raise RefusedError(
            f"apply {path}: the agent of {config.instance.name} holds the host to {result.get('source')}; stop it first"
        )
    await ask(config.instance, "reconcile")
    fleet = context.load_fleet(path)
    deadline = time.monotonic() + wishes.timeout_s
    while not _all_ready(config, fleet):
        if time.monotonic() > deadline:
            raise NotConvergedError(f"apply {path}: not converged within {wishes.timeout_s:g} s; see `vectl get`")
        await asyncio.sleep(0.2)
    if wishes.form is Format.JSON:
        output.line({"summary": {}, "converged": True, "effects": None, "by": "agent"})
    else:
        output.words("applied by the running agent")
    return int(ExitCode.OK)


def _all_ready(config: Config, fleet: Fleet) -> bool:
    from reconciler.model.condition import ConditionType, Status
    from reconciler.state import layout
    from reconciler.state.conditions import Conditions

    stored = Conditions(layout.conditions_dir(config.instance)).read_all()
    for name in fleet.ves:
        ready = [c for c in stored.get(name, ()) if c.type is ConditionType.READY and c.revision == fleet.revision]
        if not ready or ready[0].status is Status.FALSE:
            return False
    return True
