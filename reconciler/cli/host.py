"""`host`: this host among the others of the fleet."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ConfigError, ExitCode, PeerError, StateError

if TYPE_CHECKING:
    from reconciler.agent.peering import Peering
    from reconciler.fleet.host_key import HostKey
    from reconciler.model.facts import Json
    from reconciler.model.identity import HostName
    from reconciler.state.config import Config

app = typer.Typer(no_args_is_help=True, help="This host among the others of the fleet.", rich_markup_mode=None)


class Format(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


@app.command()
def key(
    rotate: Annotated[bool, typer.Option("--rotate", help="Make the key that is to follow, and print that.")] = False,
    form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TEXT,
) -> int:
    """Print the line that this host's manifest pins as `publicKey`; the key is made if there is none."""
    from reconciler.fleet import host_key

    context.need_root()
    config = context.load_config()
    path = config.transport.key_file(config.instance)
    present = host_key.make_key(path)
    following = host_key.make_key(host_key.next_path(path)) if rotate else host_key.read_key(host_key.next_path(path))
    shown = following if rotate and following is not None else present
    match form:
        case Format.TEXT:
            output.data(f"{shown.public} {config.instance.host}")
        case Format.JSON:
            following_line = following.public if following is not None else None
            output.document(
                {"format": 1, "host": config.instance.host, "publicKey": present.public, "next": following_line}
            )
    output.words(_advice(config, present, following))
    return int(ExitCode.OK)


def _advice(config: Config, present: HostKey, following: HostKey | None) -> str:
    """Say what is to be written where."""
    host = config.instance.host
    if following is None:
        return f"pin it as spec.publicKey of Host {host}: other hosts believe no other key of this one"
    return (
        f"the present key stays in use until the revision in force has the next one as spec.publicKey of Host {host}: "
        f"replace {present.public.split()[1][-12:]} by {following.public.split()[1][-12:]} there, and merge it while "
        "no VE is on its way; the agent then takes it up, and hosts that have the older revision refuse this one "
        "until they take the newer"
    )


@app.command("accept-coordinator")
def accept_coordinator(
    take: Annotated[
        list[str] | None,
        typer.Option(metavar="VE", help="A VE that is here and that the coordinator has as another host's: own it."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Believe a coordinator that was restored from a backup, or is another cluster, after showing what it says."""
    context.need_root()
    return context.run(_accept(context.load_config(), take or [], yes=yes))


async def _accept(config: Config, take: list[str], *, yes: bool) -> int:
    from reconciler.agent import accepting
    from reconciler.agent.known_store import KnownStore

    async with context.looking(config) as session:
        membership = session.reconciler.membership
        if membership is None:
            raise ConfigError("accept a coordinator: expected `coordinator: {etcd: ...}` in the configuration")
        await session.reconciler.look()
        seen = await accepting.look(membership, session.desk.clock)
        found = list(seen.differences(session.reconciler.records))
        output.data(f"cluster {seen.known.cluster}, revision {seen.known.revision}: {len(seen.standing.owners)} VEs")
        for difference in found:
            output.data(f"{difference.name}: {output.one_line(difference.words)}")
        question = "Is no VE of this host running on another one, and is the coordinator to be believed?"
        if not yes and not output.confirm(question, asked="host accept-coordinator"):
            return int(ExitCode.CONSENT)
        await seen.take(take, found)
        accepting.accept(seen, KnownStore(config.instance.state_dir))
        session.desk.tell("host", "CoordinatorAccepted", f"cluster {seen.known.cluster}, by a person")
    return int(ExitCode.OK)


@app.command("list")
def list_hosts(
    form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TEXT,
) -> int:
    """List the hosts of the fleet: who is alive, who is in maintenance, and what they said last."""
    from reconciler.cli import fleet

    context.need_root()
    config = context.load_config()
    known = context.last_good(config)[1]
    declared: dict[HostName, fleet.Item] = {
        name: {"maintenance": host.maintenance, "address": host.address}
        for name, host in (known.hosts if known is not None else {}).items()
    }
    found = fleet.hosts(config.instance.host, context.run(fleet.read(config)), declared)
    match form:
        case Format.JSON:
            output.document({"format": 1, "items": [*found]})
        case Format.TEXT:
            header = ("NAME", "STATE", "MAINTENANCE", "VES", "RUNNING", "VERSION", "REVISION", "ADDRESS", "SEEN")
            output.table(header, [[output.one_line(cell) for cell in _host_cells(one)] for one in found])
    return int(ExitCode.OK)


def _host_cells(one: dict[str, Json]) -> list[str]:
    from reconciler.cli import fleet
    from reconciler.model.commit import short

    alive, age, maintenance = bool(one["alive"]), one["seenSecondsAgo"], one["maintenance"]
    state = "alive" if alive else ("silent" if age is not None else "never seen")
    state = state if one["declared"] else f"{state}, no manifest"
    told = ["-" if one[key] is None else str(one[key]) for key in ("ves", "running", "version")]
    revision = short(str(one["revision"])) if one["revision"] else "-"
    in_maintenance = "-" if maintenance is None else ("yes" if maintenance else "no")
    seen = fleet.age_text(age, alive=True)
    return [str(one["name"]), state, in_maintenance, *told, revision, str(one["address"] or "-"), seen]


@app.command()
def ping(
    names: Annotated[list[str] | None, typer.Argument(metavar="[HOST]...", help="Hosts; all, if left out.")] = None,
    form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TEXT,
) -> int:
    """Ask the agents of other hosts who they are: shows that addresses and keys in the manifests are right."""
    context.need_root()
    config = context.load_config()
    items = context.run(_ping(config, names or []))
    match form:
        case Format.JSON:
            output.document({"format": 1, "items": [*items]})
        case Format.TEXT:
            output.table(("HOST", "VERSION", "MS", "PROBLEM"), [_line(item) for item in items])
    return int(ExitCode.OK if all(item["problem"] is None for item in items) else ExitCode.ERROR)


async def _ping(config: Config, names: list[str]) -> list[dict[str, Json]]:
    """Ask hosts of the last good revision.

    Raises: StateError, if there is none yet.
    """
    import asyncio

    from reconciler.agent.peering import Peering
    from reconciler.model.identity import HostName

    _, fleet = context.last_good(config)
    if fleet is None:
        raise StateError("ask the other hosts: expected a revision in force; `vectl apply` or the agent takes one")
    others = [HostName(name) for name in names] or sorted(set(fleet.hosts) - {config.instance.host})
    peering = Peering(config, lambda: fleet)
    try:
        return list(await asyncio.gather(*(_hello(peering, host) for host in others)))
    finally:
        await peering.peers.close()


async def _hello(peering: Peering, host: HostName) -> dict[str, Json]:
    began = time.perf_counter()
    try:
        answer = await peering.peers.ask(host, {"ask": "hello"})
    except PeerError as error:
        return {"host": host, "version": None, "ms": None, "problem": str(error)}
    took = round((time.perf_counter() - began) * 1e3, 1)
    return {"host": host, "version": answer.get("version"), "ms": took, "problem": None}


def _line(item: dict[str, Json]) -> tuple[str, ...]:
    return tuple("-" if item[name] is None else str(item[name]) for name in ("host", "version", "ms", "problem"))
