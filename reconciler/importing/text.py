"""Texts: drafts as YAML, with comments, as a person would have written it."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from reconciler.importing.draft import Draft
from reconciler.manifests import scalars
from reconciler.manifests.kinds.ve import VeBody
from reconciler.manifests.problem import Path
from reconciler.model.facts import Json

_WIDTH = 110
_ORDER = tuple(info.alias or name for name, info in VeBody.model_fields.items())
_FLOW_MOST = 6
_SPECIAL = frozenset(":,[]{}#&*!|>'\"%@`\n\t")


def render(draft: Draft) -> bytes:
    """Give a draft as the content of a file; the same draft gives the same bytes."""
    ordered = dict(sorted(draft.spec.items(), key=lambda item: _place(item[0])))
    spec = _map(draft, ordered, ("spec",), indent=2)
    root = CommentedMap({"apiVersion": "ve/v1", "kind": draft.kind})
    root["metadata"] = CommentedMap({"name": _text(draft.name)})
    for key, value in draft.metadata.items():
        root["metadata"][key] = _value(draft, value, ("metadata", key), indent=4)
    if spec:
        root["spec"] = spec
    if head := [line for text in draft.head for line in _wrapped(text, 0)]:
        root.yaml_set_start_comment("\n".join(head))
    writer = YAML()
    writer.width = 4096
    writer.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO()
    writer.dump(root, text)
    return text.getvalue().encode()


def _place(key: str) -> int:
    """Give the place of a field among others, which is that in the models of manifests."""
    return _ORDER.index(key) if key in _ORDER else len(_ORDER)


def _map(draft: Draft, values: dict[str, Json], path: Path, *, indent: int) -> CommentedMap:
    made = CommentedMap()
    for key, value in values.items():
        made[_text(key)] = _value(draft, value, (*path, key), indent=indent + 2)
        if lines := _comments(draft, (*path, key), indent):
            made.yaml_set_comment_before_after_key(key, before="\n".join(lines), indent=indent)
    return made


def _list(draft: Draft, values: list[Json], path: Path, *, indent: int) -> CommentedSeq:
    made = CommentedSeq()
    plain = all(not isinstance(value, dict | list) for value in values)
    for position, value in enumerate(values):
        made.append(_value(draft, value, (*path, position), indent=indent + 4))
        if lines := _comments(draft, (*path, position), indent):
            plain = False
            made.yaml_set_comment_before_after_key(position, before="\n".join(lines), indent=indent)
    if plain and len(values) <= _FLOW_MOST:
        made.fa.set_flow_style()
    return made


def _value(draft: Draft, value: Json, path: Path, *, indent: int) -> object:
    match value:
        case dict():
            return _map(draft, value, path, indent=indent)
        case list():
            return _list(draft, value, path, indent=indent)
        case str():
            return _text(value)
        case _:
            return value


def _text(text: str) -> str:
    """Quote what is no text to some reader of YAML, and what a list on one line must not hold as it is."""
    plain = scalars.is_text(text) and not _SPECIAL & set(text)
    return text if plain else DoubleQuotedScalarString(text)


def _comments(draft: Draft, path: Path, indent: int) -> list[str]:
    return [line for text in draft.comments.get(path[1:], ()) for line in _wrapped(text, indent)]


def _wrapped(text: str, indent: int) -> Iterable[str]:
    return textwrap.wrap(text, _WIDTH - indent, break_on_hyphens=False) or [""]
