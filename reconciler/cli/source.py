"""`source`: where the manifests come from, and what is wrong with it."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import configured, context, output, trusting
from reconciler.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from reconciler.model.facts import Json
    from reconciler.model.probe import Probe
    from reconciler.state.config import Config

app = typer.Typer(no_args_is_help=True, help="Where the manifests come from.", rich_markup_mode=None)
app.command("verify")(trusting.verify)
app.command("accept-rewrite")(trusting.accept_rewrite)

_STYLES = {"OK": "good", "WARN": "warn", "FAIL": "bad"}
_INDENT = " " * 7


class Format(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--output", "-o", help="The format.")]


@app.command()
def check(form: FormatOption = Format.TEXT) -> int:
    """Find out what is wrong with the source, step by step; the first step that fails names its remedy.

    Exits with 1 if the newest manifests cannot be taken. Nothing is changed.
    """
    config = context.load_config()
    context.need_root()
    return context.run(_check(config, form))


async def _check(config: Config, form: Format) -> int:
    from reconciler.agent.clock import SystemClock
    from reconciler.agent.source_check import examine
    from reconciler.model.probe import Level

    found: list[Probe] = []
    async for probe in examine(config, context.revision_in_force(config), clock=SystemClock()):
        found.append(probe)
        if form is Format.TEXT:
            _print(probe)
    failed = any(probe.level is Level.FAIL for probe in found)
    if form is Format.JSON:
        output.document({"format": 1, "ok": not failed, "probes": [probe.to_json() for probe in found]})
    return int(ExitCode.ERROR if failed else ExitCode.OK)


def _print(probe: Probe) -> None:
    mark = output.paint(f"{probe.level.value:4}", _STYLES[probe.level])
    output.data(f"{mark}   {output.one_line(f'{probe.name}: {probe.found}')}")
    if probe.remedy:
        output.data(f"{_INDENT}{output.one_line(probe.remedy)}")


@app.command()
def status(form: FormatOption = Format.TEXT) -> int:
    """Show the source: the revision in force, since when, and what is said of the newest one."""
    config = context.load_config()
    context.need_root()
    told = context.run(_status(config))
    if form is Format.JSON:
        output.document(told)
    else:
        output.columns(_lines(told))
    return int(ExitCode.OK)


async def _status(config: Config) -> dict[str, Json]:
    from reconciler.agent.server import ask
    from reconciler.state import layout
    from reconciler.state.conditions import SOURCE, Conditions
    from reconciler.state.lastgood import LastGood

    location = configured.location_of(config, asked="source status")
    kept = LastGood(config.instance.state_dir).read()
    conditions = Conditions(layout.conditions_dir(config.instance)).read(SOURCE)
    return {
        "format": 1,
        "source": location.name,
        **_where(config),
        "agent": await ask(config.instance, "ping") is not None,
        "revision": "" if kept is None else kept.revision,
        "takenFrom": "" if kept is None else kept.source,
        "takenAt": None if kept is None else kept.at,
        "conditions": [condition.to_json() for condition in conditions],
    }


def _where(config: Config) -> dict[str, Json]:
    """Tell where the source is, in the words of its kind."""
    from reconciler.kernel.git_remote import shown
    from reconciler.state import layout
    from reconciler.state.location import GitLocation

    location = config.source
    if not isinstance(location, GitLocation):
        return {"kind": "directory", "remotes": [], "ref": "", "subdir": "", "mirror": None}
    mirror = layout.mirror_dir(config.instance, location.urls)
    return {
        "kind": "git",
        "remotes": [shown(url) for url in location.urls],
        "ref": location.ref,
        "subdir": location.subdir,
        "mirror": mirror if os.path.isdir(mirror) else None,
    }


def _lines(told: dict[str, Json]) -> Iterator[tuple[str, str]]:
    from reconciler.model.commit import short

    yield "Source:", str(told["source"])
    taken_at = told["takenAt"]
    if isinstance(taken_at, int | float):
        yield "Revision in force:", f"{short(str(told['revision']))} since {output.moment(taken_at)}"
        if told["takenFrom"] != told["source"]:
            yield "", f"taken from {told['takenFrom']}"
    else:
        yield "Revision in force:", "none"
    yield "Agent:", "runs" if told["agent"] else "does not run: nothing is fetched"
    conditions = told["conditions"]
    yield from _condition_lines(conditions if isinstance(conditions, list) else [])


def _condition_lines(conditions: Iterable[Json]) -> Iterator[tuple[str, str]]:
    from reconciler.model.commit import short

    for found in conditions:
        if isinstance(found, dict):
            of = f" {short(str(found['revision']))}" if found["revision"] else ""
            words = f"{found['status']} ({found['reason']}){of} {found['message']}".rstrip()
            yield f"{found['type']}:", output.one_line(words)
