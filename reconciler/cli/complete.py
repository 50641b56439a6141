"""Completion of command lines, for the scripts that `vectl completion` prints.

The scripts call ``vectl __complete WORD...``, the last word being the one under the cursor, and get a line for each
candidate: the word, a tab, and what it means. No line: the shell completes file names.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typer import Context
    from typer._click.core import Command  # the type of what a group holds; it has no public name
    from typer.core import TyperArgument, TyperOption

    from reconciler.model.instance import Instance

OF_ONE_VE = frozenset(
    {
        "adopt",
        "describe",
        "enter",
        "events",
        "exec",
        "forget",
        "logs",
        "pause",
        "protect",
        "quota",
        "restart",
        "set",
        "start",
        "stop",
        "unpause",
        "unprotect",
        "wait",
    }
)
OF_VES = frozenset({"beancounters", "export", "get", "place"})
"""Commands whose arguments are names of VEs: answered without the command tree, which takes most of the time."""

_WITH_VALUE = frozenset({"--config", "--instance", "--state-dir", "--run-dir", "--host"})
_WITHOUT = frozenset({"--color", "--no-color"})


def answer(words: Sequence[str]) -> str:
    """Give the candidates for the last of some words. Shape: lines of a word, a tab and a description."""
    *before, last = words or [""]
    found = _quickly(before, last)
    if found is None:
        found = _by_tree(before, last)
    return "".join(f"{word}\t{text}\n" if text else f"{word}\n" for word, text in found if word.startswith(last))


def _quickly(before: Sequence[str], last: str) -> list[tuple[str, str]] | None:
    """Answer for names of VEs; None where it takes the command tree to know what is asked for."""
    given, rest = _split(before)
    if not rest or last.startswith("-") or "--" in rest or rest[-1].startswith("-"):
        return None
    named = [word for ahead, word in itertools.pairwise(rest) if not (word + ahead).startswith("-")]
    if rest[0] in OF_VES or (rest[0] in OF_ONE_VE and not named):
        return [(name, "") for name in _ve_names(given)]
    return None


def _split(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Part the options before the command, with their values, from the rest."""
    given: dict[str, str] = {}
    left = list(words)
    while left and left[0].startswith("-"):
        name, sign, value = left.pop(0).partition("=")
        if name in _WITH_VALUE:
            given[name] = value if sign or not left else left.pop(0)
        elif name not in _WITHOUT:
            return given, []
    return given, left


def _instance(given: Mapping[str, str]) -> Instance | None:
    """Find the instance that a command line speaks of; None if its configuration cannot be read."""
    from reconciler.errors import VectlError
    from reconciler.state import config

    overrides = config.Overrides(
        instance=given.get("--instance"), state_dir=given.get("--state-dir"), run_dir=given.get("--run-dir")
    )
    try:
        return config.load_config(given.get("--config"), overrides, environment=os.environ).instance
    except VectlError:
        return None


def _ve_names(given: Mapping[str, str]) -> list[str]:
    """Name the VEs that something was said of since the host booted, and those that were made here."""
    instance = _instance(given)
    if instance is None:
        return []
    told = (name.removesuffix(".json") for name in _listed(f"{instance.run_dir}/conditions") if name.endswith(".json"))
    names = {name for name in told if not name.startswith(("_", "."))}
    names |= {str(entry.get("name")) for entry in _entries(f"{instance.state_dir}/inventory")}
    return sorted(names)


def _trashed_names(given: Mapping[str, str]) -> list[str]:
    instance = _instance(given)
    return [] if instance is None else sorted(_listed(instance.trash))


def _snapshot_names(given: Mapping[str, str]) -> list[str]:
    """Name the snapshots that are there as ``VE@SNAPSHOT``."""
    from reconciler.model.identity import Uid

    instance = _instance(given)
    if instance is None:
        return []
    found: list[str] = []
    for entry in _entries(f"{instance.state_dir}/inventory"):
        kept = _listed(instance.snapshots_dir(Uid(str(entry.get("uid")))))
        found += [f"{entry['name']}@{name}" for name in kept if not name.startswith(".")]
    return sorted(found)


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _entries(directory: str) -> Iterator[Mapping[str, object]]:
    for name in _listed(directory):
        try:
            with open(f"{directory}/{name}", encoding="utf-8") as file:
                entry = json.load(file)
        except (OSError, ValueError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            yield entry


def _by_tree(before: Sequence[str], last: str) -> list[tuple[str, str]]:
    from typer import Context
    from typer.core import TyperGroup

    from reconciler.cli import app

    command: Command = app.tree()
    context, positional = Context(command, info_name="vectl"), 0
    pending: TyperOption | None = None
    for word in before:
        if pending is not None:
            pending = None
        elif word.startswith("-") and word != "-":
            pending = _waits_for_value(command, word)
        elif isinstance(command, TyperGroup) and word in command.commands:
            command = command.commands[word]
            context = Context(command, info_name=word, parent=context)
        else:
            positional += 1
    given, _ = _split(before)
    if pending is not None:
        return _values(pending, context, last, given)
    if last.startswith("-"):
        return list(_options(command))
    if isinstance(command, TyperGroup):
        return [(name, _first(sub.help)) for name, sub in sorted(command.commands.items()) if not sub.hidden]
    argument = _argument(command, positional)
    return [] if argument is None else _values(argument, context, last, given)


def _waits_for_value(command: Command, word: str) -> TyperOption | None:
    for parameter in command.params:
        if parameter.param_type_name == "option" and word in parameter.opts:
            return None if getattr(parameter, "is_flag", False) else parameter  # type: ignore[return-value]  # is one
    return None


def _options(command: Command) -> Iterable[tuple[str, str]]:
    for parameter in command.params:
        if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False):
            text = _first(getattr(parameter, "help", ""))
            yield from ((name, text) for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--"))
    yield "--help", "Show this message and exit."


def _argument(command: Command, position: int) -> TyperArgument | None:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    if not arguments or (position >= len(arguments) and arguments[-1].nargs != -1):
        return None
    return arguments[min(position, len(arguments) - 1)]  # type: ignore[return-value]  # it is one


def _values(
    parameter: TyperArgument | TyperOption, context: Context, last: str, given: Mapping[str, str]
) -> list[tuple[str, str]]:
    if parameter.name in ("name", "names"):
        return [(name, "") for name in _ve_names(given)]
    if parameter.name == "from_ve":
        return [(name, "") for name in _snapshot_names(given)]
    if parameter.name == "entry":
        return [(name, "") for name in _trashed_names(given)]
    if parameter.name == "goal":
        return [(goal, "") for goal in _goals()]
    return [(str(item.value), "") for item in parameter.shell_complete(context, last)]


def _goals() -> Iterator[str]:
    """Give what can be waited for of a VE."""
    from reconciler.model.condition import OF_SOURCE, ConditionType
    from reconciler.model.power import PowerState

    yield from (f"condition={kind}" for kind in ConditionType if kind not in OF_SOURCE)
    yield from (f"power={state}" for state in PowerState)
    yield "delete"


def _first(text: str | None) -> str:
    """Give the first sentence, on one line."""
    return " ".join((text or "").split("\n\n")[0].split())


BASH = """\
_vectl() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("${line%%$'\\t'*}")
    done < <("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _vectl vectl
"""

ZSH = """\
#compdef vectl
_vectl() {
    local line
    local -a found
    while IFS= read -r line; do
        found+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}")
    done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( ${#found} )); then
        _describe vectl found
    else
        _files
    fi
}
if [ "$funcstack[1]" = "_vectl" ]; then
    _vectl "$@"
else
    compdef _vectl vectl
fi
"""

FISH = """\
function __vectl_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..-1] 2>/dev/null
end
complete -c vectl -f -a '(__vectl_complete)'
complete -c vectl -n 'test -z "$(__vectl_complete)"' -F
"""
