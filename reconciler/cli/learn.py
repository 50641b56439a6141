"""`explain`, `schema` and `completion`: what manifests can say, for people, for editors, and for shells."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import output
from reconciler.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from reconciler.manifests.explain import FieldDoc
    from reconciler.plan.field import Field

_VE = "VirtualEnvironment"
_NOT_YET = "refused: this version does not carry the field out yet"


class Shell(StrEnum):
    """Shells that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def explain(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A kind or a field: ve, memory.limit, Network.spec.mtu.")
    ] = "spec",
) -> int:
    """Explain a field: meaning, default, what a change of it does."""
    from reconciler.manifests.explain import describe

    doc = describe(path)
    output.columns(_head(doc))
    if doc.description:
        output.data(f"\n{doc.description}")
    if doc.fields:
        output.data(f"\n{output.paint('FIELDS:', 'strong')}")
        output.columns([("NAME", "TYPE", "A CHANGE IS", "MEANING"), *_below(doc)], indent="  ")
    return int(ExitCode.OK)


def _head(doc: FieldDoc) -> Iterator[tuple[str, str]]:
    yield "KIND:", doc.kind
    if doc.path:
        yield "FIELD:", doc.path
        yield "TYPE:", doc.type
    if doc.values:
        yield "VALUES:", ", ".join(doc.values)
    if doc.required:
        yield "REQUIRED:", "yes"
    elif doc.path and not doc.fields:
        yield "DEFAULT:", doc.default or "left out"
    if (impact := _impact_text(doc)) is not None:
        yield "A CHANGE IS:", impact


def _below(doc: FieldDoc) -> Iterator[tuple[str, str, str, str]]:
    for field in doc.fields:
        declared = _declared(field)
        change = declared.impact.word if declared else "not yet" if _is_refused(field) else ""
        yield field.name, f"<{field.type}>", change, field.description


def _impact_text(doc: FieldDoc) -> str | None:
    declared = _declared(doc)
    if declared is None:
        return _NOT_YET if _is_refused(doc) else None
    return f"{declared.impact.word} ({declared.effect})" if declared.effect else declared.impact.word


def _is_refused(doc: FieldDoc) -> bool:
    from reconciler.manifests import unsupported

    return doc.kind == _VE and unsupported.is_of_ve(doc.path)


def _declared(doc: FieldDoc) -> Field | None:
    """Find what the planner declares of a field; a path of the schema has ``[]`` where the planner has a key."""
    from reconciler.plan.field import find_field
    from reconciler.plan.spec import FIELDS

    if doc.kind != _VE:
        return None
    try:
        return find_field(FIELDS, doc.path.removeprefix("spec.").replace("[]", ".*"))
    except KeyError:
        return None


def schema(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="A kind, or output/NAME for what a command prints.")
    ] = None,
) -> int:
    """Print a JSON Schema; without a name, list the names."""
    from reconciler.manifests.schema import rendered

    files = {path.removesuffix(".json"): text for path, text in rendered().items()}
    if kind is None:
        for name in files:
            output.data(name)
        return int(ExitCode.OK)
    wanted = {"ve": _VE.lower()}.get(kind.lower(), kind.lower())
    found = next((text for name, text in files.items() if name.lower() == wanted), None)
    if found is None:
        raise UsageError(f"schema {kind}: expected one of {', '.join(files)}")
    output.data(found)
    return int(ExitCode.OK)


def completion(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> int:
    """Print the script that completes `vectl` in a shell.

    For bash, put it into /etc/bash_completion.d/vectl.
    """
    from reconciler.cli import complete

    scripts = {Shell.BASH: complete.BASH, Shell.ZSH: complete.ZSH, Shell.FISH: complete.FISH}
    output.data(scripts[shell])
    return int(ExitCode.OK)
