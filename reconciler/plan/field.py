"""The declaration of a field: its path in the manifest, its default, and what a change of it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import TypeAlias

from reconciler.model.action import Impact, Origin
from reconciler.model.facts import Json
from reconciler.model.observation import Facet
from reconciler.model.paths import key_of

Value: TypeAlias = object
"""A canonical value of a field, compared with ``==``."""

Values: TypeAlias = Mapping[str, Value]
"""Canonical values by path; a keyed list has its key as a part of the path, e.g. ``interfaces.eth0.mtu``."""

_IP_TYPES = (IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """``path``: with ``*`` for the key of a keyed list. ``facet`` None: kept in the record only.

    Shape: ``default`` is canonical JSON, or a sentence in angle brackets where it is derived.
    """

    path: str
    facet: Facet | None
    impact: Impact
    default: Json
    effect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field that is not as desired. ``known``: the path existed on the other side."""

    path: str
    field: Field
    desired: Value
    observed: Value
    origin: Origin


def to_json(value: Value) -> Json:
    """Give a canonical value's JSON: sets as sorted lists, addresses as text, unlimited as null."""
    match value:
        case None | bool() | int() | float() | str():
            return value.value if isinstance(value, Enum) else value
        case Enum():
            return to_json(value.value)
        case Mapping():
            return {str(key): to_json(item) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
        case Set():
            return sorted((to_json(item) for item in value), key=_sort_key)
        case list() | tuple():
            return [to_json(item) for item in value]
    if isinstance(value, _IP_TYPES):
        return str(value)
    fields = getattr(type(value), "__slots__", None)
    assert fields is not None, f"no canonical JSON for {type(value)}"
    return {name: to_json(getattr(value, name)) for name in fields}


def _sort_key(value: Json) -> tuple[str, str]:
    if isinstance(value, int):
        return ("", f"{value:020d}")
    return ("~", str(value))


def find_field(fields: tuple[Field, ...], path: str) -> Field:
    """Find the declaration of a concrete path.

    Raises: KeyError, for a path that no facet declares.
    """
    for declared in fields:
        if _matches(declared.path, path):
            return declared
    raise KeyError(path)


def _matches(pattern: str, path: str) -> bool:
    if pattern == path:
        return True
    if "*" not in pattern:
        return False
    expected, parts = pattern.split("."), path.split(".")
    return len(expected) == len(parts) and all(want in ("*", part) for want, part in zip(expected, parts, strict=True))


def nest(values: Mapping[str, Json]) -> dict[str, Json]:
    """Turn values by path into the shape of a manifest's ``spec``."""
    root: dict[str, Json] = {}
    for path, value in values.items():
        node = root
        *parents, leaf = map(key_of, path.split("."))
        for parent in parents:
            child = node.setdefault(parent, {})
            assert isinstance(child, dict), f"{path}: {parent} is a value and a parent"
            node = child
        node[leaf] = value
    return root


def changed_paths(desired: Values, observed: Values) -> Iterator[str]:
    """Yield the desired paths whose observed value differs or is missing, in the order of ``desired``."""
    for path, value in desired.items():
        if path not in observed or observed[path] != value:
            yield path
