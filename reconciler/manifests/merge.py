"""Profiles: how the specs of several documents become one.

Maps merge key by key, keyed lists entry by entry, any other list is replaced as a whole. ``null`` covers what lies
below it, and in the end returns its field to the default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.manifests.problem import Path
from reconciler.model.facts import Json

KEYS_OF_LISTS: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("interfaces",): ("name",),
    ("mounts",): ("target",),
    ("devices",): ("path", "nic"),
    ("disk", "users"): ("id",),
    ("disk", "groups"): ("id",),
    ("snapshots",): ("name",),
}
"""The keyed lists of a VE's spec, and the fields that are their key; the first one that an entry has counts."""


def merge(specs: Iterable[dict[str, Json]]) -> dict[str, Json]:
    """Merge specs as they were written, each winning over those before it, and drop what ended as null."""
    merged: dict[str, Json] = {}
    for spec in specs:
        merged = _merge_maps(merged, spec, ())
    stripped = without_nulls(merged)
    assert isinstance(stripped, dict)  # a map stays a map
    return stripped


def without_nulls(value: Json) -> Json:
    """Drop the keys of maps whose value is null, at every depth: they ask for the default."""
    match value:
        case dict():
            return {key: without_nulls(item) for key, item in value.items() if item is not None}
        case list():
            return [without_nulls(item) for item in value]
        case _:
            return value


def entry_key(path: tuple[str, ...], entry: Json) -> str | None:
    """Give the key of an entry of the keyed list at ``path`` of a spec; None if it is no keyed list or has no key."""
    if isinstance(entry, dict):
        for name in KEYS_OF_LISTS.get(path, ()):
            if entry.get(name) is not None:
                return str(entry[name])
    return None


def by_position(spec: Json, path: Path) -> Path | None:
    """Find a path whose list entries may be named by keys in a spec as it was written; None if it is not there."""
    found: list[str | int] = []
    above: tuple[str, ...] = ()
    for part in path:
        if isinstance(spec, list):
            position = part if isinstance(part, int) else _position(spec, above, part)
            if position is None or position >= len(spec):
                return None
            spec = spec[position]
            found.append(position)
        elif isinstance(spec, dict) and isinstance(part, str) and part in spec:
            spec, above = spec[part], (*above, part)
            found.append(part)
        else:
            return None
    return tuple(found)


def _position(entries: list[Json], above: tuple[str, ...], key: str) -> int | None:
    return next((position for position, entry in enumerate(entries) if entry_key(above, entry) == key), None)


def _merge_maps(lower: dict[str, Json], upper: dict[str, Json], path: tuple[str, ...]) -> dict[str, Json]:
    merged = dict(lower)
    for key, value in upper.items():
        merged[key] = _merge_values(lower.get(key), value, (*path, key))
    return merged


def _merge_values(lower: Json, upper: Json, path: tuple[str, ...]) -> Json:
    match lower, upper:
        case dict(), dict():
            return _merge_maps(lower, upper, path)
        case list(), list() if path in KEYS_OF_LISTS:
            return _merge_entries(lower, upper, path)
        case _:
            return upper


def _merge_entries(lower: list[Json], upper: list[Json], path: tuple[str, ...]) -> list[Json]:
    merged: dict[str | None, Json] = {entry_key(path, entry): entry for entry in lower}
    for entry in upper:
        key = entry_key(path, entry)
        below = merged.get(key)
        merged[key] = _merge_maps(below, entry, path) if isinstance(below, dict) and isinstance(entry, dict) else entry
    return list(merged.values())
