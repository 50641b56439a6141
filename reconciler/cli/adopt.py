"""`adopt`: a manifest for a VE that none names, so that what is there is kept as it is from the next apply on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, export, output, plans
from reconciler.errors import ExitCode, RefusedError, UsageError
from reconciler.model.identity import VeName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.model.action import Plan
    from reconciler.model.facts import Json
    from reconciler.model.fleet import Fleet
    from reconciler.state.config import Config

_FILE_MODE = 0o644


def adopt(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The VE.")],
    to: Annotated[
        str | None, typer.Option("--to", metavar="FILE", help="Where to write it; default: print it.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="DIR", help="The manifests that it joins; default: those that FILE is among.")
    ] = None,
) -> int:
    """Write the manifest of a VE that is here and in no manifest: it says what the VE is now, and whose it is.

    The next apply takes it in without changing it.
    """
    context.need_root()
    config = context.load_config()
    if to is not None and os.path.lexists(to):
        raise UsageError(f"adopt {name}: {to} is there already; name another file")
    directory = _source(config, to, source)
    files = {} if directory is None else context.read_path(directory).files
    fleet = None if directory is None else context.parse_fleet(directory, files, "adopt")
    text = context.run(_manifest(config, name, directory, fleet))
    if to is None or directory is None:
        output.data(text)
        return int(ExitCode.OK)
    joined = {**files, os.path.relpath(to, directory): text.encode()}
    made = context.run(_plan(config, directory, context.parse_fleet(f"{directory} with {to}", joined, "adopt")))
    _write(to, text)
    _tell(name, to, made)
    return int(ExitCode.OK)


def _source(config: Config, to: str | None, given: str | None) -> str | None:
    """Give the directory of the manifests that a VE joins; None for those in force."""
    from reconciler.state.location import DirectoryLocation

    if to is None or given is not None:
        return given
    configured = config.source.path if isinstance(config.source, DirectoryLocation) else None
    where = os.path.dirname(os.path.realpath(to))
    if configured and os.path.commonpath([where, os.path.realpath(configured)]) == os.path.realpath(configured):
        return configured
    return os.path.dirname(to) or os.curdir


async def _manifest(config: Config, name: str, directory: str | None, fleet: Fleet | None) -> str:
    from reconciler.agent.session import NO_FLEET, look_session

    context.need_ground(config)
    source, in_force = context.last_good(config)
    fleet = fleet or in_force or NO_FLEET
    if VeName(name) in fleet.ves:
        raise RefusedError(f"adopt {name}: a manifest names it already; change it there, as by `vectl set {name}`")
    async with look_session(
        config, source=context.source_of(directory) if directory else source, fleet=fleet
    ) as session:
        observed = await session.reconciler.observe()
        ve = export.live(session, observed, name)
        made = export.documents(session, observed, [ve], known=fleet.ves)
    wanted = [document for document in made if not _is_declared(document, fleet)]
    head = f"# {name} as it was on {config.instance.host} when it was adopted; its uid makes it that VE and no other.\n"
    return head + "---\n".join(output.yaml_text(document) for document in wanted)


def _is_declared(document: Mapping[str, Json], fleet: Fleet) -> bool:
    metadata = document["metadata"]
    name = metadata["name"] if isinstance(metadata, dict) else None
    declared: Mapping[str, Mapping[str, object]] = {
        "Network": {str(name): one for name, one in fleet.networks.items()},
        "Template": {str(name): one for name, one in fleet.templates.items()},
    }
    return name in declared.get(str(document["kind"]), {})


async def _plan(config: Config, directory: str, fleet: Fleet) -> Plan:
    return await plans.plan_here(context.source_of(directory), fleet, config, prune=False)


def _write(to: str, text: str) -> None:
    """Write a file that belongs to whom its directory belongs to, as it is theirs to commit."""
    from reconciler.kernel.files import write_whole
    from reconciler.kernel.syscalls import translated

    with translated("write", to):
        info = os.stat(os.path.dirname(to) or os.curdir)
    write_whole(to, text.encode(), mode=_FILE_MODE, owner=(info.st_uid, info.st_gid))


def _tell(name: str, to: str, made: Plan) -> None:
    """Tell what apply would do to the VE all the same, such as what a profile or the host's policy asks for."""
    from reconciler.model.action import Reason

    changes = [action.path for action in made.actions if action.ve == name and action.reason is not Reason.BOOKKEEPING]
    refused = [f"{refusal.rule}: {refusal.message}" for refusal in made.refused if refusal.ve == name]
    output.words(f"{to}: {name} as it is now; the next apply takes it in" + (" and changes it" if changes else ""))
    for line in (*changes, *refused):
        output.words(f"  {line}")
