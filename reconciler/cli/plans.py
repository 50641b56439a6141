"""`validate`, `plan` and `diff`: what manifests say, and what they would change; nothing is changed here."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import between, context, output
from reconciler.cli.forms import PlanFormat, ValidateFormat
from reconciler.errors import ExitCode, UsageError
from reconciler.model.collecting import uncollected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.manifests.load import Loaded
    from reconciler.model.action import Plan
    from reconciler.model.fleet import Finding, Fleet
    from reconciler.state.config import Config

PathArgument = Annotated[
    str, typer.Argument(metavar="PATH", help="A directory or file of manifests, or - for standard input.")
]
PruneOption = Annotated[
    bool,
    typer.Option(
        "--prune",
        help="Move VEs that no manifest names any more to the trash, and delete such snapshots with consent.",
    ),
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show bookkeeping too.")]
_Detailed = Annotated[bool, typer.Option("--detailed-exitcode", help="2: there are changes, 3: they need consent.")]
_Start = Annotated[
    str | None, typer.Option("--from", metavar="REVISION", help="Plan the way from this revision; needs no host.")
]
_End = Annotated[str, typer.Option("--to", metavar="REVISION", help="With --from: the way to this one.")]
_Hosts = Annotated[list[str] | None, typer.Option("--host", metavar="NAME", help="With --from: only this host.")]
_OBSERVED = typer.Option("--observed", metavar="FILE", help="Plan against what `vectl observe` printed; needs no host.")
_Observed = Annotated[str | None, _OBSERVED]
_ObservedOfEach = Annotated[list[str] | None, _OBSERVED]


def validate(
    path: PathArgument,
    form: Annotated[ValidateFormat, typer.Option("--output", "-o", help="The format.")] = ValidateFormat.TEXT,
) -> int:
    """Check manifests and tell all mistakes at once.

    Needs neither root nor a host.
    """
    from reconciler.manifests.load import load_fleet
    from reconciler.manifests.report import render_findings

    snapshot = context.read_path(path)
    loaded = load_fleet(snapshot.files, revision=snapshot.revision)
    findings = context.placed(path, (*loaded.findings, *loaded.concerns))
    warnings = context.placed(path, loaded.warnings)
    if form is ValidateFormat.JSON:
        errors, warned = ([finding.to_json() for finding in of] for of in (findings, warnings))
        output.document({"format": 1, "valid": not findings, "errors": [*errors], "warnings": [*warned]})
    elif form is ValidateFormat.GITHUB:
        for finding in findings:
            output.data(_github(finding, "error"))
        for finding in warnings:
            output.data(_github(finding, "warning"))
    else:
        sys.stderr.write(render_findings((*findings, *warnings), color=output.has_color(sys.stderr)))
        _sum_up(loaded)
    return int(ExitCode.ERROR if findings else ExitCode.OK)


def _sum_up(loaded: Loaded) -> None:
    """Say in words whether manifests are valid, and which hosts take nobody."""
    fleet = loaded.fleet
    if fleet is None:
        output.words(f"not valid: {context.counted(len(loaded.findings), 'mistake')}")
        return
    if loaded.concerns:
        output.words("valid, but not all of it finds room")
    else:
        counts = (context.counted(len(fleet.ves), "VE"), context.counted(len(fleet.networks), "network"))
        output.words(f"valid: {', '.join(counts)}")
    for host in sorted(host.name for host in fleet.hosts.values() if host.maintenance):
        there = sum(spec.host == host for spec in fleet.ves.values())
        output.words(f"{host} is under maintenance: it takes no new VE; its manifests name {there}")


def _github(finding: Finding, word: str) -> str:
    """Give an annotation. Source: GitHub Actions, "Workflow commands", Setting an error message, a warning message."""
    place = f"file={finding.place.file},line={finding.place.line},col={finding.place.column}"
    message = f"{finding.path}: {finding.message}" + (f" ({finding.hint})" if finding.hint else "")
    escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{word} {place}::{output.safe(escaped)}"


def plan(  # noqa: PLR0913  # one for each option
    path: PathArgument = "",
    form: Annotated[PlanFormat, typer.Option("--output", "-o", help="The format.")] = PlanFormat.TEXT,
    prune: PruneOption = False,
    detailed: _Detailed = False,
    verbose: VerboseOption = False,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Save the plan, for `vectl apply --plan FILE`.")
    ] = None,
    observed: _ObservedOfEach = None,
    start: _Start = None,
    end: _End = "HEAD",
    hosts: _Hosts = None,
) -> int:
    """Show what `apply` would do, to whom, and for how long.

    With --from: what lies between two revisions of the git repository that PATH is in, the current directory if it is
    left out, on every host of the fleet.
    """
    if start is not None:
        wanted = between.Wanted(path=path or ".", start=start, end=end, hosts=hosts or (), observed=observed or ())
        return _plan_between(wanted, form, detailed=detailed, verbose=verbose)
    if not path or hosts or len(observed or ()) > 1:
        raise UsageError("plan: expected a PATH with one --observed at most, or --from; see `vectl plan --help`")
    fleet, files = context.load_fleet(path)
    made = context.run(_make(path, fleet, prune=prune, observed=observed[0] if observed else None))
    print_plan(made, form, verbose=verbose)
    if out is not None:
        _save(out, path, made, files, prune=prune)
    return plan_exit(made, detailed=detailed)


def _plan_between(wanted: between.Wanted, form: PlanFormat, *, detailed: bool, verbose: bool) -> int:
    from reconciler.plan.comparison import combined

    with uncollected():
        try:
            compared = between.compare(wanted)
        except between.NotValidError as error:
            if form is PlanFormat.MARKDOWN:
                between.show_mistakes(error)
            raise
        between.show(compared, form, verbose=verbose)
        code = plan_exit(combined(compared.comparison), detailed=detailed)
        gc.freeze()  # the process ends: who would look through two fleets now, looks in vain
        return code


def diff(
    path: PathArgument, prune: PruneOption = False, detailed: _Detailed = False, observed: _Observed = None
) -> int:
    """Show field by field what differs from the manifests."""
    from reconciler.plan.render import render_diff

    fleet, _ = context.load_fleet(path)
    made = context.run(_make(path, fleet, prune=prune, observed=observed))
    text = render_diff(made, paint=output.paint)
    if text:
        output.data(text)
    return plan_exit(made, detailed=detailed)


def print_plan(made: Plan, form: PlanFormat, *, verbose: bool) -> None:
    """Print a plan."""
    from reconciler.plan.markdown import render_markdown
    from reconciler.plan.render import plan_to_json, render_text

    match form:
        case PlanFormat.JSON:
            output.document(plan_to_json(made))
        case PlanFormat.MARKDOWN:
            output.data(render_markdown(made))
        case PlanFormat.TEXT:
            output.data(render_text(made, paint=output.paint, verbose=verbose))


def plan_exit(made: Plan, *, detailed: bool) -> int:
    """Give the exit code of a plan. Source: design, section 5; precedence 1 > 4 > 3 > 2 > 0."""
    from reconciler.plan.render import CONSENT_RULES, exit_detail

    changes, consent = exit_detail(made)
    if made.unknown:
        return int(ExitCode.ERROR)
    if any(refusal.rule not in CONSENT_RULES for refusal in made.refused):
        return int(ExitCode.REFUSED)
    if detailed and consent:
        return int(ExitCode.CONSENT)
    return int(ExitCode.CHANGES if detailed and changes else ExitCode.OK)


def _save(out: str, path: str, made: Plan, files: Mapping[str, bytes], *, prune: bool) -> None:
    from reconciler.kernel import files as kernel_files
    from reconciler.plan import saved

    text = saved.encode(made, source=context.source_of(path), prune=prune, files=files)
    kernel_files.write_atomic(out, text)
    output.words(f"saved in {out}; carry it out with `vectl apply --plan {out}`")


async def _make(path: str, fleet: Fleet, *, prune: bool, observed: str | None) -> Plan:
    config = context.load_config()
    if observed is not None:
        return await _make_offline(path, fleet, config, prune=prune, observed=observed)
    return await plan_here(context.source_of(path), fleet, config, prune=prune)


async def _make_offline(path: str, fleet: Fleet, config: Config, *, prune: bool, observed: str) -> Plan:
    from reconciler.agent.unbuilt import plan_offline
    from reconciler.kernel.files import read_bytes_if_exists
    from reconciler.model import exchange

    data = read_bytes_if_exists(observed)
    if data is None:
        raise UsageError(f"read {observed}: no such file")
    host, seen = exchange.decode_observation(data, where=observed)
    exchange.check_host(host, config.instance.host, where=observed)
    return await plan_offline(config, fleet, seen, source=context.source_of(path), prune=prune)


async def plan_here(source: str, fleet: Fleet, config: Config, *, prune: bool) -> Plan:
    """Plan against this host as it is now, without touching it.

    Raises: UsageError, without root; VectlError.
    """
    from reconciler.agent.session import look_session
    from reconciler.agent.unbuilt import plan_unbuilt
    from reconciler.host import ground
    from reconciler.state.coordinator import DryCoordinator

    context.need_root()
    if not ground.has_pool(config.instance):
        return await plan_unbuilt(config, fleet)
    async with look_session(config, source=source, fleet=fleet) as session:
        session.reconciler.prune = prune
        observed = await session.reconciler.observe()
        _, made = await session.reconciler.plan(observed, coordinator=DryCoordinator())
        return made
