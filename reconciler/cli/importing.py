"""``vectl import``: configurations of other systems as manifests, with an account of every key."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode, RefusedError, UsageError

if TYPE_CHECKING:
    from reconciler.importing.result import Import, Result

app = typer.Typer(help="Make manifests of what other systems have.", rich_markup_mode=None, add_completion=False)

_FILE_MAX = 1 << 20
_FILES_MAX = 10_000
_SCRIPTS_MAX = 100_000
_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "openvz": (".conf", ".conf-sample"),
    "proxmox": (".conf",),
    "incus": (".yaml", ".yml"),
}


class Format(StrEnum):
    """How to print the report."""

    TEXT = "text"
    JSON = "json"


_Files = Annotated[list[str], typer.Argument(metavar="FILE", help="Files, or directories of them.")]
_To = Annotated[str, typer.Option("--to", metavar="DIR", help="Directory of manifests to write into.")]
_Force = Annotated[bool, typer.Option("--force", help="Replace manifests that are there.")]
_Template = Annotated[
    str, typer.Option("--template", metavar="NAME", help="Template of all of them, which the directory declares.")
]
_Host = Annotated[str, typer.Option("--host", metavar="NAME", help="Host that all of them run on.")]
_Form = Annotated[Format, typer.Option("--output", "-o", help="The format of the report.")]


@app.callback(invoke_without_command=True)
def rootfs(  # noqa: PLR0913  # one for each option
    asked: typer.Context,
    given: Annotated[
        str | None,
        typer.Option("--rootfs", metavar="DIR|TARBALL", help="A private area or a backup, to make a Template of."),
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the template.")] = "",
    to: _To = "",
    id_base: Annotated[
        int, typer.Option("--id-base", min=0, metavar="NUMBER", help="Owner on disk that is root of the container.")
    ] = 0,
    image: Annotated[
        str, typer.Option("--image", metavar="FILE", help="Archive to write; by default in the state directory.")
    ] = "",
    force: _Force = False,
    form: _Form = Format.TEXT,
) -> None:
    """Make manifests of what other systems have; with --rootfs a template of a container's files."""
    if asked.invoked_subcommand is not None:
        if given is not None:
            raise UsageError(f"import --rootfs: expected it without {asked.invoked_subcommand}")
        return
    if given is None or not name or not to:
        raise UsageError("import: expected a system such as openvz, or --rootfs DIR|TARBALL --name NAME --to DIR")
    from reconciler.cli.rootfs import Wanted, draft_template

    _expect_free(to, [f"templates/{name}.yaml"], force=force)
    run = draft_template(Wanted(rootfs=given, name=name, id_base=id_base, image=image, force=force))
    if code := _finish(run, to, form, force=force):
        raise typer.Exit(code)
    output.words(f"to build it now rather than for its first VE: vectl template build {name} --manifests {to}")


@app.command()
def openvz(
    files: _Files,
    to: _To,
    given: Annotated[
        str | None,
        typer.Option("--global", metavar="FILE", help="The global vz.conf; by default ../vz.conf of the first file."),
    ] = None,
    template: _Template = "",
    host: _Host = "",
    force: _Force = False,
    form: _Form = Format.TEXT,
) -> int:
    """Import containers (CTID.conf) and samples (ve-NAME.conf-sample) of OpenVZ or Virtuozzo 7."""
    from reconciler.importing.openvz.convert import GLOBAL, Given, convert
    from reconciler.importing.result import Import

    read = {name: data for name, data in _read_all("openvz", files).items() if os.path.basename(name) != GLOBAL}
    found = given if given is not None else _beside(files, f"../{GLOBAL}")
    run = Import(system="openvz", template=template, host=host)
    data = b"" if found is None else _read(found)
    convert(Given(files=read, global_file=found or "", global_data=data, scripts=[*_scripts(read)]), run)
    return _finish(run, to, form, force=force)


@app.command()
def proxmox(
    files: _Files,
    to: _To,
    template: _Template = "",
    host: _Host = "",
    force: _Force = False,
    form: _Form = Format.TEXT,
) -> int:
    """Import containers of Proxmox VE (/etc/pve/lxc/ID.conf)."""
    from reconciler.importing.proxmox.convert import convert
    from reconciler.importing.result import Import

    run = Import(system="proxmox", template=template, host=host)
    convert(_read_all("proxmox", files), run)
    return _finish(run, to, form, force=force)


@app.command()
def incus(
    files: _Files,
    to: _To,
    template: _Template = "",
    host: _Host = "",
    force: _Force = False,
    form: _Form = Format.TEXT,
) -> int:
    """Import instances and networks of Incus, as `incus list -f yaml` and `incus network list -f yaml` print them.

    Profiles, what `incus config show` prints, and - for standard input are taken as well.
    """
    from reconciler.importing.incus.convert import convert
    from reconciler.importing.result import Import

    run = Import(system="incus", template=template, host=host)
    convert(_read_all("incus", files), run)
    return _finish(run, to, form, force=force)


def _beside(files: Sequence[str], name: str) -> str | None:
    """Find a file beside the first one that was given."""
    first = os.path.abspath(files[0])
    directory = first if os.path.isdir(first) else os.path.dirname(first)
    path = os.path.normpath(os.path.join(directory, name))
    return path if os.path.isfile(path) else None


def _scripts(files: Mapping[str, bytes]) -> Iterator[str]:
    """Name the files beside configurations; which of them are scripts is decided elsewhere."""
    stems = {os.path.basename(name).rsplit(".", 1)[0] for name in files} | {"vps"}
    for directory in sorted({os.path.dirname(name) or "." for name in files if name != "-"}):
        for name in sorted(os.listdir(directory))[:_SCRIPTS_MAX]:
            if name.split(".", 1)[0] in stems and not name.endswith((".conf", ".conf-sample")):
                yield os.path.join(directory, name)


# What all have in common


def _read_all(system: str, names: Sequence[str]) -> dict[str, bytes]:
    paths = [path for name in names for path in _listed(system, name)]
    if len(paths) > _FILES_MAX:
        raise UsageError(f"import {system}: expected at most {_FILES_MAX} files, got {len(paths)}")
    if not paths:
        raise UsageError(f"import {system}: expected files of {', '.join(_SUFFIXES[system])}, found none")
    return {path: _read(path) for path in dict.fromkeys(paths)}


def _listed(system: str, name: str) -> Iterator[str]:
    if not os.path.isdir(name):
        yield name
        return
    for entry in sorted(os.listdir(name)):
        if entry.endswith(_SUFFIXES[system]):
            yield os.path.join(name, entry)


def _read(path: str) -> bytes:
    """Read a file of moderate size, and nothing else. Raises: UsageError; KernelError."""
    from reconciler.kernel.syscalls import file_errors

    if path == "-":
        data = sys.stdin.buffer.read(_FILE_MAX + 1)
    else:
        with file_errors("read", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise UsageError(f"read {path}: expected a file")
                data = file.read(_FILE_MAX + 1)
    if len(data) > _FILE_MAX:
        raise UsageError(f"read {path}: expected at most {_FILE_MAX} bytes")
    return data


def _finish(run: Import, to: str, form: Format, *, force: bool) -> int:
    """Write what was imported, and print the account."""
    own = {draft.file for draft in run.drafts.values() if draft.kind in ("VirtualEnvironment", "Profile")}
    _expect_free(to, own, force=force)
    replaced = {draft.file for draft in run.drafts.values()} if force else set[str]()
    beside = {file: data for file, data in _manifests(to).items() if file not in replaced}
    result = run.finish(beside)
    _write(to, result.files)
    _print(result, to, form)
    return int(ExitCode.ERROR if result.ledger.has_failed or not result.files else ExitCode.OK)


def _expect_free(to: str, files: Iterable[str], *, force: bool) -> None:
    there = sorted(file for file in files if os.path.lexists(os.path.join(to, file)))
    if there and not force:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise RefusedError(f"write {os.path.join(to, there[0])}{more}: it is there already; --force replaces it")


def _manifests(directory: str) -> Mapping[str, bytes]:
    """Read the manifests that are in a directory already. Raises: UsageError, if they cannot be read."""
    if not os.path.isdir(directory):
        return {}
    if not any(name.endswith((".yaml", ".yml")) for _, _, names in os.walk(directory) for name in names):
        return {}
    return context.read_path(directory).files


def _write(to: str, files: Mapping[str, bytes]) -> None:
    from reconciler.kernel import files as kernel_files
    from reconciler.kernel.syscalls import file_errors

    for file, data in files.items():
        path = os.path.join(to, file)
        with file_errors("write", path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        # Not flushed one by one: what a power cut takes is imported again.
        kernel_files.write_volatile(path, data, mode=0o644)


def _print(result: Result, to: str, form: Format) -> None:
    from reconciler.importing.report import told_lines

    if form is Format.JSON:
        output.document(result.to_json())
        return
    for file in result.files:
        output.data(f"wrote: {output.one_line(os.path.join(to, file))}")
    for line in told_lines(result.ledger.ordered()):
        output.data(output.one_line(line))
    counts = ", ".join(f"{number} {outcome}" for outcome, number in result.ledger.counts().items())
    output.words(f"{context.counted(len(result.files), 'manifest')} in {to}; keys: {counts}")
