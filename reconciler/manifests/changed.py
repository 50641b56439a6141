"""Documents, as values, with one thing in them changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from reconciler.manifests import merge
from reconciler.manifests.problem import Path
from reconciler.model.facts import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """An entry of a keyed list that is not there yet: the field that is its key, and the key."""

    field: str
    key: str | int


Missing: TypeAlias = "tuple[str | NewEntry, ...]"
"""What has to be made below a path that is there, from the top down."""


def with_value(document: Json, path: Path, missing: Missing, value: Json) -> Json:
    """Give a document with a value set, as `put` does in its text."""
    if not path:
        return grown(document, missing, value)
    match document, path[0]:
        case dict(), str(key):
            return {**document, key: with_value(document[key], path[1:], missing, value)}
        case list(), int(position):
            return [
                with_value(item, path[1:], missing, value) if number == position else item
                for number, item in enumerate(document)
            ]
    raise AssertionError(path)  # the path is there


def without(document: Json, path: Path) -> Json:
    """Give a document without an entry, as `remove` does in its text."""
    match document, path[0]:
        case dict(), str(key) if len(path) == 1:
            return {name: item for name, item in document.items() if name != key}
        case list(), int(position) if len(path) == 1:
            return [item for number, item in enumerate(document) if number != position]
        case dict(), str(key):
            return {**document, key: without(document[key], path[1:])}
        case list(), int(position):
            return [without(item, path[1:]) if number == position else item for number, item in enumerate(document)]
    raise AssertionError(path)  # the path is there


def grown(value: Json, missing: Missing, new: Json) -> Json:
    """Give a value with what is missing below it made, down to a new one."""
    if not missing:
        return new
    first, rest = missing[0], missing[1:]
    if isinstance(first, str):
        return {**(value if isinstance(value, dict) else {}), first: grown(None, rest, new)}
    below = grown({}, rest, new)
    own: dict[str, Json] = {first.field: first.key, **(below if isinstance(below, dict) else {})}
    return [*(value if isinstance(value, list) else []), own]


def as_list(value: Json) -> list[Json]:
    """Take a value for the list that it is."""
    assert isinstance(value, list)
    return value


def doomed(document: Json, path: Path) -> Path:
    """Give what goes with a field that is removed: a map of the spec, or a keyed list, that it was alone in."""
    while len(path) > 2:
        above = path[:-1]
        holder = value_at(document, above)
        only = isinstance(holder, dict | list) and len(holder) == 1
        if (
            not only
            or isinstance(above[-1], int)
            or (isinstance(holder, list) and above[1:] not in merge.KEYS_OF_LISTS)
        ):
            return path
        path = above
    return path


def value_at(document: Json, path: Path) -> Json:
    """Give the value of a path that is there."""
    for part in path:
        match document, part:
            case dict(), str():
                document = document[part]
            case list(), int():
                document = document[part]
    return document
