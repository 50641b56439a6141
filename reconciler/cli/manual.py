"""The manual page, made from the command tree: `vectl man | man -l -`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from reconciler.cli import output
from reconciler.errors import ExitCode

if TYPE_CHECKING:
    from typer import Context
    from typer._click.core import Command  # the type of what a group holds; it has no public name
    from typer.core import TyperGroup

_EXIT_WORDS = {
    ExitCode.OK: "done, or no difference",
    ExitCode.ERROR: "something failed, or could not be read",
    ExitCode.CHANGES: "there are changes (with --detailed-exitcode)",
    ExitCode.CONSENT: "there are changes that need consent (with --detailed-exitcode)",
    ExitCode.REFUSED: "a safety rule or the host's policy refused something, or consent is missing; the rest was done",
    ExitCode.NOT_CONVERGED: "not so within the time allowed",
    ExitCode.USAGE: "the command line makes no sense",
    ExitCode.INTERRUPTED: "interrupted",
}

_DESCRIPTION = """\
vectl makes system containers what their manifests say, and keeps them so: it reads the manifests, looks at the
kernel, and carries out the fewest actions that make the two equal. Without an agent, `vectl apply` does so once; with
`vectl agent` changes by hand are put right within moments."""

_FILES = (
    ("/etc/vectl/config.yaml", "the configuration"),
    ("/etc/vectl/policy.yaml", "what manifests may ask of this host"),
    ("/var/lib/vectl", "durable state: the pool of VEs, templates, records"),
    ("/run/vectl", "volatile state: sockets, conditions, runtimes"),
)

_ENVIRONMENT = (
    ("VECTL_CONFIG", "the configuration, where --config does not say"),
    ("VECTL_LIB", "vectl's own directory of programs"),
    ("NO_COLOR, FORCE_COLOR", "no colours, or colours also where there is no terminal"),
)


def man() -> int:
    """Print the manual page."""
    output.data(render())
    return int(ExitCode.OK)


def render() -> str:
    """Render the manual page. Source: man(7)."""
    from reconciler.cli import app
    from reconciler.cli.version import version

    root = app.tree()
    lines = [
        f'.TH VECTL 1 "" "vectl {version()}" "vectl"',
        *_section("NAME", ["vectl \\- a GitOps reconciler for Linux system containers"]),
        *_section("SYNOPSIS", [".B vectl", ".RI [ options ]", ".I command", ".RI [ arguments ]"]),
        *_section("DESCRIPTION", _escaped(_DESCRIPTION)),
        *_section("OPTIONS BEFORE THE COMMAND", _options(root, _context(root, "vectl", None))),
        ".SH COMMANDS",
        *_commands(root, _context(root, "vectl", None)),
        *_section("EXIT STATUS", _items((str(int(code)), words) for code, words in _EXIT_WORDS.items())),
        *_section("FILES", _items(_FILES)),
        *_section("ENVIRONMENT", _items(_ENVIRONMENT)),
    ]
    return "\n".join(lines)


def _context(command: Command, name: str, parent: Context | None) -> Context:
    from typer import Context

    return Context(command, info_name=name, parent=parent)


def _section(title: str, lines: Iterator[str] | list[str]) -> list[str]:
    return [f".SH {title}", *lines]


def _commands(group: TyperGroup, context: Context) -> Iterator[str]:
    from typer.core import TyperGroup

    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        inner = _context(command, name, context)
        if isinstance(command, TyperGroup):
            yield from _commands(command, inner)
            continue
        usage = " ".join(command.collect_usage_pieces(inner))
        yield f'.SS "{_quoted(f"{inner.command_path} {usage}")}"'
        yield from _escaped(command.help or "")
        yield from _options(command, inner)


def _options(command: Command, context: Context) -> Iterator[str]:
    records = (parameter.get_help_record(context) for parameter in command.params)
    return _items(record for record in records if record is not None)


def _items(pairs: Iterator[tuple[str, str]] | tuple[tuple[str, str], ...]) -> Iterator[str]:
    for term, text in pairs:
        yield ".TP"
        yield f'.B "{_quoted(term)}"'
        yield from _escaped(text)


def _escaped(text: str) -> Iterator[str]:
    """Give lines of running text: a full stop or an apostrophe at the beginning would be a macro's."""
    for line in text.splitlines():
        plain = line.strip().replace("\\", "\\e").replace("-", "\\-")
        if plain:
            yield f"\\&{plain}" if plain[0] in ".'" else plain


def _quoted(text: str) -> str:
    return text.replace("\\", "\\e").replace('"', "\\(dq").replace("-", "\\-")
