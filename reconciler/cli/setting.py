"""`set`: a field of a VE, written into its manifest; the kernel is not touched."""

from __future__ import annotations

import difflib
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reconciler.manifests.edit import Change, Edited

_SUBJECT_MAX = 72

_Assignments = Annotated[
    list[str], typer.Argument(metavar="PATH=VALUE...", help="Fields, e.g. memory.limit=1Gi; nothing behind = removes.")
]
_Source = Annotated[
    str | None, typer.Option("--source", metavar="DIR", help="The manifests; default: the configured ones, or here.")
]


def set_fields(
    name: Annotated[str, typer.Argument(metavar="VE", help="The VE.")],
    assignments: _Assignments,
    source: _Source = None,
    commit: Annotated[bool, typer.Option("--commit", help="Commit the change to git.")] = False,
    branch: Annotated[str | None, typer.Option(metavar="NAME", help="Commit it on a new branch.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", metavar="TEXT", help="Of the commit.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the change, and write nothing.")] = False,
) -> int:
    """Set fields of a VE in its manifest, and leave everything else in the file as it is."""
    from reconciler.manifests import assignment, edit

    path = source_of(source, verb="set")
    wanted = [assignment.parse(one) for one in assignments]
    files = context.read_path(path).files
    edited = edit.set_fields(files, name, wanted)
    file = _file(path, edited)
    if edited.after == edited.before:
        output.words(f"{file} says so already; nothing was written")
        return int(ExitCode.OK)
    check(path, {**files, edited.file: edited.after})
    if dry_run:
        output.data(_diff(file, edited))
        return int(ExitCode.OK)
    subject = message or _subject(name, wanted_texts=assignments)
    write_all(path, [edited], subject, commit=commit, branch=branch, verb="set")
    for change in edited.changes:
        _tell(file, name, change)
    return int(ExitCode.OK)


def _file(path: str, edited: Edited) -> str:
    return os.path.normpath(os.path.join(path, edited.file)) if os.path.isdir(path) else path


def source_of(given: str | None, *, verb: str) -> str:
    """Give the place of the manifests that are to be changed.

    Raises: UsageError, for standard input.
    """
    from reconciler.state.location import DirectoryLocation

    if given is None:
        configured = context.load_config().source
        given = configured.path if isinstance(configured, DirectoryLocation) else os.curdir
    if given == "-":
        raise UsageError(f"{verb}: expected a directory or file of manifests, as the change is written there")
    return given


def check(path: str, files: Mapping[str, bytes], *, lacks_hosts: bool = False) -> None:
    """See to it that manifests stay valid, and tell what finds no room. ``lacks_hosts``: as `load_fleet` takes it.

    Raises: MistakesError.
    """
    from reconciler.manifests.load import load_fleet
    from reconciler.manifests.report import render_findings

    loaded = load_fleet(files, revision="set", lacks_hosts=lacks_hosts)
    if loaded.fleet is None:
        raise context.MistakesError(f"{path} as it would be", context.placed(path, loaded.findings))
    for line in render_findings(context.placed(path, loaded.concerns), color=False).splitlines():
        output.words(line)


def write_all(
    path: str, edited: Sequence[Edited], message: str, *, commit: bool, branch: str | None, verb: str = "place"
) -> None:
    """Write changed files, and commit them at once if that is wanted.

    Raises: UsageError, if one of them was changed meanwhile; CommandError.
    """
    from reconciler.kernel import git_commit
    from reconciler.kernel.files import read_bytes_if_exists, rewrite_atomic

    files = {_file(path, one): one for one in edited}
    wants_commit = commit or branch is not None
    with git_commit.committing([*files], message=message, branch=branch) if wants_commit else nullcontext():
        for file, one in files.items():
            if read_bytes_if_exists(file) != one.before:
                raise UsageError(f"{verb}: {file} was changed meanwhile; nothing was written")
        for file, one in files.items():
            rewrite_atomic(file, one.after)


def _subject(name: str, *, wanted_texts: Sequence[str]) -> str:
    subject = f"{name}: {' '.join(wanted_texts)}"
    fields = ", ".join(text.partition("=")[0] for text in wanted_texts)
    subject = subject if len(subject) <= _SUBJECT_MAX else f"{name}: set {fields}"
    return subject if len(subject) <= _SUBJECT_MAX else f"{name}: set {len(wanted_texts)} fields"


def _diff(file: str, edited: Edited) -> str:
    before, after = (text.decode().splitlines(keepends=True) for text in (edited.before, edited.after))
    return output.safe("".join(difflib.unified_diff(before, after, f"a/{file}", f"b/{file}")))


def _tell(file: str, name: str, change: Change) -> None:
    """Tell what became of an assignment; what comes from a profile is told, as others have it too."""
    before = "not set" if change.before is None else change.before
    after = "removed" if change.after is None else change.after
    output.words(f"{file}:{change.line}: {change.name}: {before} -> {after}")
    if change.profile and change.after is not None:
        output.words(f"profile {change.profile} gives {change.name} too; from now on {name} has its own")
    elif change.profile:
        output.words(f"profile {change.profile} still gives {change.name}; `{change.name}=null` returns to the default")
