"""`place`: hosts for VEs, by what there is room for, written into their manifests; nothing is moved here."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output, setting
from reconciler.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from reconciler.model.fleet import Fleet
    from reconciler.model.identity import HostName
    from reconciler.plan.placing import Filling, Proposal, Unplaced
    from reconciler.plan.seating import Site

_NONE = "-"


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What was asked for. ``path``: of the manifests, with their ``files``."""

    path: str
    files: Mapping[str, bytes]
    fleet: Fleet
    drained: Sequence[str]
    ves: Sequence[str]
    levels: bool
    observed: Sequence[str]


def place(  # noqa: PLR0913  # one for each option
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH] [VE]...", help="The manifests, if not those of --source; only these VEs."),
    ] = None,
    drain: Annotated[
        list[str] | None, typer.Option("--drain", metavar="HOST", help="Find other hosts for all VEs of this one.")
    ] = None,
    rebalance: Annotated[bool, typer.Option("--rebalance", help="Even out how full hosts are, too.")] = False,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="DIR", help="The manifests; default: the configured ones, or here."),
    ] = None,
    observed: Annotated[
        list[str] | None,
        typer.Option("--observed", metavar="FILE", help="What `vectl observe` printed on a host, for its true size."),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the hosts into the manifests.")] = False,
    commit: Annotated[bool, typer.Option("--commit", help="Write them, and commit that to git.")] = False,
    branch: Annotated[str | None, typer.Option(metavar="NAME", help="Commit it on a new branch.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", metavar="TEXT", help="Of the commit.")] = None,
    form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TABLE,
) -> int:
    """Propose hosts for VEs that have none, whose host is to be drained, or that are better off elsewhere.

    Nothing moves: the hosts are written into the manifests, and the VEs move once those are in force.
    """
    question = _question(names or [], source, drain or [], levels=rebalance, observed=observed or [])
    proposal = _propose(question)
    if form is Format.JSON:
        output.document(proposal.to_json())
    else:
        _print(proposal)
    for note in proposal.notes:
        output.words(f"vectl: {note}")
    if proposal.seats and (write or commit or branch is not None):
        _write(question, proposal, message or _subject(question, proposal), commit=commit, branch=branch)
    return int(ExitCode.REFUSED if proposal.unplaced else ExitCode.OK)


def _question(
    names: Sequence[str], source: str | None, drain: Sequence[str], *, levels: bool, observed: Sequence[str]
) -> _Question:
    from reconciler.manifests.load import load_fleet

    if source is None and names and (names[0] in ("-", os.curdir) or os.sep in names[0] or os.path.exists(names[0])):
        source, names = names[0], names[1:]
    path = setting.source_of(source, verb="place") if source != "-" else "-"
    snapshot = context.read_path(path)
    loaded = load_fleet(snapshot.files, revision=snapshot.revision, lacks_hosts=True)
    if loaded.fleet is None:
        raise context.MistakesError(path, context.placed(path, loaded.findings))
    _expect_known("host", drain, loaded.fleet.hosts)
    _expect_known("VE", names, loaded.fleet.ves)
    return _Question(
        path=path,
        files=snapshot.files,
        fleet=loaded.fleet,
        drained=drain,
        ves=names,
        levels=levels,
        observed=observed,
    )


def _expect_known(what: str, names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"place: no manifest declares {what} {name}")


def _propose(question: _Question) -> Proposal:
    from reconciler.model.identity import HostName, VeName
    from reconciler.plan.placing import Wish, propose

    if len(question.fleet.hosts) < 2:
        raise UsageError("place: expected manifests that declare several hosts, with `kind: Host`")
    wish = Wish(
        fleet=question.fleet,
        drained=frozenset(map(HostName, question.drained)),
        only=frozenset(map(VeName, question.ves)),
        levels=question.levels,
        sites=dict(map(_site, question.observed)),
    )
    return propose(wish)


def _site(file: str) -> tuple[HostName, Site]:
    """Give what a host told of itself."""
    from reconciler.kernel.files import read_bytes_if_exists
    from reconciler.model import exchange
    from reconciler.model.capacity import machine_of
    from reconciler.model.identity import HostName
    from reconciler.plan.seating import Site

    data = read_bytes_if_exists(file)
    if data is None:
        raise UsageError(f"read {file}: no such file")
    host, seen = exchange.decode_observation(data, where=file)
    return HostName(host), Site(machine=machine_of(seen))


def _print(proposal: Proposal) -> None:
    if proposal.seats:
        lines = [[one.ve, one.before or _NONE, one.after, str(one.wave), one.reason] for one in proposal.seats]
        output.table(("VE", "FROM", "TO", "WAVE", "BECAUSE"), lines)
        output.data("")
        output.table(("HOST", "VES", "THEN", "FULL", "THEN", "CLOSED"), list(map(_filling, proposal.hosts)))
    elif not proposal.unplaced:
        output.words("every VE has its host, and no move would help" if proposal.hosts else "there are no hosts")
    for one in proposal.unplaced:
        for line in _why_not(one):
            output.words(line)


def _filling(one: Filling) -> list[str]:
    full = (_NONE, _NONE) if one.full is None else (f"{one.full[0]:.0%}", f"{one.full[1]:.0%}")
    return [one.host, str(one.ves[0]), str(one.ves[1]), *full, one.closed or _NONE]


def _why_not(one: Unplaced) -> Iterator[str]:
    where = f"stays on {one.host}" if one.host else "gets no host"
    yield f"{one.ve} {where}: {one.reason}" if one.reason else f"{one.ve} {where}:"
    yield from (f"  {host}: {reason}" for host, reason in one.hosts.items())


def _subject(question: _Question, proposal: Proposal) -> str:
    moves = proposal.seats
    if len(moves) == 1:
        return f"{moves[0].ve}: host={moves[0].after}"
    if question.drained:
        return f"place {len(moves)} VEs, to drain {', '.join(question.drained)}"[:72]
    return f"place {len(moves)} VEs"


def _write(question: _Question, proposal: Proposal, message: str, *, commit: bool, branch: str | None) -> None:
    from reconciler.manifests import edit

    if question.path == "-":
        raise UsageError("place: expected a directory or file of manifests, as the hosts are written there")
    edited = edit.give_hosts(question.files, {seat.ve: seat.after for seat in proposal.seats})
    after = {**question.files, **{one.file: one.after for one in edited}}
    setting.check(question.path, after, lacks_hosts=any(one.host is None for one in proposal.unplaced))
    setting.write_all(question.path, edited, message, commit=commit, branch=branch)
