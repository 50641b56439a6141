"""`apply`: plan, ask, carry out, look again; or hand the work to the agent that holds this host."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import configured, context, handover, output, plans
from reconciler.cli.forms import PlanFormat
from reconciler.cli.progress import Progress
from reconciler.errors import BusyError, ExitCode, RefusedError, UsageError

if TYPE_CHECKING:
    from reconciler.agent.pulling import Puller
    from reconciler.agent.reconciler import Result
    from reconciler.agent.session import Session
    from reconciler.model.action import Plan
    from reconciler.model.facts import Json
    from reconciler.model.fleet import Fleet
    from reconciler.plan.saved import Saved
    from reconciler.state.config import Config

_DONE_WORDS = {
    "create": "created",
    "update": "changed",
    "restart": "restarted",
    "recreate": "made anew",
    "destroy": "removed",
    "restore": "restored",
    "drift": "put right",
}


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
    """What to apply. ``name``: what the person called it. ``saved``: the plan on paper, if it is one.

    ``puller``: who pulled it from a repository, if somebody did.
    """

    name: str
    source: str
    fleet: Fleet
    files: Mapping[str, bytes]
    saved: Saved | None = None
    puller: Puller | None = None


def apply(  # noqa: PLR0913  # one for each option
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="[PATH]",
            help="A directory or file of manifests, or - for standard input; the configured source, if left out.",
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TEXT,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. It is no consent to dangers.")] = False,
    prune: plans.PruneOption = False,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="Time in which observed must equal desired.")
    ] = "10m",
    max_restarts: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="VEs down for a restart at once.")
    ] = None,
    verbose: plans.VerboseOption = False,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="FILE", help="Carry out a plan saved by `vectl plan --out FILE`.")
    ] = None,
) -> int:
    """Make this host what the manifests say: plan, ask, carry out."""
    config = context.load_config()
    context.need_root()
    task = _task(path, plan, config)
    wishes = _Wishes(
        form=form,
        yes=yes,
        prune=task.saved.prune if task.saved else prune,
        timeout_s=context.parse_timeout(timeout),
        max_restarts=max_restarts,
        verbose=verbose,
    )
    return context.run(_apply(task, config, wishes))


def _task(path: str | None, plan: str | None, config: Config) -> _Task:
    if path is not None and plan is not None:
        raise UsageError("apply: expected either a path of manifests or --plan FILE")
    if plan is not None:
        return _saved_task(plan)
    if path is None:
        return _configured_task(config)
    fleet, files = context.load_fleet(path)
    return _Task(name=path, source=context.source_of(path), fleet=fleet, files=files)


def _configured_task(config: Config) -> _Task:
    from reconciler.state.location import DirectoryLocation

    location = configured.location_of(config, asked="apply")
    if isinstance(location, DirectoryLocation):
        return _task(location.path, None, config)
    kept, puller = context.run(configured.take(config, location))
    fleet = context.parse_fleet(location.name, kept.files, kept.revision)
    return _Task(name=location.name, source=location.name, fleet=fleet, files=kept.files, puller=puller)


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
    agreed = await _agree_before_anything(task, config, wishes)
    if agreed is None:
        return int(ExitCode.REFUSED)
    told = output.words if wishes.form is Format.TEXT else _tell_nobody
    try:
        with instance_lock(config.instance):
            async with open_session(config, source=task.source, fleet=task.fleet, told=told) as session:
                session.reconciler.prune = wishes.prune
                session.site.told = session.site.progress = told
                if wishes.max_restarts is not None:
                    session.reconciler.max_restarts = wishes.max_restarts
                return await _apply_here(task, session, wishes, agreed=agreed)
    except BusyError as error:
        raise RefusedError(str(error)) from error


def _tell_nobody(text: str) -> None:
    del text


async def _agree_before_anything(task: _Task, config: Config, wishes: _Wishes) -> str | None:
    """Ask before even the ground is prepared, where nothing was ever made; None is no.

    Shape: the hash of the plan that was agreed to, empty where it is asked later.
    """
    from reconciler.agent.unbuilt import plan_unbuilt
    from reconciler.host import ground

    if ground.has_pool(config.instance):
        return ""
    made = _restricted(await plan_unbuilt(config, task.fleet), task)
    return made.action_hash if _is_agreed(made, wishes) else None


def _is_agreed(made: Plan, wishes: _Wishes) -> bool:
    """Print a plan, and ask unless nobody wants to be asked.

    Raises: UsageError, if there is nobody to ask.
    """
    if wishes.form is Format.TEXT:
        plans.print_plan(made, PlanFormat.TEXT, verbose=wishes.verbose)
    return not _changes_something(made) or wishes.yes or output.confirm("Carry this out?", asked="apply")


async def _apply_here(task: _Task, session: Session, wishes: _Wishes, *, agreed: str) -> int:
    reconciler = session.reconciler
    inputs, made = await reconciler.plan(await reconciler.observe())
    made = _restricted(made, task)
    if made.action_hash != agreed and not _is_agreed(made, wishes):
        return int(ExitCode.REFUSED)
    _remember(task, session)
    progress = Progress()
    if wishes.form is Format.TEXT:
        reconciler.on_step = progress.step
    started = time.monotonic()
    deadline = started + wishes.timeout_s
    async with progress.running():
        results = [await reconciler.carry_out(inputs, made)]
        while task.saved is None and not results[-1].converged and time.monotonic() < deadline and _moved(results):
            results.append(await reconciler.pass_all())
    if wishes.form is Format.TEXT:
        _tell_done(results, time.monotonic() - started)
    return _conclude(results, session, wishes, is_saved=task.saved is not None)


def _tell_done(results: Sequence[Result], elapsed_s: float) -> None:
    """Sum up what was done, where anything was."""
    from reconciler.plan.render import summary

    counts = summary(o.action for result in results for o in result.outcomes if o.ok)
    done = [f"{count} {_DONE_WORDS[key]}" for key, count in counts.items() if count]
    if done:
        left = "observed equals desired" if results[-1].converged else "observed is not as desired yet"
        output.words(f"{', '.join(done)} in {elapsed_s:.1f} s; {left}")


def _restricted(made: Plan, task: _Task) -> Plan:
    from reconciler.plan import saved

    return made if task.saved is None else saved.restrict(made, task.saved)


def _changes_something(made: Plan) -> bool:
    from reconciler.plan.render import is_bookkeeping

    return any(not is_bookkeeping(action) for action in made.actions)


def _remember(task: _Task, session: Session) -> None:
    """Keep the manifests as the last good revision, so that `get` knows what is desired."""
    from reconciler.state.audit import Behalf
    from reconciler.state.lastgood import Kept

    desk, revision = session.desk, session.reconciler.fleet.revision
    desk.recorder.take(revision, Behalf(who=context.who()))
    if task.source != "stdin":
        desk.last_good.keep(Kept(revision=revision, source=desk.source, files=task.files, at=desk.clock.now()))
    if task.puller is not None:
        task.puller.accept(revision)


def _moved(results: Sequence[Result]) -> bool:
    """Say whether another pass may bring something: something was done, or somebody waits for what was done."""
    return any(outcome.ok and outcome.action.effects for outcome in results[-1].outcomes)


def _conclude(results: Sequence[Result], session: Session, wishes: _Wishes, *, is_saved: bool) -> int:
    from reconciler.agent.hostrisk import state_of
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
    for name, why in {**last.plan.waiting, **state_of(session.desk).pending}.items():
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
    found = await handover.await_agent(task.name, config.instance, task.fleet, wishes.timeout_s)
    if wishes.form is Format.JSON:
        output.line({"summary": {}, "converged": found.exit_code is ExitCode.OK, "effects": 0, "by": "agent"})
    elif found.exit_code is ExitCode.OK:
        output.words("applied by the running agent")
    return int(found.exit_code)
