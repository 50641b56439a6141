"""`apply`: plan, ask, carry out, look again; or hand the work to the agent that holds this host."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output, plans
from reconciler.cli.progress import Progress
from reconciler.errors import BusyError, ExitCode, NotConvergedError, RefusedError, UsageError

if TYPE_CHECKING:
    from reconciler.agent.reconciler import Result
    from reconciler.agent.session import Session
    from reconciler.model.action import Plan
    from reconciler.model.condition import Condition
    from reconciler.model.facts import Json
    from reconciler.model.fleet import Fleet
    from reconciler.plan.saved import Saved
    from reconciler.state.config import Config

_ASK_EVERY_S = 0.2


class Format(StrEnum):
    """How to print what was done."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    """The options of the command. Units: seconds."""

    form: Format
    yes: bool
    prune: bool
    timeout_s: float
    max_restarts: int | None
    verbose: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What to apply. ``name``: what the person called it. ``saved``: the plan on paper, if it is one."""

    name: str
    source: str
    fleet: Fleet
    files: Mapping[str, bytes]
    saved: Saved | None = None


def apply(  # noqa: PLR0913  # one for each option
    path: Annotated[
        str | None, typer.Argument(metavar="PATH", help="A directory or file of manifests, or - for standard input.")
    ] = None,
    form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TEXT,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. It is no consent to dangers.")] = False,
    prune: plans.PruneOption = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time in which observed must equal desired.")
    ] = 600.0,
    max_restarts: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="VEs down for a restart at once.")
    ] = None,
    verbose: plans.VerboseOption = False,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="FILE", help="Carry out a plan saved by `vectl plan --out FILE`.")
    ] = None,
) -> int:
    """Make this host what the manifests say: plan, ask, carry out."""
    task = _task(path, plan)
    config = context.load_config()
    context.need_root()
    wishes = _Wishes(
        form=form,
        yes=yes,
        prune=task.saved.prune if task.saved else prune,
        timeout_s=timeout,
        max_restarts=max_restarts,
        verbose=verbose,
    )
    return context.run(_apply(task, config, wishes))


def _task(path: str | None, plan: str | None) -> _Task:
    if (path is None) == (plan is None):
        raise UsageError("apply: expected either a path of manifests or --plan FILE")
    if plan is not None:
        return _saved_task(plan)
    assert path is not None
    fleet, files = context.load_fleet(path)
    return _Task(name=path, source=context.source_of(path), fleet=fleet, files=files)


def _saved_task(file: str) -> _Task:
    from reconciler.kernel.files import read_bytes_if_exists
    from reconciler.plan import saved

    data = read_bytes_if_exists(file)
    if data is None:
        raise UsageError(f"read {file}: no such file")
    found = saved.decode(data, where=file)
    fleet = context.parse_fleet(file, found.files, found.revision)
    return _Task(name=file, source=found.source, fleet=fleet, files=found.files, saved=found)


async def _apply(task: _Task, config: Config, wishes: _Wishes) -> int:
    from reconciler.agent.server import ask
    from reconciler.agent.session import open_session
    from reconciler.state.lock import instance_lock

    if task.saved is not None and task.saved.host != config.instance.host:
        raise RefusedError(f"apply {task.name}: it is a plan for {task.saved.host}, this is {config.instance.host}")
    answer = await ask(config.instance, "ping")
    if answer is not None:
        return await _hand_over(task, config, answer, wishes)
    told = output.words if wishes.form is Format.TEXT else _tell_nobody
    try:
        with instance_lock(config.instance):
            async with open_session(config, source=task.source, fleet=task.fleet, told=told) as session:
                session.reconciler.prune = wishes.prune
                if wishes.max_restarts is not None:
                    session.reconciler.max_restarts = wishes.max_restarts
                return await _apply_here(task, session, wishes)
    except BusyError as error:
        raise RefusedError(str(error)) from error


def _tell_nobody(text: str) -> None:
    del text


async def _apply_here(task: _Task, session: Session, wishes: _Wishes) -> int:
    reconciler = session.reconciler
    inputs, made = await reconciler.plan(await reconciler.observe())
    if task.saved is not None:
        made = _as_saved(made, task.saved)
    if wishes.form is Format.TEXT:
        plans.print_plan(made, plans.PlanFormat.TEXT, verbose=wishes.verbose)
    if _changes_something(made) and not wishes.yes and not output.confirm("Carry this out?", asked="apply"):
        return int(ExitCode.REFUSED)
    _remember(task, session)
    progress = Progress()
    if wishes.form is Format.TEXT:
        reconciler.on_step = progress.step
    deadline = time.monotonic() + wishes.timeout_s
    async with progress.running():
        results = [await reconciler.carry_out(inputs, made)]
        while task.saved is None and not results[-1].converged and time.monotonic() < deadline and _moved(results):
            results.append(await reconciler.pass_all())
    return _conclude(results, session, wishes, is_saved=task.saved is not None)


def _as_saved(made: Plan, found: Saved) -> Plan:
    from reconciler.plan import saved

    return saved.restrict(made, found)


def _changes_something(made: Plan) -> bool:
    from reconciler.plan.render import is_bookkeeping

    return any(not is_bookkeeping(action) for action in made.actions)


def _remember(task: _Task, session: Session) -> None:
    """Keep the manifests as the last good revision, so that `get` knows what is desired."""
    from reconciler.state.lastgood import Kept

    desk, revision = session.desk, session.reconciler.fleet.revision
    if task.source != "stdin":
        desk.last_good.keep(Kept(revision=revision, source=desk.source, files=task.files, at=desk.clock.now()))


def _moved(results: Sequence[Result]) -> bool:
    """Say whether another pass may bring something: something was done, or somebody waits for what was done."""
    return any(outcome.ok and outcome.action.effects for outcome in results[-1].outcomes)


def _conclude(results: Sequence[Result], session: Session, wishes: _Wishes, *, is_saved: bool) -> int:
    from reconciler.plan.render import is_bookkeeping, summary

    outcomes = [outcome for result in results for outcome in result.outcomes]
    last = results[-1]
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    converged = last.converged or (is_saved and not (failed or _left_over(last.plan)))
    if wishes.form is Format.JSON:
        for outcome in outcomes:
            if not is_bookkeeping(outcome.action):
                output.line(outcome.to_json())
        counts = summary(outcome.action for outcome in outcomes if outcome.ok)
        output.line({"summary": {**counts}, "converged": converged, "effects": session.counter.total})
    for outcome in failed:
        output.words(f"vectl: {outcome.action.id}: {outcome.error}")
    for name, why in last.plan.waiting.items():
        output.words(f"vectl: {name}: {why}")
    if failed or last.plan.unknown:
        return int(ExitCode.ERROR)
    if last.plan.refused:
        return int(ExitCode.REFUSED)
    return int(ExitCode.OK if converged else ExitCode.NOT_CONVERGED)


def _left_over(plan: Plan) -> bool:
    return bool(plan.refused or plan.unknown or plan.waiting)


async def _hand_over(task: _Task, config: Config, answer: dict[str, Json], wishes: _Wishes) -> int:
    """Let the running agent do it, if it is its own source that is to be applied."""
    from reconciler.agent.server import ask

    result = answer.get("result")
    assert isinstance(result, dict)
    if task.saved is not None or task.source != result.get("source"):
        source = result.get("source")
        raise RefusedError(
            f"apply {task.name}: the agent of {config.instance.name} holds this host to {source}; stop it first"
        )
    await ask(config.instance, "reconcile")
    stalled = await _await_agent(task, config, wishes.timeout_s)
    for name, condition in stalled.items():
        output.words(f"vectl: {name}: {condition.reason}: {condition.message}")
    if wishes.form is Format.JSON:
        output.line({"summary": {}, "converged": not stalled, "effects": 0, "by": "agent"})
    elif not stalled:
        output.words("applied by the running agent")
    return int(ExitCode.REFUSED if stalled else ExitCode.OK)


async def _await_agent(task: _Task, config: Config, timeout_s: float) -> dict[str, Condition]:
    """Wait until the agent has settled every VE of a revision; give those that a person must look at.

    Raises: NotConvergedError.
    """
    import asyncio

    deadline = time.monotonic() + timeout_s
    while (stalled := _stalled_if_settled(config, task.fleet)) is None:
        if time.monotonic() > deadline:
            raise NotConvergedError(f"apply {task.name}: not converged within {timeout_s:g} s; see `vectl get`")
        await asyncio.sleep(_ASK_EVERY_S)
    return stalled


def _stalled_if_settled(config: Config, fleet: Fleet) -> dict[str, Condition] | None:
    from reconciler.model.condition import ConditionType, Status
    from reconciler.plan.planner import is_here
    from reconciler.state import layout
    from reconciler.state.conditions import Conditions

    stored, stalled = Conditions(layout.conditions_dir(config.instance)).read_all(), {}
    for name, spec in fleet.ves.items():
        if not is_here(spec, config.instance.host):
            continue
        by_type = {c.type: c for c in stored.get(name, ()) if c.revision == fleet.revision}
        ready = by_type.get(ConditionType.READY)
        if ConditionType.STALLED in by_type:
            stalled[str(name)] = by_type[ConditionType.STALLED]
        elif ready is None or ready.status is Status.FALSE:
            return None
    return stalled
